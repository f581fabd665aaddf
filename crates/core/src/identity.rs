//! What people declare: identities, bindings, exceptions, assignments, reduced to what decisions need.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::ids::{Guid, IdentityResourceId};

/// Namespace and name of an object. Ordered by namespace, then name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl ObjectName {
    /// `name` in `namespace`.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// An AzureIdentity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Which object declares it.
    pub object: ObjectName,
    /// Client id. Absent only for a managed identity that is known by its resource id.
    pub client_id: Option<Guid>,
    /// Object id (principal id), where somebody wrote it down.
    pub object_id: Option<Guid>,
    /// ARM id of the managed identity.
    pub resource_id: Option<IdentityResourceId>,
    /// How its tokens are obtained.
    pub credential: Credential,
    /// Only pods of its own namespace may use it, also where bindings reach across namespaces.
    pub namespaced: bool,
}

/// How tokens of an identity are obtained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A managed identity (type 0).
    Managed(TokenSource),
    /// A service principal with a secret (type 1).
    ClientSecret {
        /// Tenant, as written.
        tenant: Arc<str>,
        /// Further tenants, for which the same secret is used.
        auxiliary_tenants: Vec<Arc<str>>,
        /// The Secret that holds the secret.
        secret: SecretName,
        /// Base URL of the authority, where the identity names one.
        authority: Option<Arc<str>>,
    },
    /// A service principal with a certificate (type 2).
    ClientCertificate {
        /// Tenant, as written.
        tenant: Arc<str>,
        /// The Secret that holds the certificate.
        secret: SecretName,
        /// Base URL of the authority, where the identity names one.
        authority: Option<Arc<str>>,
    },
}

/// Where tokens of a managed identity come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TokenSource {
    /// Where the agent's `--msi-source` says.
    #[default]
    AgentDefault,
    /// The node's metadata service.
    Imds,
    /// An exchange of the pod's service-account token at Entra.
    Federation,
}

/// Where a Kubernetes Secret is.
pub type SecretName = ObjectName;

/// An AzureIdentityBinding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Which object declares it.
    pub object: ObjectName,
    /// Name of an AzureIdentity in the binding's namespace.
    pub identity: Arc<str>,
    /// Equals the pods' label `aadpodidbinding`; never empty.
    pub selector: Arc<str>,
    /// Preferred when a pod has several identities and names none.
    pub default: bool,
}

/// An AzurePodIdentityException.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Which object declares it.
    pub object: ObjectName,
    /// Labels of the excepted pods; never empty.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
}

/// An AzureAssignedIdentity (standard mode).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Which object declares it.
    pub object: ObjectName,
    /// The pod it is for, by name.
    pub pod: ObjectName,
    /// The identity, as it was when it was decided.
    pub identity: Arc<Identity>,
    /// Whether the identity is on the VM. One that is not yet there may be waited for.
    pub assigned: bool,
    /// Preferred when a pod has several identities and names none.
    pub default: bool,
}
