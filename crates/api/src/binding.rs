//! AzureIdentityBinding: which pods of a namespace get which identity. Field names as aad-pod-identity v1.8.17.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::spelling::{Of, ResourceError, Untyped};

/// Gives an AzureIdentity to the pods whose label `aadpodidbinding` equals the selector.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "aadpodidentity.k8s.io",
    version = "v1",
    kind = "AzureIdentityBinding",
    plural = "azureidentitybindings",
    doc = "Gives an AzureIdentity to the pods whose label `aadpodidbinding` equals the selector.",
    namespaced,
    status = "AzureIdentityBindingStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn = r#"{"name":"AzureIdentity","type":"string","jsonPath":".spec.azureIdentity"}"#,
    printcolumn = r#"{"name":"Selector","type":"string","jsonPath":".spec.selector"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct AzureIdentityBindingSpec {
    /// Object metadata as the original's types embed it; ignored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Untyped>,
    /// Name of an AzureIdentity in the binding's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub azure_identity: Option<String>,
    /// Equals the pod's label `aadpodidbinding`, exactly; not a label selector. Empty binds nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Kept for objects written by the original; unused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<i64>,
    /// Deprecated: the spelling of `azureIdentity` before release 1.6.0.
    #[serde(rename = "AzureIdentity", skip_serializing_if = "Option::is_none")]
    pub old_azure_identity: Option<String>,
    /// Deprecated: the spelling of `selector` before release 1.6.0.
    #[serde(rename = "Selector", skip_serializing_if = "Option::is_none")]
    pub old_selector: Option<String>,
}

/// Written by nobody; kept for objects of the original.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AzureIdentityBindingStatus {
    /// Object metadata as the original's types embed it; ignored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Untyped>,
    /// Kept for objects written by the original; unused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_replicas: Option<i32>,
}

impl AzureIdentityBinding {
    /// The identity's name and the selector, old and new spellings folded; none of them is empty.
    pub fn folded(&self) -> Result<(Option<&str>, Option<&str>), ResourceError> {
        let of = Of {
            kind: "AzureIdentityBinding",
            meta: &self.metadata,
        };
        let spec = &self.spec;
        Ok((
            of.fold(
                ("azureIdentity", spec.azure_identity.as_deref()),
                ("AzureIdentity", spec.old_azure_identity.as_deref()),
            )?,
            of.fold(
                ("selector", spec.selector.as_deref()),
                ("Selector", spec.old_selector.as_deref()),
            )?,
        ))
    }
}
