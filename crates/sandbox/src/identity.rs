//! What a pod's program finds in its environment of its identity: `PODID_CLIENT_ID` and the like of the first one that
//! its label selects. It only helps programs; the agent decides by itself.

use std::collections::BTreeMap;
use std::ffi::OsString;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use podid_api::{AzureIdentity, AzureIdentityBinding, PodIdentityProfile};

/// The pod's label whose value selects bindings.
pub(crate) const BINDING_LABEL: &str = podid_api::names::BINDING_LABEL;

/// An identity, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "Azure calls all three so")]
pub(crate) struct Known {
    /// Client id.
    pub client_id: String,
    /// Object id.
    pub object_id: String,
    /// ARM id.
    pub resource_id: String,
}

impl Known {
    /// The variables.
    pub(crate) fn environment(&self) -> BTreeMap<String, OsString> {
        let all = [
            ("PODID_CLIENT_ID", &self.client_id),
            ("PODID_OBJECT_ID", &self.object_id),
            ("PODID_RESOURCE_ID", &self.resource_id),
        ];
        all.into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect()
    }
}

/// The variables for a pod. None when it has no label, no identity, or the cluster does not say.
pub(crate) async fn environment(client: &Client, pod: &Pod) -> BTreeMap<String, OsString> {
    let label = pod
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(BINDING_LABEL))
        .filter(|label| !label.is_empty());
    let (Some(label), Some(namespace)) = (label, &pod.metadata.namespace) else {
        return BTreeMap::new();
    };
    match find(client, namespace, label).await {
        Ok(found) => found.unwrap_or_default().environment(),
        Err(error) => {
            tracing::warn!(%error, namespace, label, "the pod's identity cannot be looked up for its environment");
            BTreeMap::new()
        }
    }
}

/// The first identity by name that `selector` selects in `namespace`: of the profile, else of hand-made bindings.
pub(crate) async fn find(
    client: &Client,
    namespace: &str,
    selector: &str,
) -> Result<Option<Known>, kube::Error> {
    let profile = Api::<PodIdentityProfile>::all(client.clone())
        .get_opt(podid_api::names::PROFILE_NAME)
        .await?;
    let mut entries = profile
        .and_then(|profile| profile.spec.user_assigned_identities)
        .unwrap_or_default();
    entries.retain(|entry| entry.namespace == namespace && entry.selector() == selector);
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(entry) = entries.into_iter().next() {
        return Ok(Some(Known {
            client_id: entry.identity.client_id.unwrap_or_default(),
            object_id: entry.identity.object_id.unwrap_or_default(),
            resource_id: entry.identity.resource_id,
        }));
    }
    let bindings = Api::<AzureIdentityBinding>::namespaced(client.clone(), namespace)
        .list(&kube::api::ListParams::default())
        .await?;
    let mut names: Vec<String> = bindings
        .items
        .into_iter()
        .filter(|binding| binding.spec.selector.as_deref() == Some(selector))
        .filter_map(|binding| binding.spec.azure_identity)
        .collect();
    names.sort();
    let Some(name) = names.into_iter().next() else {
        return Ok(None);
    };
    let identity = Api::<AzureIdentity>::namespaced(client.clone(), namespace)
        .get_opt(&name)
        .await?;
    Ok(identity.map(|identity| Known {
        client_id: identity.spec.client_id.unwrap_or_default(),
        object_id: String::new(),
        resource_id: identity.spec.resource_id.unwrap_or_default(),
    }))
}
