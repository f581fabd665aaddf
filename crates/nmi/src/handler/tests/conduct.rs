//! Waiting, staying with the pod that asked, and what is closed.

use std::sync::atomic::AtomicBool;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

#[tokio::test(start_paused = true)]
async fn paths_that_can_be_read_in_two_ways_are_refused_also_for_excepted_pods() {
    let node = plain();
    for from in ["10.0.0.1", "10.0.0.5"] {
        for path in [
            "/metadata\\identity/oauth2/token",
            "/metadata/identity%5Coauth2/token",
            "/metadata/identity/oauth2/tok%2565n",
        ] {
            let got = node.get(from, &format!("{path}{Q}")).await;
            assert_eq!(
                (got.error(), got.reason()),
                ((400, "invalid_request"), "path_invalid"),
                "{path}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn blocked_instance_metadata_is_the_originals_403() {
    let node = node(None, |handler| handler.policy.instance = Access::Blocked);
    let got = node
        .get("10.0.0.5", "/metadata/instance?api-version=2021-02-01")
        .await;
    assert_eq!((got.status.as_u16(), got.reason()), (403, "path_blocked"));
}

#[tokio::test(start_paused = true)]
async fn each_group_of_paths_follows_its_policy_for_excepted_pods_and_for_others() {
    type Set = fn(&mut Policy, Access);
    let groups: [(&str, Set); 5] = [
        ("/metadata/instance?api-version=2021-02-01", |policy, access| {
            policy.instance = access;
        }),
        ("/metadata/attested/document", |policy, access| {
            policy.attested = access;
        }),
        ("/metadata/scheduledevents", |policy, access| {
            policy.scheduled_events = access;
        }),
        ("/latest/meta-data", |policy, access| policy.other = access),
        ("/metadata/identity/info", |policy, access| policy.token = access),
    ];
    // Nobody answers where the real service should be: a 503 of that code is a request that was passed on.
    let (passed, closed) = ((503, "metadata_service_failed"), (404, "path_closed"));
    for (path, set) in groups {
        for access in [Access::Open, Access::Excepted, Access::Blocked] {
            let node = node(None, |handler| set(&mut handler.policy, access));
            let blocked = (if path.contains("instance") { 403 } else { 404 }, "path_blocked");
            let [ordinary, excepted] = match access {
                Access::Open if path.contains("identity") => [closed, passed],
                Access::Open => [passed, passed],
                Access::Excepted => [closed, passed],
                Access::Blocked => [blocked, blocked],
            };
            for (from, expected) in [("10.0.0.1", ordinary), ("10.0.0.5", excepted)] {
                let got = node.get(from, path).await;
                assert_eq!(
                    (got.status.as_u16(), got.reason()),
                    expected,
                    "{from} {path} {access:?}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn with_the_nodes_tokens_blocked_an_excepted_pod_is_told_what_it_needs() {
    let at = format!("{T}{Q}");
    let passed = plain().get("10.0.0.5", &at).await;
    assert_eq!(
        (passed.status.as_u16(), passed.reason()),
        (503, "metadata_service_failed")
    );
    let node = node(None, |handler| handler.policy.token = Access::Blocked);
    let got = node.get("10.0.0.5", &at).await;
    assert_eq!(
        (got.error(), got.reason()),
        ((400, "invalid_request"), "no_binding_label")
    );
}

#[tokio::test(start_paused = true)]
async fn a_binding_that_arrives_during_the_request_ends_its_wait() {
    let mut node = plain();
    let handler = &node.handler;
    let on = connection("10.0.0.4");
    let request = Request::builder()
        .uri(format!("{T}{Q}"))
        .header("Metadata", "true");
    let request = request
        .body(Full::new(Bytes::new()).map_err(|never| match never {}))
        .unwrap();
    let asked = handler.answer(&on, request);
    let bound = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        node.bindings.apply(binding("late", "nobody", "two"));
    };
    let before = Instant::now();
    let (answer, ()) = tokio::join!(asked, bound);
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(before.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_was_waited_for_in_vain_is_refused_at_once_until_something_changes() {
    let mut node = plain();
    let at = format!("{T}{Q}");
    let took = async |node: &Node| {
        let before = Instant::now();
        let got = node.get("10.0.0.4", &at).await;
        (got.reason().to_owned(), before.elapsed().as_secs())
    };
    assert_eq!(took(&node).await, ("no_binding".to_owned(), 20));
    assert_eq!(took(&node).await, ("no_binding".to_owned(), 0));
    node.bindings.apply(binding("else", "elsewhere", "two"));
    tokio::task::yield_now().await;
    assert_eq!(took(&node).await, ("no_binding".to_owned(), 20));
    node.bindings.apply(binding("late", "nobody", "two"));
    tokio::task::yield_now().await;
    assert_eq!(took(&node).await, (String::new(), 0));
    // A removal is news, not lateness.
    node.bindings.delete(binding("late", "nobody", "two"));
    tokio::task::yield_now().await;
    assert_eq!(took(&node).await, ("binding_removed".to_owned(), 0));
}

#[tokio::test(start_paused = true)]
async fn before_the_watches_have_seen_everything_absence_is_a_503() {
    let node = plain();
    let unlisted = node.handler.world.feed::<Bindings>();
    let got = node.get("10.0.0.4", &format!("{T}{Q}")).await;
    assert_eq!(
        (got.error(), got.reason()),
        ((503, "temporarily_unavailable"), "not_synced")
    );
    // What is known is served meanwhile.
    assert_eq!(
        node.get("10.0.0.1", &format!("{T}{Q}")).await.token(),
        "head.one.tail"
    );
    drop(unlisted);
}

#[tokio::test(start_paused = true)]
async fn a_connection_stays_with_the_pod_that_opened_it() {
    let node = plain();
    let (mine, at) = (connection("10.0.0.1"), format!("{T}{Q}"));
    let headers = [("Metadata", "true")];
    assert_eq!(
        node.ask_on(&mine, Method::GET, &at, &headers).await.token(),
        "head.one.tail"
    );
    // The address goes to a pod of another namespace that has the same label.
    let mut pods = node.handler.world.feed::<Pods>();
    pods.reset(vec![pod(
        "heir",
        "bank",
        "10.0.0.1",
        json!({ "aadpodidbinding": "one" }),
    )]);
    let got = node.ask_on(&mine, Method::GET, &at, &headers).await;
    assert_eq!(
        (got.error(), got.reason()),
        ((400, "invalid_request"), "pod_gone")
    );
    assert_eq!(got.headers["connection"], "close");
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_loses_its_ids_is_absent_and_comes_back() {
    let mut node = plain();
    let at = format!("{T}{Q}");
    node.identities.apply(seen(
        json!({ "metadata": { "name": "one", "namespace": "shop" }, "spec": {} }),
    ));
    tokio::task::yield_now().await;
    assert_eq!(node.get("10.0.0.1", &at).await.status, StatusCode::BAD_REQUEST);
    node.identities.apply(identity("one", ONE));
    tokio::task::yield_now().await;
    assert_eq!(node.get("10.0.0.1", &at).await.token(), "head.one.tail");
}

#[tokio::test(start_paused = true)]
async fn a_principal_of_several_tenants_gets_a_list_and_federation_says_that_it_is_not_there() {
    let mut node = plain();
    node.identities.apply(seen(json!({
        "metadata": { "name": "two", "namespace": "shop" },
        "spec": {
            "type": 1, "clientID": TWO, "tenantID": "contoso.com", "auxiliaryTenantIDs": ["a.example", "b.example"],
            "clientPassword": { "name": "s" },
        },
    })));
    node.identities.apply(seen(json!({
        "metadata": { "name": "one", "namespace": "shop", "annotations": { "podid.dev/source": "federation" } },
        "spec": { "clientID": ONE },
    })));
    tokio::task::yield_now().await;
    let got = node.get("10.0.0.2", &format!("{T}{Q}&client_id={TWO}")).await;
    let tokens = got.body.as_array().unwrap();
    assert!(
        tokens.len() == 3 && tokens.iter().all(|token| token["client_id"] == TWO),
        "{tokens:?}"
    );
    assert_eq!(node.calls(), 3);
    let refused = node.get("10.0.0.1", &format!("{T}{Q}")).await;
    assert_eq!(
        (refused.error(), refused.reason()),
        ((400, "invalid_request"), "source_unsupported")
    );
}

/// A broker whose clock panics once, in the middle of a request: the bug that nobody has found yet.
fn with_a_bug(handler: &mut Handler<Memory>) {
    let met = AtomicBool::new(false);
    let clock = handler.clock.clone();
    let now = move || {
        assert!(met.swap(true, Ordering::Relaxed), "nobody has found this bug yet");
        clock.unix_secs()
    };
    let tasks = Tasks::new(Stop::new()).group();
    handler.broker = Broker::new(
        Memory {
            clock: handler.clock.clone(),
            ..Memory::default()
        },
        Arc::new(now),
        Box::new(move |flight| tasks.spawn(flight)),
        podid_broker::Limits::default(),
        &mut Registry::default(),
    );
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_one_requests_trouble_and_is_counted() {
    let Node {
        handler,
        registry,
        _tasks,
        ..
    } = node(None, with_a_bug);
    let (mut pod, ours) = tokio::io::duplex(4096);
    let serve = crate::server::serve(ours, connection("10.0.0.1"), Arc::new(handler), Stop::new());
    let asked = async move {
        let mut statuses = Vec::new();
        for _ in 0..2 {
            pod.write_all(format!("GET {T}{Q} HTTP/1.1\r\nHost: h\r\nMetadata: true\r\n\r\n").as_bytes())
                .await
                .unwrap();
            let mut answer = Vec::new();
            // The body is one object without another inside.
            while answer.last() != Some(&b'}') {
                answer.push(pod.read_u8().await.unwrap());
            }
            let answer = String::from_utf8(answer).unwrap();
            assert!(!answer.contains("nobody has found"), "{answer}");
            statuses.push(answer.split(' ').nth(1).unwrap().to_owned());
        }
        statuses
    };
    // On the same connection, one after the other.
    let ((), statuses) = tokio::join!(serve, asked);
    assert_eq!(statuses, ["500", "200"]);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let counted = r#"podid_nmi_requests_total{operation="failed",reason="internal_error"} 1"#;
    assert!(text.contains(counted), "{text}");
}
