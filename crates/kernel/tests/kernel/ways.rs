//! Every way of interception keeps the same promises, beside other programs on port 80 and whatever happens to the
//! ruleset.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};

use libtest_mimic::Failed;
use podid_kernel::Namespace;
use podid_kernel::attest::PodSockets;
use podid_kernel::redirect::{Interception, Part, SelfTest};
use tokio::io::AsyncWriteExt;

use crate::topology::{GATEWAY, METADATA, SILENCE, Topology, answer_all, ask};
use crate::{Outcome, somebody, trials};

pub(crate) fn trials() -> Vec<libtest_mimic::Trial> {
    trials![
        each_way_leads_pods_to_the_agent_and_is_gone_when_removed,
        each_way_is_attested_by_the_address_that_was_asked,
        each_way_passes_the_self_test,
        with_a_rewritten_port_an_ingress_and_the_agent_run_beside_each_other,
        an_emptied_ruleset_opens_nothing_wakes_the_watch_and_is_mended,
        the_node_address_takes_no_direct_connections,
        one_way_follows_another_without_remains,
        a_connection_older_than_the_rules_is_cut,
    ]
}

/// The port that the agent listens on where it is rewritten; each test has its own namespace.
const PORT: u16 = 2579;
const NODE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 4), PORT);

fn ways() -> [Interception; 3] {
    [
        Interception::local_route(METADATA),
        Interception::local_route_and_port(METADATA, PORT),
        Interception::node_address(METADATA, NODE),
    ]
}

fn start_agent(node: &Namespace, way: Interception) -> Outcome {
    let listener = node.run(|| way.listen())??;
    listener.set_nonblocking(false)?;
    answer_all(listener, "agent");
    Ok(())
}

fn each_way_leads_pods_to_the_agent_and_is_gone_when_removed() -> Outcome {
    for way in ways() {
        let topology = Topology::build()?;
        let node = &topology.node;
        assert!(!node.run(|| way.install())??.is_empty());
        assert_eq!(node.run(|| way.install())??, []);
        assert!(node.run(|| way.check())??.is_intact());
        topology.assert_closed(format_args!("{way:?} without an agent"));
        start_agent(node, way)?;
        // Whether the bridge's packets go through netfilter is the node's choice; without the module they do not.
        let bridged = "net.bridge.bridge-nf-call-iptables";
        for through in ["0", "1"] {
            if std::path::Path::new("/proc/sys/net/bridge").exists() {
                node.sysctl(bridged, through)?;
            }
            for (pod, address) in topology.pods() {
                assert_eq!(
                    ask(pod)?,
                    format!("agent {address}"),
                    "{way:?}, {bridged} {through}"
                );
            }
        }
        assert_eq!(ask(node)?, "azure 10.1.0.4", "{way:?}");
        node.run(|| way.remove())??;
        assert_eq!(node.run(|| way.remove())??, []);
        for (pod, address) in topology.pods() {
            assert_eq!(ask(pod)?, format!("azure {address}"), "{way:?}");
        }
    }
    Ok(())
}

fn each_way_is_attested_by_the_address_that_was_asked() -> Outcome {
    for way in ways() {
        let topology = Topology::build()?;
        topology.node.run(|| way.install())??;
        let listener = topology.node.run(|| way.listen())??;
        listener.set_nonblocking(false)?;
        for (pod, _) in topology.pods() {
            let _client = pod.run(|| TcpStream::connect(METADATA))??;
            let (_server, peer) = listener.accept()?;
            PodSockets::open(pod)?.confirm(peer, SocketAddr::V4(way.asked()))?;
        }
    }
    Ok(())
}

fn each_way_passes_the_self_test() -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        for way in ways() {
            let topology = Topology::build()?;
            let node = &topology.node;
            let test = SelfTest::new(way.asked());
            node.run(|| way.install())??;
            node.run(|| test.run())?.unwrap_err();
            let listener = tokio::net::TcpListener::from_std(node.run(|| way.listen())??)?;
            let answers = test.clone();
            #[expect(clippy::disallowed_methods, reason = "a test's server has no Tasks")]
            tokio::spawn(async move {
                while let Ok((mut stream, peer)) = listener.accept().await {
                    stream.write_all(&answers.answer(peer).unwrap()).await.unwrap();
                }
            });
            node.run(|| test.run())??;
        }
        Ok(())
    })
}

