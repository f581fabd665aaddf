//! The ordered store: every object of every kind under one counter of resource versions, and the window of past events
//! that watches read. It knows nothing of kinds, defaults or finalizers.
//!
//! put / remove ─▶ version + 1 ─▶ objects, owners, history (bounded)

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::{Bound, Deref};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::Value;

use crate::json;

/// How many events are kept for watches; who is further behind gets 410 and lists again.
const HISTORY: usize = 20_000;
/// Versions start above those with a meaning of their own (0 and 1).
const FIRST_VERSION: u64 = 1_000;

/// Where an object lies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// `pods`, `leases.coordination.k8s.io`.
    pub(crate) resource: String,
    /// Empty for cluster-scoped objects.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    /// Of an object in a namespace.
    pub(crate) fn new(resource: &str, namespace: &str, name: &str) -> Self {
        Self {
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Of a cluster-scoped object.
    pub(crate) fn cluster(resource: &str, name: &str) -> Self {
        Self::new(resource, "", name)
    }
}

/// A stored object. Its JSON text is made once, however many readers and watches there are.
#[derive(Debug)]
pub(crate) struct Object {
    value: Value,
    text: OnceLock<Bytes>,
}

impl Object {
    pub(crate) fn new(value: Value) -> Self {
        Self {
            value,
            text: OnceLock::new(),
        }
    }

    /// Its JSON text, beginning with `apiVersion` and `kind`.
    pub(crate) fn text(&self) -> Bytes {
        self.text.get_or_init(|| json::bytes(&self.value)).clone()
    }
}

impl Deref for Object {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.value
    }
}

/// What happened to an object.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) version: u64,
    pub(crate) key: Key,
    /// The object before, none when it was new; the last form, with the version of the removal, when it was removed.
    pub(crate) before: Option<Arc<Object>>,
    /// The object after; none when it was removed.
    pub(crate) after: Option<Arc<Object>>,
}

/// The objects and what happened to them.
#[derive(Debug)]
pub(crate) struct Store {
    version: u64,
    objects: BTreeMap<Key, Arc<Object>>,
    /// uid of an owner → objects that name it.
    owned: HashMap<String, BTreeSet<Key>>,
    history: VecDeque<Arc<Event>>,
    /// Events up to and including this version are forgotten.
    forgotten: u64,
    capacity: usize,
}

impl Default for Store {
    fn default() -> Self {
        Self::with_history(HISTORY)
    }
}

impl Store {
    /// An empty store that remembers so many events.
    pub(crate) fn with_history(capacity: usize) -> Self {
        Self {
            version: FIRST_VERSION,
            objects: BTreeMap::new(),
            owned: HashMap::new(),
            history: VecDeque::new(),
            forgotten: FIRST_VERSION - 1,
            capacity,
        }
    }

    /// The version of the last change.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Whether the events after `version` are still known.
    pub(crate) fn remembers(&self, version: u64) -> bool {
        version >= self.forgotten
    }

