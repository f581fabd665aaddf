//! What the agent does when things change, break or end.

use std::time::Duration;

use podid_testkit::eventually;
use serde_json::json;

use crate::cluster::{Cluster, ONE, TWO};
use crate::imds::Imds;
use crate::node::{Agent, Q, T};

fn at() -> String {
    format!("{T}{Q}")
}

/// 127.0.0.2 has the label `foo`, which is bound to identity `one`.
async fn bound(flags: &[&str]) -> (Cluster, Imds, Agent) {
    let (cluster, imds) = (Cluster::start().await, Imds::start().await);
    cluster.identity("shop", "one", ONE).await;
    cluster.binding("shop", "foo", "foo", "one").await;
    cluster
        .pod("shop", "demo", "127.0.0.2", json!({ "aadpodidbinding": "foo" }))
        .await;
    let agent = Agent::ready(&cluster, &imds, flags).await;
    (cluster, imds, agent)
}

#[tokio::test]
async fn a_request_waits_for_its_pod_and_its_binding() {
    let (cluster, imds) = (Cluster::start().await, Imds::start().await);
    let agent = Agent::ready(&cluster, &imds, &[]).await;
    let create = async {
        cluster
            .pod("shop", "demo", "127.0.0.2", json!({ "aadpodidbinding": "foo" }))
            .await;
        cluster.identity("shop", "one", ONE).await;
        cluster.binding("shop", "foo", "foo", "one").await;
    };
    let at = at();
    let (got, ()) = tokio::join!(agent.get("127.0.0.2", &at), create);
    assert_eq!(
        (got.status, got.token()),
        (200, format!("h.{ONE}.s")),
        "{}",
        got.body
    );
}

#[tokio::test]
async fn a_deleted_binding_is_refused_although_its_token_lives() {
    let (cluster, _imds, agent) = bound(&[]).await;
    assert_eq!(agent.get("127.0.0.2", &at()).await.status, 200);
    cluster.delete_binding("shop", "foo").await;
    let refused = agent.until("127.0.0.2", &at(), 400).await;
    assert_eq!(refused.reason(), "binding_removed");
    cluster.binding("shop", "again", "foo", "one").await;
    agent.until("127.0.0.2", &at(), 200).await;
}

#[tokio::test]
async fn an_address_that_goes_to_a_new_pod_takes_its_connections_from_the_old_one() {
    let (cluster, _imds, agent) = bound(&["--wait-timeout=1"]).await;
    cluster.identity("bank", "two", TWO).await;
    cluster.binding("bank", "foo", "foo", "two").await;
    let mut old = agent.connect("127.0.0.2").await.unwrap();
    assert_eq!(old.get(&at()).await.token(), format!("h.{ONE}.s"));
    cluster.delete_pod("shop", "demo").await;
    cluster
        .pod("bank", "heir", "127.0.0.2", json!({ "aadpodidbinding": "foo" }))
        .await;
    eventually("the new pod gets its own token", || async {
        let got = agent.get("127.0.0.2", &at()).await;
        if got.token() == format!("h.{TWO}.s") {
            Ok(())
        } else {
            Err(got)
        }
    })
    .await
    .unwrap();
    let gone = old.get(&at()).await;
    assert_eq!((gone.status, gone.reason()), (400, "pod_gone"));
    assert!(old.closed().await);
}