fn with_a_rewritten_port_an_ingress_and_the_agent_run_beside_each_other() -> Outcome {
    for way in ways().into_iter().skip(1) {
        for ingress_first in [true, false] {
            let topology = Topology::build()?;
            let node = &topology.node;
            let ingress = || -> Outcome {
                answer_all(node.run(|| TcpListener::bind(("0.0.0.0", 80)))??, "ingress");
                Ok(())
            };
            if ingress_first {
                ingress()?;
            }
            node.run(|| way.install())??;
            start_agent(node, way)?;
            if !ingress_first {
                ingress()?;
            }
            for (pod, address) in topology.pods() {
                assert_eq!(ask(pod)?, format!("agent {address}"), "{way:?}");
                let said = pod.run(|| -> std::io::Result<String> {
                    let mut said = String::new();
                    TcpStream::connect((GATEWAY, 80))?.read_to_string(&mut said)?;
                    Ok(said)
                })??;
                assert_eq!(said, format!("ingress {address}"), "{way:?}");
            }
        }
    }
    Ok(())
}

fn an_emptied_ruleset_opens_nothing_wakes_the_watch_and_is_mended() -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        for way in ways().into_iter().skip(1) {
            let topology = Topology::build()?;
            let node = &topology.node;
            node.run(|| way.install())??;
            start_agent(node, way)?;
            let mut watch = node.run(|| way.watch())??;
            node.run(podid_testkit::netfilter::flush_ruleset)??;
            tokio::time::timeout(podid_testkit::PATIENCE, watch.changed()).await??;
            assert_eq!(node.run(|| way.check())??.missing, [Part::Rewrite]);
            // Not even to a program that listens on all addresses.
            let _ingress = node.run(|| TcpListener::bind(("0.0.0.0", 80)))??;
            topology.assert_closed(format_args!("{way:?} with an emptied ruleset"));
            assert_eq!(ask(node)?, "azure 10.1.0.4");
            assert_eq!(node.run(|| way.install())??, [Part::Rewrite]);
            for (pod, address) in topology.pods() {
                assert_eq!(ask(pod)?, format!("agent {address}"), "{way:?}");
            }
        }
        Ok(())
    })
}

fn the_node_address_takes_no_direct_connections() -> Outcome {
    let topology = Topology::build()?;
    let way = Interception::node_address(METADATA, NODE);
    topology.node.run(|| way.install())??;
    start_agent(&topology.node, way)?;
    for (pod, _) in topology.pods() {
        let direct = pod
            .run(|| TcpStream::connect_timeout(&NODE.into(), SILENCE))?
            .unwrap_err();
        assert_eq!(direct.kind(), std::io::ErrorKind::TimedOut);
    }
    Ok(())
}

fn one_way_follows_another_without_remains() -> Outcome {
    let topology = Topology::build()?;
    let node = &topology.node;
    let before = somebody::rules(node)?;
    for way in ways().into_iter().chain(ways().into_iter().rev()) {
        node.run(|| way.install())??;
        assert!(node.run(|| way.check())??.is_intact(), "{way:?}");
        let agent: Result<TcpListener, Failed> = Ok(node.run(|| way.listen())??);
        drop(agent?);
    }
    node.run(|| Interception::node_address(METADATA, NODE).remove())??;
    assert_eq!(somebody::rules(node)?, before);
    for way in ways() {
        let missing = node.run(|| way.check())??.missing;
        assert!(missing.len() >= 4, "{way:?}: {missing:?}");
    }
    for (pod, address) in topology.pods() {
        assert_eq!(ask(pod)?, format!("azure {address}"));
    }
    Ok(())
}

fn a_connection_older_than_the_rules_is_cut() -> Outcome {
    let asked = SocketAddrV4::new(*METADATA.ip(), 81);
    for way in [
        Interception::local_route(asked),
        Interception::local_route_and_port(asked, PORT),
        Interception::node_address(asked, NODE),
    ] {
        let topology = Topology::build()?;
        let azure = topology.azure.run(|| TcpListener::bind(asked))??;
        for (pod, _) in topology.pods() {
            let mut client = pod.run(|| TcpStream::connect(asked))??;
            let (mut server, _) = azure.accept()?;
            server.set_read_timeout(Some(SILENCE))?;
            client.write_all(b"1")?;
            server.read_exact(&mut [0])?;
            topology.node.run(|| way.install())??;
            // The client may be told or not; the service must not hear it.
            let _ = client.write_all(b"2");
            server.read_exact(&mut [0]).unwrap_err();
            topology.node.run(|| way.remove())??;
        }
    }
    Ok(())
}
