//! Whose connection is this: the kernel is asked, inside the network namespace of the pod that the source address
//! claims to be, whether the other end of the connection is a socket there. A borrowed address, a reused one or a
//! hand-made handshake leads to a namespace without such a socket.
//!
//! ```text
//! accepted (peer, local) ─┐        pod uid ─▶ Places: its namespace (a folder, or /proc by cgroup)
//!                         ▼                        │ once a pod, some ms, on a helper thread
//!            Attestor::confirm ─▶ cache by uid ─▶ PodSockets: one netlink socket inside
//!                         └── one exact sock_diag request, some µs ─▶ Confirmed | AttestError
//! ```
//!
//! Pods on the node's network share the node's namespace. For them the socket is looked for among the open files of the pods'
//! processes ([`Attestor::holder`]), which is slower, and only done where somebody needs it.
//!
//! A cached socket keeps a namespace alive: [`Attestor::forget`] or [`Attestor::retain`] when pods go.

mod places;
mod sockets;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;

pub use places::{Place, Places};
pub use sockets::{Confirmed, PodSockets};

use crate::netns::{Namespace, NamespaceError, NamespaceId};

/// A connection is not confirmed, or cannot be.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// There is no such socket in the pod's network namespace: the source address is not this connection's own.
    #[error("no socket of the pod's network namespace has the connection {peer} -> {local}")]
    NotThere {
        /// The claimed source
        peer: SocketAddr,
        /// The address that was asked
        local: SocketAddr,
    },
    /// The pod shares the node's network namespace, so its namespace proves nothing.
    #[error("the pod shares the node's network namespace, so a socket there may be anybody's on this node")]
    HostNetwork,
    /// No process or link leads to the pod's namespace.
    #[error(
        "the network namespace of pod uid {0} is not found: the pod has no process on this node, or /proc shows other processes' view (hostPID is needed)"
    )]
    NotFound(String),
    /// A pod uid with characters that no uid has.
    #[error("`{0}` is not a pod uid")]
    BadUid(String),
    /// No process of the pods in question holds the connection's socket.
    #[error(
        "no process of an allowed pod holds the connection from {0} (the agent needs hostPID, CAP_SYS_PTRACE, and CAP_DAC_READ_SEARCH for processes of other users)"
    )]
    NotHeld(SocketAddr),
    /// The namespace cannot be entered.
    #[error("the pod's network namespace cannot be entered (CAP_SYS_ADMIN and CAP_SYS_PTRACE are needed)")]
    Namespace(#[from] NamespaceError),
    /// The question itself failed.
    #[error("the kernel does not answer sock_diag (is the module tcp_diag there?)")]
    Kernel(#[source] std::io::Error),
}

impl AttestError {
    /// A stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotThere { .. } => "attest_not_there",
            Self::HostNetwork => "attest_host_network",
            Self::NotFound(_) => "attest_not_found",
            Self::BadUid(_) => "attest_bad_uid",
            Self::NotHeld(_) => "attest_not_held",
            Self::Namespace(_) => "attest_namespace",
            Self::Kernel(_) => "attest_kernel",
        }
    }
}

/// Confirms connections of this node's pods. Share it behind an `Arc`.
#[derive(Debug)]
pub struct Attestor {
    places: Places,
    node: NamespaceId,
    node_sockets: PodSockets,
    pods: Mutex<HashMap<String, Arc<Known>>>,
}

/// A pod whose namespace was found.
#[derive(Debug)]
struct Known {
    place: Place,
    namespace: NamespaceId,
    sockets: PodSockets,
}

impl Attestor {
    /// To be made in the network namespace in which the agent listens: a pod found there is a hostNetwork pod.
    pub fn new(places: Places) -> Result<Self, AttestError> {
        let node = Namespace::current()?.id()?;
        Ok(Self {
            places,
            node,
            node_sockets: PodSockets::here()?,
            pods: Mutex::default(),
        })
    }

    /// Confirms that the connection from `peer` to `local` is a socket of pod `uid`'s. `local` is the address that
    /// the pod asked ([`Interception::asked`](crate::redirect::Interception::asked)), which is not the accepted
    /// socket's own where a port or address is rewritten. Some microseconds for a
    /// known pod; some milliseconds, not blocking the runtime, for the first connection of one.
    pub async fn confirm(
        self: &Arc<Self>,
        uid: &str,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> Result<Confirmed, AttestError> {
        let known = self.pods.lock().get(uid).cloned();
        if let Some(known) = known {
            match known.sockets.confirm(peer, local) {
                // The pod's sandbox may have been made anew, in another namespace, under the same uid. Whether it
                // was costs a look at one file, so a liar cannot make us search all of /proc each time.
                Err(AttestError::NotThere { peer, local }) if known.is_current() => {
                    return Err(AttestError::NotThere { peer, local });
                }
                Err(AttestError::NotThere { .. }) => self.forget(uid),
                outcome => return outcome,
            }
        }
        let (attestor, pod) = (Arc::clone(self), uid.to_owned());
        let found = tokio::task::spawn_blocking(move || attestor.find(&pod)).await;
        let known = match found {
            Ok(found) => Arc::new(found?),
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down.
                Err(_) => return Err(AttestError::NotFound(uid.to_owned())),
            },
        };
        let outcome = known.sockets.confirm(peer, local);
        // Only what was confirmed once is worth keeping.
        if outcome.is_ok() {
            self.pods.lock().insert(uid.to_owned(), known);
        }
        outcome
    }

    /// Which of the pods `among`, which use the node's network, opened the connection from `peer` to `local`: the one of whose
    /// processes one holds its socket. Some milliseconds, not blocking the runtime; nothing is kept.
    pub async fn holder(
        self: &Arc<Self>,
        among: Vec<String>,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> Result<String, AttestError> {
        let attestor = Arc::clone(self);
        let found = tokio::task::spawn_blocking(move || {
            let socket = attestor.node_sockets.confirm(peer, local)?;
            let holder = attestor.places.holder(socket.inode, &among);
            // Still the same socket, and so the same connection, as when we began to look.
            let still = attestor.node_sockets.confirm(peer, local)?;
            holder
                .filter(|_| still.inode == socket.inode)
                .ok_or(AttestError::NotHeld(peer))
        });
        match found.await {
            Ok(found) => found,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down.
                Err(_) => Err(AttestError::NotHeld(peer)),
            },
        }
    }

    fn find(&self, uid: &str) -> Result<Known, AttestError> {
        let place = self.places.find(uid)?;
        let namespace = place.open()?;
        let id = namespace.id()?;
        if id == self.node {
            return Err(AttestError::HostNetwork);
        }
        let sockets = PodSockets::open(&namespace)?;
        Ok(Known {
            place,
            namespace: id,
            sockets,
        })
    }

    /// Lets go of a pod that is gone.
    pub fn forget(&self, uid: &str) {
        self.pods.lock().remove(uid);
    }

    /// Lets go of all pods but those that `there` names, e.g. after a watch was restarted.
    pub fn retain(&self, there: impl Fn(&str) -> bool) {
        self.pods.lock().retain(|uid, _| there(uid));
    }

    /// How many pods' namespaces are held.
    pub fn held(&self) -> usize {
        self.pods.lock().len()
    }
}

impl Known {
    fn is_current(&self) -> bool {
        self.place
            .open()
            .and_then(|namespace| Ok(namespace.id()?))
            .is_ok_and(|id| id == self.namespace)
    }
}
