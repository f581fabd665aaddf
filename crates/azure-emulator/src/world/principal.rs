//! Who can have tokens and rights: applications, managed identities, machines and clusters with an identity of their own.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::identity::Federated;

/// Where a principal comes from; the value is its key.
#[derive(Clone, Debug)]
pub(crate) enum Who {
    Identity(String),
    Application(String),
    Machine(String),
    Cluster(String),
}

/// A principal, as tokens and the directory show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Principal {
    pub(crate) object_id: String,
    pub(crate) client_id: String,
    pub(crate) name: String,
    /// ARM id of the managed identity, or of the resource whose own identity this is.
    pub(crate) resource_id: Option<String>,
}

/// The identity that a resource itself has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct System {
    pub(crate) principal_id: String,
    pub(crate) client_id: String,
}

impl System {
    /// A new one.
    pub(crate) fn new() -> Self {
        Self {
            principal_id: Uuid::new_v4().to_string(),
            client_id: Uuid::new_v4().to_string(),
        }
    }

    /// As a principal.
    pub(crate) fn principal(&self, name: &str, resource_id: &str) -> Principal {
        Principal {
            object_id: self.principal_id.clone(),
            client_id: self.client_id.clone(),
            name: name.to_owned(),
            resource_id: Some(resource_id.to_owned()),
        }
    }
}

/// An application with its service principal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Application {
    pub(crate) client_id: String,
    pub(crate) object_id: String,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) secrets: Vec<ClientSecret>,
    /// Certificates that may sign its assertions.
    #[serde(default)]
    pub(crate) certificates: Vec<Certificate>,
    #[serde(default)]
    pub(crate) federated: Vec<Federated>,
}

/// The public half of a certificate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Certificate {
    /// base64url of the certificate's SHA-1, as `x5t` has it.
    pub(crate) x5t: String,
    pub(crate) n: Vec<u8>,
    pub(crate) e: Vec<u8>,
}

/// A client secret; it is never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct ClientSecret(String);

impl ClientSecret {
    /// Keeps it.
    pub(crate) fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// Compares without telling by its time where the difference is.
    pub(crate) fn matches(&self, other: &str) -> bool {
        let (mine, theirs) = (self.0.as_bytes(), other.as_bytes());
        mine.len() == theirs.len() && mine.iter().zip(theirs).fold(0, |all, (a, b)| all | (a ^ b)) == 0
    }

    /// For those who must hand it on.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecret(..)")
    }
}

impl Application {
    /// As a principal.
    pub(crate) fn principal(&self) -> Principal {
        Principal {
            object_id: self.object_id.clone(),
            client_id: self.client_id.clone(),
            name: self.name.clone(),
            resource_id: None,
        }
    }
}
