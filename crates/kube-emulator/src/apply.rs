//! Server-side apply: merges what a manager wants into the object, finds conflicts with other managers, and takes out
//! what the manager no longer wants.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::fields::{self, Fields, Manager, Operation, Path, Step, Writer};
use crate::json;
use crate::shape::{Merge, Shape};
use crate::status::{ApiError, Cause};

/// The result of applying.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) object: Value,
    pub(crate) managers: Vec<Manager>,
}

/// Applies `config` as `writer` to `live` (an empty object when there is none).
pub(crate) fn apply(
    live: &Value,
    config: &Value,
    shape: &Shape<'_>,
    writer: &Writer,
    force: bool,
    now: &str,
) -> Result<Applied, ApiError> {
    let mut merged = merge(Some(live), config, shape);
    let wanted: Fields = fields::leaves(config, shape).into_keys().collect();
    let mut managers = fields::managers(live);
    let before = managers
        .iter()
        .find(|manager| manager.writer == *writer)
        .map(|manager| manager.fields.clone())
        .unwrap_or_default();
    let changed = changed(live, &merged, shape, &wanted);
    if !force {
        refuse_conflicts(&managers, writer, &changed)?;
    }
    let others = |path: &Path| {
        managers
            .iter()
            .filter(|manager| manager.writer != *writer)
            .any(|manager| manager.fields.iter().any(|other| other.starts_with(path)))
    };
    let given_up: Vec<&Path> = before
        .iter()
        .filter(|path| !wanted.contains(*path) && !others(path))
        .filter(|path| !is_list_key(path))
        // A parent (or a child) of something wanted stays: only its own old leaf is gone.
        .filter(|path| !wanted.iter().any(|wanted| wanted.starts_with(path)))
        .collect();
    for path in given_up {
        remove(&mut merged, path, shape);
    }
    let there: BTreeMap<Path, Option<&Value>> = fields::leaves(&merged, shape);
    for manager in managers.iter_mut().filter(|manager| manager.writer != *writer) {
        manager
            .fields
            .retain(|path| fields::exists(&there, path) && !changed.contains(path));
    }
    match managers.iter_mut().find(|manager| manager.writer == *writer) {
        Some(manager) => {
            if manager.fields != wanted || !changed.is_empty() {
                now.clone_into(&mut manager.time);
            }
            manager.fields = wanted;
        }
        None => managers.push(Manager {
            writer: writer.clone(),
            time: now.to_owned(),
            fields: wanted,
        }),
    }
    managers.retain(|manager| !manager.fields.is_empty());
    Ok(Applied {
        object: merged,
        managers,
    })
}

/// The keys of a list's item go with the item, never alone.
fn is_list_key(path: &Path) -> bool {
    match path.as_slice() {
        [.., Step::Key(keys), Step::Field(name)] => {
            serde_json::from_str::<Map<String, Value>>(keys).is_ok_and(|keys| keys.contains_key(name))
        }
        _ => false,
    }
}

/// The wanted fields whose value is another one now.
fn changed(live: &Value, merged: &Value, shape: &Shape<'_>, wanted: &Fields) -> Fields {
    let old = fields::leaves(live, shape);
    let new = fields::leaves(merged, shape);
    wanted
        .iter()
        .filter(|path| match (old.get(*path), new.get(*path)) {
            (Some(Some(old)), Some(Some(new))) => !json::same(old, new),
            // An item of a list, or an empty map that was merged into one with fields: nothing changed by itself.
            (Some(None), Some(None)) | (None, None) => false,
            _ => true,
        })
        .cloned()
        .collect()
}

fn refuse_conflicts(managers: &[Manager], writer: &Writer, changed: &Fields) -> Result<(), ApiError> {
    let mut causes = Vec::new();
    let mut disputes = Vec::new();
    for manager in managers.iter().filter(|manager| manager.writer != *writer) {
        let disputed: Vec<String> = manager.fields.intersection(changed).map(fields::shown).collect();
        if disputed.is_empty() {
            continue;
        }
        let who = shown(manager);
        for field in &disputed {
            causes.push(Cause {
                reason: "FieldManagerConflict",
                message: format!("conflict with {who}"),
                field: field.clone(),
            });
        }
        disputes.push((who, disputed));
    }
    let texts: Vec<String> = disputes
        .iter()
        .map(|(who, disputed)| match causes.len() {
            1 => format!("conflict with {who}: {}", disputed.join("")),
            _ => format!("conflicts with {who}:\n- {}", disputed.join("\n- ")),
        })
        .collect();
    match causes.len() {
        0 => Ok(()),
        count => {
            let noun = if count == 1 { "conflict" } else { "conflicts" };
            let message = format!("Apply failed with {count} {noun}: {}", texts.join("\n"));
            Err(ApiError::apply_conflict(message, &causes))
        }
    }
}

fn shown(manager: &Manager) -> String {
    let writer = &manager.writer;
    let mut text = format!("{:?}", writer.manager);
    if !writer.subresource.is_empty() {
        text = format!("{text} with subresource {:?}", writer.subresource);
    }
    if writer.operation == Operation::Update {
        text = format!("{text} using {}", writer.api_version);
    }
    text
}

