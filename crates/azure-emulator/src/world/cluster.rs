//! Managed clusters: what ARM shows of them, and how far their pod identity profile has come in Kubernetes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::World;
use super::machine::Assigned;
use super::principal::System;

/// ARM type.
pub(crate) const KIND: &str = "Microsoft.ContainerService/managedClusters";

/// A managed cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Cluster {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) group: String,
    pub(crate) location: String,
    #[serde(default)]
    pub(crate) tags: Map<String, Value>,
    #[serde(default)]
    pub(crate) sku: Value,
    #[serde(default)]
    pub(crate) system: Option<System>,
    /// User-assigned identities of the control plane, by key.
    #[serde(default)]
    pub(crate) assigned: BTreeMap<String, Assigned>,
    /// As written, with the server's own fields; the profile is without states.
    pub(crate) properties: Map<String, Value>,
    pub(crate) node_group: String,
    /// Which Kubernetes it is; none when it has none.
    #[serde(default)]
    pub(crate) kubernetes: Option<Kubernetes>,
    /// Counts the writes of the profile.
    #[serde(default)]
    pub(crate) profile_version: u64,
    #[serde(default)]
    pub(crate) progress: Progress,
}

/// A Kubernetes API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kubernetes {
    /// The emulator's default one, which one cluster has at a time.
    Default,
    /// One of its own, by its kubeconfig.
    Own(std::path::PathBuf),
}

/// How far the profile has come in the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Progress {
    /// The profile's version that is written and reported on.
    pub(crate) version: u64,
    /// Entries (namespace, name) that we wrote, which alone we take away again.
    pub(crate) identities_written: Vec<(String, String)>,
    pub(crate) exceptions_written: Vec<(String, String)>,
    /// What the cluster says of each pod identity.
    pub(crate) entries: Vec<EntryProgress>,
    /// Why the profile cannot be written.
    pub(crate) trouble: Option<String>,
}

/// What the cluster says of one entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EntryProgress {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) error: Option<(String, String)>,
}

impl Cluster {
    /// Key of its node resource group.
    pub(crate) fn node_group_key(&self) -> String {
        let subscription = self.id.split('/').nth(2).unwrap_or_default();
        format!("/subscriptions/{subscription}/resourcegroups/{}", self.node_group).to_ascii_lowercase()
    }

    /// The object id of the identity that acts for the cluster, and who has none.
    pub(crate) fn acts_as(&self) -> Option<&str> {
        let user = || {
            self.assigned
                .values()
                .next()
                .map(|assigned| assigned.principal_id.as_str())
        };
        self.system
            .as_ref()
            .map(|system| system.principal_id.as_str())
            .or_else(user)
    }

    /// The profile as it was written.
    pub(crate) fn profile(&self) -> Option<&Map<String, Value>> {
        self.properties
            .get("podIdentityProfile")
            .and_then(Value::as_object)
    }

    /// The entries of a list of the profile.
    pub(crate) fn entries(&self, list: &str) -> &[Value] {
        self.profile()
            .and_then(|profile| profile.get(list))
            .and_then(Value::as_array)
            .map_or(&[], Vec::as_slice)
    }

    /// Whether every pod identity has come to an end, good or bad.
    pub(crate) fn settled(&self) -> bool {
        self.kubernetes.is_none()
            || (self.progress.version >= self.profile_version
                && self.progress.trouble.is_none()
                && self.entries(IDENTITIES).iter().all(|entry| {
                    matches!(
                        self.progress(entry).0,
                        "Assigned" | "Succeeded" | "Failed" | "Canceled"
                    )
                }))
    }

    /// State and error of a pod identity.
    fn progress(&self, entry: &Value) -> (&str, Option<&(String, String)>) {
        if self.kubernetes.is_none() {
            return ("Assigned", None);
        }
        let (namespace, name) = place(entry);
        self.progress
            .entries
            .iter()
            .find(|seen| {
                self.progress.version >= self.profile_version
                    && seen.namespace == namespace
                    && seen.name == name
            })
            .map_or(("Updating", None), |seen| {
                (seen.state.as_str(), seen.error.as_ref())
            })
    }

    /// As ARM shows it.
    pub(crate) fn body(&self, world: &World, tenant: &str) -> Value {
        let mut properties = self.properties.clone();
        let state = match (&self.progress.trouble, self.settled()) {
            (Some(_), _) => "Failed",
            (None, true) => "Succeeded",
            (None, false) => "Updating",
        };
        properties.insert("provisioningState".to_owned(), json!(state));
        if let Some(profile) = properties
            .get_mut("podIdentityProfile")
            .and_then(Value::as_object_mut)
        {
            if profile.get("enabled") == Some(&json!(true)) {
                for member in ["allowNetworkPluginKubenet", IDENTITIES, EXCEPTIONS] {
                    profile.entry(member).or_insert(Value::Null);
                }
            }
            if let Some(entries) = profile.get_mut(IDENTITIES).and_then(Value::as_array_mut) {
                for entry in entries {
                    self.show_progress(entry, world);
                }
            }
        }
        let mut identity = json!({ "type": "None" });
        if let Some(system) = &self.system {
            identity =
                json!({ "type": "SystemAssigned", "principalId": system.principal_id, "tenantId": tenant });
        } else if !self.assigned.is_empty() {
            let all: Map<String, Value> = self
                .assigned
                .iter()
                .map(|(key, assigned)| {
                    let there = world.live(key, assigned);
                    let ids = json!({
                        "clientId": there.as_ref().map(|identity| &identity.client_id),
                        "principalId": there.as_ref().map(|identity| &identity.object_id),
                    });
                    (assigned.id.clone(), ids)
                })
                .collect();
            identity = json!({ "type": "UserAssigned", "userAssignedIdentities": all });
        }
        json!({
            "id": self.id, "name": self.name, "type": KIND, "location": self.location, "tags": self.tags,
            "sku": self.sku, "identity": identity, "properties": properties,
        })
    }

    fn show_progress(&self, entry: &mut Value, world: &World) {
        let (mut state, mut error) = {
            let (state, error) = self.progress(entry);
            (state.to_owned(), error.cloned())
        };
        let id = entry
            .pointer("/identity/resourceId")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        if world.identity(&crate::path::key(&id)).is_none() {
            "Failed".clone_into(&mut state);
            error = Some((
                "ResourceNotFound".to_owned(),
                format!("Identity '{id}' was not found."),
            ));
        }
        let info = error
            .map(|(code, message)| json!({ "error": { "error": { "code": code, "message": message } } }));
        if let Some(entry) = entry.as_object_mut() {
            entry.entry("bindingSelector").or_insert(Value::Null);
            entry.insert("provisioningState".to_owned(), json!(state));
            entry.insert("provisioningInfo".to_owned(), json!(info));
        }
    }
}

/// The pod identities of a profile.
pub(crate) const IDENTITIES: &str = "userAssignedIdentities";
/// The exceptions of a profile.
pub(crate) const EXCEPTIONS: &str = "userAssignedIdentityExceptions";

/// Namespace and name of an entry.
pub(crate) fn place(entry: &Value) -> (&str, &str) {
    let text = |member: &str| entry.get(member).and_then(Value::as_str).unwrap_or_default();
    (text("namespace"), text("name"))
}
