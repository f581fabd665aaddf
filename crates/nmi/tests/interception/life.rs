//! The program from its start to its end, however it ends: ready when it is, closed when it is not there.

use std::net::SocketAddrV4;

use libtest_mimic::{Failed, Trial};
use nix::sys::signal::Signal;
use podid_kernel::redirect::{Interception, Part};
use podid_testkit::eventually;

use crate::Outcome;
use crate::between::{BINDINGS, EXCEPTIONS, IDENTITIES, PODS};
use crate::place::{METADATA, NODE, ONE, Place, T, WAY};
use crate::program::{Program, uninstall};

/// A way of interception, and the flags that choose it.
type Way = (Interception, Vec<String>);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test(
            "the_ready_line_comes_when_every_watch_has_seen_all_and_not_before",
            the_ready_line_comes_when_every_watch_has_seen_all_and_not_before,
        ),
        Trial::test(
            "told_to_stop_it_answers_who_waits_and_the_way_stays_closed",
            told_to_stop_it_answers_who_waits_and_the_way_stays_closed,
        ),
        Trial::test(
            "killed_it_leaves_the_way_closed_and_comes_back",
            killed_it_leaves_the_way_closed_and_comes_back,
        ),
        Trial::test(
            "uninstalled_it_leaves_nothing_behind",
            uninstalled_it_leaves_nothing_behind,
        ),
    ]
}

/// Each way there is, on the node of a [`Place`].
fn ways() -> [Way; 3] {
    let node_address = SocketAddrV4::new(NODE, 2579);
    [
        (WAY(), vec!["--interception=local-route".to_owned()]),
        (
            Interception::local_route_and_port(METADATA, 2579),
            vec!["--interception=local-route+nft".to_owned()],
        ),
        (
            Interception::node_address(METADATA, node_address),
            vec![
                "--interception=nft".to_owned(),
                format!("--listen={node_address}"),
            ],
        ),
    ]
}

fn flags(way: &[String]) -> Vec<&str> {
    way.iter().map(String::as_str).collect()
}

/// No pod gets an answer, and no pod reaches the real service.
async fn assert_closed(place: &Place) {
    for pod in [&place.on_bridge, &place.direct] {
        let answer = place.ask(pod, T).await;
        assert!(answer.is_err(), "{answer:?}");
    }
    assert_eq!(place.strangers(), 0, "a pod reached the real service");
}

async fn assert_open(place: &Place) -> Outcome {
    let got = place.ask(&place.on_bridge, T).await?;
    assert_eq!(
        (got.status, got.token()),
        (200, format!("h.{ONE}.s")),
        "{}",
        got.body
    );
    Ok(())
}

fn the_ready_line_comes_when_every_watch_has_seen_all_and_not_before() -> Outcome {
    Place::play(async |place| {
        let between = place.between().await;
        for (kind, guard) in [
            (PODS, "watch-pods"),
            (IDENTITIES, "watch-identities"),
            (BINDINGS, "watch-bindings"),
            (EXCEPTIONS, "watch-exceptions"),
        ] {
            between.hold(&[kind]);
            let agent = Program::start(place, &between, &["--interception=local-route"])?;
            // Everything else is there, and still it is not ready.
            let waits = format!("waiting for {guard}\n");
            agent.probe_says("/readyz", 503, &waits).await?;
            assert_eq!(agent.said(), [""; 0], "ready without {kind}");
            assert_eq!(agent.probe("/healthz").await?.body, "Not Active");
            // Who asks meanwhile waits, and is answered from the whole world.
            let (asked, released) = tokio::join!(assert_open(place), async {
                between.all_held_wait().await?;
                between.release();
                agent.is_ready().await
            });
            asked?;
            released?;
            assert_eq!(agent.probe("/readyz").await?.status, 200);
            agent.end().await?;
        }
        Ok(())
    })
}

fn told_to_stop_it_answers_who_waits_and_the_way_stays_closed() -> Outcome {
    Place::play(async |place| {
        let between = place.between().await;
        for (n, (way, chosen)) in ways().into_iter().enumerate() {
            let agent = Program::ready(place, &between, &flags(&chosen)).await?;
            place.service.hold();
            // The agent is new each time and has no token yet.
            let asked = place.service.targets().len();
            let (answered, closed) = tokio::join!(assert_open(place), async {
                eventually("the upstream is asked", async || {
                    match place.service.targets().len() {
                        more if more > asked => Ok(()),
                        same => Err(same),
                    }
                })
                .await?;
                agent.signal(Signal::SIGTERM)?;
                agent.probe_says("/readyz", 503, "draining").await?;
                // Nobody new is taken, and nobody new is led to the real service instead.
                eventually("nobody new is taken", async || {
                    place.ask(&place.direct, T).await.map_or(Ok(()), Err)
                })
                .await?;
                place.service.let_go();
                Ok::<_, Failed>(())
            });
            answered?;
            closed?;
            let ended = agent.ended().await?;
            assert!(ended.success(), "way {n}: {ended}");
            assert!(place.node.run(|| way.check())??.is_intact(), "way {n}");
            assert_closed(place).await;
        }
        Ok(())
    })
}

fn killed_it_leaves_the_way_closed_and_comes_back() -> Outcome {
    Place::play(async |place| {
        let between = place.between().await;
        for (n, (way, chosen)) in ways().into_iter().enumerate() {
            let agent = Program::ready(place, &between, &flags(&chosen)).await?;
            assert_open(place).await?;
            agent.signal(Signal::SIGKILL)?;
            assert!(!agent.ended().await?.success());
            assert!(place.node.run(|| way.check())??.is_intact(), "way {n}");
            assert_closed(place).await;
            let agent = Program::ready(place, &between, &flags(&chosen)).await?;
            assert_open(place).await?;
            agent.end().await?;
        }
        Ok(())
    })
}

fn uninstalled_it_leaves_nothing_behind() -> Outcome {
    Place::play(async |place| {
        let between = place.between().await;
        for (n, (way, chosen)) in ways().into_iter().enumerate() {
            let agent = Program::ready(place, &between, &flags(&chosen)).await?;
            assert_open(place).await?;
            agent.end().await?;
            let parts = place.node.run(|| way.check())??;
            assert!(parts.is_intact(), "way {n}: {parts:?}");
            let log = uninstall().await?;
            // Neither a part of this way nor of any other.
            let own = place.node.run(|| way.check())??.missing;
            let any = place.node.run(|| WAY().check())??.missing;
            assert_eq!(any.len(), 5, "way {n}: only {any:?} are missing\n{log}");
            assert_eq!(own.contains(&Part::Rewrite), n > 0, "way {n}: {own:?}\n{log}");
            // As if podid had never been there: the node's service answers pods again.
            let got = place.ask(&place.on_bridge, T).await?;
            assert_eq!(got.token(), "h.vm.s", "way {n}");
            // Once more is no error.
            uninstall().await?;
        }
        Ok(())
    })
}
