//! Sets of fields and who manages them (`metadata.managedFields`). It merges nothing; `apply` does.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::json;
use crate::shape::{Merge, Shape};

/// One step of a path, as `fieldsV1` writes it: `f:name`, `k:{"name":"a"}`, `v:"x"`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Field(String),
    /// An item of a list by its keys, as JSON.
    Key(String),
    /// An item of a set, as JSON.
    Value(String),
}

/// From the root to a field.
pub(crate) type Path = Vec<Step>;

/// Fields at the root and in metadata that nobody manages.
const NOT_MANAGED: [&str; 9] = [
    "name",
    "namespace",
    "creationTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
    "clusterName",
];

/// The identity of an item in a list that merges; none for lists that are one value.
pub(crate) fn identity(item: &Value, merge: &Merge, list: &Shape<'_>) -> Option<Step> {
    match merge {
        Merge::Atomic => None,
        Merge::Set => Some(Step::Value(item.to_string())),
        Merge::Map(keys) => {
            let mut pairs: BTreeMap<&str, Value> = BTreeMap::new();
            for key in keys {
                if let Some(value) = item.get(key).cloned().or_else(|| list.key_default(key)) {
                    pairs.insert(key, value);
                }
            }
            let pairs: Map<String, Value> = pairs
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect();
            Some(Step::Key(Value::Object(pairs).to_string()))
        }
    }
}

/// All fields of an object that can be managed, with their values; items of merged lists are fields of their own,
/// without a value.
pub(crate) fn leaves<'a>(object: &'a Value, shape: &Shape<'_>) -> BTreeMap<Path, Option<&'a Value>> {
    let mut found = BTreeMap::new();
    if let Value::Object(map) = object {
        for (name, value) in map {
            let path = vec![Step::Field(name.clone())];
            match name.as_str() {
                "apiVersion" | "kind" => {}
                "metadata" => {
                    let shape = shape.field("metadata");
                    for (name, value) in value.as_object().into_iter().flatten() {
                        if !NOT_MANAGED.contains(&name.as_str()) {
                            let mut path = path.clone();
                            path.push(Step::Field(name.clone()));
                            walk(value, path, &shape.field(name), &mut found);
                        }
                    }
                }
                _ => walk(value, path, &shape.field(name), &mut found),
            }
        }
    }
    found
}

fn walk<'a>(value: &'a Value, path: Path, shape: &Shape<'_>, found: &mut BTreeMap<Path, Option<&'a Value>>) {
    match value {
        Value::Object(map) if !map.is_empty() && !shape.is_atomic_map() => {
            for (name, value) in map {
                let mut path = path.clone();
                path.push(Step::Field(name.clone()));
                walk(value, path, &shape.field(name), found);
            }
        }
        Value::Array(items) if !items.is_empty() && shape.list() != Merge::Atomic => {
            let merge = shape.list();
            for item in items {
                let Some(step) = identity(item, &merge, shape) else {
                    continue;
                };
                let mut path = path.clone();
                path.push(step);
                found.insert(path.clone(), None);
                if item.is_object() {
                    walk(item, path, &shape.item(), found);
                }
            }
        }
        leaf => {
            found.insert(path, Some(leaf));
        }
    }
}

/// Whether a field is there, or (for a map that was given empty) anything in it.
pub(crate) fn exists(leaves: &BTreeMap<Path, Option<&Value>>, path: &Path) -> bool {
    leaves
        .range::<Path, _>(path..)
        .next()
        .is_some_and(|(first, _)| first.starts_with(path))
}

/// A set of fields.
pub(crate) type Fields = BTreeSet<Path>;

