//! What the watches have seen: the profile, our kinds, namespaces, the nodes' scale sets. Read by copying.
//!
//! watch ─▶ index (apply, delete, reset) ─▶ World ─▶ changed ─▶ reconcile

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::core::PartialObjectMeta;
use kube::{Resource, ResourceExt};
use parking_lot::Mutex;
use podid_api::names::PROFILE_NAME;
use podid_api::{AzureIdentity, AzureIdentityBinding, AzurePodIdentityException, PodIdentityProfile};
use podid_rt::watch::Index;
use serde_json::Value;
use tokio::sync::watch;

use crate::desired::{Key, Kind};
use crate::plan::{Actual, Cluster, comparable, owner};
use crate::scale_set::scale_set_of;

/// The shared view. Clones are the same view.
#[derive(Debug, Clone)]
pub(crate) struct World(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

/// One moment of the view.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    /// The profile named `cluster`.
    pub(crate) profile: Option<PodIdentityProfile>,
    /// Objects and namespaces.
    pub(crate) cluster: Cluster,
    /// Node name → ARM id of its scale set.
    pub(crate) scale_sets: BTreeMap<String, String>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            state: Mutex::default(),
            changed: watch::channel(0).0,
        }))
    }

    /// The view as it is now.
    pub(crate) fn state(&self) -> State {
        self.0.state.lock().clone()
    }

    /// Tells of changes; whatever happened before is already seen.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    fn change(&self, edit: impl FnOnce(&mut State)) {
        edit(&mut self.0.state.lock());
        self.0.changed.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// Index of the profile.
pub(crate) struct Profiles(pub(crate) World);

impl Index<PodIdentityProfile> for Profiles {
    fn apply(&mut self, object: PodIdentityProfile) {
        let profile = object;
        if profile.name_any() == PROFILE_NAME {
            self.0.change(|state| state.profile = Some(profile));
        }
    }

    fn delete(&mut self, object: PodIdentityProfile) {
        let profile = object;
        if profile.name_any() == PROFILE_NAME {
            self.0.change(|state| state.profile = None);
        }
    }

    fn reset(&mut self, objects: Vec<PodIdentityProfile>) {
        let profiles = objects;
        let profile = profiles
            .into_iter()
            .find(|profile| profile.name_any() == PROFILE_NAME);
        self.0.change(|state| state.profile = profile);
    }
}

/// A kind that the controller makes.
pub(crate) trait Made: Resource<DynamicType = ()> {
    /// Which one.
    const KIND: Kind;
    /// Its spec as JSON.
    fn spec(&self) -> Value;
}

macro_rules! made {
    ($($kind:ty => $name:expr),* $(,)?) => {
        $(impl Made for $kind {
            const KIND: Kind = $name;
            fn spec(&self) -> Value {
                serde_json::to_value(&self.spec).unwrap_or_default()
            }
        })*
    };
}

made! {
    AzureIdentity => Kind::Identity,
    AzureIdentityBinding => Kind::Binding,
    AzurePodIdentityException => Kind::Exception,
}

/// Index of one of our kinds.
pub(crate) struct Objects(pub(crate) World);

fn reduced<K: Made>(object: &K) -> (Key, Actual) {
    let key = Key::new(
        K::KIND,
        &object.namespace().unwrap_or_default(),
        &object.name_any(),
    );
    let actual = Actual {
        owner: owner(object.meta()),
        uid: object.uid().unwrap_or_default(),
        spec: comparable(object.spec()),
        terminating: object.meta().deletion_timestamp.is_some(),
    };
    (key, actual)
}

impl<K: Made> Index<K> for Objects {
    fn apply(&mut self, object: K) {
        let (key, actual) = reduced(&object);
        self.0.change(|state| {
            state.cluster.objects.insert(key, actual);
        });
    }

    fn delete(&mut self, object: K) {
        let (key, _) = reduced(&object);
        self.0.change(|state| {
            state.cluster.objects.remove(&key);
        });
    }

    fn reset(&mut self, objects: Vec<K>) {
        self.0.change(|state| {
            state.cluster.objects.retain(|key, _| key.kind != K::KIND);
            state.cluster.objects.extend(objects.iter().map(reduced));
        });
    }
}

/// Index of namespaces: only whether they are there, and whether they go.
pub(crate) struct Namespaces(pub(crate) World);

type NamespaceMeta = PartialObjectMeta<Namespace>;

fn going(namespace: &NamespaceMeta) -> (String, bool) {
    (
        namespace.name_any(),
        namespace.metadata.deletion_timestamp.is_some(),
    )
}

impl Index<NamespaceMeta> for Namespaces {
    fn apply(&mut self, object: NamespaceMeta) {
        let namespace = object;
        let (name, going) = going(&namespace);
        // A namespace changes often and rarely in a way that matters.
        if self.0.0.state.lock().cluster.namespaces.get(&name) != Some(&going) {
            self.0.change(|state| {
                state.cluster.namespaces.insert(name, going);
            });
        }
    }

    fn delete(&mut self, object: NamespaceMeta) {
        let namespace = object;
        self.0.change(|state| {
            state.cluster.namespaces.remove(&namespace.name_any());
        });
    }

    fn reset(&mut self, objects: Vec<NamespaceMeta>) {
        let namespaces = objects;
        self.0
            .change(|state| state.cluster.namespaces = namespaces.iter().map(going).collect());
    }
}

/// Index of nodes: only their scale sets.
pub(crate) struct Nodes(pub(crate) World);

fn placed(node: &Node) -> Option<(String, String)> {
    let provider_id = node.spec.as_ref()?.provider_id.as_deref()?;
    Some((node.name_any(), scale_set_of(provider_id)?))
}

impl Index<Node> for Nodes {
    fn apply(&mut self, object: Node) {
        let node = object;
        let (name, now) = (node.name_any(), placed(&node).map(|(_, scale_set)| scale_set));
        // A node's heartbeat changes it every few seconds; its scale set never.
        if self.0.0.state.lock().scale_sets.get(&name) == now.as_ref() {
            return;
        }
        self.0.change(|state| match now {
            Some(scale_set) => {
                state.scale_sets.insert(name, scale_set);
            }
            None => {
                state.scale_sets.remove(&name);
            }
        });
    }

    fn delete(&mut self, object: Node) {
        let node = object;
        self.0.change(|state| {
            state.scale_sets.remove(&node.name_any());
        });
    }

    fn reset(&mut self, objects: Vec<Node>) {
        let nodes = objects;
        self.0
            .change(|state| state.scale_sets = nodes.iter().filter_map(placed).collect());
    }
}
