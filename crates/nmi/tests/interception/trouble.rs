//! The program while its cluster is in trouble: no API server, a watch that is too old, objects that nobody should have
//! let in, very many of them. What it knows goes on; what it does not know stays closed.

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use podid_testkit::eventually;
use serde_json::{Value, json};

use crate::Outcome;
use crate::between::{BINDINGS, EXCEPTIONS, IDENTITIES, KINDS, PODS};
use crate::place::{DIRECT, NEIGHBOUR, ONE, Place, T, TWO};
use crate::program::Program;

const FLAGS: &[&str] = &["--interception=local-route", "--wait-timeout=1"];
/// The same token for another audience: nobody has asked for it yet.
const COLD: &str =
    "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://management.azure.com/";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test(
            "without_an_api_server_known_pods_keep_their_tokens_and_a_new_agent_stays_closed",
            without_an_api_server_known_pods_keep_their_tokens_and_a_new_agent_stays_closed,
        ),
        Trial::test(
            "a_watch_that_is_too_old_is_listed_again_and_nobody_loses_a_token_meanwhile",
            a_watch_that_is_too_old_is_listed_again_and_nobody_loses_a_token_meanwhile,
        ),
        Trial::test(
            "malformed_objects_are_named_once_and_harm_no_other",
            malformed_objects_are_named_once_and_harm_no_other,
        ),
        Trial::test(
            "ten_thousand_bindings_hide_no_pods_own",
            ten_thousand_bindings_hide_no_pods_own,
        ),
    ]
}

fn token(client_id: &str) -> String {
    format!("h.{client_id}.s")
}

fn without_an_api_server_known_pods_keep_their_tokens_and_a_new_agent_stays_closed() -> Outcome {
    Place::play(async |place| {
        let mut between = place.between().await;
        let agent = Program::ready(place, &between, FLAGS).await?;
        assert_eq!(place.ask(&place.on_bridge, T).await?.token(), token(ONE));
        between.go();
        eventually("the watches have noticed", async || {
            let log = agent.log();
            match log.matches("the watch was interrupted").count() {
                4.. => Ok(()),
                fewer => Err(fewer),
            }
        })
        .await?;
        // What was asked before, what was not, and a pod that never asked.
        assert_eq!(place.ask(&place.on_bridge, T).await?.token(), token(ONE));
        assert_eq!(place.ask(&place.on_bridge, COLD).await?.token(), token(ONE));
        assert_eq!(place.ask(&place.direct, T).await?.token(), token(TWO));
        // It serves, so it is ready: taking it off would help nobody.
        assert_eq!(agent.probe("/readyz").await?.body, "ready\n");

        // An agent that knows nothing yet serves nothing, and says for whom it waits.
        agent.signal(Signal::SIGKILL)?;
        agent.ended().await?;
        let agent = Program::start(place, &between, FLAGS)?;
        let waits = "waiting for watch-bindings, watch-exceptions, watch-identities, watch-pods\n";
        agent.probe_says("/readyz", 503, waits).await?;
        let got = place.ask(&place.on_bridge, T).await?;
        assert_eq!((got.status, got.reason()), (503, "not_synced"), "{}", got.body);
        assert_eq!(agent.said(), [""; 0]);
        between.come_back().await;
        agent.is_ready().await?;
        assert_eq!(place.ask(&place.on_bridge, T).await?.token(), token(ONE));
        assert_eq!(place.strangers(), 0);
        agent.end().await
    })
}

fn a_watch_that_is_too_old_is_listed_again_and_nobody_loses_a_token_meanwhile() -> Outcome {
    Place::play(async |place| {
        let between = place.between().await;
        let agent = Program::ready(place, &between, FLAGS).await?;
        assert_eq!(place.ask(&place.direct, T).await?.token(), token(TWO));
        between.hold(&KINDS);
        between.expire();
        between.all_held_wait().await?;
        // Told by no watch: a pod is gone and its address has gone to another, and a binding is gone.
        place.delete("direct").await;
        place.pod("heir", DIRECT, "one", &place.direct).await;
        place.unbind("two").await;
        // The lists wait; what was known is known.
        for target in [T, COLD] {
            assert_eq!(place.ask(&place.on_bridge, target).await?.token(), token(ONE));
            assert_eq!(place.ask(&place.neighbour, target).await?.token(), token(TWO));
        }
        assert_eq!(agent.probe("/readyz").await?.body, "ready\n");
        between.release();
        // Nothing of it is lost, and on the way nobody gets anything else than the old or the new.
        let heir = async || {
            let got = place
                .ask(&place.direct, T)
                .await
                .map_err(|failed| format!("{failed:?}"))?;
            match got.token() {
                new if new == token(ONE) => Ok(()),
                old if old == token(TWO) => Err(old),
                _ if got.reason() == "binding_removed" => Err(got.body),
                other => panic!("{other:?} {got:?}"),
            }
        };
        eventually("the heir gets its own token", heir).await?;
        let refused = async || {
            let got = place
                .ask(&place.neighbour, T)
                .await
                .map_err(|failed| format!("{failed:?}"))?;
            if got.status == 400 {
                Ok(got.reason().to_owned())
            } else {
                Err(got.body)
            }
        };
        let reason = eventually("the binding's end is known", refused).await?;
        assert_eq!(reason, "binding_removed");
        assert_eq!(place.ask(&place.on_bridge, T).await?.token(), token(ONE));
        agent.end().await
    })
}

