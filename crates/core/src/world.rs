//! The node's world as requests see it: one immutable snapshot, shared by reference and never locked. Look-ups are by
//! address, by uid, by namespace and selector, by client id; none scans.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::ask::Selector;
use crate::identity::{Exception, Identity, ObjectName};
use crate::ids::Guid;
use crate::pod::{Phase, Pod};

/// A snapshot. Cloning it copies two pointers.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub(crate) pods: Arc<Pods>,
    pub(crate) namespaces: Arc<HashMap<Arc<str>, Arc<NamespaceView>>>,
}

/// The pods of this node.
#[derive(Debug, Default)]
pub(crate) struct Pods {
    /// Rises with every change of a pod.
    pub(crate) version: u64,
    pub(crate) by_uid: HashMap<Arc<str>, Arc<Pod>>,
    pub(crate) by_address: HashMap<IpAddr, At>,
}

/// Who has an address.
#[derive(Clone, Debug)]
pub(crate) enum At {
    /// One pod.
    One(Arc<Pod>),
    /// More than one pod, or a pod and the node.
    Several,
    /// Only pods on the node's network.
    Node,
}

/// What is declared in one namespace.
#[derive(Clone, Debug, Default)]
pub struct NamespaceView {
    /// Rises with every change of the namespace's objects.
    pub(crate) version: u64,
    /// By the bindings' selector (managed mode).
    pub(crate) bound: HashMap<Arc<str>, Bound>,
    /// By the pod's name (standard mode).
    pub(crate) assigned: HashMap<Arc<str>, Bound>,
    pub(crate) exceptions: Vec<Arc<Exception>>,
    /// Identities that were bound under a selector and are no more: their absence is news, not lateness.
    pub(crate) removed: HashMap<Arc<str>, Vec<Arc<Identity>>>,
}

/// The identities that pods of one selector (or one pod) may use.
#[derive(Clone, Debug, Default)]
pub struct Bound {
    /// Ordered by namespace and name.
    pub(crate) identities: Vec<Arc<Identity>>,
    /// Place of the one marked default.
    pub(crate) default: Option<usize>,
    pub(crate) by_client_id: HashMap<Guid, usize>,
    /// Names of AzureIdentities that bindings name and that are not there.
    pub(crate) missing: Vec<Arc<str>>,
    /// Identities that are not on the VM yet.
    pub(crate) pending: Vec<Arc<Identity>>,
}

/// Who has an address, as a caller sees it.
#[derive(Clone, Copy, Debug)]
pub enum Lookup<'w> {
    /// This pod.
    Pod(&'w Arc<Pod>),
    /// Nobody.
    Nobody,
    /// More than one.
    Several,
    /// The node, with pods on its network.
    Node,
}

impl World {
    /// Who has `address`; IPv4-mapped addresses count as IPv4.
    pub fn at(&self, address: IpAddr) -> Lookup<'_> {
        match self.pods.by_address.get(&address.to_canonical()) {
            None => Lookup::Nobody,
            Some(At::One(pod)) => Lookup::Pod(pod),
            Some(At::Several) => Lookup::Several,
            Some(At::Node) => Lookup::Node,
        }
    }

    /// The pod with this uid, while it exists.
    pub fn pod(&self, uid: &str) -> Option<&Arc<Pod>> {
        self.pods.by_uid.get(uid)
    }

    /// The pod of this name that has not ended. Names are unique among living pods, but an old one's deletion may come late;
    /// then neither is given. Looks at every pod of the node.
    pub fn pod_named(&self, object: &ObjectName) -> Option<&Arc<Pod>> {
        let mut named = self
            .pods()
            .filter(|pod| pod.id.object == *object && pod.phase == Phase::Active);
        match (named.next(), named.next()) {
            (Some(pod), None) => Some(pod),
            _ => None,
        }
    }

    /// All pods, in no order.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.by_uid.values()
    }

    /// Rises with every change of this node's pods; 0 before the first.
    pub fn pods_version(&self) -> u64 {
        self.pods.version
    }

    /// What is declared in `namespace`; none when nothing ever was.
    pub fn namespace(&self, namespace: &str) -> Option<&NamespaceView> {
        self.namespaces.get(namespace).map(AsRef::as_ref)
    }

    /// All namespaces in which something is or was declared, in no order.
    pub fn namespaces(&self) -> impl Iterator<Item = (&Arc<str>, &NamespaceView)> {
        self.namespaces.iter().map(|(name, view)| (name, view.as_ref()))
    }

    /// Rises with every change of what is declared in `namespace`; 0 when nothing ever was.
    pub fn version_of(&self, namespace: &str) -> u64 {
        self.namespace(namespace).map_or(0, |view| view.version)
    }

    /// Every identity that some pod may use now, in no order; the same one may come more than once.
    pub fn usable_identities(&self) -> impl Iterator<Item = &Arc<Identity>> {
        self.namespaces
            .values()
            .flat_map(|view| view.bound.values().chain(view.assigned.values()))
            .flat_map(|bound| bound.identities.iter())
    }
}

impl Bound {
    /// What may be used, by namespace and name.
    pub fn identities(&self) -> &[Arc<Identity>] {
        &self.identities
    }

    /// The one marked default.
    pub fn marked_default(&self) -> Option<&Arc<Identity>> {
        self.identities.get(self.default?)
    }

    /// Names of AzureIdentities that bindings name and that are not there.
    pub fn missing(&self) -> &[Arc<str>] {
        &self.missing
    }

    /// Identities that are not on the VM yet.
    pub fn pending(&self) -> &[Arc<Identity>] {
        &self.pending
    }

    /// The identity that `selector` names.
    pub(crate) fn named(&self, selector: &Selector<'_>) -> Option<&Arc<Identity>> {
        match selector {
            Selector::ClientId(id) => self.by_client_id.get(id).and_then(|at| self.identities.get(*at)),
            Selector::Malformed(_) => None,
            other => self.identities.iter().find(|identity| other.names(identity)),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.identities.is_empty() && self.missing.is_empty() && self.pending.is_empty()
    }
}

impl NamespaceView {
    /// What pods of each selector may use (managed mode), in no order.
    pub fn bound(&self) -> impl Iterator<Item = (&str, &Bound)> {
        self.bound.iter().map(|(selector, bound)| (&**selector, bound))
    }

    /// What each pod, by name, may use (standard mode), in no order.
    pub fn assigned(&self) -> impl Iterator<Item = (&str, &Bound)> {
        self.assigned.iter().map(|(pod, bound)| (&**pod, bound))
    }

    /// The exceptions of the namespace, by name.
    pub fn exceptions(&self) -> &[Arc<Exception>] {
        &self.exceptions
    }

    pub(crate) fn declares_nothing(&self) -> bool {
        self.bound.is_empty() && self.assigned.is_empty() && self.exceptions.is_empty()
    }
}
