//! The admin's door, through a real Unix socket: what it shows is what decides, and it shows no token.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use podid_nmi::AdminSocket;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::cluster::{Cluster, ONE, TWO};
use crate::imds::Imds;
use crate::node::{Agent, Q, T};

/// A cluster with one pod of each kind, and an agent with an admin socket.
struct Place {
    cluster: Cluster,
    imds: Imds,
    agent: Agent,
    socket: PathBuf,
    folder: tempfile::TempDir,
}

impl Place {
    async fn start() -> Self {
        let (cluster, imds) = (Cluster::start().await, Imds::start().await);
        cluster.identity("shop", "one", ONE).await;
        cluster.identity("shop", "two", TWO).await;
        cluster.binding("shop", "foo", "foo", "one").await;
        cluster.binding("shop", "also-foo", "foo", "two").await;
        cluster.exception("shop", "tools", json!({ "app": "tool" })).await;
        for (name, address, labels) in [
            ("bound", "127.0.0.2", json!({ "aadpodidbinding": "foo" })),
            ("plain", "127.0.0.3", json!({})),
            ("unbound", "127.0.0.4", json!({ "aadpodidbinding": "bar" })),
            ("tool", "127.0.0.5", json!({ "app": "tool" })),
        ] {
            cluster.pod("shop", name, address, labels).await;
        }
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("podid/admin.sock");
        let bound = AdminSocket::bind(&socket).await.unwrap();
        let flags = ["--wait-timeout=1", "--pod-events=false"];
        let agent = Agent::ready_with(&cluster, &imds, &flags, Some(bound)).await;
        Self {
            cluster,
            imds,
            agent,
            socket,
            folder,
        }
    }

    async fn ask(&self, method: &str, target: &str, body: &str) -> (u16, String) {
        ask(&self.socket, method, target, body).await
    }

    async fn json(&self, method: &str, target: &str, status: u16) -> Value {
        let (got, body) = self.ask(method, target, "").await;
        assert_eq!(got, status, "{method} {target}: {body}");
        serde_json::from_str(&body).unwrap()
    }
}

