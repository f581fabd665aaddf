//! What follows from a write: finalizers that are done, dependents without owners, namespaces and definitions that
//! empty themselves. A real cluster does this a moment later in controllers; here it is done before the write returns.
//!
//! put / removed ─▶ steps ─▶ step ─▶ more steps ─▶ … ─▶ nothing left

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::cluster::State;
use crate::crd;
use crate::json::{self, list, text};
use crate::remove::{DeleteOptions, FOREGROUND};
use crate::resource::{Registry, Resource};
use crate::store::{Key, Object};

/// Something to look at again.
#[derive(Debug)]
enum Step {
    /// An object whose finalizers may be done.
    Finalizers(Key),
    /// An object whose owners may be gone.
    Owners(Key),
    /// A namespace that is going away.
    Namespace(String),
    /// A definition that is going away.
    Definition(Key),
    /// An owner that waits for its dependents.
    Foreground(Key),
}

/// What became of an owner.
enum Owner {
    There(Key),
    Gone,
    /// Its kind is not served here.
    Unknown,
}

impl State {
    /// After an object was put; `before` is what it was.
    pub(crate) fn settle(&mut self, key: &Key, before: Option<&Arc<Object>>) {
        let Some(object) = self.store.get(key) else { return };
        if key.resource == "customresourcedefinitions.apiextensions.k8s.io" {
            self.serve_definitions();
        }
        if before.is_none() && key.resource == "namespaces" {
            self.furnish(&key.name);
        }
        let mut steps = VecDeque::new();
        if json::is_deleting(&object) {
            steps.push_back(Step::Foreground(key.clone()));
            match key.resource.as_str() {
                "namespaces" => steps.push_back(Step::Namespace(key.name.clone())),
                "customresourcedefinitions.apiextensions.k8s.io" => {
                    steps.push_back(Step::Definition(key.clone()));
                }
                _ => {}
            }
            steps.push_back(Step::Finalizers(key.clone()));
        } else if !list(&object, &["metadata", "ownerReferences"]).is_empty() {
            steps.push_back(Step::Owners(key.clone()));
        }
        self.run(steps);
    }

    /// After an object was removed.
    pub(crate) fn settle_removed(&mut self, key: &Key, last: &Value) {
        if key.resource == "customresourcedefinitions.apiextensions.k8s.io" {
            self.serve_definitions();
        }
        let mut steps: VecDeque<Step> = self
            .store
            .owned_by(json::uid(last))
            .into_iter()
            .map(Step::Owners)
            .collect();
        if !key.namespace.is_empty() && self.namespace(&key.namespace) == Some(true) {
            steps.push_back(Step::Namespace(key.namespace.clone()));
        }
        for owner in list(last, &["metadata", "ownerReferences"]) {
            if let Owner::There(owner) = self.owner(owner, &key.namespace) {
                steps.push_back(Step::Foreground(owner));
            }
        }
        let definition = Key::cluster("customresourcedefinitions.apiextensions.k8s.io", &key.resource);
        steps.push_back(Step::Definition(definition));
        self.run(steps);
    }

    fn run(&mut self, mut steps: VecDeque<Step>) {
        while let Some(step) = steps.pop_front() {
            match step {
                Step::Finalizers(key) => self.finish(&key),
                Step::Owners(key) => self.collect(&key),
                Step::Namespace(name) => self.empty_namespace(&name),
                Step::Definition(key) => self.empty_definition(&key),
                Step::Foreground(key) => self.delete_dependents(&key),
            }
        }
    }

    /// Removes an object that is being deleted and held by nothing any more.
    fn finish(&mut self, key: &Key) {
        let Some(object) = self.store.get(key).filter(|object| json::is_deleting(object)) else {
            return;
        };
        let graceful = key.resource == "pods"
            && json::at(&object, &["metadata", "deletionGracePeriodSeconds"])
                .and_then(Value::as_i64)
                .is_some_and(|seconds| seconds > 0);
        let namespace = key.resource == "namespaces" && !list(&object, &["spec", "finalizers"]).is_empty();
        if list(&object, &["metadata", "finalizers"]).is_empty() && !graceful && !namespace {
            self.remove_stored(key);
        }
    }

    /// Where the owner that a reference names is.
    fn owner(&self, reference: &Value, namespace: &str) -> Owner {
        let Some(resource) = self
            .registry
            .of_kind(text(reference, &["apiVersion"]), text(reference, &["kind"]))
        else {
            return Owner::Unknown;
        };
        let namespace = if resource.namespaced { namespace } else { "" };
        let key = Key::new(&resource.store_key(), namespace, text(reference, &["name"]));
        match self.store.get(&key) {
            Some(object) if json::uid(&object) == text(reference, &["uid"]) => Owner::There(key),
            _ => Owner::Gone,
        }
    }

    /// Deletes an object all of whose owners are gone. An owner of a kind that is not served here counts as there: the
    /// real collector does not know better either.
    fn collect(&mut self, key: &Key) {
        let Some(object) = self.store.get(key) else { return };
        let owners = list(&object, &["metadata", "ownerReferences"]);
        let orphan = !owners.is_empty()
            && owners
                .iter()
                .all(|owner| matches!(self.owner(owner, &key.namespace), Owner::Gone));
        if orphan && !json::is_deleting(&object) {
            self.delete_stored(key, &object, &DeleteOptions::default());
        }
    }

