//! Deleting objects: preconditions, grace of pods, finalizers, propagation. What follows from it is in `settle`.

use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::cluster::{State, stamp};
use crate::json::{self, list, text};
use crate::status::{ApiError, Cause};
use crate::store::{Key, Object};
use crate::write::{How, Target};

/// Holds an owner until its dependents are gone.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// Definitions are held until their objects are gone.
const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";
/// Namespaces that cannot be deleted.
const PERMANENT: [&str; 3] = ["default", "kube-public", "kube-system"];

/// What becomes of the objects that name the deleted one as their owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// They are deleted afterwards.
    #[default]
    Background,
    /// They are deleted first.
    Foreground,
    /// They stay and forget it.
    Orphan,
}

/// How to delete.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) grace_seconds: Option<i64>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) propagation: Option<Propagation>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Deleted {
    /// It is gone; its last form.
    Gone(Arc<Object>),
    /// It is still there, waiting for grace or finalizers.
    Pending(Arc<Object>),
}

impl DeleteOptions {
    /// Reads the `DeleteOptions` of a body.
    pub(crate) fn read(body: &Value) -> Result<Self, ApiError> {
        let string = |path: &[&str]| json::at(body, path).and_then(Value::as_str).map(str::to_owned);
        let mut propagation = string(&["propagationPolicy"])
            .map(|text| parse_propagation(&text))
            .transpose()?;
        if json::at(body, &["orphanDependents"]).and_then(Value::as_bool) == Some(true) {
            propagation = Some(Propagation::Orphan);
        }
        Ok(Self {
            grace_seconds: json::at(body, &["gracePeriodSeconds"]).and_then(Value::as_i64),
            uid: string(&["preconditions", "uid"]),
            resource_version: string(&["preconditions", "resourceVersion"]),
            propagation,
        })
    }
}

/// `Background`, `Foreground` or `Orphan`.
pub(crate) fn parse_propagation(text: &str) -> Result<Propagation, ApiError> {
    match text {
        "Background" => Ok(Propagation::Background),
        "Foreground" => Ok(Propagation::Foreground),
        "Orphan" => Ok(Propagation::Orphan),
        other => {
            let cause = Cause {
                reason: "FieldValueNotSupported",
                message: format!(
                    "Unsupported value: {other:?}: supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
                ),
                field: "propagationPolicy".to_owned(),
            };
            Err(ApiError::invalid("meta.k8s.io", "DeleteOptions", "", &[cause]))
        }
    }
}

impl State {
    /// Deletes an object, or begins to.
    pub(crate) fn delete(
        &mut self,
        target: Target<'_>,
        options: &DeleteOptions,
        how: &How,
    ) -> Result<Deleted, ApiError> {
        let key = target.key(target.name);
        let object = self
            .store
            .get(&key)
            .ok_or_else(|| target.not_found(target.name))?;
        check_preconditions(target, &object, options)?;
        if key.resource == "namespaces" && PERMANENT.contains(&target.name) {
            return Err(ApiError::forbidden(
                "",
                "namespaces",
                target.name,
                "this namespace may not be deleted",
            ));
        }
        if how.dry_run {
            return Ok(Deleted::Gone(object));
        }
        Ok(self.delete_stored(&key, &object, options))
    }

