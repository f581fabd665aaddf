//! Rules in CEL (`x-kubernetes-validations`): compiled when the CRD comes, evaluated for each object. A rule that cannot
//! be evaluated here refuses the CRD; a rule that fails to evaluate refuses the object.

use std::fmt;

use kube_cel::cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, operators};
use kube_cel::{CompilationError, CompiledSchema, ErrorKind, Validator, compile_schema};
use serde_json::Value;

use crate::schema::SchemaError;
use crate::status::Cause;

/// The compiled rules of a schema.
pub(crate) struct Rules {
    compiled: Option<CompiledSchema>,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("any", &self.compiled.is_some())
            .finish()
    }
}

/// Functions that the evaluator has: those of cel 0.13 and of kube-cel 0.8.
const FUNCTIONS: &[&str] = &[
    "contains",
    "size",
    "max",
    "min",
    "startsWith",
    "endsWith",
    "string",
    "bytes",
    "double",
    "int",
    "uint",
    "optional.none",
    "optional.of",
    "optional.ofNonZeroValue",
    "value",
    "hasValue",
    "or",
    "orValue",
    "matches",
    "duration",
    "timestamp",
    "getFullYear",
    "getMonth",
    "getDayOfYear",
    "getDayOfMonth",
    "getDate",
    "getDayOfWeek",
    "getHours",
    "getMinutes",
    "getSeconds",
    "getMilliseconds",
    "add",
    "asApproximateFloat",
    "asInteger",
    "charAt",
    "cidr",
    "compareTo",
    "containsCIDR",
    "containsIP",
    "distinct",
    "family",
    "find",
    "findAll",
    "first",
    "flatten",
    "format",
    "getEscapedPath",
    "getHost",
    "getHostname",
    "getPort",
    "getQuery",
    "getScheme",
    "indexOf",
    "ip",
    "ip.isCanonical",
    "isCIDR",
    "isGlobalUnicast",
    "isGreaterThan",
    "isIP",
    "isInteger",
    "isLessThan",
    "isLinkLocalMulticast",
    "isLinkLocalUnicast",
    "isLoopback",
    "isQuantity",
    "isSemver",
    "isSorted",
    "isURL",
    "isUnspecified",
    "join",
    "last",
    "lastIndexOf",
    "lists.range",
    "lowerAscii",
    "major",
    "masked",
    "minor",
    "patch",
    "prefixLength",
    "quantity",
    "replace",
    "reverse",
    "semver",
    "sets.contains",
    "sets.equivalent",
    "sets.intersects",
    "sign",
    "slice",
    "sort",
    "split",
    "strings.quote",
    "sub",
    "substring",
    "sum",
    "trim",
    "upperAscii",
    "url",
    "validate",
    "math.abs",
    "math.bitAnd",
    "math.bitNot",
    "math.bitOr",
    "math.bitShiftLeft",
    "math.bitShiftRight",
    "math.bitXor",
    "math.ceil",
    "math.floor",
    "math.greatest",
    "math.isFinite",
    "math.isInf",
    "math.isNaN",
    "math.least",
    "math.round",
    "math.sign",
    "math.sqrt",
    "math.trunc",
    "format.byte",
    "format.date",
    "format.datetime",
    "format.labelValue",
    "format.named",
    "format.qualifiedName",
    "format.uri",
    "format.uuid",
];

impl Rules {
    /// Compiles the rules of an `openAPIV3Schema`.
    pub(crate) fn compile(schema: &Value) -> Result<Self, SchemaError> {
        let mut any = false;
        refuse_what_cannot_run(schema, "openAPIV3Schema", &mut any)?;
        if !any {
            return Ok(Self { compiled: None });
        }
        let compiled = compile_schema(schema);
        if let Some(error) = first_error(&compiled) {
            return Err(SchemaError {
                path: "openAPIV3Schema".to_owned(),
                why: format!("Invalid value: {error}"),
            });
        }
        Ok(Self {
            compiled: Some(compiled),
        })
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.compiled.is_none()
    }