    /// One object.
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.objects.get(key).cloned()
    }

    /// All objects of a resource, of one namespace or (when empty) of all, ordered by namespace and name; those after
    /// `(namespace, name)` if given.
    pub(crate) fn list<'a>(
        &'a self,
        resource: &'a str,
        namespace: &'a str,
        after: Option<(&str, &str)>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Object>)> {
        let key = |namespace: &str, name: &str| Key::new(resource, namespace, name);
        let start = match after {
            Some((namespace, name)) => Bound::Excluded(key(namespace, name)),
            None => Bound::Included(key(namespace, "")),
        };
        self.objects
            .range((start, Bound::Unbounded))
            .take_while(move |(key, _)| {
                key.resource == resource && (namespace.is_empty() || key.namespace == namespace)
            })
    }

    /// The objects that name this uid as an owner.
    pub(crate) fn owned_by(&self, uid: &str) -> Vec<Key> {
        self.owned
            .get(uid)
            .map(|keys| keys.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// Stores an object under a new version, which is written into it.
    pub(crate) fn put(&mut self, key: Key, mut object: Value) -> Arc<Object> {
        self.version += 1;
        json::set(
            &mut object,
            &["metadata", "resourceVersion"],
            self.version.to_string(),
        );
        json::types_first(&mut object);
        let object = Arc::new(Object::new(object));
        let before = self.objects.insert(key.clone(), Arc::clone(&object));
        if let Some(before) = &before {
            self.disown(&key, before);
        }
        for uid in owners(&object) {
            self.owned.entry(uid.to_owned()).or_default().insert(key.clone());
        }
        self.remember(Event {
            version: self.version,
            key,
            before,
            after: Some(Arc::clone(&object)),
        });
        object
    }

    /// Removes an object; what is returned and told to watches has the version of the removal.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Arc<Object>> {
        let before = self.objects.remove(key)?;
        self.disown(key, &before);
        self.version += 1;
        let mut last = (**before).clone();
        json::set(
            &mut last,
            &["metadata", "resourceVersion"],
            self.version.to_string(),
        );
        let last = Arc::new(Object::new(last));
        self.remember(Event {
            version: self.version,
            key: key.clone(),
            before: Some(Arc::clone(&last)),
            after: None,
        });
        Some(last)
    }

    /// The events after `version`, of one resource; none when they are forgotten.
    pub(crate) fn since(&self, version: u64, resource: &str) -> Option<Vec<Arc<Event>>> {
        if !self.remembers(version) {
            return None;
        }
        let start = self.history.partition_point(|event| event.version <= version);
        Some(
            self.history
                .range(start..)
                .filter(|event| event.key.resource == resource)
                .cloned()
                .collect(),
        )
    }

    fn disown(&mut self, key: &Key, object: &Value) {
        for uid in owners(object) {
            if let Some(keys) = self.owned.get_mut(uid) {
                keys.remove(key);
                if keys.is_empty() {
                    self.owned.remove(uid);
                }
            }
        }
    }

    fn remember(&mut self, event: Event) {
        if self.history.len() >= self.capacity
            && let Some(oldest) = self.history.pop_front()
        {
            self.forgotten = oldest.version;
        }
        self.history.push_back(Arc::new(event));
    }
}

fn owners(object: &Value) -> impl Iterator<Item = &str> {
    json::list(object, &["metadata", "ownerReferences"])
        .iter()
        .map(|owner| json::text(owner, &["uid"]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn key(namespace: &str, name: &str) -> Key {
        Key::new("pods", namespace, name)
    }

    #[test]
    fn a_reader_behind_the_window_is_told_so() {
        let mut store = Store::with_history(2);
        let start = store.version();
        for name in ["a", "b", "c"] {
            store.put(key("n", name), json!({ "metadata": { "name": name } }));
        }
        assert!(store.since(start, "pods").is_none());
        assert_eq!(store.since(start + 1, "pods").unwrap().len(), 2);
        assert_eq!(store.since(start + 1, "nodes").unwrap().len(), 0);
    }

    #[test]
    fn a_list_has_only_its_namespace_and_goes_on_after_a_key() {
        let mut store = Store::default();
        for (namespace, name) in [("a", "1"), ("b", "1"), ("b", "2"), ("bb", "1")] {
            store.put(key(namespace, name), json!({ "metadata": { "name": name } }));
        }
        let names = |namespace: &'static str, after| {
            store
                .list("pods", namespace, after)
                .map(|(key, _)| format!("{}/{}", key.namespace, key.name))
                .collect::<Vec<_>>()
        };
        assert_eq!(names("b", None), ["b/1", "b/2"]);
        assert_eq!(names("", Some(("b", "1"))), ["b/2", "bb/1"]);
    }

    #[test]
    fn a_removal_has_a_version_of_its_own() {
        let mut store = Store::default();
        store.put(key("n", "a"), json!({ "metadata": { "name": "a" } }));
        let put = store.version();
        let last = store.remove(&key("n", "a")).unwrap();
        assert_eq!(
            json::text(&last, &["metadata", "resourceVersion"]),
            (put + 1).to_string()
        );
        assert!(store.remove(&key("n", "a")).is_none());
    }

    #[test]
    fn dependents_are_known_by_their_owners_uid_until_they_let_go() {
        let mut store = Store::default();
        let owned = json!({ "metadata": { "name": "a", "ownerReferences": [{ "uid": "u" }] } });
        store.put(key("n", "a"), owned);
        assert_eq!(store.owned_by("u"), [key("n", "a")]);
        store.put(key("n", "a"), json!({ "metadata": { "name": "a" } }));
        assert_eq!(store.owned_by("u"), []);
    }
}
