//! AzurePodIdentityException: pods that reach the real metadata service. Field names as aad-pod-identity v1.8.17.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::spelling::{Of, ResourceError, Untyped};

/// Pods of this namespace with these labels reach the real metadata service, without podid in between.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "aadpodidentity.k8s.io",
    version = "v1",
    kind = "AzurePodIdentityException",
    plural = "azurepodidentityexceptions",
    doc = "Pods of this namespace with these labels reach the real metadata service.",
    namespaced,
    status = "AzurePodIdentityExceptionStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"PodLabels","type":"string","jsonPath":".spec.podLabels","priority":1}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct AzurePodIdentityExceptionSpec {
    /// Object metadata as the original's types embed it; ignored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Untyped>,
    /// Labels of the excepted pods. No label excepts nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_labels: Option<BTreeMap<String, String>>,
    /// Deprecated: the spelling of `podLabels` before release 1.6.0.
    #[serde(rename = "PodLabels", skip_serializing_if = "Option::is_none")]
    pub old_pod_labels: Option<BTreeMap<String, String>>,
}

/// Written by nobody; kept for objects of the original.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AzurePodIdentityExceptionStatus {
    /// Object metadata as the original's types embed it; ignored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Untyped>,
    /// Kept for objects written by the original; unused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

impl AzurePodIdentityException {
    /// The labels, old and new spelling folded; none when there is no label.
    pub fn folded(&self) -> Result<Option<&BTreeMap<String, String>>, ResourceError> {
        let new = self.spec.pod_labels.as_ref().filter(|labels| !labels.is_empty());
        let old = self
            .spec
            .old_pod_labels
            .as_ref()
            .filter(|labels| !labels.is_empty());
        match (new, old) {
            (Some(a), Some(b)) if a != b => {
                let of = Of {
                    kind: "AzurePodIdentityException",
                    meta: &self.metadata,
                };
                Err(of.contradiction("podLabels", "PodLabels"))
            }
            (a, b) => Ok(a.or(b)),
        }
    }
}