/// `fieldsV1`.
fn write(fields: &Fields) -> Value {
    let mut root = json!({});
    for path in fields {
        let mut here = &mut root;
        let mut fresh = false;
        for step in path {
            let name = match step {
                Step::Field(name) => format!("f:{name}"),
                Step::Key(key) => format!("k:{key}"),
                Step::Value(value) => format!("v:{value}"),
            };
            let map = json::as_object(here);
            fresh = !map.contains_key(&name);
            here = map.entry(name).or_insert_with(|| json!({}));
        }
        // Paths come in order, parents first: a parent that is a member itself is there before its children.
        if fresh {
            json::as_object(here).insert(".".to_owned(), json!({}));
        }
    }
    tidy(&mut root);
    root
}

/// A member without children is written as an empty object.
fn tidy(value: &mut Value) {
    if let Value::Object(map) = value {
        if map.len() == 1 && map.contains_key(".") {
            map.clear();
        }
        for (name, child) in map.iter_mut() {
            if name != "." {
                tidy(child);
            }
        }
    }
}

fn read(value: &Value, path: &Path, fields: &mut Fields) {
    let Value::Object(map) = value else { return };
    if map.is_empty() && !path.is_empty() {
        fields.insert(path.clone());
    }
    for (name, child) in map {
        let step = match name.split_once(':') {
            Some(("f", rest)) => Step::Field(rest.to_owned()),
            Some(("k", rest)) => Step::Key(rest.to_owned()),
            Some(("v", rest)) => Step::Value(rest.to_owned()),
            _ => {
                if name == "." {
                    fields.insert(path.clone());
                }
                continue;
            }
        };
        let mut path = path.clone();
        path.push(step);
        read(child, &path, fields);
    }
}

/// `.spec.containers[name="a"].image`, as conflicts name fields.
pub(crate) fn shown(path: &Path) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Field(name) => {
                text.push('.');
                text.push_str(name);
            }
            Step::Key(key) => {
                let pairs: Vec<String> = serde_json::from_str::<Map<String, Value>>(key)
                    .unwrap_or_default()
                    .into_iter()
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect();
                text.extend(["[", &pairs.join(","), "]"]);
            }
            Step::Value(value) => text.extend(["[=", value, "]"]),
        }
    }
    text
}

/// Whether somebody applied or otherwise wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Apply,
    Update,
}

/// Who writes, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Writer {
    pub(crate) manager: String,
    pub(crate) operation: Operation,
    pub(crate) api_version: String,
    /// Empty for the object itself.
    pub(crate) subresource: String,
}

/// One entry of `managedFields`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manager {
    pub(crate) writer: Writer,
    pub(crate) time: String,
    pub(crate) fields: Fields,
}

/// Everybody who manages fields of an object.
pub(crate) fn managers(object: &Value) -> Vec<Manager> {
    json::list(object, &["metadata", "managedFields"])
        .iter()
        .map(|entry| {
            let mut fields = Fields::new();
            read(
                entry.get("fieldsV1").unwrap_or(&Value::Null),
                &Path::new(),
                &mut fields,
            );
            Manager {
                writer: Writer {
                    manager: json::text(entry, &["manager"]).to_owned(),
                    operation: match json::text(entry, &["operation"]) {
                        "Apply" => Operation::Apply,
                        _ => Operation::Update,
                    },
                    api_version: json::text(entry, &["apiVersion"]).to_owned(),
                    subresource: json::text(entry, &["subresource"]).to_owned(),
                },
                time: json::text(entry, &["time"]).to_owned(),
                fields,
            }
        })
        .collect()
}

/// Writes `managedFields`, without those who manage nothing.
pub(crate) fn set_managers(object: &mut Value, managers: &[Manager]) {
    let entries: Vec<Value> = managers
        .iter()
        .filter(|manager| !manager.fields.is_empty())
        .map(|manager| {
            let writer = &manager.writer;
            let mut entry = json!({
                "manager": writer.manager,
                "operation": match writer.operation { Operation::Apply => "Apply", Operation::Update => "Update" },
                "apiVersion": writer.api_version,
                "time": manager.time,
                "fieldsType": "FieldsV1",
                "fieldsV1": write(&manager.fields),
            });
            if !writer.subresource.is_empty() {
                json::set(&mut entry, &["subresource"], writer.subresource.as_str());
            }
            entry
        })
        .collect();
    if entries.is_empty() {
        json::remove(object, &["metadata", "managedFields"]);
    } else {
        json::set(object, &["metadata", "managedFields"], entries);
    }
}

