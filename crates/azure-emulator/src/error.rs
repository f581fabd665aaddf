//! Why an emulator cannot start.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::answer::Refusal;
use crate::fault::FaultError;

/// Why an emulator cannot start.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct EmulatorError(#[from] Why);

#[derive(Debug, thiserror::Error)]
enum Why {
    #[error("cannot listen on {address}{hint}", hint = hint(.source))]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("a listening socket cannot be used")]
    Socket(#[source] std::io::Error),
    #[error("cannot read {}", .path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    State(crate::persist::StateError),
    #[error(transparent)]
    Key(crate::keys::KeyError),
    #[error(transparent)]
    Tls(crate::tls::TlsError),
    #[error("the client for issuers' keys cannot be made")]
    Issuers(#[source] reqwest::Error),
    #[error("a fault cannot be set: {0}")]
    Fault(FaultError),
    #[error("a node cannot be added: {0}")]
    Node(String),
}

fn hint(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::AddrInUse => ": another program listens there; port 0 takes a free port",
        std::io::ErrorKind::AddrNotAvailable => ": this machine has no such address",
        std::io::ErrorKind::PermissionDenied => ": ports under 1024 need a right of their own",
        _ => "",
    }
}

impl EmulatorError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match &self.0 {
            Why::Listen { .. } => "emulator_listen",
            Why::Socket(_) => "emulator_socket",
            Why::File { .. } => "emulator_file",
            Why::State(_) => "emulator_state",
            Why::Key(_) => "emulator_key",
            Why::Tls(_) => "emulator_tls",
            Why::Issuers(_) => "emulator_issuers",
            Why::Fault(_) => "emulator_fault",
            Why::Node(_) => "emulator_node",
        }
    }

    pub(crate) fn listen(address: SocketAddr, source: std::io::Error) -> Self {
        Self(Why::Listen { address, source })
    }

    pub(crate) fn socket(source: std::io::Error) -> Self {
        Self(Why::Socket(source))
    }

    pub(crate) fn file(path: &Path, source: std::io::Error) -> Self {
        Self(Why::File {
            path: path.to_owned(),
            source,
        })
    }

    pub(crate) fn state(source: crate::persist::StateError) -> Self {
        Self(Why::State(source))
    }

    pub(crate) fn key(source: crate::keys::KeyError) -> Self {
        Self(Why::Key(source))
    }

    pub(crate) fn tls(source: crate::tls::TlsError) -> Self {
        Self(Why::Tls(source))
    }

    pub(crate) fn issuers(source: reqwest::Error) -> Self {
        Self(Why::Issuers(source))
    }

    pub(crate) fn fault(source: FaultError) -> Self {
        Self(Why::Fault(source))
    }

    pub(crate) fn node(refusal: Refusal) -> Self {
        Self(Why::Node(refusal.message))
    }
}
