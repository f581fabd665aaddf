//! Whose socket it is: real connections, borrowed addresses, reused addresses, and a handshake made by hand.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use libtest_mimic::Failed;
use podid_kernel::attest::{AttestError, Attestor, Places, PodSockets};
use podid_kernel::redirect::{LocalRoute, listen};
use podid_kernel::{Namespace, cni};
use socket2::{Domain, Protocol, Socket, Type};

use crate::handmade::handshake;
use crate::topology::{DIRECT, METADATA, NEIGHBOUR, ON_BRIDGE, Topology};
use crate::{Outcome, trials};

pub(crate) fn trials() -> Vec<libtest_mimic::Trial> {
    trials![
        a_pods_own_socket_is_confirmed_and_nobody_elses,
        a_v6_socket_that_speaks_v4_is_confirmed,
        a_borrowed_address_is_refused,
        a_handshake_made_by_hand_is_refused,
        a_reused_address_is_the_new_pods_only,
        a_sandbox_made_anew_under_the_same_uid_is_found_again,
        a_pod_in_the_nodes_namespace_is_told_apart,
        a_closed_connection_is_not_confirmed,
    ]
}

/// A topology with the interception and the agent's listener in place.
fn intercepted() -> Result<(Topology, TcpListener), Failed> {
    let topology = Topology::build()?;
    topology
        .node
        .run(|| LocalRoute::new(*METADATA.ip()).install())??;
    let listener = topology.node.run(|| listen(*METADATA.ip(), METADATA.port()))??;
    listener.set_nonblocking(false)?;
    Ok((topology, listener))
}

/// The ends of a connection as the agent sees them, and what keeps them.
struct Connection {
    client: Socket,
    _server: TcpStream,
    peer: SocketAddr,
    local: SocketAddr,
}

fn connect(pod: &Namespace, listener: &TcpListener, from: Option<SocketAddr>) -> Result<Connection, Failed> {
    let connected = pod.run(|| -> std::io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        if let Some(from) = from {
            socket.bind(&from.into())?;
        }
        socket.connect_timeout(&METADATA.into(), podid_testkit::PATIENCE)?;
        Ok(socket)
    })?;
    accepted(connected?, listener)
}

fn accepted(client: Socket, listener: &TcpListener) -> Result<Connection, Failed> {
    let (server, peer) = listener.accept()?;
    let local = server.local_addr()?;
    Ok(Connection {
        client,
        _server: server,
        peer,
        local,
    })
}

fn not_there(outcome: Result<impl std::fmt::Debug, AttestError>) {
    let refused = outcome.unwrap_err();
    assert!(matches!(refused, AttestError::NotThere { .. }), "{refused}");
}

fn a_pods_own_socket_is_confirmed_and_nobody_elses() -> Outcome {
    let (topology, listener) = intercepted()?;
    let others = PodSockets::open(&topology.neighbour)?;
    for (pod, address) in topology.pods() {
        let one = connect(pod, &listener, None)?;
        assert_eq!(one.peer.ip(), address);
        assert_eq!(one.local, SocketAddr::V4(METADATA));
        let own = PodSockets::open(pod)?;
        let seen = own.confirm(one.peer, one.local)?;
        let socket = std::os::fd::AsFd::as_fd(&one.client).try_clone_to_owned()?;
        let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::File::from(socket).metadata()?);
        assert_eq!((u64::from(seen.inode), seen.uid), (inode, 0));
        assert!(seen.cgroup_id.is_some());
        not_there(others.confirm(one.peer, one.local));
    }
    Ok(())
}

fn a_v6_socket_that_speaks_v4_is_confirmed() -> Outcome {
    let (topology, listener) = intercepted()?;
    let client = topology.direct.run(|| -> std::io::Result<Socket> {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_only_v6(false)?;
        socket.connect(&SocketAddr::from((METADATA.ip().to_ipv6_mapped(), METADATA.port())).into())?;
        Ok(socket)
    })??;
    let one = accepted(client, &listener)?;
    PodSockets::open(&topology.direct)?.confirm(one.peer, one.local)?;
    Ok(())
}

/// What ARP poisoning on a bridge leads to: the node sends the victim's packets to the thief.
fn steal(topology: &Topology) -> Outcome {
    let thief = topology.on_bridge.links()?;
    thief.address(cni::POD_LINK, NEIGHBOUR, 32)?;
    topology
        .node
        .links()?
        .neighbour("cni0", NEIGHBOUR, thief.mac(cni::POD_LINK)?)?;
    Ok(())
}

fn a_borrowed_address_is_refused() -> Outcome {
    let (topology, listener) = intercepted()?;
    steal(&topology)?;
    let one = connect(
        &topology.on_bridge,
        &listener,
        Some(SocketAddr::from((NEIGHBOUR, 0))),
    )?;
    assert_eq!(one.peer.ip(), NEIGHBOUR, "the theft worked");
    let victim = PodSockets::open(&topology.neighbour)?;
    not_there(victim.confirm(one.peer, one.local));
    // The kernel offers a listener on the claimed port where there is no connection; it proves nothing.
    let port = one.peer.port();
    let _unlucky = topology
        .neighbour
        .run(|| TcpListener::bind(("0.0.0.0", port)))??;
    not_there(victim.confirm(one.peer, one.local));
    Ok(())
}

