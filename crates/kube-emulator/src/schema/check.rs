//! Checking an object against its schema, with the texts of the API server.

use serde_json::Value;

use super::{Additional, Limits, ListType, Node, Structural, Type};
use crate::json;
use crate::status::Cause;

impl Structural {
    /// Everything that is wrong with the object, rules in CEL aside.
    pub(crate) fn check(&self, object: &Value) -> Vec<Cause> {
        let mut causes = Vec::new();
        self.root.check(object, "", &mut causes);
        causes
    }
}

fn cause(reason: &'static str, field: &str, message: String) -> Cause {
    Cause {
        reason,
        message,
        field: if field.is_empty() {
            "<nil>".to_owned()
        } else {
            field.to_owned()
        },
    }
}

fn invalid(field: &str, value: &Value, why: &str) -> Cause {
    cause(
        "FieldValueInvalid",
        field,
        format!("Invalid value: {}: {why}", shown(value)),
    )
}

/// A value in an error text: scalars as they are, others by their type.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "\"object\"".to_owned(),
        Value::Array(_) => "\"array\"".to_owned(),
        Value::Null => "\"null\"".to_owned(),
        scalar => scalar.to_string(),
    }
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }

    fn holds(self, value: &Value) -> bool {
        match self {
            Self::Object => value.is_object(),
            Self::Array => value.is_array(),
            Self::String => value.is_string(),
            Self::Integer => {
                value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
            }
            Self::Number => value.is_number(),
            Self::Boolean => value.is_boolean(),
        }
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Object(_) => "object",
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::Bool(_) => "boolean",
        Value::Null => "null",
    }
}

impl Node {
    fn check(&self, value: &Value, path: &str, causes: &mut Vec<Cause>) {
        if value.is_null() {
            if !self.nullable && self.kind.is_some() {
                causes.push(invalid(path, value, &self.wrong_type(path, value)));
            }
            return;
        }
        if self.int_or_string {
            if !value.is_string() && !Type::Integer.holds(value) {
                causes.push(self.wrong_type_cause(path, value));
                return;
            }
        } else if let Some(kind) = self.kind
            && !kind.holds(value)
        {
            causes.push(self.wrong_type_cause(path, value));
            return;
        }
        self.limits.check(value, path, causes);
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    let here = if path.is_empty() {
                        name.clone()
                    } else {
                        format!("{path}.{name}")
                    };
                    let child = self.properties.get(name).or(match &self.additional {
                        Additional::Schema(node) => Some(node),
                        Additional::None | Additional::Any => None,
                    });
                    if let Some(child) = child {
                        child.check(value, &here, causes);
                    }
                }
                if self.embedded_resource && !path.is_empty() {
                    for name in ["apiVersion", "kind"] {
                        if map
                            .get(name)
                            .and_then(Value::as_str)
                            .unwrap_or_default()
                            .is_empty()
                        {
                            causes.push(required(&format!("{path}.{name}"), "must not be empty"));
                        }
                    }
                }
            }
            Value::Array(items) => {
                if let Some(node) = &self.items {
                    for (index, item) in items.iter().enumerate() {
                        node.check(item, &format!("{path}[{index}]"), causes);
                    }
                }
                self.check_keys(items, path, causes);
            }
            _ => {}
        }
    }

    fn wrong_type_cause(&self, path: &str, value: &Value) -> Cause {
        let why = self.wrong_type(path, value);
        cause(
            "FieldValueTypeInvalid",
            path,
            format!("Invalid value: \"{}\": {why}", type_name(value)),
        )
    }

    fn wrong_type(&self, path: &str, value: &Value) -> String {
        let wanted = if self.int_or_string {
            "integer,string"
        } else {
            self.kind.map_or("any", Type::name)
        };
        format!(
            "{} in body must be of type {wanted}: \"{}\"",
            if path.is_empty() { "object" } else { path },
            type_name(value)
        )
    }

    /// Sets and maps have no item twice.
    fn check_keys(&self, items: &[Value], path: &str, causes: &mut Vec<Cause>) {
        let identity = |item: &Value| match &self.list_type {
            ListType::Atomic => None,
            ListType::Set => Some(item.clone()),
            ListType::Map(keys) => {
                let defaults = self.items.as_deref();
                let parts = keys.iter().map(|key| {
                    let fallback = || defaults.and_then(|node| node.properties.get(key)?.default.clone());
                    item.get(key).cloned().or_else(fallback).unwrap_or_default()
                });
                Some(Value::Array(parts.collect()))
            }
        };
        let mut seen: Vec<Value> = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let Some(identity) = identity(item) else { return };
            if seen.contains(&identity) {
                let shown = match &self.list_type {
                    ListType::Map(keys) => {
                        let pairs: serde_json::Map<String, Value> = keys
                            .iter()
                            .filter_map(|key| Some((key.clone(), item.get(key)?.clone())))
                            .collect();
                        Value::Object(pairs).to_string()
                    }
                    _ => item.to_string(),
                };
                causes.push(cause(
                    "FieldValueDuplicate",
                    &format!("{path}[{index}]"),
                    format!("Duplicate value: {shown}"),
                ));
            } else {
                seen.push(identity);
            }
        }
    }

    fn accepts(&self, value: &Value, path: &str) -> bool {
        let mut causes = Vec::new();
        self.check(value, path, &mut causes);
        causes.is_empty()
    }
}

