//! How pods' packets to the metadata address get to the agent instead of to the real metadata service. The rules
//! outlive the process: an agent that is stopped, killed or being upgraded leaves pods without an answer, never with
//! the real service's.
//!
//! ```text
//! Interception::install ─▶ rules, route, table in this network namespace ◀─ check / install again (mends)
//!        │                                      ▲
//!        └─▶ watch: something changed           └─ remove: exactly ours
//! Interception::listen ─▶ the socket that takes the connections   SelfTest::run ─▶ proves the way of a pod through all of it
//! ```

mod interception;
mod listen;
mod local_route;
mod nftables;
mod original;
mod self_test;
mod watch;

use std::io;
use std::net::SocketAddrV4;

pub use interception::Interception;
pub use listen::listen;
pub use local_route::{LocalRoute, Part, State};
pub use original::Original;
pub use self_test::{NONCE_BYTES, SelfTest};
pub use watch::Watch;

use crate::netns::NamespaceError;

/// Interception does not work. The text names what and the likely fix.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    /// The kernel refused a look or a change.
    #[error("cannot {what}: {source}{}", hint(source))]
    Kernel {
        /// What was tried
        what: String,
        /// What the kernel said
        #[source]
        source: io::Error,
    },
    /// Somebody else has a rule that is asked before ours and can lead pods' packets past the agent.
    #[error(
        "{0} comes before the interception's own rules and can lead pods past them; remove it, or choose lower preferences"
    )]
    Taken(String),
    /// aad-pod-identity intercepts here. Two interceptors never run beside each other.
    #[error(
        "aad-pod-identity already intercepts the metadata service on this node: the chain `{chain}` is in its nat table; remove \
         its NMI first (helm uninstall aad-pod-identity, or az aks update --disable-pod-identity); where that left the chain \
         behind: {program} -t nat -D PREROUTING -j {chain}; {program} -t nat -F {chain}; {program} -t nat -X {chain}",
        chain = original::CHAIN,
        program = .0.program()
    )]
    Original(Original),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}{}", listen_hint(source, *address))]
    Listen {
        /// The address pods ask
        address: SocketAddrV4,
        /// What the kernel said
        #[source]
        source: io::Error,
    },
    /// The self-test could not be set up: nothing is known about the interception.
    #[error("cannot set up the self-test: {0}")]
    Unproven(#[from] NamespaceError),
    /// A pod's connection is not answered by anybody.
    #[error(
        "self-test: a pod's connection to {0} gets no answer: the agent does not accept, or a firewall (INPUT) or \
         reverse-path filter of this node drops it"
    )]
    NoAnswer(SocketAddrV4),
    /// A pod's connection is refused.
    #[error("self-test: a pod's connection to {address} is refused: {source}")]
    Refused {
        /// The address pods ask
        address: SocketAddrV4,
        /// What the pod sees
        #[source]
        source: io::Error,
    },
    /// A pod's connection is answered, but not by this agent.
    #[error("self-test: a pod's connection to {0} is answered by something that is not this agent")]
    Stranger(SocketAddrV4),
}

impl RedirectError {
    pub(crate) fn kernel(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Kernel {
            what: what.into(),
            source: source.into(),
        }
    }

    /// A stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Kernel { .. } => "redirect_kernel",
            Self::Taken(_) => "redirect_taken",
            Self::Original(_) => "redirect_original",
            Self::Listen { .. } => "redirect_listen",
            Self::Unproven(_) => "redirect_unproven",
            Self::NoAnswer(_) => "redirect_no_answer",
            Self::Refused { .. } => "redirect_refused",
            Self::Stranger(_) => "redirect_stranger",
        }
    }
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => " (CAP_NET_ADMIN is needed)",
        _ => "",
    }
}

fn listen_hint(source: &io::Error, address: SocketAddrV4) -> String {
    match source.kind() {
        io::ErrorKind::PermissionDenied => " (CAP_NET_ADMIN and CAP_NET_BIND_SERVICE are needed)".to_owned(),
        io::ErrorKind::AddrInUse => {
            format!(
                " (another program listens on port {} of all addresses, or another agent runs)",
                address.port()
            )
        }
        _ => String::new(),
    }
}
