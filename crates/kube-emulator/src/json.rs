//! Short ways into `serde_json::Value`: fields by path, without panics.

use bytes::Bytes;
use serde_json::{Map, Value};

/// The JSON text of a value.
pub(crate) fn bytes(value: &Value) -> Bytes {
    serde_json::to_vec(value).map(Bytes::from).unwrap_or_default()
}

/// Puts `apiVersion`, `kind` and `metadata` before all other fields.
pub(crate) fn types_first(object: &mut Value) {
    let Value::Object(map) = object else { return };
    let mut ordered = Map::with_capacity(map.len());
    for field in ["apiVersion", "kind", "metadata"] {
        if let Some(value) = map.shift_remove(field) {
            ordered.insert(field.to_owned(), value);
        }
    }
    ordered.append(map);
    *map = ordered;
}

/// Whether two values mean the same: like `==`, but `1` and `1.0` are equal and `null` fields count as absent.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let there =
                |map: &Map<String, Value>, key: &str| map.get(key).is_some_and(|value| !value.is_null());
            a.iter()
                .all(|(key, value)| value.is_null() || b.get(key).is_some_and(|other| same(value, other)))
                && b.iter().all(|(key, value)| value.is_null() || there(a, key))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

/// The value at a path of field names.
pub(crate) fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, field| value.get(field))
}

/// The string at a path, empty when there is none.
pub(crate) fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or_default()
}

/// The list at a path, empty when there is none.
pub(crate) fn list<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The object at a path, made if missing or of another type.
pub(crate) fn object_mut<'a>(value: &'a mut Value, path: &[&str]) -> &'a mut Map<String, Value> {
    let mut here = value;
    for field in path {
        here = as_object(here).entry(*field).or_insert(Value::Null);
    }
    as_object(here)
}

/// `value` as an object; anything else is replaced by an empty one.
pub(crate) fn as_object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

/// Sets a field at a path, making the objects on the way.
pub(crate) fn set(value: &mut Value, path: &[&str], new: impl Into<Value>) {
    if let Some((last, parents)) = path.split_last() {
        object_mut(value, parents).insert((*last).to_owned(), new.into());
    }
}

/// Removes a field at a path; nothing happens when it is not there.
pub(crate) fn remove(value: &mut Value, path: &[&str]) -> Option<Value> {
    let (last, parents) = path.split_last()?;
    let parent = parents
        .iter()
        .try_fold(value, |value, field| value.get_mut(field))?;
    parent.as_object_mut()?.shift_remove(*last)
}

/// Sets a field only when it is missing or null.
pub(crate) fn default(value: &mut Value, path: &[&str], new: impl Into<Value>) {
    if at(value, path).is_none_or(Value::is_null) {
        set(value, path, new);
    }
}

/// Puts the value of a field (or its absence) from `from` into `to`.
pub(crate) fn carry(from: &Value, to: &mut Value, path: &[&str]) {
    match at(from, path) {
        Some(value) => set(to, path, value.clone()),
        None => {
            remove(to, path);
        }
    }
}

/// `metadata.name`.
pub(crate) fn name(object: &Value) -> &str {
    text(object, &["metadata", "name"])
}

/// `metadata.namespace`, empty for cluster-scoped objects.
pub(crate) fn namespace(object: &Value) -> &str {
    text(object, &["metadata", "namespace"])
}

/// `metadata.uid`.
pub(crate) fn uid(object: &Value) -> &str {
    text(object, &["metadata", "uid"])
}

/// Whether deletion has begun.
pub(crate) fn is_deleting(object: &Value) -> bool {
    at(object, &["metadata", "deletionTimestamp"]).is_some_and(|time| !time.is_null())
}

/// The value at a path as errors write it: `spec.list[0].x`.
pub(crate) fn at_path<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split(['.', '['])
        .filter(|part| !part.is_empty())
        .try_fold(value, |value, part| match part.strip_suffix(']') {
            Some(index) => value.get(index.parse::<usize>().ok()?),
            None => value.get(part),
        })
}
