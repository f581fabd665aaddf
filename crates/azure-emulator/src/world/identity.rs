//! User-assigned managed identities and their federated credentials.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::principal::Principal;

/// ARM type.
pub(crate) const KIND: &str = "Microsoft.ManagedIdentity/userAssignedIdentities";
/// Credentials that an identity may have. Source: Entra documentation, workload identity federation considerations.
pub(crate) const MAX_FEDERATED: usize = 20;

/// A user-assigned managed identity.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) location: String,
    #[serde(default)]
    pub(crate) tags: Map<String, Value>,
    pub(crate) client_id: String,
    pub(crate) principal_id: String,
    /// By name in lower case.
    #[serde(default)]
    pub(crate) federated: BTreeMap<String, Federated>,
}

/// Whose assertions are taken in place of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Federated {
    pub(crate) name: String,
    pub(crate) issuer: String,
    pub(crate) subject: String,
    pub(crate) audiences: Vec<String>,
}

impl Identity {
    /// A new one, with new client and principal ids.
    pub(crate) fn new(id: String, name: &str, location: &str, tags: Map<String, Value>) -> Self {
        Self {
            id,
            name: name.to_owned(),
            location: location.to_owned(),
            tags,
            client_id: Uuid::new_v4().to_string(),
            principal_id: Uuid::new_v4().to_string(),
            federated: BTreeMap::new(),
        }
    }

    /// As ARM shows it.
    pub(crate) fn body(&self, tenant: &str) -> Value {
        json!({
            "id": self.id, "name": self.name, "type": KIND, "location": self.location, "tags": self.tags,
            "properties": { "tenantId": tenant, "principalId": self.principal_id, "clientId": self.client_id },
        })
    }

    /// As a principal.
    pub(crate) fn principal(&self) -> Principal {
        Principal {
            object_id: self.principal_id.clone(),
            client_id: self.client_id.clone(),
            name: self.name.clone(),
            resource_id: Some(self.id.clone()),
        }
    }
}

impl Federated {
    /// As ARM shows it, under the identity `of`.
    pub(crate) fn body(&self, of: &str) -> Value {
        json!({
            "id": format!("{of}/federatedIdentityCredentials/{}", self.name),
            "name": self.name,
            "type": format!("{KIND}/federatedIdentityCredentials"),
            "properties": { "issuer": self.issuer, "subject": self.subject, "audiences": self.audiences },
        })
    }
}
