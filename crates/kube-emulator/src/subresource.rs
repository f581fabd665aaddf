//! Subresources that do something: binding a pod to a node, evicting it, finalizing a namespace.

use serde_json::{Value, json};

use crate::cluster::State;
use crate::json::{self, list, text};
use crate::remove::DeleteOptions;
use crate::status::ApiError;
use crate::store::Key;
use crate::write::{How, Target};

/// `Status` of a success without an object.
fn success(code: u16) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code })
}

impl State {
    /// Puts a pod on a node.
    pub(crate) fn bind(&mut self, target: Target<'_>, binding: &Value, how: &How) -> Result<Value, ApiError> {
        let key = target.key(target.name);
        let pod = self
            .store
            .get(&key)
            .ok_or_else(|| target.not_found(target.name))?;
        let node = text(binding, &["target", "name"]);
        if node.is_empty() {
            let cause = crate::kinds::required("target.name", "");
            return Err(ApiError::invalid("", "Binding", target.name, &[cause]));
        }
        let current = text(&pod, &["spec", "nodeName"]);
        if !current.is_empty() {
            let why = format!("pod {} is already assigned to node {current:?}", target.name);
            return Err(ApiError::conflict("", "pods/binding", target.name, &why));
        }
        if json::is_deleting(&pod) {
            let why = format!(
                "pod {} is being deleted, cannot be assigned to a host",
                target.name
            );
            return Err(ApiError::conflict("", "pods/binding", target.name, &why));
        }
        if !how.dry_run {
            let mut changed = (**pod).clone();
            json::set(&mut changed, &["spec", "nodeName"], node);
            let mut conditions = list(&changed, &["status", "conditions"]).to_vec();
            conditions.retain(|one| text(one, &["type"]) != "PodScheduled");
            conditions.push(json!({
                "type": "PodScheduled",
                "status": "True",
                "lastProbeTime": null,
                "lastTransitionTime": self.stamp(),
            }));
            json::set(&mut changed, &["status", "conditions"], conditions);
            self.store.put(key.clone(), changed);
            self.settle(&key, Some(&pod));
        }
        Ok(success(201))
    }

    /// Deletes a pod; there are no disruption budgets that could forbid it.
    pub(crate) fn evict(
        &mut self,
        target: Target<'_>,
        eviction: &Value,
        how: &How,
    ) -> Result<Value, ApiError> {
        let options = eviction.get("deleteOptions").cloned().unwrap_or_default();
        self.delete(target, &DeleteOptions::read(&options)?, how)?;
        Ok(success(201))
    }

    /// Writes a namespace's `spec.finalizers`.
    pub(crate) fn finalize(&mut self, name: &str, namespace: &Value) -> Result<Value, ApiError> {
        let key = Key::cluster("namespaces", name);
        let before = self
            .store
            .get(&key)
            .ok_or_else(|| ApiError::not_found("", "namespaces", name))?;
        let mut changed = (**before).clone();
        json::set(
            &mut changed,
            &["spec", "finalizers"],
            list(namespace, &["spec", "finalizers"]).to_vec(),
        );
        let stored = self.store.put(key.clone(), changed);
        self.settle(&key, Some(&before));
        Ok((**stored).clone())
    }
}
