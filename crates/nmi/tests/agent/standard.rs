//! Standard mode: AzureAssignedIdentity says what a pod has. Bindings and identities are nobody's business here.

use serde_json::{Value, json};

use crate::cluster::{Cluster, NODE, ONE, TWO};
use crate::imds::Imds;
use crate::node::{Agent, Q, T};

/// The copy of an identity that an assignment carries.
fn identity(namespace: &str, name: &str, client_id: &str) -> Value {
    json!({
        "apiVersion": "aadpodidentity.k8s.io/v1", "kind": "AzureIdentity",
        "metadata": { "name": name, "namespace": namespace }, "spec": { "clientID": client_id },
    })
}

async fn pod(cluster: &Cluster, name: &str, last: u8) {
    let label = json!({ "aadpodidbinding": name });
    cluster.pod("shop", name, &format!("127.0.0.{last}"), label).await;
}

async fn agent(cluster: &Cluster, imds: &Imds, flags: &[&str]) -> Agent {
    let standard = ["--operation-mode=standard", "--wait-timeout=1"];
    let flags: Vec<&str> = standard.iter().chain(flags).copied().collect();
    Agent::ready(cluster, imds, &flags).await
}

#[tokio::test]
async fn what_is_assigned_is_given_what_is_not_yet_is_waited_for_and_other_nodes_do_not_count() {
    let (cluster, imds) = (Cluster::start().await, Imds::start().await);
    for (last, name) in (2..).zip(["assigned", "old", "created", "elsewhere", "unassigned", "several"]) {
        pod(&cluster, name, last).await;
    }
    let one = || identity("shop", "one", ONE);
    cluster.assigned("assigned", NODE, one(), "Assigned").await;
    // Of a controller from before there were states.
    cluster.assigned("old", NODE, one(), "").await;
    cluster.assigned("created", NODE, one(), "Created").await;
    cluster.assigned("elsewhere", "n2", one(), "Assigned").await;
    cluster.assigned("unassigned", NODE, one(), "Unassigned").await;
    cluster.assigned("several", NODE, one(), "Assigned").await;
    cluster
        .assigned("several", NODE, identity("shop", "two", TWO), "Assigned")
        .await;
    // A binding that would count in managed mode.
    cluster.identity("shop", "two", TWO).await;
    cluster.binding("shop", "two", "assigned", "two").await;
    let agent = agent(&cluster, &imds, &[]).await;
    let at = format!("{T}{Q}");
    for (from, query, expected) in [
        ("127.0.0.2", "", Ok(ONE)),
        (
            "127.0.0.2",
            "&client_id=22222222-2222-4222-8222-222222222222",
            Err("identity_not_bound"),
        ),
        ("127.0.0.3", "", Ok(ONE)),
        ("127.0.0.4", "", Err("identity_not_assigned")),
        ("127.0.0.5", "", Err("no_binding")),
        ("127.0.0.6", "", Err("no_binding")),
        ("127.0.0.7", "", Ok(ONE)),
        (
            "127.0.0.7",
            "&client_id=22222222-2222-4222-8222-222222222222",
            Ok(TWO),
        ),
    ] {
        let got = agent.get(from, &format!("{at}{query}")).await;
        match expected {
            Ok(client_id) => assert_eq!(
                (got.status, got.token()),
                (200, format!("h.{client_id}.s")),
                "{from} {query}"
            ),
            Err(reason) => assert_eq!((got.status, got.reason()), (400, reason), "{from} {query}"),
        }
    }
    // The controller is done: whoever waits has its token.
    cluster.assigned("created", NODE, one(), "Assigned").await;
    let got = agent.until("127.0.0.4", &at, 200).await;
    assert_eq!(got.token(), format!("h.{ONE}.s"));
    cluster.unassign("assigned", "one").await;
    agent.until("127.0.0.2", &at, 400).await;
}

#[tokio::test]
async fn another_namespaces_identity_counts_unless_the_operator_or_the_identity_says_otherwise() {
    let (cluster, imds) = (Cluster::start().await, Imds::start().await);
    pod(&cluster, "shared", 2).await;
    pod(&cluster, "own", 3).await;
    pod(&cluster, "closed", 4).await;
    cluster
        .assigned("shared", NODE, identity("bank", "shared", ONE), "Assigned")
        .await;
    cluster
        .assigned("own", NODE, identity("shop", "own", TWO), "Assigned")
        .await;
    let mut closed = identity("bank", "closed", TWO);
    closed["metadata"]["annotations"] = json!({ "aadpodidentity.k8s.io/Behavior": "namespaced" });
    cluster.assigned("closed", NODE, closed, "Assigned").await;
    let at = format!("{T}{Q}");
    let open = agent(&cluster, &imds, &[]).await;
    let forced = agent(&cluster, &imds, &["--forceNamespaced"]).await;
    for (agent, from, expected) in [
        (&open, "127.0.0.2", Ok(ONE)),
        (&open, "127.0.0.3", Ok(TWO)),
        (&open, "127.0.0.4", Err("identity_not_bound")),
        (&forced, "127.0.0.2", Err("identity_not_bound")),
        (&forced, "127.0.0.3", Ok(TWO)),
        (&forced, "127.0.0.4", Err("identity_not_bound")),
    ] {
        let got = agent.get(from, &at).await;
        match expected {
            Ok(client_id) => assert_eq!(got.token(), format!("h.{client_id}.s"), "{from}: {}", got.body),
            Err(reason) => assert_eq!((got.status, got.reason()), (400, reason), "{from}"),
        }
        assert!(
            !got.body.contains("bank"),
            "nothing about other tenants: {}",
            got.body
        );
    }
}
