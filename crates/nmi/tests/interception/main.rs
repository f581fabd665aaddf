//! The agent where its requests really come from: pods in network namespaces, the interception in the kernel, and the
//! real metadata service beyond the node; in this process, and as the program that is shipped. Needs no root where the
//! kernel allows user namespaces, and fails where it does not.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test says by a panic what did not hold, and lets tasks of its own run beside it"
)]

mod azure;
mod beside;
mod between;
mod life;
mod lines;
mod place;
mod program;
mod trouble;

use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use podid_kernel::redirect::LocalRoute;
use podid_kernel::{Namespace, cni};
use podid_testkit::eventually;

use crate::place::{DIRECT, METADATA, NEIGHBOUR, Place, T, WAY};

type Outcome = Result<(), Failed>;

fn main() -> ExitCode {
    podid_kernel::world::run((), |_, ()| {
        let mut trials = vec![
            Trial::test("pods_get_their_tokens_and_the_node_keeps_its_own_way", || {
                for way in ["local-route", "local-route+nft", "auto"] {
                    pods_get_their_tokens_and_the_node_keeps_its_own_way(way)?;
                }
                Ok(())
            }),
            Trial::test("a_borrowed_address_gets_nothing", a_borrowed_address_gets_nothing),
            Trial::test(
                "audit_counts_what_enforce_refuses",
                audit_counts_what_enforce_refuses,
            ),
            Trial::test(
                "a_reused_address_waits_for_the_news_and_gets_its_own_token",
                a_reused_address_waits_for_the_news_and_gets_its_own_token,
            ),
            Trial::test(
                "a_node_agent_in_a_network_of_its_own_is_known_by_its_socket",
                a_node_agent_in_a_network_of_its_own_is_known_by_its_socket,
            ),
            Trial::test(
                "the_way_stays_closed_without_the_agent",
                the_way_stays_closed_without_the_agent,
            ),
            Trial::test(
                "what_somebody_takes_away_is_put_back",
                what_somebody_takes_away_is_put_back,
            ),
        ];
        trials.extend(beside::trials());
        trials.extend(life::trials());
        trials.extend(trouble::trials());
        trials.extend(lines::trials());
        libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
    })
}

fn pods_get_their_tokens_and_the_node_keeps_its_own_way(way: &str) -> Outcome {
    Place::play(async |place| {
        let agent = place.agent(&[&format!("--interception={way}")]).await;
        for (pod, client_id) in [(&place.on_bridge, place::ONE), (&place.direct, place::TWO)] {
            let got = place.ask(pod, T).await?;
            assert_eq!(
                (got.status, got.token()),
                (200, format!("h.{client_id}.s")),
                "{way}: {}",
                got.body
            );
        }
        // The path that is open to all goes to the real service, and so does what the node itself asks.
        let passed = place.ask(&place.on_bridge, "/metadata/instance").await?;
        assert!(passed.body.contains("passed"), "{}", passed.body);
        let own = place.ask(&place.node, T).await?;
        assert_eq!(own.token(), "h.vm.s");
        assert_eq!(place.strangers(), 0, "no pod reached the real service by itself");
        agent.end().await;
        Ok(())
    })
}

fn a_borrowed_address_gets_nothing() -> Outcome {
    Place::play(async |place| {
        let agent = place
            .agent(&["--interception=local-route", "--wait-timeout=1"])
            .await;
        place.steal(NEIGHBOUR)?;
        let got = place.ask_from(&place.on_bridge, NEIGHBOUR, T).await?;
        assert_eq!(
            (got.status, got.reason()),
            (400, "attestation_failed"),
            "{}",
            got.body
        );
        // What needs no pod is answered, and the thief's own address still serves it.
        assert_eq!(place.ask(&place.on_bridge, T).await?.status, 200);
        agent.end().await;
        Ok(())
    })
}

fn audit_counts_what_enforce_refuses() -> Outcome {
    Place::play(async |place| {
        let agent = place
            .agent(&["--interception=local-route", "--attestation=audit"])
            .await;
        place.steal(NEIGHBOUR)?;
        let got = place.ask_from(&place.on_bridge, NEIGHBOUR, T).await?;
        assert_eq!(got.token(), format!("h.{}.s", place::TWO));
        let metrics = agent.probe("/metrics").await;
        let line = r#"podid_nmi_attestation_audited_total{reason="attest_not_there"} 1"#;
        assert!(metrics.contains(line), "{metrics}");
        agent.end().await;
        Ok(())
    })
}