async fn ask(socket: &Path, method: &str, target: &str, body: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {answer}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn the_state_is_the_nodes_world_and_no_page_has_a_token() {
    let place = Place::start().await;
    let token = place.agent.get("127.0.0.2", &format!("{T}{Q}")).await.token();
    assert_eq!(token, format!("h.{ONE}.s"));
    let state = place.json("GET", "/state", 200).await;
    assert_eq!((&state["node"], &state["synced"]), (&json!("n1"), &json!(true)));
    let bound = &state["pods"][0];
    assert_eq!(
        (&bound["pod"], &bound["addresses"], &bound["selector"]),
        (&json!("shop/bound"), &json!(["127.0.0.2"]), &json!("foo"))
    );
    assert!(
        bound["uid"].as_str().is_some_and(|uid| uid.len() == 36),
        "{bound}"
    );
    assert_eq!(
        state["bindings"],
        json!([{ "namespace": "shop", "selector": "foo", "identities": ["shop/one", "shop/two"], "default": null,
            "missing": [], "not_assigned_yet": [] }])
    );
    assert_eq!(state["identities"][0]["client_id"], json!(ONE));
    assert_eq!(
        state["exceptions"],
        json!([{ "exception": "shop/tools", "pod_labels": { "app": "tool" } }])
    );
    let config = place.json("GET", "/config", 200).await;
    assert_eq!(
        (&config["attestation"], &config["policy"]["operation_mode"]),
        (&json!("off"), &json!("managed"))
    );
    for page in ["/state", "/config", "/tokens", "/explain?pod=shop/bound", "/"] {
        let (status, body) = place.ask("GET", page, "").await;
        assert!(status == 200 && !body.contains(&token), "{page}: {body}");
    }
}

#[tokio::test]
async fn explain_says_what_the_pod_is_told_and_what_would_fix_it() {
    let place = Place::start().await;
    for (pod, address, more, outcome) in [
        ("bound", "127.0.0.2", "", "token"),
        (
            "bound",
            "127.0.0.2",
            "&client_id=33333333-3333-4333-8333-333333333333",
            "refused",
        ),
        (
            "bound",
            "127.0.0.2",
            &format!("&client_id={TWO}&object_id={ONE}"),
            "refused",
        ),
        ("plain", "127.0.0.3", "", "refused"),
        ("unbound", "127.0.0.4", "", "refused"),
        ("tool", "127.0.0.5", "", "pass_through"),
    ] {
        let told = place.agent.get(address, &format!("{T}{Q}{more}")).await;
        let target = format!("/explain?pod=shop/{pod}&resource=https%3A%2F%2Fvault.azure.net{more}");
        let explained = place.json("GET", &target, 200).await;
        assert_eq!(explained["outcome"], json!(outcome), "{explained:#}");
        if outcome == "refused" {
            assert_eq!(explained["reason"], json!(told.reason()), "{explained:#}");
            assert!(
                explained["fix"].as_str().is_some_and(|fix| !fix.is_empty()),
                "{explained:#}"
            );
        } else {
            assert_eq!(told.status, 200, "{}", told.body);
        }
    }
    let explained = place.json("GET", "/explain?pod=shop/bound", 200).await;
    assert_eq!(explained["identity"]["identity"], json!("shop/one"));
    let looked_at: Vec<_> = explained["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["looked_at"].as_str().unwrap())
        .collect();
    assert_eq!(looked_at, ["pod", "exception", "binding", "identity"]);
    let closed = place
        .json(
            "GET",
            "/explain?pod=shop/bound&path=/metadata/attested/document",
            200,
        )
        .await;
    assert_eq!(closed["reason"], json!("path_closed"));
    let nobody = place.json("GET", "/explain?pod=shop/nobody", 404).await;
    assert_eq!(nobody["error"]["code"], json!("pod_not_found"));
}

#[tokio::test]
async fn a_token_is_issued_as_the_pod_gets_it_and_refreshed_ahead_of_time() {
    let place = Place::start().await;
    let vault = "resource=https%3A%2F%2Fvault.azure.net";
    let missing = place.json("POST", "/tokens/refresh?pod=shop/bound", 404).await;
    assert_eq!(missing["error"]["code"], json!("no_token_kept"));
    let issued = place
        .json(
            "POST",
            &format!("/tokens?pod=shop/bound&{vault}&client_id={TWO}"),
            200,
        )
        .await;
    assert_eq!(issued["access_token"], json!(format!("h.{TWO}.s")));
    // The same token, from the broker, and one question upstream.
    let own = place
        .agent
        .get("127.0.0.2", &format!("{T}{Q}&client_id={TWO}"))
        .await;
    assert_eq!((own.status, place.imds.asked().len()), (200, 1));
    let kept = place
        .json("GET", &format!("/tokens?pod=shop/bound&client_id={TWO}"), 200)
        .await;
    let kept = &kept["tokens"][0];
    assert_eq!(
        (&kept["identity"], &kept["resource"], &kept["via"]),
        (
            &json!("shop/two"),
            &json!("https://vault.azure.net"),
            &json!("imds")
        )
    );
    assert!(
        kept["expires_in"].as_u64().is_some_and(|left| left > 300),
        "{kept}"
    );
    let refreshed = place
        .json(
            "POST",
            &format!("/tokens/refresh?pod=shop/bound&client_id={TWO}"),
            200,
        )
        .await;
    assert_eq!(
        (&refreshed["refreshed"], place.imds.asked().len()),
        (&json!(true), 2),
        "{refreshed}"
    );
    // What cannot be refreshed is said, and the good token stays.
    place.imds.stop();
    let failed = place
        .json(
            "POST",
            &format!("/tokens/refresh?pod=shop/bound&client_id={TWO}"),
            200,
        )
        .await;
    assert_eq!(failed["refreshed"], json!(false));
    assert!(failed["tokens"][0]["error"]["code"].is_string(), "{failed}");
    let still = place
        .agent
        .get("127.0.0.2", &format!("{T}{Q}&client_id={TWO}"))
        .await;
    assert_eq!(still.token(), format!("h.{TWO}.s"));
    // What the pod is refused, its admin is refused too.
    let refused = place.json("POST", "/tokens?pod=shop/plain", 400).await;
    assert!(
        refused["error_description"]
            .as_str()
            .is_some_and(|text| text.contains("no_binding_label")),
        "{refused}"
    );
    let excepted = place.json("POST", "/tokens/refresh?pod=shop/tool", 409).await;
    assert_eq!(excepted["error"]["code"], json!("passed_through"));
}

#[tokio::test]
async fn what_is_not_served_is_said() {
    let place = Place::start().await;
    for (method, target, body, status, code) in [
        ("GET", "/secrets", "", 404, "not_found"),
        ("POST", "/state", "", 405, "method_not_allowed"),
        ("PUT", "/log-level", "podid_nmi=loud", 400, "log_filter_invalid"),
        ("GET", "/explain", "", 400, "pod_missing"),
        ("GET", "/explain?pod=demo", "", 400, "pod_missing"),
    ] {
        let (got, text) = place.ask(method, target, body).await;
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (got, &answer["error"]["code"]),
            (status, &json!(code)),
            "{target}"
        );
    }
    // It leaves nothing behind.
    let Place { agent, socket, .. } = place;
    agent.stop.request();
    agent.ended().await.unwrap();
    assert!(!socket.exists());
}

#[tokio::test]
async fn another_users_process_gets_no_answer_even_where_the_files_would_let_it() {
    let place = Place::start().await;
    for (path, mode) in [
        (place.folder.path(), 0o755),
        (place.socket.parent().unwrap(), 0o755),
        (&place.socket, 0o666),
    ] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    assert_eq!(place.ask("GET", "/state", "").await.0, 200);
    let socket = place.socket.clone();
    let (became_other, got) = tokio::task::spawn_blocking(move || {
        // A thread of its own, which becomes another user where that is allowed: for root.
        std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            let nobody = rustix::process::Uid::from_raw(65534);
            // Who is that user already becomes nobody else.
            let became =
                rustix::process::getuid() != nobody && rustix::thread::set_thread_uid(nobody).is_ok();
            let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
            // It may be closed already.
            let _sent = stream.write_all(b"GET /state HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            let mut got = Vec::new();
            let _read = stream.read_to_end(&mut got);
            (became, got)
        })
        .join()
        .unwrap()
    })
    .await
    .unwrap();
    // Who is not root cannot become another, and is the agent's own user.
    assert_eq!(got.is_empty(), became_other, "{}", String::from_utf8_lossy(&got));
    drop(place.cluster);
}
