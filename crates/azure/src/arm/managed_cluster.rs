//! Managed clusters: who they are in Azure, and their network plugin.
//! Source: <https://learn.microsoft.com/rest/api/aks/managed-clusters/get>, version 2024-02-01.

use std::collections::BTreeMap;

use ::http::Method;
use podid_core::Guid;
use serde::Deserialize;

use super::{Arm, ArmError, Ask};

const API_VERSION: &str = "2024-02-01";

/// A managed cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedCluster {
    /// Object id of its control plane's identity: the system-assigned one, else the first user-assigned one.
    pub control_plane: Option<Guid>,
    /// Object id of the identity that its nodes have.
    pub kubelet: Option<Guid>,
    /// Kind of the control plane's identity, as `SystemAssigned`; empty for a service principal.
    pub identity_type: String,
    /// `azure`, `kubenet` or `none`.
    pub network_plugin: Option<String>,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    identity: Option<Identity>,
    properties: Properties,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    principal_id: Option<String>,
    #[serde(default)]
    user_assigned_identities: Option<BTreeMap<String, UserAssigned>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UserAssigned {
    #[serde(default)]
    principal_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Properties {
    #[serde(default)]
    identity_profile: Option<IdentityProfile>,
    #[serde(default)]
    network_profile: Option<NetworkProfile>,
}

#[derive(Deserialize)]
struct IdentityProfile {
    #[serde(default)]
    kubeletidentity: Option<Kubelet>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kubelet {
    #[serde(default)]
    object_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NetworkProfile {
    #[serde(default)]
    network_plugin: Option<String>,
}

impl Arm {
    /// Reads a managed cluster. The names become segments of the path, so they must not lead elsewhere.
    pub async fn managed_cluster(
        &self,
        subscription: &str,
        group: &str,
        name: &str,
    ) -> Result<ManagedCluster, ArmError> {
        // Source: <https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules>.
        let fits = |text: &str| {
            let inner = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '(' | ')' | '.');
            !text.is_empty() && !text.starts_with('.') && text.chars().all(inner)
        };
        if let Some(wrong) = [subscription, group, name].into_iter().find(|text| !fits(text)) {
            return Err(ArmError::Segment(wrong.chars().take(120).collect()));
        }
        let id = format!(
            "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.ContainerService/managedClusters/{name}"
        );
        let body: Body = self
            .read(Ask {
                method: Method::GET,
                id: &id,
                api_version: API_VERSION,
                kind: "cluster",
                if_match: None,
            })
            .await?;
        Ok(body.into())
    }
}

impl From<Body> for ManagedCluster {
    fn from(body: Body) -> Self {
        let guid = |text: Option<String>| text.as_deref().and_then(Guid::parse);
        let Body { identity, properties } = body;
        let identity = identity.unwrap_or(Identity {
            kind: String::new(),
            principal_id: None,
            user_assigned_identities: None,
        });
        let assigned = identity.user_assigned_identities.unwrap_or_default();
        let first = assigned.into_values().next().and_then(|first| first.principal_id);
        Self {
            control_plane: guid(identity.principal_id.or(first)),
            kubelet: guid(
                properties
                    .identity_profile
                    .and_then(|profile| profile.kubeletidentity)
                    .and_then(|kubelet| kubelet.object_id),
            ),
            identity_type: identity.kind,
            network_plugin: properties
                .network_profile
                .and_then(|profile| profile.network_plugin),
        }
    }
}
