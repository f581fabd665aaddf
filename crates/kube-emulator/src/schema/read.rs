//! Reading a structural schema. What cannot be carried out is an error, never left out.

use regex::Regex;
use serde_json::{Map, Value};

use super::{Additional, Limits, ListType, Node, Structural, Type};

/// How deep a schema may be.
const MAX_DEPTH: usize = 64;

/// Why a schema cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {why}")]
pub(crate) struct SchemaError {
    /// Where in the schema, as `openAPIV3Schema.properties[spec]`.
    pub(crate) path: String,
    /// What is wrong.
    pub(crate) why: String,
}

/// Everything a schema may say. Another field would be a rule that nobody keeps.
const KNOWN: &[&str] = &[
    "$schema",
    "id",
    "title",
    "description",
    "externalDocs",
    "example",
    "type",
    "format",
    "nullable",
    "default",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "required",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "properties",
    "additionalProperties",
    "items",
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "x-kubernetes-validations",
    // Refused with a better word below.
    "$ref",
    "additionalItems",
    "definitions",
    "dependencies",
    "patternProperties",
    "deprecated",
];

impl Structural {
    /// Reads an `openAPIV3Schema`.
    pub(crate) fn read(schema: &Value) -> Result<Self, SchemaError> {
        let mut root = node(schema, "openAPIV3Schema", true, 0)?;
        if root.kind != Some(Type::Object) {
            return Err(SchemaError {
                path: "openAPIV3Schema.type".to_owned(),
                why: "Invalid value: must be object at the root".to_owned(),
            });
        }
        // Types and metadata are the API server's, whatever the schema says of them.
        root.embedded_resource = true;
        Ok(Self { root })
    }
}

fn node(schema: &Value, path: &str, structural: bool, depth: usize) -> Result<Node, SchemaError> {
    let error = |why: String| SchemaError {
        path: path.to_owned(),
        why,
    };
    let Value::Object(map) = schema else {
        return Err(error("must be a schema object".to_owned()));
    };
    if depth > MAX_DEPTH {
        return Err(error(format!("schemas deeper than {MAX_DEPTH} are not served")));
    }
    for field in map.keys() {
        if !KNOWN.contains(&field.as_str()) {
            return Err(error(format!("this API server cannot keep the rule `{field}`")));
        }
        if [
            "$ref",
            "additionalItems",
            "definitions",
            "dependencies",
            "patternProperties",
        ]
        .contains(&field.as_str())
        {
            return Err(error(format!("Forbidden: {field} is not supported")));
        }
    }
    let flag = |field: &str| map.get(field).and_then(Value::as_bool).unwrap_or_default();
    let int_or_string = flag("x-kubernetes-int-or-string");
    let preserve_unknown = flag("x-kubernetes-preserve-unknown-fields");
    let kind = match map.get("type").and_then(Value::as_str).unwrap_or_default() {
        "" => None,
        "object" => Some(Type::Object),
        "array" => Some(Type::Array),
        "string" => Some(Type::String),
        "integer" => Some(Type::Integer),
        "number" => Some(Type::Number),
        "boolean" => Some(Type::Boolean),
        other => return Err(error(format!("Unsupported value: \"{other}\" is not a type"))),
    };
    if structural && kind.is_none() && !int_or_string && !preserve_unknown {
        return Err(SchemaError {
            path: format!("{path}.type"),
            why: "Required value: must not be empty for specified object fields".to_owned(),
        });
    }
    let child = |schema: &Value, path: String| node(schema, &path, structural, depth + 1);
    let mut properties = std::collections::BTreeMap::new();
    if let Some(fields) = map.get("properties").and_then(Value::as_object) {
        for (name, schema) in fields {
            properties.insert(name.clone(), child(schema, format!("{path}.properties[{name}]"))?);
        }
    }
    let additional = match map.get("additionalProperties") {
        None | Some(Value::Bool(false) | Value::Null) => Additional::None,
        Some(Value::Bool(true)) => Additional::Any,
        Some(schema) => Additional::Schema(Box::new(child(schema, format!("{path}.additionalProperties"))?)),
    };
    if structural && !properties.is_empty() && !matches!(additional, Additional::None) {
        return Err(error(
            "Forbidden: additionalProperties and properties are mutual exclusive".to_owned(),
        ));
    }
    let items = match map.get("items") {
        None | Some(Value::Null) => None,
        Some(schema) => Some(Box::new(child(schema, format!("{path}.items"))?)),
    };
    if structural && kind == Some(Type::Array) && items.is_none() {
        return Err(SchemaError {
            path: format!("{path}.items"),
            why: "Required value: must be specified".to_owned(),
        });
    }
    let list_type = list_type(map).map_err(error)?;
    Ok(Node {
        kind,
        nullable: flag("nullable"),
        int_or_string,
        preserve_unknown,
        embedded_resource: flag("x-kubernetes-embedded-resource"),
        properties,
        additional,
        items,
        default: map.get("default").filter(|value| !value.is_null()).cloned(),
        list_type,
        map_is_atomic: map.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic"),
        limits: limits(map, path, depth)?,
    })
}

