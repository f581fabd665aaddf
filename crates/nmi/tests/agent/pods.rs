//! States and addresses of pods, from the API server to the answer.

use serde_json::json;

use crate::cluster::{Cluster, ONE};
use crate::imds::Imds;
use crate::node::{Agent, Q, T, Wire};

async fn bound() -> (Cluster, Imds) {
    let (cluster, imds) = (Cluster::start().await, Imds::start().await);
    cluster.identity("shop", "one", ONE).await;
    cluster.binding("shop", "one", "one", "one").await;
    (cluster, imds)
}

#[tokio::test]
async fn init_containers_and_pods_that_shut_down_get_tokens_and_completed_pods_do_not() {
    let (cluster, imds) = bound().await;
    let status = |phase: &str, last: u8| {
        let address = format!("127.0.0.{last}");
        json!({ "phase": phase, "podIP": address, "podIPs": [{ "ip": address }] })
    };
    // Its init containers run.
    cluster
        .pod_with("pending", "one", json!([]), status("Pending", 2))
        .await;
    cluster
        .pod_with(
            "leaving",
            "one",
            json!(["example.com/wait"]),
            status("Running", 3),
        )
        .await;
    cluster.delete_pod("shop", "leaving").await;
    cluster
        .pod_with("done", "one", json!([]), status("Succeeded", 4))
        .await;
    cluster
        .pod_with("failed", "one", json!([]), status("Failed", 5))
        .await;
    let agent = Agent::ready(&cluster, &imds, &["--wait-timeout=1"]).await;
    let at = format!("{T}{Q}");
    for (from, expected) in [
        ("127.0.0.2", 200),
        ("127.0.0.3", 200),
        ("127.0.0.4", 400),
        ("127.0.0.5", 400),
    ] {
        let got = agent.get(from, &at).await;
        assert_eq!(got.status, expected, "{from}: {}", got.body);
        assert_eq!(got.reason(), if expected == 200 { "" } else { "pod_not_found" });
    }
}

#[tokio::test]
async fn every_address_of_a_pod_is_the_pods_in_both_families() {
    let (cluster, imds) = bound().await;
    let both = json!({ "phase": "Running", "podIP": "127.0.0.2", "podIPs": [{ "ip": "127.0.0.2" }, { "ip": "::1" }] });
    cluster.pod_with("both", "one", json!([]), both).await;
    let at = format!("{T}{Q}");
    let agent = Agent::ready(&cluster, &imds, &["--wait-timeout=1"]).await;
    assert_eq!(agent.get("127.0.0.2", &at).await.token(), format!("h.{ONE}.s"));
    let six = Agent::ready(&cluster, &imds, &["--wait-timeout=1", "--listen=[::1]:0"]).await;
    let got = Wire::to(six.address).await.get(&at).await;
    assert_eq!(
        (got.status, got.token()),
        (200, format!("h.{ONE}.s")),
        "{}",
        got.body
    );
}

#[tokio::test]
async fn a_pod_on_the_nodes_network_cannot_be_told_from_the_node_and_gets_nothing() {
    let (cluster, imds) = bound().await;
    cluster.host_pod("shop", "host", "default").await;
    let agent = Agent::ready(&cluster, &imds, &["--wait-timeout=1"]).await;
    let got = agent.get("127.0.0.1", &format!("{T}{Q}")).await;
    assert_eq!((got.status, got.reason()), (400, "host_network"), "{}", got.body);
}
