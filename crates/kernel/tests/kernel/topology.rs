//! A node with a pod on a bridge and one on an interface of its own, and the real metadata service beyond the node:
//! what the other tests are played on.
//!
//! ```text
//! on_bridge 10.244.0.11 ── cni0 ┐
//! neighbour 10.244.0.12 ── cni0 ├ node 10.1.0.4 ── azure 10.1.0.1, on its lo 169.254.169.254:80
//! direct    10.244.1.12 ── azv ─┘
//! ```

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use libtest_mimic::Failed;
use podid_kernel::{Namespace, cni};

pub(crate) const METADATA: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(169, 254, 169, 254), 80);
pub(crate) const ON_BRIDGE: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 11);
pub(crate) const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 12);
pub(crate) const DIRECT: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 12);
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
const NODE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 4);
const AZURE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
/// How long nothing must come for us to say that nothing comes: longer than the first retransmission of a SYN.
pub(crate) const SILENCE: Duration = Duration::from_millis(1200);

/// The namespaces, and the pods by name.
pub(crate) struct Topology {
    pub(crate) azure: Namespace,
    pub(crate) node: Namespace,
    pub(crate) on_bridge: Namespace,
    pub(crate) neighbour: Namespace,
    pub(crate) direct: Namespace,
    azure_heard: Arc<AtomicUsize>,
}

impl Topology {
    /// All of it, with the real metadata service answering `azure <peer>`.
    pub(crate) fn build() -> Result<Self, Failed> {
        let mut topology = Self {
            azure_heard: Arc::default(),
            azure: Namespace::create()?,
            node: Namespace::create()?,
            on_bridge: Namespace::create()?,
            neighbour: Namespace::create()?,
            direct: Namespace::create()?,
        };
        let Self {
            azure,
            node,
            on_bridge,
            neighbour,
            direct,
            ..
        } = &topology;
        // As distributions have it, and what would break a path that is not symmetrical.
        node.sysctl("net.ipv4.conf.all.rp_filter", "1")?;
        node.sysctl("net.ipv4.conf.default.rp_filter", "1")?;
        cni::forward(node)?;
        cni::cable((node, "eth0", NODE), (azure, "node", AZURE), 24)?;
        azure.links()?.address("lo", *METADATA.ip(), 32)?;
        azure.links()?.route_via(Ipv4Addr::UNSPECIFIED, 0, NODE, "node")?;
        node.links()?.route_via(*METADATA.ip(), 32, AZURE, "eth0")?;
        cni::bridge(node, "cni0", GATEWAY, 24)?;
        cni::join_bridge(node, "cni0", "veth11", on_bridge, ON_BRIDGE, 24, GATEWAY)?;
        cni::join_bridge(node, "cni0", "veth12", neighbour, NEIGHBOUR, 24, GATEWAY)?;
        cni::join_point_to_point(node, "azv12", direct, DIRECT)?;
        let service = azure.run(|| TcpListener::bind(METADATA))??;
        topology.azure_heard = answer_all(service, "azure");
        Ok(topology)
    }

    /// No pod hears anything from the metadata address, and the real service hears nothing from a pod.
    pub(crate) fn assert_closed(&self, when: impl std::fmt::Display) {
        let before = self.azure_heard.load(Ordering::SeqCst);
        for (pod, address) in self.pods() {
            let error = talk(pod, SILENCE).expect_err("the way is closed");
            let silent = [
                io::ErrorKind::TimedOut,
                io::ErrorKind::HostUnreachable,
                io::ErrorKind::ConnectionRefused,
            ];
            assert!(silent.contains(&error.kind()), "{when}: {address}: {error:?}");
        }
        assert_eq!(self.azure_heard.load(Ordering::SeqCst), before, "{when}");
    }

    /// The pods of both kinds, with their addresses.
    pub(crate) fn pods(&self) -> [(&Namespace, Ipv4Addr); 2] {
        [(&self.on_bridge, ON_BRIDGE), (&self.direct, DIRECT)]
    }
}

/// Answers each connection with `<name> <peer's address>`, until the process ends; who came is counted.
pub(crate) fn answer_all(listener: TcpListener, name: &'static str) -> Arc<AtomicUsize> {
    let came = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&came);
    thread::spawn(move || {
        while let Ok((stream, peer)) = listener.accept() {
            counted.fetch_add(1, Ordering::SeqCst);
            // A client that is gone already has nothing to be told.
            let _ = write!(&stream, "{name} {}", peer.ip());
        }
    });
    came
}

/// What the metadata address says, asked from `namespace`.
pub(crate) fn ask(namespace: &Namespace) -> Result<String, Failed> {
    Ok(talk(namespace, podid_testkit::PATIENCE)?)
}

fn talk(namespace: &Namespace, patience: Duration) -> io::Result<String> {
    let talk = || {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(METADATA), patience)?;
        stream.set_read_timeout(Some(patience))?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        Ok(said)
    };
    namespace.run(talk).map_err(io::Error::other)?
}