fn list_type(map: &Map<String, Value>) -> Result<ListType, String> {
    match map
        .get("x-kubernetes-list-type")
        .and_then(Value::as_str)
        .unwrap_or("atomic")
    {
        "atomic" => Ok(ListType::Atomic),
        "set" => Ok(ListType::Set),
        "map" => {
            let keys: Vec<String> = strings(map.get("x-kubernetes-list-map-keys"));
            if keys.is_empty() {
                return Err("Required value: x-kubernetes-list-map-keys must not be empty".to_owned());
            }
            Ok(ListType::Map(keys))
        }
        other => Err(format!("Unsupported value: \"{other}\" is not a list type")),
    }
}

fn limits(map: &Map<String, Value>, path: &str, depth: usize) -> Result<Limits, SchemaError> {
    let number = |field: &str| map.get(field).and_then(Value::as_f64);
    let count = |field: &str| map.get(field).and_then(Value::as_u64);
    let flag = |field: &str| map.get(field).and_then(Value::as_bool).unwrap_or_default();
    let nodes = |field: &str| -> Result<Vec<Node>, SchemaError> {
        let schemas = map
            .get(field)
            .and_then(Value::as_array)
            .map_or(&[][..], Vec::as_slice);
        schemas
            .iter()
            .enumerate()
            .map(|(index, schema)| node(schema, &format!("{path}.{field}[{index}]"), false, depth + 1))
            .collect()
    };
    let pattern = match map.get("pattern").and_then(Value::as_str) {
        None | Some("") => None,
        Some(pattern) => Some(Regex::new(pattern).map_err(|error| SchemaError {
            path: format!("{path}.pattern"),
            why: format!(
                "Invalid value: \"{pattern}\": must be a valid regular expression, but isn't: {error}"
            ),
        })?),
    };
    let not = match map.get("not") {
        None | Some(Value::Null) => None,
        Some(schema) => Some(Box::new(node(schema, &format!("{path}.not"), false, depth + 1)?)),
    };
    Ok(Limits {
        one_of_values: map
            .get("enum")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default(),
        pattern,
        format: map.get("format").and_then(Value::as_str).map(str::to_owned),
        minimum: number("minimum"),
        maximum: number("maximum"),
        exclusive_minimum: flag("exclusiveMinimum"),
        exclusive_maximum: flag("exclusiveMaximum"),
        multiple_of: number("multipleOf"),
        min_length: count("minLength"),
        max_length: count("maxLength"),
        min_items: count("minItems"),
        max_items: count("maxItems"),
        unique_items: flag("uniqueItems"),
        min_properties: count("minProperties"),
        max_properties: count("maxProperties"),
        required: strings(map.get("required")),
        all_of: nodes("allOf")?,
        any_of: nodes("anyOf")?,
        one_of: nodes("oneOf")?,
        not,
    })
}

fn strings(list: Option<&Value>) -> Vec<String> {
    list.and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice)
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}
