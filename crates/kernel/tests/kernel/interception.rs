//! The local route between real namespaces: who is taken to the agent, who is not, and what happens when parts of it
//! go.

use std::net::SocketAddr;
use std::time::Duration;

use libtest_mimic::Failed;
use netlink_packet_route::rule::RuleAttribute;
use podid_kernel::Namespace;
use podid_kernel::redirect::{LocalRoute, Part, RedirectError, SelfTest, State, listen};
use tokio::io::AsyncWriteExt;

use crate::somebody;
use crate::topology::{METADATA, Topology, answer_all, ask};
use crate::{Outcome, trials};

pub(crate) fn trials() -> Vec<libtest_mimic::Trial> {
    trials![
        pods_reach_the_agent_instead_of_azure_and_the_node_still_reaches_azure,
        installed_twice_is_once,
        removal_takes_exactly_ours,
        no_single_missing_part_opens_the_way,
        a_rule_that_comes_first_is_in_the_way,
        a_route_past_the_agent_in_our_table_is_replaced,
        a_deleted_rule_wakes_the_watch_and_is_mended,
        the_self_test_passes_when_a_pod_would_be_answered,
        the_self_test_says_what_is_wrong,
        a_program_on_port_80_of_all_addresses_is_named,
    ]
}

const ROUTE: LocalRoute = LocalRoute::new(*METADATA.ip());

fn install(node: &Namespace) -> Result<Vec<Part>, Failed> {
    Ok(node.run(|| ROUTE.install())??)
}

fn check(node: &Namespace) -> Result<State, Failed> {
    Ok(node.run(|| ROUTE.check())??)
}

fn start_agent(node: &Namespace) -> Outcome {
    let listener = node.run(|| listen(*METADATA.ip(), METADATA.port()))??;
    listener.set_nonblocking(false)?;
    answer_all(listener, "agent");
    Ok(())
}

fn pods_reach_the_agent_instead_of_azure_and_the_node_still_reaches_azure() -> Outcome {
    let topology = Topology::build()?;
    let node = &topology.node;
    for (pod, address) in topology.pods() {
        assert_eq!(ask(pod)?, format!("azure {address}"));
    }
    install(node)?;
    assert!(check(node)?.is_intact());
    topology.assert_closed("without an agent");
    start_agent(node)?;
    for (pod, address) in topology.pods() {
        assert_eq!(ask(pod)?, format!("agent {address}"));
    }
    assert_eq!(ask(node)?, "azure 10.1.0.4");
    somebody::loopback_down(node)?;
    for (pod, address) in topology.pods() {
        assert_eq!(
            ask(pod)?,
            format!("agent {address}"),
            "lo down takes nothing away"
        );
    }
    node.run(|| ROUTE.remove())??;
    for (pod, address) in topology.pods() {
        assert_eq!(ask(pod)?, format!("azure {address}"));
    }
    Ok(())
}

fn installed_twice_is_once() -> Outcome {
    let node = Namespace::create()?;
    assert_eq!(install(&node)?.len(), 5);
    assert_eq!(install(&node)?, []);
    assert_eq!(node.run(|| ROUTE.remove())??.len(), 5);
    assert_eq!(node.run(|| ROUTE.remove())??, []);
    assert_eq!(check(&node)?.missing.len(), 5);
    Ok(())
}

fn removal_takes_exactly_ours() -> Outcome {
    let node = Namespace::create()?;
    somebody::add_rule(&node, 200, 7, somebody::to([169, 254, 169, 254], 32))?;
    somebody::add_rule(&node, 201, 2579, somebody::to([169, 254, 169, 0], 24))?;
    somebody::add_local_route(&node, *METADATA.ip(), 7)?;
    let before = somebody::rules(&node)?;
    install(&node)?;
    assert_ne!(somebody::rules(&node)?, before);
    node.run(|| ROUTE.remove())??;
    assert_eq!(somebody::rules(&node)?, before);
    // Still there, else this fails.
    somebody::delete_local_route(&node, *METADATA.ip(), 7)
}

fn no_single_missing_part_opens_the_way() -> Outcome {
    let topology = Topology::build()?;
    let node = &topology.node;
    install(node)?;
    for (part, preference) in [
        (Part::Route, None),
        (Part::Own, Some(90)),
        (Part::Capture, Some(91)),
        (Part::Prohibit, Some(92)),
        (Part::Landing, Some(93)),
    ] {
        match preference {
            Some(preference) => somebody::delete_rule(node, preference)?,
            None => somebody::delete_local_route(node, *METADATA.ip(), 2579)?,
        }
        assert_eq!(check(node)?.missing, [part]);
        topology.assert_closed(format_args!("without the {part}"));
        assert_eq!(install(node)?, [part]);
        assert_eq!(ask(node)?, "azure 10.1.0.4", "mended: {part}");
    }
    Ok(())
}

