//! The cluster's state behind one lock, never held across an await, and the signal that wakes the watches.
//!
//! write(edit) ─▶ lock ─▶ State (store, registry) ─▶ unlock ─▶ changed(version) ─▶ watches read what is new

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use podid_rt::clock::Clock;
use serde_json::json;
use tokio::sync::watch;

use crate::json;
use crate::resource::{Registry, Resource};
use crate::store::{Key, Store};

/// Namespaces that are there from the beginning.
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// How long an event is kept. Source: `--event-ttl` of kube-apiserver.
const EVENT_LIFETIME: SignedDuration = SignedDuration::from_hours(1);

/// The shared cluster. Clones are the same cluster.
#[derive(Clone, Debug)]
pub(crate) struct Cluster(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    clock: Clock,
}

/// What the cluster knows.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) store: Store,
    pub(crate) registry: Arc<Registry>,
    /// The time of the write that goes on.
    pub(crate) now: Timestamp,
    /// What every namespace's `kube-root-ca.crt` holds.
    root_ca: String,
}

impl Cluster {
    /// A cluster with the namespaces that are always there.
    pub(crate) fn new(clock: Clock, root_ca: &str) -> Self {
        let mut state = State {
            store: Store::default(),
            registry: Arc::new(Registry::builtin()),
            now: now(&clock),
            root_ca: root_ca.to_owned(),
        };
        for name in NAMESPACES {
            let created = state.stamp();
            let object = json!({
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {
                    "name": name,
                    "uid": uuid::Uuid::new_v4().to_string(),
                    "creationTimestamp": created,
                    "labels": { "kubernetes.io/metadata.name": name },
                },
                "spec": { "finalizers": ["kubernetes"] },
                "status": { "phase": "Active" },
            });
            state.store.put(Key::cluster("namespaces", name), object);
            state.furnish(name);
        }
        let (changed, _) = watch::channel(state.store.version());
        Self(Arc::new(Inner {
            state: Mutex::new(state),
            changed,
            clock,
        }))
    }

    /// Looks at the state.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.0.state.lock())
    }

    /// Changes the state and wakes the watches.
    pub(crate) fn write<T>(&self, edit: impl FnOnce(&mut State) -> T) -> T {
        let now = now(&self.0.clock);
        let mut state = self.0.state.lock();
        state.now = now;
        let result = edit(&mut state);
        let version = state.store.version();
        drop(state);
        self.0.changed.send_if_modified(|seen| {
            let newer = *seen < version;
            *seen = version.max(*seen);
            newer
        });
        result
    }

    /// Tells of new versions.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// The resource of a request's path.
    pub(crate) fn resource(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.read(|state| state.registry.find(group, version, plural))
    }

    /// The time, for ages.
    pub(crate) fn now(&self) -> Timestamp {
        now(&self.0.clock)
    }

    /// The clock that all times of the cluster come from.
    pub(crate) fn clock(&self) -> &Clock {
        &self.0.clock
    }
}

impl State {
    /// The time of this write as objects have it.
    pub(crate) fn stamp(&self) -> String {
        stamp(self.now)
    }

    /// Gives a new namespace what controllers give it: the default service account and the cluster's CA.
    pub(crate) fn furnish(&mut self, namespace: &str) {
        let metadata = |state: &Self, name: &str| {
            json!({
                "name": name,
                "namespace": namespace,
                "uid": uuid::Uuid::new_v4().to_string(),
                "creationTimestamp": state.stamp(),
            })
        };
        let account = json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": metadata(self, "default"),
        });
        self.store
            .put(Key::new("serviceaccounts", namespace, "default"), account);
        let root = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata(self, "kube-root-ca.crt"),
            "data": { "ca.crt": self.root_ca },
        });
        self.store
            .put(Key::new("configmaps", namespace, "kube-root-ca.crt"), root);
    }

    /// Removes events that nothing was added to for an hour.
    pub(crate) fn forget_old_events(&mut self) {
        let limit = self.now.checked_sub(EVENT_LIFETIME).unwrap_or(self.now);
        let old: Vec<Key> = self
            .store
            .list("events", "", None)
            .filter(|(_, event)| last_seen(event).is_some_and(|time| time < limit))
            .map(|(key, _)| key.clone())
            .collect();
        for key in old {
            self.store.remove(&key);
        }
    }

    /// Whether a namespace is there, and whether it is going away.
    pub(crate) fn namespace(&self, name: &str) -> Option<bool> {
        self.store
            .get(&Key::cluster("namespaces", name))
            .map(|namespace| json::is_deleting(&namespace))
    }
}

/// When an event was written last.
fn last_seen(event: &serde_json::Value) -> Option<Timestamp> {
    let times = [
        json::text(event, &["series", "lastObservedTime"]),
        json::text(event, &["lastTimestamp"]),
        json::text(event, &["eventTime"]),
        json::text(event, &["metadata", "creationTimestamp"]),
    ];
    times.iter().filter_map(|time| time.parse().ok()).max()
}

/// Whole seconds, RFC 3339, as `metav1.Time` is written.
pub(crate) fn stamp(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn now(clock: &Clock) -> Timestamp {
    let since_epoch = SignedDuration::try_from(clock.since_epoch()).unwrap_or_default();
    Timestamp::from_duration(since_epoch).unwrap_or_default()
}
