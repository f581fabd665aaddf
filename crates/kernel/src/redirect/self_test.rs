//! Proves that a pod's connection to the metadata address reaches this agent, through an interface of a pod's kind.
//! It says nothing about the real pods' CNI; it never touches their interfaces.
//!
//! ```text
//! short-lived namespace ──veth──▶ rules, route ──▶ the agent's listener
//!   source 169.254.25.79:port                        accept: answer(peer) is the nonce ─▶ writes it, closes
//!        ◀──────────────────────── nonce ────────────────────────┘
//! ```

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};

use super::RedirectError;
use crate::cni;
use crate::netns::{Links, Namespace, NamespaceError};

/// Length of the answer.
pub const NONCE_BYTES: usize = 16;
/// The test pod's address, reachable for the moment of the test only. Link-local, so no pod or service has it; not
/// one of those that Kubernetes add-ons use (169.254.1.1, 169.254.10.10, 169.254.20.10, 169.254.23.0/24).
const ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 25, 79);
/// The test's interface on the node.
const LINK: &str = "podid-selftest";
/// How long the connection and then the answer may take. A SYN that is lost is sent again after one second.
const PATIENCE: Duration = Duration::from_secs(3);

/// The test and the agent's part in it. Cheap to clone; clones are the same test.
#[derive(Clone, Debug)]
pub struct SelfTest {
    target: SocketAddrV4,
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// One at a time: there is one interface name and one address.
    running: Mutex<()>,
    /// What to answer whom.
    expected: Mutex<HashMap<SocketAddr, [u8; NONCE_BYTES]>>,
}

impl SelfTest {
    /// A test of `target`, the address that pods ask.
    pub fn new(target: SocketAddrV4) -> Self {
        Self {
            target,
            inner: Arc::default(),
        }
    }

    /// To be asked for each accepted connection before anything else: the bytes to write before closing it, if it is
    /// the self-test's.
    pub fn answer(&self, peer: SocketAddr) -> Option<[u8; NONCE_BYTES]> {
        self.inner.expected.lock().remove(&peer)
    }

    /// Runs the test, in the calling thread's network namespace and blocking it: milliseconds when all is well, up to
    /// six seconds when not. In async code use `spawn_blocking`, or the answer cannot be given.
    pub fn run(&self) -> Result<(), RedirectError> {
        let _one_at_a_time = self.inner.running.lock();
        let node = Namespace::current()?;
        let pod = Namespace::create()?;
        let links = node.links()?;
        // Left by an agent that was killed.
        match links.remove(LINK) {
            Err(error) if !matches!(error.raw_os_error(), Some(errno) if errno == Errno::ENODEV as i32) => {
                return Err(error.into());
            }
            _ => {}
        }
        let _removed_at_the_end = Removed { links: &links };
        cni::join_point_to_point(&node, LINK, &pod, ADDRESS)?;
        pod.run(|| self.connect())?
    }

    fn connect(&self) -> Result<(), RedirectError> {
        let (socket, own) =
            bound().map_err(|source| NamespaceError::new("open the test's socket", source))?;
        let nonce = nonce().map_err(|source| NamespaceError::new("read /dev/urandom", source))?;
        self.inner.expected.lock().insert(own, nonce);
        let outcome = self.ask(socket, nonce);
        self.inner.expected.lock().remove(&own);
        outcome
    }

    fn ask(&self, socket: Socket, nonce: [u8; NONCE_BYTES]) -> Result<(), RedirectError> {
        let target = self.target;
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => RedirectError::NoAnswer(target),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => RedirectError::Stranger(target),
            _ => RedirectError::Refused {
                address: target,
                source,
            },
        };
        socket.connect_timeout(&target.into(), PATIENCE).map_err(failed)?;
        let mut stream: TcpStream = socket.into();
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        let mut answer = [0; NONCE_BYTES];
        stream.read_exact(&mut answer).map_err(failed)?;
        if answer == nonce {
            Ok(())
        } else {
            Err(RedirectError::Stranger(target))
        }
    }
}

/// Takes the test's interface away when the test ends, however it ends.
struct Removed<'a> {
    links: &'a Links,
}

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.links.remove(LINK) {
            tracing::debug!(%error, "the self-test's interface is gone already");
        }
    }
}

/// A socket with a known address, so that the agent can be told before the connection comes.
fn bound() -> io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddrV4::new(ADDRESS, 0).into())?;
    let own = socket
        .local_addr()?
        .as_socket()
        .ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok((socket, own))
}

fn nonce() -> io::Result<[u8; NONCE_BYTES]> {
    let mut nonce = [0; NONCE_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut nonce)?;
    Ok(nonce)
}
