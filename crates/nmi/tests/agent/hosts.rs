//! `/host/token`: node agents that ask for other pods. The kernel's sockets are real, the processes are as a `/proc` of the
//! test's own shows them: one entry a pod, whose open files are the connections that the test gives it.

use std::os::unix::fs::symlink;
use std::path::Path;

use podid_kernel::attest::Places;
use podid_testkit::eventually;
use serde_json::json;
use tempfile::TempDir;

use crate::cluster::{Cluster, ONE};
use crate::imds::Imds;
use crate::node::{Agent, Got, T, Wire};

/// Pods `csi` (allowed) and `other` on the node's network, and `demo`, which has no address yet and is bound to identity `one`.
struct Hosts {
    cluster: Cluster,
    _imds: Imds,
    agent: Agent,
    proc: TempDir,
    csi: String,
    other: String,
}

impl Hosts {
    async fn start(flags: &[&str]) -> Self {
        let (cluster, imds) = (Cluster::start().await, Imds::start().await);
        cluster.identity("shop", "one", ONE).await;
        cluster.binding("shop", "one", "one", "one").await;
        cluster
            .starting_pod("shop", "demo", json!({ "aadpodidbinding": "one" }))
            .await;
        let csi = cluster.host_pod("bank", "csi", "csi-provider").await;
        let other = cluster.host_pod("bank", "other", "default").await;
        let proc = tempfile::tempdir().unwrap();
        let allowed = [
            "--attestation=enforce",
            "--host-token-callers=bank/csi-provider",
            "--host-token-listen=127.0.0.1:0",
            "--wait-timeout=1",
        ];
        let flags: Vec<&str> = allowed.iter().chain(flags).copied().collect();
        let shown = Places::Proc(proc.path().into());
        let agent = Agent::start_with(&cluster, &imds, &flags, |config| config.places = shown).await;
        agent.wait().await;
        let hosts = Self {
            cluster,
            _imds: imds,
            agent,
            proc,
            csi,
            other,
        };
        process(hosts.proc.path(), "900", &hosts.csi);
        process(hosts.proc.path(), "901", &hosts.other);
        hosts
    }

    /// A connection that is a socket of process `pid`.
    async fn connect(&self, pid: &str) -> Wire {
        let wire = Wire::to(self.agent.hosts.unwrap()).await;
        self.give(&wire, pid);
        wire
    }

    fn give(&self, wire: &Wire, pid: &str) {
        let inode = wire.inode();
        let file = self.proc.path().join(pid).join("fd").join(inode.to_string());
        symlink(format!("socket:[{inode}]"), file).unwrap();
    }

    async fn token(&self, pid: &str) -> Got {
        ask(
            &mut self.connect(pid).await,
            "?resource=https://vault.azure.net",
            "podns: shop\r\npodname: demo\r\n",
        )
        .await
    }
}

/// A process of the pod with this uid.
fn process(proc: &Path, pid: &str, uid: &str) {
    std::fs::create_dir_all(proc.join(pid).join("fd")).unwrap();
    std::fs::write(
        proc.join(pid).join("cgroup"),
        format!("0::/kubepods/pod{uid}/c\n"),
    )
    .unwrap();
}

async fn ask(wire: &mut Wire, query: &str, headers: &str) -> Got {
    wire.send(&format!(
        "GET /host/token/{query} HTTP/1.1\r\nHost: localhost:2579\r\n{headers}\r\n"
    ))
    .await;
    wire.read().await
}