fn too_many(size: u64, max: u64) -> String {
    let noun = if max == 1 { "item" } else { "items" };
    format!("Too many: {size}: must have at most {max} {noun}")
}

fn required(field: &str, why: &str) -> Cause {
    let message = if why.is_empty() {
        "Required value".to_owned()
    } else {
        format!("Required value: {why}")
    };
    cause("FieldValueRequired", field, message)
}

impl Limits {
    fn check(&self, value: &Value, path: &str, causes: &mut Vec<Cause>) {
        if !self.one_of_values.is_empty() && !self.one_of_values.iter().any(|one| json::same(one, value)) {
            let values: Vec<String> = self.one_of_values.iter().map(Value::to_string).collect();
            causes.push(cause(
                "FieldValueNotSupported",
                path,
                format!(
                    "Unsupported value: {}: supported values: {}",
                    shown(value),
                    values.join(", ")
                ),
            ));
        }
        match value {
            Value::String(text) => self.check_text(text, value, path, causes),
            Value::Number(number) => {
                self.check_number(number.as_f64().unwrap_or_default(), value, path, causes);
            }
            Value::Array(items) => self.check_items(items, value, path, causes),
            Value::Object(map) => {
                for name in &self.required {
                    if !map.contains_key(name) {
                        let here = if path.is_empty() {
                            name.clone()
                        } else {
                            format!("{path}.{name}")
                        };
                        causes.push(required(&here, ""));
                    }
                }
                let size = map.len() as u64;
                if let Some(max) = self.max_properties.filter(|max| size > *max) {
                    causes.push(cause("FieldValueTooMany", path, too_many(size, max)));
                }
                if let Some(min) = self.min_properties.filter(|min| size < *min) {
                    causes.push(invalid(
                        path,
                        value,
                        &format!("{path} in body should have at least {min} properties"),
                    ));
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
        self.check_junctions(value, path, causes);
    }

    fn check_text(&self, text: &str, value: &Value, path: &str, causes: &mut Vec<Cause>) {
        let length = text.chars().count() as u64;
        if let Some(max) = self.max_length.filter(|max| length > *max) {
            causes.push(cause(
                "FieldValueTooLong",
                path,
                format!("Too long: may not be more than {max} bytes"),
            ));
        }
        if let Some(min) = self.min_length.filter(|min| length < *min) {
            causes.push(invalid(
                path,
                value,
                &format!("{path} in body should be at least {min} chars long"),
            ));
        }
        if let Some(pattern) = self.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
            causes.push(invalid(
                path,
                value,
                &format!("{path} in body should match '{pattern}'"),
            ));
        }
        if let Some(format) = &self.format
            && !is_of_format(format, text)
        {
            causes.push(cause(
                "FieldValueTypeInvalid",
                path,
                format!("Invalid value: {value}: {path} in body must be of type {format}: {value}"),
            ));
        }
    }

    fn check_number(&self, number: f64, value: &Value, path: &str, causes: &mut Vec<Cause>) {
        let mut wrong =
            |why: String| causes.push(invalid(path, value, &format!("{path} in body should be {why}")));
        match self.minimum {
            Some(min) if self.exclusive_minimum && number <= min => wrong(format!("greater than {min}")),
            Some(min) if number < min => wrong(format!("greater than or equal to {min}")),
            _ => {}
        }
        match self.maximum {
            Some(max) if self.exclusive_maximum && number >= max => wrong(format!("less than {max}")),
            Some(max) if number > max => wrong(format!("less than or equal to {max}")),
            _ => {}
        }
        if let Some(step) = self
            .multiple_of
            .filter(|step| *step != 0.0 && (number / step).fract() != 0.0)
        {
            wrong(format!("a multiple of {step}"));
        }
        let range = match self.format.as_deref() {
            Some("int32") => Some((f64::from(i32::MIN), f64::from(i32::MAX))),
            Some("int64") if value.as_i64().is_none() && number.fract() == 0.0 => Some((-9.3e18, 9.2e18)),
            _ => None,
        };
        if let (Some((min, max)), Some(format)) = (range, &self.format)
            && !(min..=max).contains(&number)
        {
            wrong(format!("of type {format}"));
        }
    }

    fn check_items(&self, items: &[Value], value: &Value, path: &str, causes: &mut Vec<Cause>) {
        let size = items.len() as u64;
        if let Some(max) = self.max_items.filter(|max| size > *max) {
            causes.push(cause("FieldValueTooMany", path, too_many(size, max)));
        }
        if let Some(min) = self.min_items.filter(|min| size < *min) {
            causes.push(invalid(
                path,
                value,
                &format!("{path} in body should have at least {min} items"),
            ));
        }
        if self.unique_items
            && items
                .iter()
                .enumerate()
                .any(|(at, item)| items.iter().take(at).any(|one| one == item))
        {
            causes.push(invalid(
                path,
                value,
                &format!("{path} in body shouldn't contain duplicates"),
            ));
        }
    }

    fn check_junctions(&self, value: &Value, path: &str, causes: &mut Vec<Cause>) {
        let name = if path.is_empty() { "<nil>" } else { path };
        for node in &self.all_of {
            node.check(value, path, causes);
        }
        if !self.any_of.is_empty() && !self.any_of.iter().any(|node| node.accepts(value, path)) {
            causes.push(invalid(
                path,
                value,
                &format!("{name} in body must validate at least one schema (anyOf)"),
            ));
        }
        if !self.one_of.is_empty() {
            match self.one_of.iter().filter(|node| node.accepts(value, path)).count() {
                1 => {}
                0 => causes.push(invalid(
                    path,
                    value,
                    &format!("{name} in body must validate one and only one schema (oneOf). Found none valid"),
                )),
                many => causes.push(invalid(
                    path,
                    value,
                    &format!("{name} in body must validate one and only one schema (oneOf). Found {many} valid alternatives"),
                )),
            }
        }
        if self.not.as_ref().is_some_and(|node| node.accepts(value, path)) {
            causes.push(invalid(
                path,
                value,
                &format!("{name} in body must not validate the schema (not)"),
            ));
        }
    }
}

/// Formats that the API server checks; others are words for readers, as there.
fn is_of_format(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        "uuid" => uuid::Uuid::try_parse(text).is_ok(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "byte" => {
            use base64::Engine;
            base64::engine::general_purpose::STANDARD.decode(text).is_ok()
        }
        _ => true,
    }
}
