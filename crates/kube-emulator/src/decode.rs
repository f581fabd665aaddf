//! Request bodies: JSON or YAML to a value, with every field that is given twice. It knows nothing of kinds.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::status::ApiError;

/// A body and what is odd about it.
#[derive(Debug, Default)]
pub(crate) struct Body {
    pub(crate) value: Value,
    /// Paths of fields that are given more than once, the last one wins.
    pub(crate) duplicates: Vec<String>,
}

impl Body {
    /// What no body at all means: an empty object.
    pub(crate) fn empty() -> Self {
        Self::of(Value::Object(Map::new()))
    }

    /// A value that has nothing odd about it.
    pub(crate) fn of(value: Value) -> Self {
        Self {
            value,
            duplicates: Vec::new(),
        }
    }
}

/// Reads a JSON body.
pub(crate) fn json(text: &[u8]) -> Result<Body, ApiError> {
    let mut duplicates = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(text);
    let seed = Seed {
        path: String::new(),
        duplicates: &mut duplicates,
    };
    let value = seed
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|error| ApiError::bad_request(format!("the object provided is unrecognized: {error}")))?;
    Ok(Body { value, duplicates })
}

/// Reads a YAML body, of which JSON is a part.
pub(crate) fn yaml(text: &[u8]) -> Result<Body, ApiError> {
    if text.trim_ascii_start().starts_with(b"{") {
        return json(text);
    }
    let value = serde_saphyr::from_slice(text)
        .map_err(|error| ApiError::bad_request(format!("error decoding YAML: {error}")))?;
    Ok(Body {
        value,
        duplicates: Vec::new(),
    })
}

struct Seed<'a> {
    path: String,
    duplicates: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<Value, E> {
        Number::from_f64(v)
            .map(Value::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let seed = Seed {
                path: format!("{}[{}]", self.path, list.len()),
                duplicates: &mut *self.duplicates,
            };
            match seq.next_element_seed(seed)? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(field) = map.next_key::<String>()? {
            let path = if self.path.is_empty() {
                field.clone()
            } else {
                format!("{}.{field}", self.path)
            };
            if object.contains_key(&field) {
                self.duplicates.push(path.clone());
            }
            let seed = Seed {
                path,
                duplicates: &mut *self.duplicates,
            };
            let value = map.next_value_seed(seed)?;
            object.insert(field, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_are_given_twice_are_named_with_their_path() {
        let body = json(br#"{"spec":{"a":[{"b":1,"b":2}],"c":1},"spec":{"c":2}}"#).unwrap();
        assert_eq!(body.duplicates, ["spec.a[0].b", "spec"]);
        assert_eq!(body.value, serde_json::json!({ "spec": { "c": 2 } }));
        json(b"{} {}").unwrap_err();
    }
}