/// Who manages what after `writer` has changed `before` into `after` by other means than applying: what it changed is
/// its own, and nobody else's any more.
pub(crate) fn after_update(
    before: Option<&Value>,
    after: &Value,
    shape: &Shape<'_>,
    writer: &Writer,
    now: &str,
) -> Vec<Manager> {
    let empty = Value::Null;
    let old = leaves(before.unwrap_or(&empty), shape);
    let new = leaves(after, shape);
    let mut managers = before.map(managers).unwrap_or_default();
    let changed: Fields = new
        .iter()
        .filter(|(path, value)| match (old.get(*path), value) {
            (None, _) => true,
            (Some(Some(old)), Some(new)) => !json::same(old, new),
            (Some(_), _) => false,
        })
        .map(|(path, _)| path.clone())
        .collect();
    let gone = old.keys().any(|path| !new.contains_key(path));
    if changed.is_empty() && !gone {
        return managers;
    }
    for manager in managers.iter_mut().filter(|manager| manager.writer != *writer) {
        manager
            .fields
            .retain(|path| exists(&new, path) && !changed.contains(path));
    }
    match managers.iter_mut().find(|manager| manager.writer == *writer) {
        Some(manager) => {
            manager.fields.retain(|path| exists(&new, path));
            if !changed.is_subset(&manager.fields) {
                manager.fields.extend(changed);
            }
            now.clone_into(&mut manager.time);
        }
        None => managers.push(Manager {
            writer: writer.clone(),
            time: now.to_owned(),
            fields: changed,
        }),
    }
    managers.retain(|manager| !manager.fields.is_empty());
    managers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(manager: &str) -> Writer {
        Writer {
            manager: manager.to_owned(),
            operation: Operation::Update,
            api_version: "v1".to_owned(),
            subresource: String::new(),
        }
    }

    #[test]
    fn a_field_belongs_to_who_changed_it_last() {
        let shape = Shape::builtin("Pod");
        let mut one = json!({ "metadata": { "name": "a", "labels": { "x": "1", "y": "1" } } });
        let managers = after_update(None, &one, &shape, &writer("alice"), "t1");
        set_managers(&mut one, &managers);
        let mut two = one.clone();
        json::set(&mut two, &["metadata", "labels", "x"], "2");
        let managers = after_update(Some(&one), &two, &shape, &writer("bob"), "t2");
        set_managers(&mut two, &managers);
        let entries = two["metadata"]["managedFields"].as_array().unwrap();
        assert_eq!(
            entries[0]["fieldsV1"],
            json!({ "f:metadata": { "f:labels": { "f:y": {} } } })
        );
        assert_eq!(entries[1]["manager"], "bob");
        assert_eq!(
            entries[1]["fieldsV1"],
            json!({ "f:metadata": { "f:labels": { "f:x": {} } } })
        );
    }

    #[test]
    fn items_of_keyed_lists_are_written_and_read_back() {
        let pod = json!({ "spec": { "containers": [{ "name": "a", "image": "i", "ports": [{ "containerPort": 80 }] }] } });
        let shape = Shape::builtin("Pod");
        let fields: Fields = leaves(&pod, &shape).into_keys().collect();
        let written = write(&fields);
        assert_eq!(
            written["f:spec"]["f:containers"]["k:{\"name\":\"a\"}"]["f:ports"],
            json!({ "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": { ".": {}, "f:containerPort": {} } })
        );
        let mut back = Fields::new();
        read(&written, &Path::new(), &mut back);
        assert_eq!(back, fields);
    }
}