fn a_handshake_made_by_hand_is_refused() -> Outcome {
    let (topology, listener) = intercepted()?;
    // The pod gives its address up, so its kernel does not answer in its place; the node still sends it here.
    let links = topology.direct.links()?;
    links.address(cni::POD_LINK, Ipv4Addr::new(10, 244, 9, 9), 32)?;
    links.remove_address(cni::POD_LINK, DIRECT, 32)?;
    let from = SocketAddr::from((DIRECT, 40_000));
    let _raw = topology.direct.run(|| handshake((DIRECT, 40_000), METADATA))??;
    let (server, peer) = listener.accept()?;
    assert_eq!(peer, from);
    not_there(PodSockets::open(&topology.direct)?.confirm(peer, server.local_addr()?));
    Ok(())
}

const OLD: &str = "11111111-97b9-4f2c-9a0e-3b7f3e6b8a11";
const NEW: &str = "22222222-97b9-4f2c-9a0e-3b7f3e6b8a11";

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}

/// An attestor that finds pods in a folder, as in the sandbox.
fn attestor(node: &Namespace, folder: &Path) -> Result<Arc<Attestor>, Failed> {
    Ok(Arc::new(
        node.run(|| Attestor::new(Places::Folder(folder.into())))??,
    ))
}

fn a_reused_address_is_the_new_pods_only() -> Outcome {
    let (topology, listener) = intercepted()?;
    let folder = tempfile::tempdir()?;
    symlink(topology.on_bridge.path(), folder.path().join(OLD))?;
    let attestor = attestor(&topology.node, folder.path())?;
    runtime()?.block_on(async {
        let first = connect(&topology.on_bridge, &listener, None)?;
        attestor.confirm(OLD, first.peer, first.local).await?;
        assert_eq!(attestor.held(), 1);
        // The old pod's interface goes, a new pod gets its address; the watch has not said so yet.
        let new = Namespace::create()?;
        topology.node.links()?.remove("veth11")?;
        let gateway = crate::topology::GATEWAY;
        cni::join_bridge(&topology.node, "cni0", "veth11", &new, ON_BRIDGE, 24, gateway)?;
        topology
            .node
            .links()?
            .neighbour("cni0", ON_BRIDGE, new.links()?.mac(cni::POD_LINK)?)?;
        symlink(new.path(), folder.path().join(NEW))?;
        let second = connect(&new, &listener, None)?;
        assert_eq!(second.peer.ip(), first.peer.ip());
        not_there(attestor.confirm(OLD, second.peer, second.local).await);
        attestor.confirm(NEW, second.peer, second.local).await?;
        attestor.retain(|uid| uid == NEW);
        assert_eq!(attestor.held(), 1);
        Ok(())
    })
}

fn a_sandbox_made_anew_under_the_same_uid_is_found_again() -> Outcome {
    let (topology, listener) = intercepted()?;
    let folder = tempfile::tempdir()?;
    let link = folder.path().join(OLD);
    symlink(topology.on_bridge.path(), &link)?;
    let attestor = attestor(&topology.node, folder.path())?;
    runtime()?.block_on(async {
        let first = connect(&topology.on_bridge, &listener, None)?;
        attestor.confirm(OLD, first.peer, first.local).await?;
        std::fs::remove_file(&link)?;
        symlink(topology.direct.path(), &link)?;
        let second = connect(&topology.direct, &listener, None)?;
        attestor.confirm(OLD, second.peer, second.local).await?;
        std::fs::remove_file(&link)?;
        let third = connect(&topology.on_bridge, &listener, None)?;
        let gone = attestor.confirm(OLD, third.peer, third.local).await.unwrap_err();
        assert!(matches!(gone, AttestError::NotFound(_)), "{gone}");
        assert_eq!(attestor.held(), 0);
        Ok(())
    })
}

fn a_pod_in_the_nodes_namespace_is_told_apart() -> Outcome {
    let (topology, listener) = intercepted()?;
    let folder = tempfile::tempdir()?;
    symlink(topology.node.path(), folder.path().join(OLD))?;
    let attestor = attestor(&topology.node, folder.path())?;
    runtime()?.block_on(async {
        let one = connect(&topology.direct, &listener, None)?;
        let host = attestor.confirm(OLD, one.peer, one.local).await.unwrap_err();
        assert!(matches!(host, AttestError::HostNetwork), "{host}");
        Ok(())
    })
}

fn a_closed_connection_is_not_confirmed() -> Outcome {
    let (topology, listener) = intercepted()?;
    let sockets = PodSockets::open(&topology.direct)?;
    let Connection {
        client,
        _server: mut server,
        peer,
        local,
    } = connect(&topology.direct, &listener, None)?;
    sockets.confirm(peer, local)?;
    drop(client);
    assert_eq!(server.read(&mut [0])?, 0);
    drop(server);
    // What is left is the kernel's own memory of it, if anything.
    topology.direct.run(|| ())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(podid_testkit::eventually("the connection is gone", || async {
        match sockets.confirm(peer, local) {
            Err(AttestError::NotThere { .. }) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }))?;
    Ok(())
}
