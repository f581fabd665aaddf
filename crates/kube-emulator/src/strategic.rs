//! Strategic merge patches of built-in kinds: lists merge by key, and directives delete, replace and order.

use serde_json::{Map, Value};

use crate::shape::Shape;
use crate::status::ApiError;

const DIRECTIVE: &str = "$patch";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";
const RETAIN: &str = "$retainKeys";

/// `original` with `patch` applied.
pub(crate) fn merge(original: &Value, patch: &Value, shape: &Shape<'_>) -> Result<Value, ApiError> {
    let (Value::Object(original), Value::Object(patch)) = (original, patch) else {
        return Err(ApiError::bad_request("a strategic merge patch must be an object"));
    };
    merge_map(original, patch, shape).map(|map| Value::Object(map.unwrap_or_default()))
}

/// None when a directive deletes the map.
fn merge_map(
    original: &Map<String, Value>,
    patch: &Map<String, Value>,
    shape: &Shape<'_>,
) -> Result<Option<Map<String, Value>>, ApiError> {
    let plain = || {
        let mut map = patch.clone();
        map.retain(|key, value| !key.starts_with('$') && !value.is_null());
        map
    };
    match patch.get(DIRECTIVE).and_then(Value::as_str) {
        Some("replace") => return Ok(Some(plain())),
        Some("delete") => return Ok(None),
        Some("merge") | None => {}
        Some(other) => {
            return Err(ApiError::bad_request(format!("Unknown patch directive: {other}")));
        }
    }
    let mut result = original.clone();
    if let Some(keep) = patch.get(RETAIN).and_then(Value::as_array) {
        result.retain(|key, _| keep.iter().any(|one| one.as_str() == Some(key)));
    }
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix(DELETE_FROM) {
            if let (Some(Value::Array(items)), Value::Array(gone)) = (result.get_mut(list), value) {
                items.retain(|item| !gone.contains(item));
            }
            continue;
        }
        if key.starts_with('$') {
            continue;
        }
        let child = shape.field(key);
        match value {
            Value::Null => {
                result.shift_remove(key);
            }
            Value::Object(map) => {
                let empty = Map::new();
                let before = result.get(key).and_then(Value::as_object).unwrap_or(&empty);
                match merge_map(before, map, &child)? {
                    Some(map) => {
                        result.insert(key.clone(), Value::Object(map));
                    }
                    None => {
                        result.shift_remove(key);
                    }
                }
            }
            Value::Array(items) => {
                let before = result
                    .get(key)
                    .and_then(Value::as_array)
                    .map_or(&[][..], Vec::as_slice);
                let merged = merge_list(before, items, &child)?;
                result.insert(key.clone(), Value::Array(merged));
            }
            scalar => {
                result.insert(key.clone(), scalar.clone());
            }
        }
    }
    for (key, order) in patch {
        if let (Some(list), Value::Array(order)) = (key.strip_prefix(ORDER), order)
            && let Some(Value::Array(items)) = result.get_mut(list)
        {
            let by = shape.field(list).strategic_key().unwrap_or_default();
            set_order(items, order, by);
        }
    }
    Ok(Some(result))
}

fn merge_list(original: &[Value], patch: &[Value], shape: &Shape<'_>) -> Result<Vec<Value>, ApiError> {
    let Some(key) = shape.strategic_key() else {
        return Ok(patch.to_vec());
    };
    let mut result = original.to_vec();
    if key.is_empty() {
        for item in patch {
            if !result.contains(item) {
                result.push(item.clone());
            }
        }
        return Ok(result);
    }
    if patch
        .iter()
        .any(|item| item.get(DIRECTIVE).and_then(Value::as_str) == Some("replace"))
    {
        let mut items = patch.to_vec();
        items.retain(|item| item.get(DIRECTIVE).is_none());
        return Ok(items);
    }
    for item in patch {
        let Value::Object(map) = item else {
            return Err(ApiError::bad_request(
                "an item of a merged list must be an object",
            ));
        };
        let Some(identity) = map.get(key) else {
            return Err(ApiError::bad_request(format!(
                "map: {item} does not contain declared merge key: {key}"
            )));
        };
        let at = result.iter().position(|one| one.get(key) == Some(identity));
        let empty = Map::new();
        let before = at.and_then(|at| result.get(at)?.as_object()).unwrap_or(&empty);
        let merged = merge_map(before, map, &shape.item())?;
        match (at, merged) {
            (Some(at), Some(merged)) => {
                if let Some(slot) = result.get_mut(at) {
                    *slot = Value::Object(merged);
                }
            }
            (Some(at), None) => {
                result.remove(at);
            }
            (None, Some(merged)) => result.push(Value::Object(merged)),
            (None, None) => {}
        }
    }
    Ok(result)
}

/// Items in the order of the directive; those it does not name keep their place relative to each other, after the
/// named ones that stood before them.
fn set_order(items: &mut [Value], order: &[Value], key: &str) {
    let rank = |item: &Value| {
        order.iter().position(|one| {
            if key.is_empty() {
                one == item
            } else {
                one.get(key).is_some() && one.get(key) == item.get(key)
            }
        })
    };
    let mut last = 0;
    let mut ranked: Vec<(usize, Value)> = Vec::with_capacity(items.len());
    for item in items.iter() {
        if let Some(rank) = rank(item) {
            last = rank;
        }
        ranked.push((rank(item).unwrap_or(last), item.clone()));
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    for (slot, (_, item)) in items.iter_mut().zip(ranked) {
        *slot = item;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(patch: Value) -> Value {
        let original = json!({
            "metadata": { "labels": { "a": "1", "b": "2" }, "finalizers": ["x/y"] },
            "spec": {
                "containers": [
                    { "name": "one", "image": "i", "env": [{ "name": "A", "value": "1" }, { "name": "B", "value": "2" }] },
                    { "name": "two", "image": "j" },
                ],
                "tolerations": [{ "key": "t" }],
                "volumes": [{ "name": "v", "emptyDir": {} }],
            },
        });
        merge(&original, &patch, &Shape::builtin("Pod")).unwrap()
    }

    #[test]
    fn lists_with_a_key_merge_by_it_and_others_are_replaced() {
        let merged = pod(json!({
            "metadata": { "labels": { "a": null, "c": "3" } },
            "spec": {
                "containers": [
                    { "name": "one", "env": [{ "name": "B", "$patch": "delete" }, { "name": "C", "value": "3" }] },
                ],
                "tolerations": [{ "key": "u" }],
            },
        }));
        assert_eq!(merged["metadata"]["labels"], json!({ "b": "2", "c": "3" }));
        assert_eq!(
            merged["spec"]["containers"][0],
            json!({ "name": "one", "image": "i", "env": [{ "name": "A", "value": "1" }, { "name": "C", "value": "3" }] })
        );
        assert_eq!(merged["spec"]["containers"][1]["name"], "two");
        assert_eq!(merged["spec"]["tolerations"], json!([{ "key": "u" }]));
    }

    #[test]
    fn directives_delete_keep_and_order() {
        let merged = pod(json!({
            "metadata": { "$deleteFromPrimitiveList/finalizers": ["x/y"] },
            "spec": {
                "$setElementOrder/containers": [{ "name": "two" }, { "name": "one" }],
                "volumes": [{ "name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": { "path": "/" } }],
            },
        }));
        assert_eq!(merged["metadata"]["finalizers"], json!([]));
        assert_eq!(merged["spec"]["containers"][0]["name"], "two");
        assert_eq!(
            merged["spec"]["volumes"],
            json!([{ "name": "v", "hostPath": { "path": "/" } }])
        );
    }
}