fn merge(live: Option<&Value>, config: &Value, shape: &Shape<'_>) -> Value {
    match (live, config) {
        (Some(Value::Object(live)), Value::Object(config)) if !shape.is_atomic_map() => {
            let mut merged: Map<String, Value> = live.clone();
            for (name, value) in config {
                merged.insert(name.clone(), merge(live.get(name), value, &shape.field(name)));
            }
            Value::Object(merged)
        }
        (Some(Value::Array(live)), Value::Array(config)) => match shape.list() {
            Merge::Atomic => Value::Array(config.clone()),
            by => Value::Array(merge_lists(live, config, &by, shape)),
        },
        (_, config) => config.clone(),
    }
}

/// The items of `config` in their order; those that only `live` has come before the next one that both have.
fn merge_lists(live: &[Value], config: &[Value], by: &Merge, shape: &Shape<'_>) -> Vec<Value> {
    let id = |item: &Value| fields::identity(item, by, shape);
    let configured: Vec<Option<Step>> = config.iter().map(id).collect();
    let mut rest = live.iter().peekable();
    let mut merged = Vec::with_capacity(live.len() + config.len());
    for (item, identity) in config.iter().zip(&configured) {
        let counterpart = live.iter().find(|one| id(one) == *identity);
        while let Some(only_live) = rest.next_if(|one| !configured.contains(&id(one))) {
            merged.push(only_live.clone());
        }
        if counterpart.is_some() {
            rest.next();
        }
        merged.push(merge(counterpart, item, &shape.item()));
    }
    merged.extend(rest.filter(|one| !configured.contains(&id(one))).cloned());
    merged
}

/// Takes out the value at a path, and every map or list that is empty then.
fn remove(value: &mut Value, path: &[Step], shape: &Shape<'_>) {
    let Some((step, rest)) = path.split_first() else {
        return;
    };
    match (step, value) {
        (Step::Field(name), Value::Object(map)) => {
            if rest.is_empty() {
                map.shift_remove(name);
            } else if let Some(child) = map.get_mut(name) {
                remove(child, rest, &shape.field(name));
                if is_empty(child) {
                    map.shift_remove(name);
                }
            }
        }
        (step, Value::Array(items)) => {
            let by = shape.list();
            let Some(at) = items
                .iter()
                .position(|item| fields::identity(item, &by, shape).as_ref() == Some(step))
            else {
                return;
            };
            if rest.is_empty() {
                items.remove(at);
            } else if let Some(item) = items.get_mut(at) {
                remove(item, rest, &shape.item());
            }
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn writer(manager: &str) -> Writer {
        Writer {
            manager: manager.to_owned(),
            operation: Operation::Apply,
            api_version: "v1".to_owned(),
            subresource: String::new(),
        }
    }

    fn applied(live: &Value, config: Value, manager: &str, force: bool) -> Result<Value, ApiError> {
        let result = apply(
            live,
            &config,
            &Shape::builtin("Pod"),
            &writer(manager),
            force,
            "now",
        )?;
        let mut object = result.object;
        fields::set_managers(&mut object, &result.managers);
        Ok(object)
    }

    #[test]
    fn what_a_manager_no_longer_applies_goes_unless_another_has_it() {
        let one = applied(
            &json!({}),
            json!({ "metadata": { "labels": { "a": "1", "b": "1", "c": "1" } } }),
            "x",
            false,
        );
        let two = applied(
            &one.unwrap(),
            json!({ "metadata": { "labels": { "b": "1" } } }),
            "y",
            false,
        )
        .unwrap();
        let three = applied(
            &two,
            json!({ "metadata": { "labels": { "c": "1" } } }),
            "x",
            false,
        )
        .unwrap();
        assert_eq!(three["metadata"]["labels"], json!({ "b": "1", "c": "1" }));
    }

    #[test]
    fn a_field_of_another_manager_is_a_conflict_unless_forced() {
        let one = applied(
            &json!({}),
            json!({ "metadata": { "labels": { "a": "1" } } }),
            "x",
            false,
        )
        .unwrap();
        let config = json!({ "metadata": { "labels": { "a": "2" } } });
        let error = applied(&one, config.clone(), "y", false).unwrap_err();
        assert_eq!(
            error.message,
            "Apply failed with 1 conflict: conflict with \"x\": .metadata.labels.a"
        );
        let two = applied(&one, config, "y", true).unwrap();
        let managers = fields::managers(&two);
        assert_eq!(managers.len(), 1);
        assert_eq!(managers[0].writer.manager, "y");
    }

    #[test]
    fn items_come_and_go_by_their_key() {
        let container = |name: &str| json!({ "name": name, "image": "i" });
        let pod = |names: &[&str]| json!({ "spec": { "containers": names.iter().map(|n| container(n)).collect::<Vec<_>>() } });
        let one = applied(&json!({}), pod(&["a", "b"]), "x", false).unwrap();
        let two = applied(&one, pod(&["c"]), "y", false).unwrap();
        let three = applied(&two, pod(&["b"]), "x", false).unwrap();
        assert_eq!(
            three["spec"]["containers"],
            json!([container("b"), container("c")])
        );
    }

    #[test]
    fn giving_up_everything_leaves_no_empty_maps() {
        let one = applied(
            &json!({}),
            json!({ "spec": { "nodeName": "n" }, "metadata": { "labels": { "a": "1" } } }),
            "x",
            false,
        );
        let two = applied(&one.unwrap(), json!({ "metadata": {} }), "x", false).unwrap();
        assert_eq!(two, json!({ "metadata": {} }));
    }
}
