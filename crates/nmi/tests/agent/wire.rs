//! Rules of the wire that only a connection shows: framing, keep-alive, passing through.

use serde_json::json;

use crate::cluster::{Cluster, ONE, TWO};
use crate::imds::Imds;
use crate::node::{Agent, Q, T};

/// 127.0.0.2 has one identity, .3 two under one selector, .4 an exception, .5 the first one's label in another namespace;
/// 127.0.0.6 is a pod of another node.
async fn shop() -> (Cluster, Imds, Agent) {
    let (cluster, imds) = (Cluster::start().await, Imds::start().await);
    cluster.identity("shop", "one", ONE).await;
    cluster.identity("shop", "two", TWO).await;
    cluster.binding("shop", "one", "one", "one").await;
    cluster.binding("shop", "foo-1", "foo", "one").await;
    cluster.binding("shop", "foo-2", "foo", "two").await;
    cluster
        .exception("shop", "addon", json!({ "addon": "yes" }))
        .await;
    cluster
        .pod("shop", "one", "127.0.0.2", json!({ "aadpodidbinding": "one" }))
        .await;
    cluster
        .pod("shop", "foo", "127.0.0.3", json!({ "aadpodidbinding": "foo" }))
        .await;
    cluster
        .pod("shop", "addon", "127.0.0.4", json!({ "addon": "yes" }))
        .await;
    cluster
        .pod("bank", "one", "127.0.0.5", json!({ "aadpodidbinding": "one" }))
        .await;
    cluster
        .pod_on(
            "n2",
            "shop",
            "far",
            "127.0.0.6",
            json!({ "aadpodidbinding": "one" }),
        )
        .await;
    let agent = Agent::ready(&cluster, &imds, &["--wait-timeout=1"]).await;
    (cluster, imds, agent)
}

#[tokio::test]
async fn each_pod_gets_its_own_identitys_token_and_nobody_elses() {
    let (_cluster, imds, agent) = shop().await;
    let token = |client_id: &str| format!("h.{client_id}.s");
    assert_eq!(
        agent.get("127.0.0.2", &format!("{T}{Q}")).await.token(),
        token(ONE)
    );
    assert_eq!(
        agent.get("127.0.0.3", &format!("{T}{Q}")).await.token(),
        token(ONE)
    );
    assert_eq!(
        agent
            .get("127.0.0.3", &format!("{T}{Q}&client_id={TWO}"))
            .await
            .token(),
        token(TWO)
    );
    for (from, query, reason) in [
        ("127.0.0.2", format!("&client_id={TWO}"), "identity_not_bound"),
        ("127.0.0.5", String::new(), "no_binding"),
        ("127.0.0.6", String::new(), "pod_not_found"),
    ] {
        let got = agent.get(from, &format!("{T}{Q}{query}")).await;
        assert_eq!((got.status, got.reason()), (400, reason), "{from}");
    }
    // One call for each identity: the second pod's token of the first one was there already.
    assert_eq!(imds.asked().len(), 2, "{:?}", imds.asked());
}

#[tokio::test]
async fn rule_02_a_length_and_neither_chunks_nor_compression() {
    let (_cluster, _imds, agent) = shop().await;
    let mut wire = agent.connect("127.0.0.2").await.unwrap();
    wire.send(&format!(
        "GET {T}{Q} HTTP/1.1\r\nhost: x\r\nmetadata:true\r\nAccept-Encoding: gzip\r\n\r\n"
    ))
    .await;
    // Read by its length, so that it is the body's; an answer in chunks cannot be read here.
    let got = wire.read().await;
    assert_eq!((got.status, got.token()), (200, format!("h.{ONE}.s")));
    assert_eq!(got.header("content-length"), Some(&*got.body.len().to_string()));
    assert_eq!(
        got.header("content-type"),
        Some("application/json; charset=utf-8")
    );
    assert_eq!(
        (got.header("content-encoding"), got.header("transfer-encoding")),
        (None, None)
    );
}