fn a_rule_that_comes_first_is_in_the_way() -> Outcome {
    let node = Namespace::create()?;
    somebody::add_rule(&node, 50, 7, |rule| {
        rule.header.src_len = 16;
        rule.attributes
            .push(RuleAttribute::Source([10, 244, 0, 0].into()));
    })?;
    // Harmless ones: another destination, the node's own packets, packets with a mark.
    somebody::add_rule(&node, 51, 7, somebody::to([10, 0, 0, 0], 8))?;
    somebody::add_rule(&node, 52, 7, |rule| {
        rule.attributes.push(RuleAttribute::Iifname("lo".to_owned()));
    })?;
    somebody::add_rule(&node, 9, 2004, |rule| {
        rule.attributes
            .extend([RuleAttribute::FwMark(0x200), RuleAttribute::FwMask(0xf00)]);
    })?;
    let state = check(&node)?;
    assert_eq!(state.foreign, ["rule 50 to all lookup 7"]);
    let refused = node.run(|| ROUTE.install())?.unwrap_err();
    assert!(matches!(refused, RedirectError::Taken(_)), "{refused}");
    assert!(refused.to_string().contains("rule 50"), "{refused}");
    assert_eq!(check(&node)?.missing, [], "closed as far as we can");
    node.run(|| ROUTE.at(2580, 40).install())??;
    somebody::delete_rule(&node, 50)?;
    assert_eq!(
        check(&node)?.foreign.len(),
        2,
        "the other instance is foreign to this one"
    );
    Ok(())
}

fn a_route_past_the_agent_in_our_table_is_replaced() -> Outcome {
    let topology = Topology::build()?;
    let eth0 = topology.node.links()?.index("eth0")?;
    somebody::add_route(&topology.node, *METADATA.ip(), [10, 1, 0, 1].into(), eth0, 2579)?;
    install(&topology.node)?;
    assert!(check(&topology.node)?.is_intact());
    topology.assert_closed("with a route of somebody's in our table");
    Ok(())
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}

fn a_deleted_rule_wakes_the_watch_and_is_mended() -> Outcome {
    runtime()?.block_on(async {
        let topology = Topology::build()?;
        let node = &topology.node;
        install(node)?;
        let mut watch = node.run(|| ROUTE.watch())??;
        for rule in [true, false] {
            if rule {
                somebody::delete_rule(node, 91)?;
            } else {
                somebody::delete_local_route(node, *METADATA.ip(), 2579)?;
            }
            tokio::time::timeout(podid_testkit::PATIENCE, watch.changed()).await??;
            assert_eq!(
                check(node)?.missing,
                [if rule { Part::Capture } else { Part::Route }]
            );
            install(node)?;
            assert!(check(node)?.is_intact());
            // What we did ourselves wakes too; take it all.
            while tokio::time::timeout(Duration::from_millis(50), watch.changed())
                .await
                .is_ok()
            {}
        }
        somebody::add_local_route(node, [10, 9, 9, 9].into(), 254)?;
        let woken = tokio::time::timeout(Duration::from_millis(50), watch.changed()).await;
        assert!(woken.is_err(), "a route of the main table is of no interest");
        Ok(())
    })
}

/// An agent that answers the self-test, as the real one does.
fn answer_self_test(node: &Namespace, test: &SelfTest) -> Outcome {
    let listener = node.run(|| listen(*METADATA.ip(), METADATA.port()))??;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let test = test.clone();
    #[expect(clippy::disallowed_methods, reason = "a test's server has no Tasks")]
    tokio::spawn(async move {
        while let Ok((mut stream, peer)) = listener.accept().await {
            match test.answer(peer) {
                Some(nonce) => stream.write_all(&nonce).await.unwrap(),
                None => stream.write_all(b"agent").await.unwrap(),
            }
        }
    });
    Ok(())
}

fn the_self_test_passes_when_a_pod_would_be_answered() -> Outcome {
    runtime()?.block_on(async {
        let topology = Topology::build()?;
        let node = &topology.node;
        install(node)?;
        let test = SelfTest::new(METADATA);
        answer_self_test(node, &test)?;
        for _ in 0..3 {
            node.run(|| test.run())??;
        }
        // Nothing of it stays.
        node.links()?.index("podid-selftest").unwrap_err();
        // Nobody else is taken for it.
        assert_eq!(test.answer(SocketAddr::from(([169, 254, 25, 79], 1))), None);
        assert_eq!(ask(&topology.direct)?, "agent");
        Ok(())
    })
}

fn the_self_test_says_what_is_wrong() -> Outcome {
    runtime()?.block_on(async {
        let topology = Topology::build()?;
        let node = &topology.node;
        let test = SelfTest::new(METADATA);
        let run = || -> Result<RedirectError, Failed> { Ok(node.run(|| test.run())?.unwrap_err()) };
        let stranger = run()?;
        assert!(
            matches!(stranger, RedirectError::Stranger(_)),
            "no rules, azure answers: {stranger}"
        );
        install(node)?;
        let silent = run()?;
        assert!(matches!(silent, RedirectError::NoAnswer(_)), "no agent: {silent}");
        answer_self_test(node, &test)?;
        node.run(|| test.run())??;
        somebody::delete_local_route(node, *METADATA.ip(), 2579)?;
        let refused = run()?;
        assert!(
            matches!(refused, RedirectError::Refused { .. }),
            "only the last rule: {refused}"
        );
        Ok(())
    })
}

fn a_program_on_port_80_of_all_addresses_is_named() -> Outcome {
    let node = Namespace::create()?;
    let _ingress = node.run(|| std::net::TcpListener::bind(("0.0.0.0", 80)))??;
    let refused = node.run(|| listen(*METADATA.ip(), 80))?.unwrap_err();
    assert_eq!(refused.code(), "redirect_listen");
    assert!(
        refused.to_string().contains("another program listens on port 80"),
        "{refused}"
    );
    Ok(())
}