#[tokio::test]
async fn with_the_api_server_gone_everything_known_goes_on() {
    let (cluster, imds, agent) = bound(&["--wait-timeout=2"]).await;
    assert_eq!(agent.get("127.0.0.2", &at()).await.status, 200);
    cluster.stop();
    let other = format!("{T}?api-version=2018-02-01&resource=https://management.azure.com/");
    assert_eq!(agent.get("127.0.0.2", &at()).await.status, 200);
    assert_eq!(agent.get("127.0.0.2", &other).await.status, 200);
    assert_eq!(imds.asked().len(), 2);
    let mut wire = agent.connect("127.0.0.3").await.unwrap();
    wire.send(&format!("GET {T} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    assert_eq!(wire.read().await.status, 400);
}

#[tokio::test]
async fn with_the_metadata_service_gone_tokens_live_on_and_new_ones_are_a_503() {
    let (_cluster, imds, agent) = bound(&["--wait-timeout=2"]).await;
    assert_eq!(agent.get("127.0.0.2", &at()).await.status, 200);
    imds.stop();
    let other = format!("{T}?api-version=2018-02-01&resource=https://management.azure.com/");
    let got = agent.until("127.0.0.2", &other, 503).await;
    assert_eq!(got.json()["error"], "temporarily_unavailable");
    got.header("retry-after").unwrap().parse::<u64>().unwrap();
    assert_eq!(agent.get("127.0.0.2", &at()).await.status, 200);
    let passed = agent.get("127.0.0.2", "/metadata/instance").await;
    assert_eq!((passed.status, passed.reason()), (503, "metadata_service_failed"));
}

#[tokio::test]
async fn without_an_api_server_it_is_not_ready_and_says_for_what_it_waits() {
    let (cluster, imds) = (Cluster::start().await, Imds::start().await);
    cluster.stop();
    let agent = Agent::start(&cluster, &imds, &["--wait-timeout=1"]).await;
    let missing = agent.probe("/readyz").await;
    assert_eq!(missing.status, 503);
    for name in [
        "watch-pods",
        "watch-identities",
        "watch-bindings",
        "watch-exceptions",
    ] {
        assert!(missing.body.contains(name), "{}", missing.body);
    }
    assert_eq!(agent.probe("/healthz").await.body, "Not Active");
    let got = agent.get("127.0.0.2", &at()).await;
    assert_eq!((got.status, got.reason()), (503, "not_synced"));
}

#[tokio::test]
async fn an_object_that_cannot_be_used_harms_no_other() {
    let (cluster, _imds, agent) = bound(&["--wait-timeout=1"]).await;
    cluster.identity("shop", "broken", "me").await;
    cluster.binding("shop", "broken", "broken", "broken").await;
    cluster
        .pod(
            "shop",
            "other",
            "127.0.0.3",
            json!({ "aadpodidbinding": "broken" }),
        )
        .await;
    let refused = agent.until("127.0.0.3", &at(), 400).await;
    assert!(
        ["identity_missing", "no_binding", "pod_not_found"].contains(&refused.reason()),
        "{}",
        refused.body
    );
    assert_eq!(agent.get("127.0.0.2", &at()).await.status, 200);
    let metrics = agent.probe("/metrics").await.body;
    let line = r#"podid_nmi_unusable_objects_total{kind="AzureIdentity",reason="resource_field_invalid"} 1"#;
    assert!(metrics.contains(line), "{metrics}");
    assert!(metrics.contains(r#"reason="token_issued""#) && !metrics.contains(&format!("h.{ONE}")));
}

#[tokio::test]
async fn told_to_stop_it_says_so_takes_nobody_new_and_finishes_what_it_has() {
    let (_cluster, imds, agent) = bound(&[]).await;
    imds.hold();
    let mut wire = agent.connect("127.0.0.2").await.unwrap();
    wire.send(&format!(
        "GET {T}{Q} HTTP/1.1\r\nHost: x\r\nMetadata: true\r\n\r\n"
    ))
    .await;
    eventually("the upstream is asked", || async {
        if imds.asked().is_empty() {
            Err("not yet")
        } else {
            Ok(())
        }
    })
    .await
    .unwrap();
    let mut idle = agent.connect("127.0.0.2").await.unwrap();
    agent.stop.request();
    eventually("nobody new is taken", || async {
        agent.connect("127.0.0.2").await.map_or(Ok(()), |_| Err("taken"))
    })
    .await
    .unwrap();
    let probe = agent.probe("/readyz").await;
    assert_eq!(
        (probe.status, probe.body.as_str()),
        (503, "waiting for draining\n")
    );
    assert!(idle.closed().await);
    imds.release();
    let got = wire.read().await;
    assert_eq!((got.status, got.token()), (200, format!("h.{ONE}.s")));
    tokio::time::timeout(Duration::from_secs(10), agent.ended())
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_refusal_is_told_on_the_pod_and_counted_up() {
    let (cluster, imds, agent) = bound(&["--wait-timeout=1"]).await;
    let other = format!("{T}{Q}&client_id={TWO}");
    assert_eq!(agent.get("127.0.0.2", &other).await.status, 400);
    let told = eventually("the pod has an event", || async {
        cluster.events("shop").await.into_iter().next().ok_or("none")
    })
    .await
    .unwrap();
    assert_eq!(
        (
            told["reason"].as_str(),
            told["type"].as_str(),
            told["involvedObject"]["name"].as_str()
        ),
        (Some("IdentityNotBound"), Some("Warning"), Some("demo"))
    );
    assert!(told["message"].as_str().unwrap().contains(TWO), "{told}");
    assert!(
        told["message"]
            .as_str()
            .unwrap()
            .ends_with("[identity_not_bound]"),
        "{told}"
    );
    // The same code in the metric.
    let line = r#"podid_nmi_requests_total{operation="token",reason="identity_not_bound"} 1"#;
    let metrics = agent.probe("/metrics").await.body;
    assert!(metrics.contains(line), "{metrics}");
    // Another agent on the node, or this one after a restart: the same event.
    let again = Agent::ready(&cluster, &imds, &["--wait-timeout=1"]).await;
    assert_eq!(again.get("127.0.0.2", &other).await.status, 400);
    eventually("it is counted up", || async {
        let events = cluster.events("shop").await;
        if events.len() == 1 && events[0]["count"] == 2 {
            Ok(())
        } else {
            Err(events)
        }
    })
    .await
    .unwrap();
}
