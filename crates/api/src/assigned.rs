//! AzureAssignedIdentity: what the original's MIC decided for one pod (standard mode). Names as aad-pod-identity v1.8.17.

use kube::CustomResource;
use kube::core::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::binding::{AzureIdentityBindingSpec, AzureIdentityBindingStatus};
use crate::identity::{AzureIdentitySpec, AzureIdentityStatus};
use crate::spelling::Untyped;

/// One identity decided for one pod.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "aadpodidentity.k8s.io",
    version = "v1",
    kind = "AzureAssignedIdentity",
    plural = "azureassignedidentities",
    doc = "One identity decided for one pod (standard mode). People do not write it.",
    namespaced,
    status = "AzureAssignedIdentityStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Pod","type":"string","jsonPath":".spec.pod","priority":1}"#,
    printcolumn = r#"{"name":"PodNamespace","type":"string","jsonPath":".spec.podNamespace","priority":1}"#,
    printcolumn = r#"{"name":"Node","type":"string","jsonPath":".spec.nodename","priority":1}"#,
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.status","priority":1}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct AzureAssignedIdentitySpec {
    /// Object metadata as the original's types embed it; ignored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Untyped>,
    /// The AzureIdentity as it was when it was decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::crd::any_object")]
    pub azure_identity_ref: Option<Box<EmbeddedIdentity>>,
    /// The AzureIdentityBinding as it was when it was decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::crd::any_object")]
    pub azure_binding_ref: Option<Box<EmbeddedBinding>>,
    /// Name of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Namespace of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_namespace: Option<String>,
    /// Name of the pod's node.
    #[serde(rename = "nodename", skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Kept for objects written by the original; unused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
}

/// How far the assignment has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AzureAssignedIdentityStatus {
    /// Object metadata as the original's types embed it; ignored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Untyped>,
    /// `Created`, `Assigned` or `Unassigned`; absent or empty in objects of old releases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The original writes 1; unused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_replicas: Option<i32>,
}

/// A whole AzureIdentity inside another object. Its `kind` is not to be trusted: the original's upgrade wrote the
/// name of the list kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EmbeddedIdentity {
    /// As written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// As written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Metadata of the identity.
    pub metadata: ObjectMeta,
    /// Spec of the identity.
    pub spec: AzureIdentitySpec,
    /// Status of the identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<AzureIdentityStatus>,
}

/// A whole AzureIdentityBinding inside another object; `kind` as in [`EmbeddedIdentity`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EmbeddedBinding {
    /// As written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// As written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Metadata of the binding.
    pub metadata: ObjectMeta,
    /// Spec of the binding.
    pub spec: AzureIdentityBindingSpec,
    /// Status of the binding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<AzureIdentityBindingStatus>,
}

/// How far an assignment has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AssignedState {
    /// The object exists, Azure has not confirmed yet.
    Created,
    /// The identity is on the VM or scale set.
    Assigned,
    /// The identity was taken off; the object is about to go.
    Unassigned,
}

impl AzureAssignedIdentity {
    /// The state; objects of releases without one count as assigned, as in the original. An unknown state is none.
    pub fn state(&self) -> Option<AssignedState> {
        match self
            .status
            .as_ref()
            .and_then(|status| status.status.as_deref())
            .unwrap_or_default()
        {
            "" | "Assigned" => Some(AssignedState::Assigned),
            "Created" => Some(AssignedState::Created),
            "Unassigned" => Some(AssignedState::Unassigned),
            _ => None,
        }
    }
}