fn a_reused_address_waits_for_the_news_and_gets_its_own_token() -> Outcome {
    Place::play(async |place| {
        let agent = place.agent(&["--interception=local-route"]).await;
        assert_eq!(
            place.ask(&place.direct, T).await?.token(),
            format!("h.{}.s", place::TWO)
        );
        // The sandbox of the old pod is torn down and its address given to a new one; the watch has not said so yet.
        let heir = Namespace::create()?;
        place.node.links()?.remove("azv12")?;
        cni::join_point_to_point(&place.node, "azv13", &heir, DIRECT)?;
        place.unlink("direct").await;
        let news = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            place.delete("direct").await;
            place.pod("heir", DIRECT, "one", &heir).await;
        };
        let (got, ()) = tokio::join!(place.ask(&heir, T), news);
        let got = got?;
        assert_eq!(
            (got.status, got.token()),
            (200, format!("h.{}.s", place::ONE)),
            "{}",
            got.body
        );
        agent.end().await;
        Ok(())
    })
}

fn a_node_agent_in_a_network_of_its_own_is_known_by_its_socket() -> Outcome {
    Place::play(async |place| {
        // `neighbour` becomes the driver's pod; `on_bridge` and `direct` are ordinary pods of the same namespace.
        place.delete("neighbour").await;
        place.account("csi").await;
        place
            .pod_of("csi", "driver", NEIGHBOUR, "nothing", &place.neighbour)
            .await;
        let agent = place
            .agent(&[
                "--interception=local-route",
                "--wait-timeout=1",
                "--host-token-callers=shop/csi",
                "--host-token-listen=127.0.0.1:0",
            ])
            .await;
        let got = place.ask_for(&place.neighbour, "direct").await?;
        assert_eq!(got.status, 200, "{}", got.body);
        assert!(got.body.contains(&format!("h.{}.s", place::TWO)), "{}", got.body);
        for pod in [&place.on_bridge, &place.direct] {
            let got = place.ask_for(pod, "direct").await?;
            assert_eq!(
                (got.status, got.reason()),
                (400, "host_caller_refused"),
                "{}",
                got.body
            );
        }
        // With the driver's address and without its socket.
        place.steal(NEIGHBOUR)?;
        let got = place.ask_for_as(&place.on_bridge, NEIGHBOUR, "direct").await?;
        assert_eq!(
            (got.status, got.reason()),
            (400, "attestation_failed"),
            "{}",
            got.body
        );
        agent.end().await;
        Ok(())
    })
}

fn the_way_stays_closed_without_the_agent() -> Outcome {
    Place::play(async |place| {
        let agent = place.agent(&["--interception=local-route"]).await;
        assert_eq!(place.ask(&place.on_bridge, T).await?.status, 200);
        agent.end().await;
        for pod in [&place.on_bridge, &place.direct] {
            place.ask(pod, T).await.expect_err("nobody answers");
        }
        assert_eq!(place.strangers(), 0);
        // The agent back: tokens again, at the same place.
        let agent = place.agent(&["--interception=local-route"]).await;
        assert_eq!(place.ask(&place.on_bridge, T).await?.status, 200);
        agent.end().await;
        // `podid-nmi uninstall` is this, in the node's network.
        let removed = place.node.run(|| WAY().remove())??;
        assert!(!removed.is_empty());
        assert_eq!(place.ask(&place.on_bridge, T).await?.token(), "h.vm.s");
        Ok(())
    })
}

fn what_somebody_takes_away_is_put_back() -> Outcome {
    Place::play(async |place| {
        let agent = place.agent(&["--interception=local-route"]).await;
        place.node.run(|| LocalRoute::new(*METADATA.ip()).remove())??;
        let mended = async || -> Result<(), String> {
            let state = place
                .node
                .run(|| WAY().check())
                .map_err(|error| error.to_string())?;
            match state {
                Ok(state) if state.is_intact() => Ok(()),
                other => Err(format!("{other:?}")),
            }
        };
        eventually("the interception is whole", mended).await?;
        let counted = async || {
            let metrics = agent.probe("/metrics").await;
            if metrics.contains("podid_nmi_redirect_repairs_total 1") {
                Ok(())
            } else {
                Err(metrics)
            }
        };
        eventually("the repair is counted", counted).await?;
        assert_eq!(place.ask(&place.on_bridge, T).await?.status, 200);
        agent.end().await;
        Ok(())
    })
}