    /// The same for an object that is known to be there, whoever asks.
    pub(crate) fn delete_stored(
        &mut self,
        key: &Key,
        object: &Arc<Object>,
        options: &DeleteOptions,
    ) -> Deleted {
        let grace = grace(key, object, options);
        let mut changed = (***object).clone();
        let mut finalizers: Vec<Value> = list(object, &["metadata", "finalizers"]).to_vec();
        if key.resource == DEFINITIONS && !finalizers.contains(&json!(crate::crd::CLEANUP)) {
            finalizers.push(json!(crate::crd::CLEANUP));
        }
        match options.propagation.unwrap_or_default() {
            Propagation::Foreground if !finalizers.contains(&json!(FOREGROUND)) => {
                finalizers.push(json!(FOREGROUND));
            }
            Propagation::Orphan => self.orphan(json::uid(object)),
            Propagation::Foreground | Propagation::Background => {}
        }
        let held =
            !finalizers.is_empty() || !list(object, &["spec", "finalizers"]).is_empty() && is_namespace(key);
        if grace == 0 && !held {
            return Deleted::Gone(self.remove_at_once(key, object));
        }
        if json::is_deleting(object)
            && !shortens(object, grace)
            && finalizers.len() == list(object, &["metadata", "finalizers"]).len()
        {
            return Deleted::Pending(Arc::clone(object));
        }
        let deadline = self
            .now
            .checked_add(SignedDuration::from_secs(grace))
            .unwrap_or(self.now);
        json::set(&mut changed, &["metadata", "deletionTimestamp"], stamp(deadline));
        json::set(&mut changed, &["metadata", "deletionGracePeriodSeconds"], grace);
        if !finalizers.is_empty() {
            json::set(&mut changed, &["metadata", "finalizers"], finalizers);
        }
        if let Some(generation) = json::at(&changed, &["metadata", "generation"]).and_then(Value::as_i64) {
            json::set(&mut changed, &["metadata", "generation"], generation + 1);
        }
        if is_namespace(key) {
            json::set(&mut changed, &["status", "phase"], "Terminating");
        }
        let stored = self.store.put(key.clone(), changed);
        self.settle(key, Some(object));
        if self.store.get(key).is_some() {
            Deleted::Pending(stored)
        } else {
            Deleted::Gone(stored)
        }
    }

    /// Removes an object that nothing holds. What was on its way out already is seen to go without further grace.
    fn remove_at_once(&mut self, key: &Key, object: &Arc<Object>) -> Arc<Object> {
        if key.resource == "pods" && json::is_deleting(object) {
            let mut changed = (***object).clone();
            json::set(&mut changed, &["metadata", "deletionGracePeriodSeconds"], 0);
            self.store.put(key.clone(), changed);
        }
        self.remove_stored(key).unwrap_or_else(|| Arc::clone(object))
    }

    /// Takes an object out of the store, and what follows.
    pub(crate) fn remove_stored(&mut self, key: &Key) -> Option<Arc<Object>> {
        let last = self.store.remove(key)?;
        self.settle_removed(key, &last);
        Some(last)
    }

    /// Makes dependents forget an owner.
    fn orphan(&mut self, uid: &str) {
        for key in self.store.owned_by(uid) {
            let Some(dependent) = self.store.get(&key) else {
                continue;
            };
            let mut changed = (**dependent).clone();
            let mut owners = list(&changed, &["metadata", "ownerReferences"]).to_vec();
            owners.retain(|owner| text(owner, &["uid"]) != uid);
            if owners.is_empty() {
                json::remove(&mut changed, &["metadata", "ownerReferences"]);
            } else {
                json::set(&mut changed, &["metadata", "ownerReferences"], owners);
            }
            self.store.put(key, changed);
        }
    }
}

fn is_namespace(key: &Key) -> bool {
    key.resource == "namespaces"
}

fn check_preconditions(target: Target<'_>, object: &Value, options: &DeleteOptions) -> Result<(), ApiError> {
    let resource = target.resource;
    for (what, wanted, found) in [
        ("UID", &options.uid, json::uid(object)),
        (
            "ResourceVersion",
            &options.resource_version,
            text(object, &["metadata", "resourceVersion"]),
        ),
    ] {
        if let Some(wanted) = wanted
            && wanted != found
        {
            let since = if what == "UID" {
                "deleted and then recreated"
            } else {
                "modified"
            };
            let why = format!(
                "the {what} in the precondition ({wanted}) does not match the {what} in record ({found}). The object \
                 might have been {since}"
            );
            return Err(ApiError::conflict(
                &resource.group,
                &resource.kind,
                target.name,
                &why,
            ));
        }
    }
    Ok(())
}

/// How long a pod that runs on a node has to end. Everything else, and a pod that never ran, goes at once.
fn grace(key: &Key, object: &Value, options: &DeleteOptions) -> i64 {
    let runs = key.resource == "pods"
        && !text(object, &["spec", "nodeName"]).is_empty()
        && !matches!(text(object, &["status", "phase"]), "Succeeded" | "Failed");
    if !runs {
        return 0;
    }
    let own = || {
        json::at(object, &["spec", "terminationGracePeriodSeconds"])
            .and_then(Value::as_i64)
            .unwrap_or(30)
    };
    options.grace_seconds.unwrap_or_else(own).max(0)
}

fn shortens(object: &Value, grace: i64) -> bool {
    json::at(object, &["metadata", "deletionGracePeriodSeconds"])
        .and_then(Value::as_i64)
        .is_some_and(|current| grace < current)
}