/// Objects that no API server with our CRDs would take; old CRDs had no schema.
fn malformed() -> Vec<(&'static str, &'static str, Value)> {
    let pod = |labels: Value, status: Value| json!({ "metadata": { "uid": "u", "labels": labels }, "spec": { "nodeName": "n1" }, "status": status });
    vec![
        (
            IDENTITIES,
            "bad-type",
            json!({ "spec": { "type": "zero", "clientID": ONE } }),
        ),
        (IDENTITIES, "bad-client-id", json!({ "spec": { "clientID": 7 } })),
        (IDENTITIES, "no-guid", json!({ "spec": { "clientID": "me" } })),
        (IDENTITIES, "no-spec", json!({ "spec": null })),
        (
            BINDINGS,
            "bad-selector",
            json!({ "spec": { "azureIdentity": "one", "selector": ["one"] } }),
        ),
        (BINDINGS, "spec-is-a-number", json!({ "spec": 5 })),
        (
            EXCEPTIONS,
            "bad-labels",
            json!({ "spec": { "podLabels": "all" } }),
        ),
        (
            PODS,
            "labels-are-numbers",
            pod(json!({ "aadpodidbinding": 1 }), json!({ "podIP": NEIGHBOUR })),
        ),
        (
            PODS,
            "address-is-a-list",
            pod(json!({}), json!({ "podIP": [NEIGHBOUR] })),
        ),
        // Beside the neighbour's own: two pods with one address would refuse both.
        (
            PODS,
            "no-uid",
            json!({ "metadata": { "labels": { "aadpodidbinding": "one" } }, "status": { "podIP": NEIGHBOUR } }),
        ),
    ]
}

fn malformed_objects_are_named_once_and_harm_no_other() -> Outcome {
    Place::play(async |place| {
        let between = place.between().await;
        for (kind, name, mut object) in malformed() {
            object["metadata"]["name"] = name.into();
            object["metadata"]["namespace"] = "shop".into();
            between.put(kind, [object]);
        }
        let agent = Program::ready(place, &between, FLAGS).await?;
        for (pod, client_id) in [
            (&place.on_bridge, ONE),
            (&place.neighbour, TWO),
            (&place.direct, TWO),
        ] {
            let got = place.ask(pod, T).await?;
            assert_eq!(got.token(), token(client_id), "{}", got.body);
        }
        // Seen once more, they are not named once more.
        between.hold(&KINDS);
        between.expire();
        between.all_held_wait().await?;
        between.release();
        let counted = async || {
            let metrics = agent
                .probe("/metrics")
                .await
                .map_err(|failed| format!("{failed:?}"))?
                .body;
            let seen: u32 = metrics
                .lines()
                .filter(|line| line.starts_with("podid_nmi_unusable_objects_total{"))
                .filter_map(|line| line.rsplit(' ').next()?.parse::<u32>().ok())
                .sum();
            if seen as usize == 2 * malformed().len() {
                Ok(())
            } else {
                Err(metrics)
            }
        };
        eventually("all were seen twice", counted).await?;
        let log = agent.log();
        for (_, name, _) in malformed() {
            let named = log.matches(&format!(r#""object":"shop/{name}""#)).count();
            assert_eq!(named, 1, "{name}: {log}");
        }
        agent.end().await
    })
}

fn ten_thousand_bindings_hide_no_pods_own() -> Outcome {
    Place::play(async |place| {
        let between = place.between().await;
        let binding = |n: u32| {
            json!({
                "metadata": { "name": format!("app-{n}"), "namespace": "shop", "uid": format!("u-{n}"), "resourceVersion": "1" },
                "spec": { "azureIdentity": "one", "selector": format!("app-{n}") },
            })
        };
        between.put(BINDINGS, (0..10_000).map(binding));
        place.delete("neighbour").await;
        place.pod("last", NEIGHBOUR, "app-9999", &place.neighbour).await;
        let agent = Program::ready(place, &between, FLAGS).await?;
        // Bound by the last of them, and by one that was there before.
        assert_eq!(place.ask(&place.neighbour, T).await?.token(), token(ONE));
        assert_eq!(place.ask(&place.direct, T).await?.token(), token(TWO));
        // Changes among so many count at once too.
        place.unbind("two").await;
        let refused = async || {
            let got = place
                .ask(&place.direct, T)
                .await
                .map_err(|failed| format!("{failed:?}"))?;
            if got.status == 400 { Ok(()) } else { Err(got.body) }
        };
        eventually("the binding's end is known", refused).await?;
        agent.end().await
    })
}