    /// Foreground deletion: the dependents go first, then the owner is let go.
    fn delete_dependents(&mut self, key: &Key) {
        let Some(owner) = self.store.get(key).filter(|object| json::is_deleting(object)) else {
            return;
        };
        let finalizers = list(&owner, &["metadata", "finalizers"]);
        if !finalizers.contains(&json!(FOREGROUND)) {
            return;
        }
        let uid = json::uid(&owner).to_owned();
        let mut waits = false;
        for dependent in self.store.owned_by(&uid) {
            let Some(object) = self.store.get(&dependent) else {
                continue;
            };
            let blocks = list(&object, &["metadata", "ownerReferences"]).iter().any(|one| {
                text(one, &["uid"]) == uid
                    && json::at(one, &["blockOwnerDeletion"]).and_then(Value::as_bool) == Some(true)
            });
            if !json::is_deleting(&object) {
                self.delete_stored(&dependent, &object, &DeleteOptions::default());
            }
            waits |= blocks && self.store.get(&dependent).is_some();
        }
        if !waits {
            self.drop_finalizer(key, FOREGROUND);
        }
    }

    /// Deletes everything in a namespace that is going away, then lets it go.
    fn empty_namespace(&mut self, name: &str) {
        if self.namespace(name) != Some(true) {
            return;
        }
        let mut left = false;
        for resource in self
            .registry
            .stored()
            .into_iter()
            .filter(|resource| resource.namespaced)
        {
            let keys: Vec<Key> = self
                .store
                .list(&resource.store_key(), name, None)
                .map(|(key, _)| key.clone())
                .collect();
            for key in keys {
                // Deleting one may have taken others along.
                let Some(object) = self.store.get(&key) else {
                    continue;
                };
                if !json::is_deleting(&object) {
                    self.delete_stored(&key, &object, &DeleteOptions::default());
                }
                left |= self.store.get(&key).is_some();
            }
        }
        let key = Key::cluster("namespaces", name);
        let Some(namespace) = self.store.get(&key).filter(|_| !left) else {
            return;
        };
        let mut changed = (**namespace).clone();
        json::set(&mut changed, &["spec", "finalizers"], json!([]));
        if list(&changed, &["metadata", "finalizers"]).is_empty() {
            self.remove_stored(&key);
        } else if !json::same(&namespace, &changed) {
            self.store.put(key, changed);
        }
    }

    /// Deletes all objects of a definition that is going away, then lets it go.
    fn empty_definition(&mut self, key: &Key) {
        let Some(definition) = self.store.get(key).filter(|object| json::is_deleting(object)) else {
            return;
        };
        if !list(&definition, &["metadata", "finalizers"]).contains(&json!(crd::CLEANUP)) {
            return;
        }
        let objects: Vec<(Key, Arc<Object>)> = self
            .store
            .list(&key.name, "", None)
            .map(|(key, object)| (key.clone(), Arc::clone(object)))
            .collect();
        for (key, object) in objects {
            if self.store.get(&key).is_some() && !json::is_deleting(&object) {
                self.delete_stored(&key, &object, &DeleteOptions::default());
            }
        }
        if self.store.list(&key.name, "", None).next().is_none() {
            self.drop_finalizer(key, crd::CLEANUP);
        }
    }

    fn drop_finalizer(&mut self, key: &Key, finalizer: &str) {
        let Some(object) = self.store.get(key) else { return };
        let mut changed = (**object).clone();
        let mut finalizers = list(&changed, &["metadata", "finalizers"]).to_vec();
        finalizers.retain(|one| one != finalizer);
        if finalizers.is_empty() {
            json::remove(&mut changed, &["metadata", "finalizers"]);
        } else {
            json::set(&mut changed, &["metadata", "finalizers"], finalizers);
        }
        self.store.put(key.clone(), changed);
        self.finish(key);
    }

    /// Serves exactly the resources of the established definitions.
    fn serve_definitions(&mut self) {
        let mut registry = Registry::builtin();
        let definitions = self
            .store
            .list("customresourcedefinitions.apiextensions.k8s.io", "", None);
        for (_, definition) in definitions.filter(|(_, definition)| crd::is_established(definition)) {
            for resource in self.resources_of(definition) {
                registry.add_shared(resource);
            }
        }
        self.registry = Arc::new(registry);
    }

    /// The resources of a definition, as they are when it has not changed.
    fn resources_of(&self, definition: &Value) -> Vec<Arc<Resource>> {
        let generation = json::at(definition, &["metadata", "generation"])
            .and_then(Value::as_i64)
            .unwrap_or_default();
        let stamp = (json::uid(definition).to_owned(), generation);
        let known: Vec<Arc<Resource>> = self
            .registry
            .all()
            .filter(|resource| {
                resource
                    .custom
                    .as_ref()
                    .is_some_and(|custom| custom.origin == stamp)
            })
            .cloned()
            .collect();
        if !known.is_empty() {
            return known;
        }
        // What is stored was accepted, so it reads.
        crd::resources(definition)
            .unwrap_or_default()
            .into_iter()
            .map(Arc::new)
            .collect()
    }
}
