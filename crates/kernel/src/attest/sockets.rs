//! One question to the kernel: is there a socket with exactly these ends in this network namespace.

use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::Nla as _;
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{
    AF_INET, AF_INET6, IPPROTO_TCP, TCP_CLOSE_WAIT, TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2,
};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;
use parking_lot::Mutex;

use super::AttestError;
use crate::netlink::Netlink;
use crate::netns::{Namespace, NamespaceError};

/// `INET_DIAG_CGROUP_ID` of linux/inet_diag.h, since Linux 5.8.
const INET_DIAG_CGROUP_ID: u16 = 21;
/// States of the client's end of a connection that we have accepted. Not `LISTEN`: for a connection that is not
/// there the kernel offers a listener on the source port instead. Not `TIME_WAIT`, which is nobody's any more.
const ALIVE: [u8; 4] = [TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_CLOSE_WAIT];

/// The socket is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// Inode of the client's socket
    pub inode: u32,
    /// User who owns it, as seen from here
    pub uid: u32,
    /// The control group (v2) of whoever made it: the container. None before Linux 5.8.
    pub cgroup_id: Option<u64>,
}

/// The TCP sockets of one network namespace, by a netlink socket inside it, which keeps it alive.
#[derive(Debug)]
pub struct PodSockets {
    netlink: Mutex<Netlink>,
}

impl PodSockets {
    /// Enters the namespace on a helper thread, once.
    pub fn open(namespace: &Namespace) -> Result<Self, NamespaceError> {
        let netlink = namespace
            .run(|| Netlink::open(SockProtocol::NetlinkSockDiag))?
            .map_err(|source| NamespaceError::new("open a sock_diag socket", source))?;
        Ok(Self {
            netlink: Mutex::new(netlink),
        })
    }

    /// Those of the calling thread's own namespace.
    pub fn here() -> Result<Self, NamespaceError> {
        let netlink = Netlink::open(SockProtocol::NetlinkSockDiag)
            .map_err(|source| NamespaceError::new("open a sock_diag socket", source))?;
        Ok(Self {
            netlink: Mutex::new(netlink),
        })
    }

    /// Looks for the client's end of a connection accepted from `peer` at `local`. One round trip, some microseconds.
    /// A v6 socket that speaks v4 (`::ffff:169.254.169.254`) is found by its v4 addresses.
    pub fn confirm(&self, peer: SocketAddr, local: SocketAddr) -> Result<Confirmed, AttestError> {
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let (peer, local) = (canonical(peer), canonical(local));
        let request = InetRequest {
            family: if peer.is_ipv4() { AF_INET } else { AF_INET6 },
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            states: StateFlags::all(),
            socket_id: SocketId {
                source_address: peer.ip(),
                source_port: peer.port(),
                destination_address: local.ip(),
                destination_port: local.port(),
                interface_id: 0,
                // INET_DIAG_NOCOOKIE
                cookie: [0xff; 8],
            },
        };
        let answer = self.netlink.lock().ask_one(SockDiagMessage::InetRequest(request));
        let not_there = AttestError::NotThere { peer, local };
        match answer {
            Ok(SockDiagMessage::InetResponse(found)) if is_clients_end(&found, peer, local) => {
                Ok(confirmed(&found))
            }
            Ok(_) => Err(not_there),
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Err(not_there),
            Err(error) => Err(AttestError::Kernel(error)),
        }
    }
}

/// The kernel's look-up also offers what only nearly matches; see [`ALIVE`].
fn is_clients_end(found: &InetResponse, peer: SocketAddr, local: SocketAddr) -> bool {
    let id = &found.header.socket_id;
    let ends = |address: IpAddr, port: u16| SocketAddr::new(address.to_canonical(), port);
    ALIVE.contains(&found.header.state)
        && ends(id.source_address, id.source_port) == peer
        && ends(id.destination_address, id.destination_port) == local
}

fn confirmed(found: &InetResponse) -> Confirmed {
    let cgroup_id = found.nlas.iter().find_map(|nla| match nla {
        Nla::Other(other) if other.kind() == INET_DIAG_CGROUP_ID => {
            let mut bytes = [0; 8];
            (other.value_len() == bytes.len()).then(|| {
                other.emit_value(&mut bytes);
                u64::from_ne_bytes(bytes)
            })
        }
        _ => None,
    });
    Confirmed {
        inode: found.header.inode,
        uid: found.header.uid,
        cgroup_id,
    }
}
