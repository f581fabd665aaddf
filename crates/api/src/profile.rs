//! PodIdentityProfile: ARM's `podIdentityProfile` of a managed cluster, inside the cluster. One object, named `cluster`.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The pod identities and exceptions of the cluster, as ARM's `podIdentityProfile` has them.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "podid.dev",
    version = "v1alpha1",
    kind = "PodIdentityProfile",
    plural = "podidentityprofiles",
    doc = "The pod identities and exceptions of the cluster. There is one, named `cluster`.",
    status = "PodIdentityProfileStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Enabled","type":"boolean","jsonPath":".spec.enabled"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].status"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].message","priority":1}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct PodIdentityProfileSpec {
    /// Whether pods of this cluster have identities. Off takes away everything that the profile made.
    pub enabled: bool,
    /// Consent to pod identity on kubenet, where a pod with NET_RAW may forge another pod's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_network_plugin_kubenet: Option<bool>,
    /// Network plugin of the cluster: `azure`, `kubenet` or `none`; unknown when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_plugin: Option<String>,
    /// Pod identities: each becomes an AzureIdentity and an AzureIdentityBinding of this name in this namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_assigned_identities: Option<Vec<PodIdentity>>,
    /// Exceptions: each becomes an AzurePodIdentityException of this name in this namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_assigned_identity_exceptions: Option<Vec<PodIdentityException>>,
}

/// A managed identity for the pods of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodIdentity {
    /// Name of the pod identity, and of the objects made from it.
    pub name: String,
    /// Namespace of the pods; made if it is missing.
    pub namespace: String,
    /// Value of the pods' label `aadpodidbinding`; the name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding_selector: Option<String>,
    /// The managed identity.
    pub identity: UserAssignedIdentity,
}

/// A user-assigned managed identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserAssignedIdentity {
    /// Its ARM id, in any case.
    pub resource_id: String,
    /// Its client id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Its object id (principal id).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_id: Option<String>,
}

/// Pods that reach the real metadata service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodIdentityException {
    /// Name of the exception, and of the object made from it.
    pub name: String,
    /// Namespace of the pods; made if it is missing.
    pub namespace: String,
    /// Labels of the excepted pods; no label excepts nothing.
    pub pod_labels: BTreeMap<String, String>,
}

/// What became of the profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodIdentityProfileStatus {
    /// Generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: whether all entries are in force.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// One for each pod identity of the spec.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub user_assigned_identities: Vec<EntryStatus>,
    /// One for each exception of the spec.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub user_assigned_identity_exceptions: Vec<EntryStatus>,
    /// Identities that the controller itself put on scale sets; only these does it take off again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scale_set_assignments: Vec<ScaleSetAssignment>,
}

/// What became of one entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EntryStatus {
    /// Name of the entry.
    pub name: String,
    /// Namespace of the entry.
    pub namespace: String,
    /// How far it has come.
    pub provisioning_state: ProvisioningState,
    /// Why it failed, or what it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<EntryError>,
}

/// ARM's provisioning states of a pod identity, with ARM's spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ProvisioningState {
    /// In force.
    Assigned,
    /// Being put in force.
    Updating,
    /// Being taken away.
    Deleting,
    /// Not in force; the error says why.
    Failed,
    /// In force (exceptions, which are assigned to nothing).
    Succeeded,
    /// Given up.
    Canceled,
}

/// Why an entry failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EntryError {
    /// Stable code.
    pub code: String,
    /// One sentence.
    pub message: String,
}

/// Identities that the controller put on one scale set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScaleSetAssignment {
    /// ARM id of the scale set.
    pub scale_set: String,
    /// ARM ids of the identities.
    pub identities: Vec<String>,
}

/// A condition as Kubernetes has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which aspect.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Stable code in camel case.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// Generation of the spec that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When the status changed last, RFC 3339.
    pub last_transition_time: String,
}

impl PodIdentityProfileSpec {
    /// The pod identities, none when absent.
    pub fn identities(&self) -> &[PodIdentity] {
        self.user_assigned_identities.as_deref().unwrap_or_default()
    }

    /// The exceptions, none when absent.
    pub fn exceptions(&self) -> &[PodIdentityException] {
        self.user_assigned_identity_exceptions
            .as_deref()
            .unwrap_or_default()
    }

    /// Whether kubenet is in use without consent.
    pub fn kubenet_refused(&self) -> bool {
        self.network_plugin
            .as_deref()
            .is_some_and(|plugin| plugin.eq_ignore_ascii_case("kubenet"))
            && self.allow_network_plugin_kubenet != Some(true)
    }
}

impl PodIdentity {
    /// The binding's selector: the one given, else the name. ARM keeps the absent one absent; only the cluster fills it in.
    pub fn selector(&self) -> &str {
        self.binding_selector
            .as_deref()
            .filter(|selector| !selector.is_empty())
            .unwrap_or(&self.name)
    }
}
