//! Wanted × actual → actions. Pure: the same answer for the same question, and nothing to do when done.

use std::collections::{BTreeMap, BTreeSet};

use podid_api::names::{MANAGED_BY, MANAGED_BY_LABEL, PROFILE_NAME};
use serde_json::{Map, Value};

use crate::code::{self, Obstacle};
use crate::desired::{Desired, Entry, Key, Kind, Wanted};

/// An object of the cluster, reduced to what the plan needs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Actual {
    /// Who made it.
    pub(crate) owner: Owner,
    /// Its unique id.
    pub(crate) uid: String,
    /// Its spec without empty and absent fields.
    pub(crate) spec: Value,
    /// Those of its annotations that the controller may have written.
    pub(crate) annotations: BTreeMap<String, String>,
    /// Whether it is being deleted.
    pub(crate) terminating: bool,
}

/// Who made an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The controller, for the profile with this uid.
    Ours(String),
    /// Somebody else.
    Foreign,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// A namespace that entries need is missing.
    CreateNamespace { name: String, entries: BTreeSet<Entry> },
    /// An object is missing.
    Create { key: Key, desired: Desired },
    /// An object of ours is not as it should be. `extra` is a merge patch of what should not be there.
    Update {
        key: Key,
        desired: Desired,
        uid: String,
        extra: Option<Value>,
    },
    /// An object of ours is not wanted.
    Delete { key: Key, uid: String },
}

/// What to do, in stages: each stage after the one before, within a stage in any order.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) stages: Vec<Vec<Action>>,
    pub(crate) obstacles: BTreeMap<Entry, Obstacle>,
}

/// The cluster as the watches have it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cluster {
    /// Objects of our kinds.
    pub(crate) objects: BTreeMap<Key, Actual>,
    /// Namespaces, and whether they are being deleted.
    pub(crate) namespaces: BTreeMap<String, bool>,
}

/// Who made an object with these labels and owners.
pub(crate) fn owner(metadata: &kube::core::ObjectMeta) -> Owner {
    let labelled = metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(MANAGED_BY_LABEL));
    let profile = metadata.owner_references.iter().flatten().find(|reference| {
        reference.kind == "PodIdentityProfile"
            && reference.name == PROFILE_NAME
            && reference.api_version.starts_with("podid.dev/")
    });
    match (labelled.map(String::as_str), profile) {
        (Some(MANAGED_BY), Some(profile)) => Owner::Ours(profile.uid.clone()),
        _ => Owner::Foreign,
    }
}

/// Plans. `profile_uid` is the profile's, for which objects are made; without a profile nothing is wanted.
pub(crate) fn plan(mut wanted: Wanted, cluster: &Cluster, profile_uid: &str) -> Plan {
    let in_the_way = in_the_way(&wanted, cluster);
    wanted.refuse(in_the_way);

    let mut missing: BTreeMap<&str, BTreeSet<Entry>> = BTreeMap::new();
    let mut make: [Vec<Action>; 2] = Default::default();
    for (key, desired) in &wanted.objects {
        if !cluster.namespaces.contains_key(&key.namespace) {
            missing.entry(&key.namespace).or_default().insert(desired.entry);
        }
        let Some(action) = bring(key, desired, cluster.objects.get(key), profile_uid) else {
            continue;
        };
        let [first, then] = &mut make;
        // A binding must not name an identity that is not there yet.
        if key.kind == Kind::Identity {
            first.push(action);
        } else {
            then.push(action);
        }
    }
    let namespaces = missing
        .into_iter()
        .map(|(name, entries)| Action::CreateNamespace {
            name: name.to_owned(),
            entries,
        })
        .collect();

    let mut remove: [Vec<Action>; 2] = Default::default();
    for (key, actual) in &cluster.objects {
        let unwanted = !wanted.objects.contains_key(key) && actual.owner != Owner::Foreign;
        if unwanted && !actual.terminating {
            let action = Action::Delete {
                key: key.clone(),
                uid: actual.uid.clone(),
            };
            let [first, then] = &mut remove;
            if key.kind == Kind::Identity {
                then.push(action);
            } else {
                first.push(action);
            }
        }
    }

    let [identities, others] = make;
    let [bindings, unbound] = remove;
    let mut stages = vec![bindings, unbound, namespaces, identities, others];
    stages.retain(|stage| !stage.is_empty());
    Plan {
        stages,
        obstacles: wanted.obstacles,
    }
}

/// What keeps entries from being had: other people's objects, namespaces on their way out.
fn in_the_way(wanted: &Wanted, cluster: &Cluster) -> BTreeMap<Entry, Obstacle> {
    let mut obstacles = BTreeMap::new();
    for (key, desired) in &wanted.objects {
        if cluster
            .objects
            .get(key)
            .is_some_and(|actual| actual.owner == Owner::Foreign)
        {
            let text =
                format!("{key} was not made by podid and is left alone; delete it, or choose another name");
            obstacles.insert(desired.entry, Obstacle::new(code::NOT_OURS, text));
        } else if cluster.namespaces.get(&key.namespace) == Some(&true) {
            let text = format!("the namespace {} is being deleted", key.namespace);
            obstacles
                .entry(desired.entry)
                .or_insert_with(|| Obstacle::new(code::NAMESPACE, text));
        }
    }
    obstacles
}

/// What brings one object to where it should be.
fn bring(key: &Key, desired: &Desired, actual: Option<&Actual>, profile_uid: &str) -> Option<Action> {
    let (key, desired) = (key.clone(), desired.clone());
    let Some(actual) = actual else {
        return Some(Action::Create { key, desired });
    };
    // While it is on its way out nothing can be done; its deletion is an event and plans again.
    let done = actual.terminating
        || (actual.spec == desired.spec
            && actual.annotations == desired.annotations
            && actual.owner == Owner::Ours(profile_uid.to_owned()));
    if done {
        return None;
    }
    let annotations = |of: &BTreeMap<String, String>| serde_json::json!({ "annotations": of });
    let whole = |spec: &Value, of| serde_json::json!({ "metadata": annotations(of), "spec": spec });
    let extra = extra(
        &whole(&desired.spec, &desired.annotations),
        &whole(&actual.spec, &actual.annotations),
    );
    Some(Action::Update {
        key,
        desired,
        uid: actual.uid.clone(),
        extra,
    })
}

/// A merge patch that takes away what `actual` has and `desired` has not. Server-side apply leaves such fields, when
/// somebody else has added them.
fn extra(desired: &Value, actual: &Value) -> Option<Value> {
    let (Value::Object(desired), Value::Object(actual)) = (desired, actual) else {
        return None;
    };
    let mut patch = Map::new();
    for (name, value) in actual {
        match desired.get(name) {
            None => {
                patch.insert(name.clone(), Value::Null);
            }
            Some(inner) => {
                if let Some(inner) = extra(inner, value) {
                    patch.insert(name.clone(), inner);
                }
            }
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// A spec as the plan compares it: without nulls, empty objects and the untyped metadata of the original.
pub(crate) fn comparable(mut spec: Value) -> Value {
    if let Some(spec) = spec.as_object_mut() {
        spec.retain(|name, value| {
            name != "metadata" && !value.is_null() && value.as_object().is_none_or(|inner| !inner.is_empty())
        });
    }
    spec
}

#[cfg(test)]
mod tests;
