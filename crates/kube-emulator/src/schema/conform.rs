//! Making an object conform: unknown fields out, defaults in, nulls dropped where they mean nothing.

use serde_json::Value;

use super::{Additional, Node, Structural};

/// Fields of an object that are the API server's own, at the root and in embedded resources.
const TYPE_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

impl Structural {
    /// Takes out the fields that the schema does not know and names their paths.
    pub(crate) fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut pruned = Vec::new();
        prune(&self.root, object, "", &mut pruned);
        pruned
    }

    /// Puts in the defaults of absent fields. A null that is not allowed counts as absent.
    pub(crate) fn default(&self, object: &mut Value) {
        default(&self.root, object);
    }
}

fn prune(node: &Node, value: &mut Value, path: &str, pruned: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let names: Vec<String> = map.keys().cloned().collect();
            for name in names {
                let here = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                let child = node.field(&name);
                if node.embedded_resource && TYPE_FIELDS.contains(&name.as_str()) {
                    continue;
                }
                match (child, map.get_mut(&name)) {
                    (Some(child), Some(value)) => prune(child, value, &here, pruned),
                    (None, _) if !node.preserve_unknown && !matches!(node.additional, Additional::Any) => {
                        map.shift_remove(&name);
                        pruned.push(here);
                    }
                    _ => {}
                }
            }
        }
        Value::Array(items) => {
            if let Some(node) = &node.items {
                for (index, item) in items.iter_mut().enumerate() {
                    prune(node, item, &format!("{path}[{index}]"), pruned);
                }
            }
        }
        _ => {}
    }
}

fn default(node: &Node, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, child) in &node.properties {
                match map.get_mut(name) {
                    Some(Value::Null) if child.refuses_null() => {
                        map.shift_remove(name);
                    }
                    Some(value) => {
                        default(child, value);
                        continue;
                    }
                    None => {}
                }
                if let Some(fallback) = &child.default {
                    let mut fallback = fallback.clone();
                    default(child, &mut fallback);
                    map.insert(name.clone(), fallback);
                }
            }
            if let Additional::Schema(child) = &node.additional {
                map.retain(|_, value| !value.is_null() || !child.refuses_null() || child.default.is_some());
                for value in map.values_mut() {
                    if value.is_null()
                        && let Some(fallback) = child.default.as_ref().filter(|_| child.refuses_null())
                    {
                        *value = fallback.clone();
                    }
                    default(child, value);
                }
            }
        }
        Value::Array(items) => {
            if let Some(node) = &node.items {
                for item in items {
                    default(node, item);
                }
            }
        }
        _ => {}
    }
}