#[tokio::test]
async fn an_allowed_node_agent_gets_the_token_of_the_pod_that_it_names() {
    let hosts = Hosts::start(&[]).await;
    let got = hosts.token("900").await;
    assert_eq!(got.status, 200, "{}", got.body);
    let body = got.json();
    assert_eq!(
        (
            &body["clientid"],
            &body["token"]["access_token"],
            &body["token"]["resource"]
        ),
        (
            &json!(ONE),
            &json!(format!("h.{ONE}.s")),
            &json!("https://vault.azure.net")
        )
    );
    let values = body["token"].as_object().unwrap().values();
    assert!(values.into_iter().all(serde_json::Value::is_string), "{body}");
    assert_eq!(got.header("content-length"), Some(&*got.body.len().to_string()));

    // The same connection, other questions.
    let mut wire = hosts.connect("900").await;
    for (query, headers, status, reason) in [
        (
            "?resource=r",
            "podns: shop\r\npodname: nobody\r\n",
            400,
            "named_pod_not_found",
        ),
        (
            "?resource=r",
            "podns: bank\r\npodname: other\r\n",
            400,
            "no_binding_label",
        ),
        ("?resource=r", "podname: demo\r\n", 400, "host_headers_missing"),
        ("", "podns: shop\r\npodname: demo\r\n", 400, "resource_missing"),
        (
            "?resource=r&client_id=22222222-2222-4222-8222-222222222222",
            "podns: shop\r\npodname: demo\r\n",
            400,
            "identity_not_bound",
        ),
    ] {
        let got = ask(&mut wire, query, headers).await;
        assert_eq!((got.status, got.reason()), (status, reason), "{query} {headers}");
    }
    // Nothing else is there, not even for an allowed one.
    let elsewhere = wire.get(&format!("{T}?api-version=2018-02-01&resource=r")).await;
    assert_eq!((elsewhere.status, elsewhere.reason()), (404, "path_not_found"));
}

#[tokio::test]
async fn on_the_nodes_network_nobody_else_is_served_whatever_it_says() {
    let hosts = Hosts::start(&[]).await;
    // Another pod's process, and one that is no pod's at all.
    let refused = hosts.token("901").await;
    assert_eq!((refused.status, refused.reason()), (400, "host_caller_refused"));
    let mut nobodys = Wire::to(hosts.agent.hosts.unwrap()).await;
    let got = ask(&mut nobodys, "?resource=r", "podns: shop\r\npodname: demo\r\n").await;
    assert_eq!((got.status, got.reason()), (400, "host_caller_refused"));
    assert!(
        !got.body.contains("csi"),
        "who may ask is nobody's business: {}",
        got.body
    );
    // A service account's name in a header, or another pod's connection kept open, changes nothing.
    let _allowed = hosts.connect("900").await;
    let got = ask(
        &mut nobodys,
        "?resource=r",
        "podns: shop\r\npodname: demo\r\nserviceaccount: csi-provider\r\n",
    )
    .await;
    assert_eq!((got.status, got.reason()), (400, "host_caller_refused"));
    // The allowed pod is gone, a process in its control group is not.
    let mut kept = hosts.connect("900").await;
    let headers = "podns: shop\r\npodname: demo\r\n";
    assert_eq!(ask(&mut kept, "?resource=r", headers).await.status, 200);
    hosts.cluster.delete_pod("bank", "csi").await;
    let gone = eventually("the agent sees that it is gone", || async {
        let got = hosts.token("900").await;
        if got.status == 400 { Ok(got) } else { Err(got) }
    })
    .await
    .unwrap();
    assert_eq!(gone.reason(), "host_caller_refused");
    assert_eq!(ask(&mut kept, "?resource=r", headers).await.reason(), "pod_gone");
}

#[tokio::test]
async fn in_the_originals_style_the_originals_words() {
    let hosts = Hosts::start(&["--error-style=aad-pod-identity"]).await;
    let mut wire = hosts.connect("900").await;
    let mut stranger = Wire::to(hosts.agent.hosts.unwrap()).await;
    let named = "podns: shop\r\npodname: demo\r\n";
    for (wire, query, headers, status, body) in [
        (
            &mut wire,
            "?resource=r",
            "",
            400,
            "missing 'podname' and 'podns' from request header\n",
        ),
        (
            &mut stranger,
            "?resource=r",
            named,
            500,
            "request remote address is not from a host\n",
        ),
    ] {
        let got = ask(wire, query, headers).await;
        assert_eq!((got.status, &*got.body), (status, body));
    }
    let got = ask(&mut wire, "", named).await;
    assert_eq!(
        (got.status, &*got.body),
        (400, "parameter resource cannot be empty\n")
    );
    assert_eq!(ask(&mut wire, "?resource=r", named).await.status, 200);
}