    /// The rules that the object breaks; `before` is the stored object of an update.
    pub(crate) fn check(&self, object: &Value, before: Option<&Value>) -> Vec<Cause> {
        let Some(compiled) = &self.compiled else {
            return Vec::new();
        };
        let Err(errors) = Validator::new().validate_compiled(compiled, object, before) else {
            return Vec::new();
        };
        errors
            .into_iter()
            .map(|error| {
                let at = error.field_path.trim_start_matches('.');
                let value = crate::json::at_path(object, at).unwrap_or(&Value::Null);
                let kind = crate::schema::shown(value);
                // Of what is not a scalar, the message alone is told.
                let (value, message) = match error.kind {
                    ErrorKind::ValidationFailure if value.is_object() || value.is_array() => {
                        (String::new(), error.message)
                    }
                    ErrorKind::ValidationFailure => (format!("{kind}: "), error.message),
                    _ => (
                        format!("{kind}: "),
                        format!("{} evaluating rule: {}", error.message, error.rule),
                    ),
                };
                let (reason, message) = match error.reason.as_deref() {
                    Some("FieldValueRequired") => {
                        ("FieldValueRequired", format!("Required value: {message}"))
                    }
                    Some("FieldValueForbidden") => ("FieldValueForbidden", format!("Forbidden: {message}")),
                    Some("FieldValueDuplicate") => (
                        "FieldValueDuplicate",
                        format!("Duplicate value: {value}{message}"),
                    ),
                    _ => ("FieldValueInvalid", format!("Invalid value: {value}{message}")),
                };
                Cause {
                    reason,
                    message,
                    field: if at.is_empty() {
                        "<nil>".to_owned()
                    } else {
                        at.to_owned()
                    },
                }
            })
            .collect()
    }
}

fn first_error(schema: &CompiledSchema) -> Option<&CompilationError> {
    let here = schema.validations.iter().find_map(|rule| rule.as_ref().err());
    here.or_else(|| schema.properties.values().find_map(first_error))
        .or_else(|| schema.items.as_deref().and_then(first_error))
        .or_else(|| schema.additional_properties.as_deref().and_then(first_error))
        .or_else(|| {
            [&schema.all_of, &schema.any_of, &schema.one_of]
                .into_iter()
                .flatten()
                .find_map(first_error)
        })
}

