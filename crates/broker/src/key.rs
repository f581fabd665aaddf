//! What tells one upstream call from another: owned as a key of the store, borrowed for looking up.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use podid_core::{Identity, ObjectName};

/// By which way a token is obtained, with the inputs that the identity itself does not have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Via {
    /// The node's metadata service, by the identity's client id, else by its resource id.
    Imds,
    /// Entra, with the secret or certificate of the identity.
    Credential {
        /// The tenant that is asked: the identity's own or one of its auxiliary ones.
        tenant: Arc<str>,
        /// Version of the Kubernetes Secret, where it is known; a new version is a new key.
        secret_version: Option<Arc<str>>,
    },
    /// Entra, in exchange for a token of a service account.
    Federation {
        /// The tenant that is asked.
        tenant: Arc<str>,
        /// Whose token is exchanged: the subject that Entra sees.
        service_account: ObjectName,
    },
}

impl Via {
    /// Stable name, for logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Imds => "imds",
            Self::Credential { .. } => "credential",
            Self::Federation { .. } => "federation",
        }
    }
}

/// Every input of an upstream call.
#[derive(Clone, Debug)]
pub struct Key {
    /// Whose token: the object, its ids, and its credential with tenant, authority and secret.
    pub identity: Arc<Identity>,
    /// The audience, byte for byte as asked.
    pub resource: Arc<str>,
    /// By which way.
    pub via: Via,
}

/// A [`Key`], borrowed: what a request looks up without allocating.
#[derive(Clone, Copy, Debug)]
pub struct Lookup<'a> {
    /// Whose token.
    pub identity: &'a Arc<Identity>,
    /// The audience, byte for byte as asked.
    pub resource: &'a str,
    /// By which way.
    pub via: &'a Via,
}

impl Key {
    /// This key, borrowed.
    pub fn lookup(&self) -> Lookup<'_> {
        Lookup {
            identity: &self.identity,
            resource: &self.resource,
            via: &self.via,
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.lookup().is(other)
    }
}

impl Eq for Key {}

impl Lookup<'_> {
    /// The key that this looks for.
    pub(crate) fn to_key(self) -> Key {
        Key {
            identity: Arc::clone(self.identity),
            resource: Arc::from(self.resource),
            via: self.via.clone(),
        }
    }

    /// Whether `key` is what this looks for.
    pub(crate) fn is(&self, key: &Key) -> bool {
        *self.resource == *key.resource && *self.via == key.via && same_identity(self.identity, &key.identity)
    }

    /// Hash of the whole.
    pub(crate) fn hash(&self, state: &impl BuildHasher) -> u64 {
        let mut hasher = state.build_hasher();
        // The identity's object and client id tell nearly all apart; equality looks at the rest.
        self.identity.object.hash(&mut hasher);
        self.identity.client_id.hash(&mut hasher);
        self.resource.hash(&mut hasher);
        self.via.hash(&mut hasher);
        hasher.finish()
    }
}

/// Whether two identities make the same upstream call. Written so that a new member of an identity does not compile
/// until somebody has said whether it matters here.
pub(crate) fn same_identity(a: &Arc<Identity>, b: &Arc<Identity>) -> bool {
    let Identity {
        object,
        client_id,
        object_id: _, // never sent upstream
        resource_id,
        credential,
        namespaced: _, // about who may have it, not about what it is
    } = &**a;
    Arc::ptr_eq(a, b)
        || (*object == b.object
            && *client_id == b.client_id
            && *resource_id == b.resource_id
            && *credential == b.credential)
}
