//! A Pod as it is read from the API server, reduced while it is read: most of a Pod is never looked at.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The members of a Pod that decisions need. Anything else in the JSON is skipped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NodePod {
    /// Of `metadata`.
    pub metadata: PodMetadata,
    /// Of `spec`.
    pub spec: PodSpec,
    /// Of `status`.
    pub status: PodStatus,
}

/// Who the pod is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PodMetadata {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid, which no other pod ever has.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodSpec {
    /// Its service account; `default` when absent.
    pub service_account_name: Option<String>,
    /// Whether it uses the node's network.
    pub host_network: Option<bool>,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub phase: Option<String>,
    /// Its first address.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// All its addresses.
    #[serde(rename = "podIPs")]
    pub pod_ips: Vec<PodAddress>,
}

/// One address of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PodAddress {
    /// The address.
    pub ip: Option<String>,
}