/// Goes over all rules and refuses the first that names something unknown; sets `any` when there are rules at all.
fn refuse_what_cannot_run(schema: &Value, path: &str, any: &mut bool) -> Result<(), SchemaError> {
    let Value::Object(map) = schema else { return Ok(()) };
    let rules = crate::json::list(schema, &["x-kubernetes-validations"]);
    for (index, rule) in rules.iter().enumerate() {
        *any = true;
        for field in ["rule", "messageExpression"] {
            let text = crate::json::text(rule, &[field]);
            if text.is_empty() && field == "messageExpression" {
                continue;
            }
            check_expression(text, schema).map_err(|why| SchemaError {
                path: format!("{path}.x-kubernetes-validations[{index}].{field}"),
                why: format!("Invalid value: {text:?}: compilation failed: {why}"),
            })?;
        }
    }
    for (field, value) in map {
        let inner = format!("{path}.{field}");
        match (field.as_str(), value) {
            ("properties", Value::Object(fields)) => {
                for (name, schema) in fields {
                    refuse_what_cannot_run(schema, &format!("{inner}[{name}]"), any)?;
                }
            }
            ("items" | "additionalProperties", schema) => refuse_what_cannot_run(schema, &inner, any)?,
            ("allOf" | "anyOf" | "oneOf", Value::Array(schemas)) => {
                for schema in schemas {
                    let mut inside = false;
                    refuse_what_cannot_run(schema, &inner, &mut inside)?;
                    if inside {
                        return Err(SchemaError {
                            path: inner,
                            why: "Forbidden: x-kubernetes-validations must not be used here".to_owned(),
                        });
                    }
                }
            }
            ("not", schema) => {
                let mut inside = false;
                refuse_what_cannot_run(schema, &inner, &mut inside)?;
                if inside {
                    return Err(SchemaError {
                        path: inner,
                        why: "Forbidden: x-kubernetes-validations must not be used here".to_owned(),
                    });
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// A name that an expression may use, with the schema of its value as far as it is known.
type Scope<'s> = Vec<(&'s str, Option<&'s Value>)>;

/// Parses an expression and follows every name in it: `self` and `oldSelf` have this schema.
fn check_expression(text: &str, schema: &Value) -> Result<(), String> {
    let program = kube_cel::cel::Program::compile(text).map_err(|error| error.to_string())?;
    let mut scope = vec![("self", Some(schema)), ("oldSelf", Some(schema))];
    check_names(program.expression(), &mut scope).map(drop)
}

/// The schema of the expression's value, when it is known.
fn check_names<'s>(expression: &'s IdedExpr, scope: &mut Scope<'s>) -> Result<Option<&'s Value>, String> {
    match &expression.expr {
        Expr::Unspecified | Expr::Literal(_) => Ok(None),
        Expr::Ident(name) => match scope.iter().rev().find(|(one, _)| one == name) {
            Some((_, schema)) => Ok(*schema),
            None if name.starts_with('@') => Ok(None),
            None => Err(format!("undeclared reference to '{name}'")),
        },
        Expr::Call(call) => check_call(call, scope),
        Expr::Select(select) => {
            let operand = check_names(&select.operand, scope)?;
            operand.map_or(Ok(None), |schema| field_of(schema, &select.field))
        }
        Expr::List(list) => {
            for element in &list.elements {
                check_names(element, scope)?;
            }
            Ok(None)
        }
        Expr::Map(map) => {
            for entry in &map.entries {
                check_entry(&entry.expr, scope)?;
            }
            Ok(None)
        }
        Expr::Struct(one) => Err(format!(
            "this API server cannot evaluate the type '{}'",
            one.type_name
        )),
        Expr::Comprehension(loops) => {
            let range = check_names(&loops.iter_range, scope)?;
            check_names(&loops.accu_init, scope)?;
            let depth = scope.len();
            scope.push((&loops.iter_var, range.and_then(|schema| schema.get("items"))));
            scope.push((&loops.accu_var, None));
            if let Some(second) = &loops.iter_var2 {
                scope.push((second, None));
            }
            for inner in [&loops.loop_cond, &loops.loop_step, &loops.result] {
                check_names(inner, scope)?;
            }
            scope.truncate(depth);
            Ok(None)
        }
    }
}

fn check_call<'s>(call: &'s CallExpr, scope: &mut Scope<'s>) -> Result<Option<&'s Value>, String> {
    let name = call.func_name.as_str();
    let operator = !name.starts_with(|first: char| first.is_ascii_alphabetic());
    let of_library = match call.target.as_deref() {
        Some(IdedExpr {
            expr: Expr::Ident(library),
            ..
        }) => FUNCTIONS.contains(&format!("{library}.{name}").as_str()),
        _ => false,
    };
    if let Some(target) = call.target.as_deref().filter(|_| !of_library) {
        check_names(target, scope)?;
    }
    if !operator && !of_library && !FUNCTIONS.contains(&name) {
        return Err(format!("this API server cannot evaluate the function '{name}'"));
    }
    let mut first = None;
    for (index, argument) in call.args.iter().enumerate() {
        let schema = check_names(argument, scope)?;
        if index == 0 {
            first = schema;
        }
    }
    if name != operators::INDEX {
        return Ok(None);
    }
    Ok(first.and_then(|schema| schema.get("items").or_else(|| schema.get("additionalProperties"))))
}

fn check_entry<'s>(entry: &'s EntryExpr, scope: &mut Scope<'s>) -> Result<(), String> {
    match entry {
        EntryExpr::MapEntry(entry) => {
            check_names(&entry.key, scope)?;
            check_names(&entry.value, scope).map(drop)
        }
        EntryExpr::StructField(field) => check_names(&field.value, scope).map(drop),
    }
}

/// The schema of a field of an object; an error when the object has no such field.
fn field_of<'s>(schema: &'s Value, name: &str) -> Result<Option<&'s Value>, String> {
    let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or_default();
    let open = flag("x-kubernetes-preserve-unknown-fields") || flag("x-kubernetes-embedded-resource");
    // A schema without properties says nothing of fields, or is a map of them.
    let Some(properties) = schema.get("properties") else {
        return Ok(schema
            .get("additionalProperties")
            .filter(|schema| schema.is_object()));
    };
    match properties.get(unescaped(name)) {
        Some(schema) => Ok(Some(schema)),
        None if open || schema.get("additionalProperties").is_some() => Ok(None),
        // Every object has these at its root.
        None if matches!(name, "metadata" | "apiVersion" | "kind") => Ok(None),
        None => Err(format!("undefined field '{name}'")),
    }
}

/// A property's name from the name that rules must use for it. Source: the escaping of CEL in CRD validation.
fn unescaped(name: &str) -> String {
    let keyword = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"));
    let keyword = keyword.filter(|word| !["underscores", "dot", "dash", "slash"].contains(word));
    match keyword {
        Some(word) => word.to_owned(),
        None => name
            .replace("__dot__", ".")
            .replace("__dash__", "-")
            .replace("__slash__", "/")
            .replace("__underscores__", "__"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema(rule: &str) -> Value {
        json!({ "type": "object", "properties": { "spec": { "type": "object",
            "properties": { "a": { "type": "string" }, "b": { "type": "string" },
                "l": { "type": "array", "items": { "type": "string" } } },
            "x-kubernetes-validations": [{ "rule": rule, "message": "no" }] } } })
    }

    #[test]
    fn a_rule_is_kept_and_refuses_with_its_message() {
        let rules = Rules::compile(&schema("!(has(self.a) && has(self.b)) || self.a == self.b")).unwrap();
        assert_eq!(rules.check(&json!({ "spec": { "a": "1" } }), None), []);
        let causes = rules.check(&json!({ "spec": { "a": "1", "b": "2" } }), None);
        assert_eq!(causes.len(), 1);
        assert_eq!(
            (causes[0].field.as_str(), causes[0].message.as_str()),
            ("spec", "Invalid value: no")
        );
    }

    #[test]
    fn a_transition_rule_sees_the_old_object() {
        let rules = Rules::compile(&schema("self.a == oldSelf.a")).unwrap();
        let (one, two) = (json!({ "spec": { "a": "1" } }), json!({ "spec": { "a": "2" } }));
        assert_eq!(rules.check(&one, None), []);
        assert_eq!(rules.check(&two, Some(&one)).len(), 1);
    }

    #[test]
    fn a_rule_that_cannot_be_evaluated_is_refused_at_once() {
        for rule in [
            "self.a ==",
            "self.a.fancy()",
            "other.a == 'x'",
            "self.l.all(x, y == 'a')",
            "self.nope == 'a'",
            "self.l.all(x, self.nope == x)",
            "cel.bind(x, self.a, x == 'a')",
            "type(self.a) == string",
            "authorizer.group('').resource('pods').check('get').allowed()",
        ] {
            assert!(Rules::compile(&schema(rule)).is_err(), "{rule}");
        }
        for rule in [
            "self.l.all(x, x.startsWith('a')) && self.l.exists_one(x, x == 'ab')",
            "sets.contains(self.l, ['a']) && self.a.matches('^x') && size(self.l) in [1, 2]",
            "self.a.lowerAscii() == 'x' ? isURL(self.b) : optional.of(self.b).orValue('') == ''",
        ] {
            Rules::compile(&schema(rule)).unwrap();
        }
    }
}
