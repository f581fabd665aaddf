//! AzureIdentity: an identity of Azure that pods may use. Field names and types as aad-pod-identity v1.8.17.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::spelling::{Of, ResourceError, Untyped, given};

/// An identity of Azure that pods may use.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "aadpodidentity.k8s.io",
    version = "v1",
    kind = "AzureIdentity",
    plural = "azureidentities",
    doc = "An identity of Azure that pods may use.",
    namespaced,
    status = "AzureIdentityStatus",
    derive = "Default",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Type","type":"string","jsonPath":".spec.type"}"#,
    printcolumn = r#"{"name":"ClientID","type":"string","jsonPath":".spec.clientID"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"ResourceID","type":"string","jsonPath":".spec.resourceID","priority":1}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct AzureIdentitySpec {
    /// Object metadata as the original's types embed it; ignored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Untyped>,
    /// 0: managed identity (also when absent); 1: service principal with a secret; 2: service principal with a certificate.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<i64>,
    /// ARM id of the managed identity (type 0):
    /// `/subscriptions/S/resourcegroups/G/providers/Microsoft.ManagedIdentity/userAssignedIdentities/N`, in any case.
    #[serde(rename = "resourceID", skip_serializing_if = "Option::is_none")]
    pub resource_id: Option<String>,
    /// Client id (application id) of the identity.
    #[serde(rename = "clientID", skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// The Secret with the secret (type 1) or the certificate (type 2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_password: Option<SecretReference>,
    /// Tenant of the service principal (types 1 and 2).
    #[serde(rename = "tenantID", skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    /// One to three further tenants (type 1).
    #[serde(rename = "auxiliaryTenantIDs", skip_serializing_if = "Option::is_none")]
    pub auxiliary_tenant_ids: Option<Vec<String>>,
    /// Kept for objects written by the original; unused.
    #[serde(rename = "adResourceID", skip_serializing_if = "Option::is_none")]
    pub ad_resource_id: Option<String>,
    /// Base URL of the authority (types 1 and 2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ad_endpoint: Option<String>,
    /// Kept for objects written by the original; unused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Deprecated: the spelling of `resourceID` before release 1.6.0.
    #[serde(rename = "ResourceID", skip_serializing_if = "Option::is_none")]
    pub old_resource_id: Option<String>,
    /// Deprecated: the spelling of `clientID` before release 1.6.0.
    #[serde(rename = "ClientID", skip_serializing_if = "Option::is_none")]
    pub old_client_id: Option<String>,
    /// Deprecated: the spelling of `clientPassword` before release 1.6.0.
    #[serde(rename = "ClientPassword", skip_serializing_if = "Option::is_none")]
    pub old_client_password: Option<SecretReference>,
    /// Deprecated: the spelling of `tenantID` before release 1.6.0.
    #[serde(rename = "TenantID", skip_serializing_if = "Option::is_none")]
    pub old_tenant_id: Option<String>,
}

/// Where a Secret is. Deserialises `{}`, which the original writes for identities without one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SecretReference {
    /// Name of the Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Namespace of the Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Deprecated: the spelling of `name` before release 1.6.0.
    #[serde(rename = "Name", skip_serializing_if = "Option::is_none")]
    pub old_name: Option<String>,
    /// Deprecated: the spelling of `namespace` before release 1.6.0.
    #[serde(rename = "Namespace", skip_serializing_if = "Option::is_none")]
    pub old_namespace: Option<String>,
}

/// Written by nobody; kept for objects of the original.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AzureIdentityStatus {
    /// Object metadata as the original's types embed it; ignored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Untyped>,
    /// Kept for objects written by the original; unused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_replicas: Option<i32>,
}

/// What an AzureIdentity says once old and new spellings are folded: borrowed, no field empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoldedIdentity<'a> {
    /// `spec.type`, 0 when absent.
    pub kind: i64,
    /// `spec.resourceID`.
    pub resource_id: Option<&'a str>,
    /// `spec.clientID`.
    pub client_id: Option<&'a str>,
    /// `spec.tenantID`.
    pub tenant_id: Option<&'a str>,
    /// `spec.clientPassword` as (namespace, name); a reference without a name is none, without a namespace is in
    /// the identity's own.
    pub secret: Option<(Option<&'a str>, &'a str)>,
    /// `spec.adEndpoint`.
    pub ad_endpoint: Option<&'a str>,
}

impl AzureIdentity {
    /// Folds old and new spellings.
    pub fn folded(&self) -> Result<FoldedIdentity<'_>, ResourceError> {
        let of = Of {
            kind: "AzureIdentity",
            meta: &self.metadata,
        };
        let spec = &self.spec;
        Ok(FoldedIdentity {
            kind: spec.kind.unwrap_or(0),
            resource_id: of.fold(
                ("resourceID", spec.resource_id.as_deref()),
                ("ResourceID", spec.old_resource_id.as_deref()),
            )?,
            client_id: of.fold(
                ("clientID", spec.client_id.as_deref()),
                ("ClientID", spec.old_client_id.as_deref()),
            )?,
            tenant_id: of.fold(
                ("tenantID", spec.tenant_id.as_deref()),
                ("TenantID", spec.old_tenant_id.as_deref()),
            )?,
            secret: secret(&of, spec)?,
            ad_endpoint: given(spec.ad_endpoint.as_deref()),
        })
    }
}

/// Folds four places for the name and four for the namespace.
fn secret<'a>(
    of: &Of<'_>,
    spec: &'a AzureIdentitySpec,
) -> Result<Option<(Option<&'a str>, &'a str)>, ResourceError> {
    let inside = |reference: &'a Option<SecretReference>,
                  name: (&'static str, &'static str),
                  namespace: (&'static str, &'static str)| {
        let Some(r) = reference else {
            return Ok((None, None));
        };
        Ok((
            of.fold((name.0, r.name.as_deref()), (name.1, r.old_name.as_deref()))?,
            of.fold(
                (namespace.0, r.namespace.as_deref()),
                (namespace.1, r.old_namespace.as_deref()),
            )?,
        ))
    };
    let (name, namespace) = inside(
        &spec.client_password,
        ("clientPassword.name", "clientPassword.Name"),
        ("clientPassword.namespace", "clientPassword.Namespace"),
    )?;
    let (old_name, old_namespace) = inside(
        &spec.old_client_password,
        ("ClientPassword.name", "ClientPassword.Name"),
        ("ClientPassword.namespace", "ClientPassword.Namespace"),
    )?;
    let name = of.fold(("clientPassword.name", name), ("ClientPassword.Name", old_name))?;
    let namespace = of.fold(
        ("clientPassword.namespace", namespace),
        ("ClientPassword.Namespace", old_namespace),
    )?;
    Ok(name.map(|name| (namespace, name)))
}