#[tokio::test]
async fn rule_10_a_connection_without_a_word_is_normal() {
    let (_cluster, _imds, agent) = shop().await;
    for _ in 0..3 {
        drop(agent.connect("127.0.0.2").await.unwrap());
    }
    assert_eq!(agent.get("127.0.0.2", &format!("{T}{Q}")).await.status, 200);
}

#[tokio::test]
async fn rule_30_a_probe_and_a_token_on_one_connection_until_it_is_to_be_closed() {
    let (_cluster, _imds, agent) = shop().await;
    let mut wire = agent.connect("127.0.0.2").await.unwrap();
    wire.send(&format!("GET {T} HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n"))
        .await;
    let probe = wire.read().await;
    // To the byte what the real service was seen to answer.
    assert_eq!((probe.status, probe.body.len()), (400, 88));
    assert_eq!(wire.get(&format!("{T}{Q}")).await.status, 200);
    wire.send(&format!(
        "GET {T}{Q} HTTP/1.1\r\nHost: x\r\nMetadata: true\r\nConnection: close\r\n\r\n"
    ))
    .await;
    assert_eq!(wire.read().await.status, 200);
    assert!(wire.closed().await);
}

#[tokio::test]
async fn other_paths_go_to_the_real_service_by_policy_and_the_host_is_ours() {
    let (_cluster, imds, agent) = shop().await;
    let instance = agent
        .get("127.0.0.5", "/metadata/instance?api-version=2021-02-01")
        .await;
    assert_eq!(
        instance.json(),
        json!({ "passed": "/metadata/instance?api-version=2021-02-01" })
    );
    assert_eq!(instance.header("server"), Some("imds/150.870.65.512"));
    // Its connection is not ours.
    assert_eq!(instance.header("connection"), None);
    let absolute = agent
        .get("127.0.0.2", "http://evil.example/metadata/instance")
        .await;
    assert_eq!(absolute.json(), json!({ "passed": "/metadata/instance" }));
    for path in [
        "/metadata/attested/document",
        "/latest/meta-data",
        "/metadata/identity/info",
    ] {
        assert_eq!(agent.get("127.0.0.2", path).await.status, 404, "{path}");
        assert_eq!(
            agent.get("127.0.0.4", path).await.json(),
            json!({ "passed": path })
        );
    }
    // An excepted pod's token is the service's own answer, asked for by the canonical path.
    let own = agent
        .get("127.0.0.4", &format!("//Metadata/identity/./oauth2/tok%65n{Q}"))
        .await;
    assert_eq!(own.json()["client_id"], "vm");
    assert_eq!(imds.asked().last().unwrap(), &format!("{T}{Q}"));
    assert_eq!(
        agent
            .get("127.0.0.4", "/metadata/identity/getplatformmetadata")
            .await
            .status,
        404
    );
    let smuggled = agent.get("127.0.0.4", "/metadata/identity%5Coauth2/token").await;
    assert_eq!((smuggled.status, smuggled.reason()), (400, "path_invalid"));
}

#[tokio::test]
async fn one_address_cannot_take_all_connections() {
    let (cluster, imds, agent) = shop().await;
    let few = Agent::ready(&cluster, &imds, &["--pod-connections=2"]).await;
    let mut held = vec![
        few.connect("127.0.0.2").await.unwrap(),
        few.connect("127.0.0.2").await.unwrap(),
    ];
    for wire in &mut held {
        assert_eq!(wire.get(&format!("{T}{Q}")).await.status, 200);
    }
    let mut third = few.connect("127.0.0.2").await.unwrap();
    let refused = third.get(&format!("{T}{Q}")).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    assert_eq!(refused.reason(), "too_many_connections");
    assert!(third.closed().await);
    // A probe is outside every limit.
    let mut fourth = few.connect("127.0.0.2").await.unwrap();
    fourth.send(&format!("GET {T} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    assert_eq!(fourth.read().await.status, 400);
    assert_eq!(few.get("127.0.0.3", &format!("{T}{Q}")).await.status, 200);
    drop(agent);
}
