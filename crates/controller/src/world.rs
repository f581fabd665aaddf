//! What the watches have seen: the profile, our kinds, namespaces, the nodes' scale sets. Read by copying.
//!
//! watch ─▶ index (apply, delete, reset) ─▶ World ─▶ changed ─▶ reconcile

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::ResourceExt;
use kube::core::{DynamicObject, PartialObjectMeta};
use parking_lot::Mutex;
use podid_api::PodIdentityProfile;
use podid_api::names::PROFILE_NAME;
use podid_azure::arm::Host;
use podid_rt::watch::Index;
use tokio::sync::watch;

use crate::desired::{Key, Kind, OUR_ANNOTATIONS};
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
    /// Node name → its scale set.
    pub(crate) scale_sets: BTreeMap<String, Host>,
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

/// Index of one of our kinds. The objects are read untyped, so that one malformed object does not stop the watch of all.
pub(crate) struct Objects {
    pub(crate) world: World,
    pub(crate) kind: Kind,
}

impl Objects {
    fn reduced(&self, object: &DynamicObject) -> (Key, Actual) {
        let key = Key::new(
            self.kind,
            &object.namespace().unwrap_or_default(),
            &object.name_any(),
        );
        let ours = |name: &&str| Some(((*name).to_owned(), object.annotations().get(*name)?.clone()));
        let actual = Actual {
            owner: owner(&object.metadata),
            uid: object.uid().unwrap_or_default(),
            spec: comparable(object.data.get("spec").cloned().unwrap_or_default()),
            annotations: OUR_ANNOTATIONS.iter().filter_map(ours).collect(),
            terminating: object.metadata.deletion_timestamp.is_some(),
        };
        (key, actual)
    }
}

impl Index<DynamicObject> for Objects {
    fn apply(&mut self, object: DynamicObject) {
        let (key, actual) = self.reduced(&object);
        self.world.change(|state| {
            state.cluster.objects.insert(key, actual);
        });
    }

    fn delete(&mut self, object: DynamicObject) {
        let (key, _) = self.reduced(&object);
        self.world.change(|state| {
            state.cluster.objects.remove(&key);
        });
    }

    fn reset(&mut self, objects: Vec<DynamicObject>) {
        self.world.change(|state| {
            state.cluster.objects.retain(|key, _| key.kind != self.kind);
            state
                .cluster
                .objects
                .extend(objects.iter().map(|object| self.reduced(object)));
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

fn placed(node: &Node) -> Option<(String, Host)> {
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
