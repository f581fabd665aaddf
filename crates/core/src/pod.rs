//! A pod, reduced to what decisions need of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::identity::ObjectName;

/// Which pod: its name, and the uid that tells it from others of that name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodRef {
    /// Namespace and name.
    pub object: ObjectName,
    /// `metadata.uid`; never used again.
    pub uid: Arc<str>,
}

/// A pod of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Which pod.
    pub id: PodRef,
    /// All its addresses, IPv4-mapped ones as IPv4.
    pub addresses: Vec<IpAddr>,
    /// Its labels.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// Its service account.
    pub service_account: Arc<str>,
    /// How far it has come.
    pub phase: Phase,
    /// Whether it uses the node's network; then its addresses are the node's and prove nothing.
    pub host_network: bool,
}

/// How far a pod has come. A terminating pod keeps its phase and its identities until its containers have ended, so
/// that it can shut down cleanly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its containers may run: `Pending` (init containers) or `Running`.
    Active,
    /// All containers have ended; its address may be another's by now.
    Finished,
}

/// Label whose value is compared with the selectors of bindings. Source: aad-pod-identity v1.8.17, `CRDLabelKey`.
pub const BINDING_LABEL: &str = "aadpodidbinding";

impl Pod {
    /// Value of the pod's label `aadpodidbinding`, when it is not empty.
    pub fn selector(&self) -> Option<&Arc<str>> {
        self.labels.get(BINDING_LABEL).filter(|value| !value.is_empty())
    }

    /// The pod's namespace.
    pub fn namespace(&self) -> &Arc<str> {
        &self.id.object.namespace
    }
}
