//! The rules of the wire, without a socket: a world from watch events, a source in memory, requests and answers.
//! Numbers are those of the conformance table that the SDKs' needs were gathered in.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};
use podid_broker::{Broker, Key};
use podid_core::{Secret, SourceError};
use podid_rt::stop::Stop;
use podid_rt::tasks::Tasks;
use podid_rt::watch::Index as _;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use super::*;
use crate::args::{Attestation, MsiSource};
use crate::rate::{RateLimit, Rates};
use crate::seen::{Bindings, Exceptions, Identities, Pods, Seen, Watched};

const T: &str = "/metadata/identity/oauth2/token";
const Q: &str = "?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net";
const ONE: &str = "11111111-1111-4111-8111-111111111111";
const TWO: &str = "22222222-2222-4222-8222-222222222222";
const OBJECT: &str = "33333333-3333-4333-8333-333333333333";
const ARM: &str =
    "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/one";
const NOW: u64 = 1_700_000_000;

/// Makes an upstream's error.
type Trouble = fn() -> SourceError;

/// Answers at once, with a token that says for whom it is; or with what it was told.
#[derive(Clone, Default)]
struct Memory {
    calls: Arc<AtomicUsize>,
    trouble: Option<Trouble>,
    clock: Clock,
}

impl Source for Memory {
    async fn fetch(&self, key: &Key) -> Result<AccessToken, SourceError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if let Some(trouble) = self.trouble {
            return Err(trouble());
        }
        Ok(AccessToken {
            secret: Secret::new(format!("head.{}.tail", key.identity.object.name)),
            expires_on: self.clock.unix_secs() + 86_400,
            not_before: Some(NOW - 60),
            token_type: "Bearer".into(),
            resource: key.resource.as_ref().into(),
            client_id: None,
        })
    }
}

struct Node {
    handler: Handler<Memory>,
    calls: Arc<AtomicUsize>,
    clock: Clock,
    _tasks: Tasks,
    identities: crate::world::Feed<Identities>,
    bindings: crate::world::Feed<Bindings>,
}

fn seen<W: Watched>(object: Value) -> Seen<W> {
    serde_json::from_value(object).unwrap()
}

fn pod(name: &str, namespace: &str, address: &str, label: Value) -> Seen<Pods> {
    seen(json!({
        "metadata": { "name": name, "namespace": namespace, "uid": format!("uid-{name}"), "labels": label },
        "spec": {},
        "status": { "phase": "Running", "podIP": address },
    }))
}

fn identity(name: &str, client_id: &str) -> Seen<Identities> {
    seen(json!({
        "metadata": { "name": name, "namespace": "shop", "annotations": { "podid.dev/object-id": OBJECT } },
        "spec": { "clientID": client_id, "resourceID": ARM.replace("/one", &format!("/{name}")) },
    }))
}

fn binding(name: &str, selector: &str, of: &str) -> Seen<Bindings> {
    seen(json!({
        "metadata": { "name": name, "namespace": "shop" },
        "spec": { "azureIdentity": of, "selector": selector },
    }))
}

/// Pods: 10.0.0.1 has one identity, .2 two, .3 no label, .4 a selector that nobody binds, .5 an exception, .6 the label in
/// another namespace.
fn node(trouble: Option<Trouble>, change: impl FnOnce(&mut Handler<Memory>)) -> Node {
    rustls::crypto::ring::default_provider().install_default().ok();
    let mut registry = Registry::default();
    let metrics = Arc::new(Metrics::register(&mut registry));
    let world = SharedWorld::new(Arc::clone(&metrics));
    let mut pods = world.feed::<Pods>();
    let mut identities = world.feed::<Identities>();
    let mut bindings = world.feed::<Bindings>();
    let mut exceptions = world.feed::<Exceptions>();
    pods.reset(vec![
        pod("one", "shop", "10.0.0.1", json!({ "aadpodidbinding": "one" })),
        pod("two", "shop", "10.0.0.2", json!({ "aadpodidbinding": "both" })),
        pod("bare", "shop", "10.0.0.3", json!({})),
        pod(
            "unbound",
            "shop",
            "10.0.0.4",
            json!({ "aadpodidbinding": "nobody" }),
        ),
        pod("addon", "shop", "10.0.0.5", json!({ "addon": "yes" })),
        pod("other", "bank", "10.0.0.6", json!({ "aadpodidbinding": "one" })),
    ]);
    identities.reset(vec![identity("one", ONE), identity("two", TWO)]);
    bindings.reset(vec![
        binding("one", "one", "one"),
        binding("both-1", "both", "one"),
        binding("both-2", "both", "two"),
    ]);
    exceptions.reset(vec![seen(json!({
        "metadata": { "name": "addon", "namespace": "shop" }, "spec": { "podLabels": { "addon": "yes" } },
    }))]);
    let clock = Clock::fixed(NOW);
    let calls = Arc::default();
    let source = Memory {
        calls: Arc::clone(&calls),
        trouble,
        clock: clock.clone(),
    };
    let mut tasks = Tasks::new(Stop::new());
    let group = tasks.group();
    let broker = {
        let clock = clock.clone();
        Broker::new(
            source,
            Arc::new(move || clock.unix_secs()),
            Box::new(move |flight| group.spawn(flight)),
            podid_broker::Limits::default(),
            &mut registry,
        )
    };
    tasks.spawn("world", world.clone().run(Box::new(|_| {}), tasks.stop().clone()));
    let mut handler = Handler {
        world,
        policy: Policy::default(),
        callers: Callers::new(
            Attestation::Off,
            None,
            Rates::new(RateLimit::default()),
            Arc::clone(&metrics),
        ),
        broker,
        sources: Sources { msi: MsiSource::Imds },
        forward: Forward::new("http://127.0.0.1:1".parse().unwrap()).unwrap(),
        patience: Patience::default(),
        refusals: Refusals::default(),
        metrics,
        clock: clock.clone(),
        wait: Duration::from_secs(20),
    };
    change(&mut handler);
    Node {
        handler,
        calls,
        clock,
        _tasks: tasks,
        identities,
        bindings,
    }
}

fn plain() -> Node {
    node(None, |_| {})
}

/// An answer, read.
#[derive(Debug)]
struct Got {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Got {
    fn error(&self) -> (u16, &str) {
        (
            self.status.as_u16(),
            self.body["error"].as_str().unwrap_or_default(),
        )
    }

    fn text(&self) -> &str {
        self.body["error_description"].as_str().unwrap_or_default()
    }

    fn reason(&self) -> &str {
        self.headers
            .get("x-podid-reason")
            .map_or("", |value| value.to_str().unwrap())
    }

    fn token(&self) -> &str {
        self.body["access_token"].as_str().unwrap_or_default()
    }
}

fn connection(from: &str) -> Connection {
    Connection::new(
        format!("{from}:40000").parse().unwrap(),
        "169.254.169.254:80".parse().unwrap(),
    )
}

impl Node {
    async fn ask(&self, from: &str, method: Method, target: &str, headers: &[(&str, &str)]) -> Got {
        self.ask_on(&connection(from), method, target, headers).await
    }

    async fn ask_on(&self, on: &Connection, method: Method, target: &str, headers: &[(&str, &str)]) -> Got {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(Bytes::new()).map_err(|never| match never {});
        let answer: Response<_> = self.handler.answer(on, request.body(body).unwrap()).await;
        let (parts, body) = answer.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        // Rule 23: whatever is answered is a JSON object; HEAD and passed-on bodies are not asked for here.
        let body: Value = serde_json::from_slice(&bytes).unwrap();
        if parts.status != StatusCode::OK {
            let told = ["error", "error_description"].map(|member| body[member].as_str().unwrap_or_default());
            assert!(told.iter().all(|text| !text.is_empty()), "{target}: {body}");
            assert!(!told[1].to_lowercase().contains("unreachable"), "{body}");
        }
        let retry_after = parts.headers.get("retry-after");
        let may_retry =
            [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&parts.status);
        assert_eq!(retry_after.is_some(), may_retry, "{target}: {}", parts.status);
        assert_eq!(parts.headers["content-type"], "application/json; charset=utf-8");
        Got {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    /// GET with `Metadata: true`.
    async fn get(&self, from: &str, target: &str) -> Got {
        self.ask(from, Method::GET, target, &[("Metadata", "true")]).await
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn rules_1_3_4_and_7_a_token_answer_is_what_every_sdk_can_read() {
    let node = plain();
    for resource in [
        "https://vault.azure.net",
        "https://management.azure.com/",
        "api://X",
    ] {
        let got = node
            .get(
                "10.0.0.1",
                &format!("{T}?api-version=2018-02-01&resource={resource}"),
            )
            .await;
        assert_eq!(got.status, StatusCode::OK);
        let members: BTreeMap<&str, &str> = got
            .body
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str().expect("every value is a string")))
            .collect();
        assert_eq!(
            members,
            BTreeMap::from([
                ("access_token", "head.one.tail"),
                ("client_id", ONE),
                ("expires_in", "86400"),
                ("expires_on", "1700086400"),
                ("ext_expires_in", "86400"),
                ("not_before", "1699999940"),
                ("resource", resource),
                ("token_type", "Bearer"),
            ])
        );
    }
}

#[tokio::test(start_paused = true)]
async fn rules_5_and_6_expiry_is_told_anew_and_one_call_serves_all_until_five_minutes_before_the_end() {
    let node = plain();
    let at = format!("{T}{Q}");
    let all = (0..50).map(|_| node.get("10.0.0.1", &at));
    let got = futures::future::join_all(all).await;
    assert!(got.iter().all(|got| got.token() == "head.one.tail"));
    assert_eq!(node.calls(), 1);
    node.clock.advance(Duration::from_secs(2));
    let later = node.get("10.0.0.1", &at).await;
    assert_eq!(
        (&later.body["expires_on"], &later.body["expires_in"]),
        (&json!("1700086400"), &json!("86398"))
    );
    node.clock.advance(Duration::from_secs(86_400 - 2 - 299));
    let renewed = node.get("10.0.0.1", &at).await;
    assert_eq!((node.calls(), &renewed.body["expires_in"]), (2, &json!("86400")));
}

#[tokio::test(start_paused = true)]
async fn rule_8_probes_are_answered_at_once_whoever_asks_and_whatever_is_down() {
    let down: Trouble = || unreachable!("a probe asks no upstream");
    let mut node = node(Some(down), |_| {});
    // A watch that has seen nothing: the API server is down.
    let _never_listed = node.handler.world.feed::<Pods>();
    node.bindings.reset(vec![]);
    for from in ["10.0.0.1", "10.0.0.3", "10.9.9.9"] {
        for query in ["", "?api-version=2018-02-01", Q, "?resource=a&resource=b"] {
            let before = Instant::now();
            let got = node.ask(from, Method::GET, &format!("{T}{query}"), &[]).await;
            assert_eq!(got.error(), (400, "invalid_request"));
            // To the byte what the real service was seen to answer.
            assert_eq!(got.text(), "Required metadata header not specified");
            assert_eq!(before.elapsed(), Duration::ZERO);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rules_9_13_14_and_20_faults_of_the_query_are_named() {
    let node = plain();
    for (query, reason, text) in [
        (
            "",
            "resource_missing",
            "Required query variable 'resource' is missing",
        ),
        (
            "?api-version=2018-02-01",
            "resource_missing",
            "Required query variable 'resource' is missing",
        ),
        ("?resource=r", "api_version_missing", "api-version"),
        (
            "?resource=r&api-version=2017-04-02",
            "api_version_invalid",
            "api-version",
        ),
        (
            "?api-version=2018-02-01&resource=r&resource=r",
            "duplicate_parameter",
            "twice",
        ),
        (
            "?api-version=2018-02-01&resource=r&client_id=11111111-1111-4111-8111-111111111111&object_id=33333333-3333-4333-8333-333333333333",
            "several_selectors",
            "exclude each other",
        ),
    ] {
        let got = node.get("10.0.0.1", &format!("{T}{query}")).await;
        assert_eq!(
            (got.error(), got.reason()),
            ((400, "invalid_request"), reason),
            "{query}"
        );
        assert!(got.text().contains(text), "{}", got.text());
    }
    for version in ["2018-02-01", "2019-08-01", "2020-09-01", "2025-04-07"] {
        let got = node
            .get("10.0.0.1", &format!("{T}?resource=r&api-version={version}"))
            .await;
        assert_eq!(got.status, StatusCode::OK, "{version}");
    }
    assert_eq!(node.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn rules_11_12_and_16_headers_that_matter_and_headers_that_do_not() {
    let node = plain();
    let at = format!("{T}{Q}");
    for (headers, status) in [
        (vec![("metadata", "true")], 200),
        (vec![("METADATA", "True")], 200),
        (
            vec![
                ("Metadata", "true"),
                ("Content-Type", "application/x-www-form-urlencoded"),
                ("Accept", "text/html"),
            ],
            200,
        ),
        (
            vec![
                ("Metadata", "true"),
                ("Accept-Encoding", "gzip"),
                ("x-client-SKU", "MSAL.Python"),
            ],
            200,
        ),
        (vec![("Metadata", "1")], 400),
        (vec![("Metadata", "")], 400),
        (vec![("Metadata", "true"), ("Metadata", "false")], 400),
        (vec![("Metadata", "true"), ("X-Forwarded-For", "1.2.3.4")], 400),
    ] {
        let got = node.ask("10.0.0.1", Method::GET, &at, &headers).await;
        assert_eq!(got.status.as_u16(), status, "{headers:?}");
        assert!(!got.headers.contains_key("content-encoding"));
    }
}

#[tokio::test(start_paused = true)]
async fn rules_15_17_18_and_19_spellings_and_names_that_clients_use() {
    let node = plain();
    for path in [
        T,
        "/metadata/identity/oauth2/token/",
        "//metadata/identity/oauth2/token",
        "//metadata/identity/oauth2/token/",
    ] {
        assert_eq!(
            node.get("10.0.0.1", &format!("{path}{Q}")).await.token(),
            "head.one.tail",
            "{path}"
        );
    }
    let upper = ONE.to_uppercase();
    for extra in [
        "&authority=https://login.example/T&bypass_cache=true".to_owned(),
        format!("&client_id={upper}"),
        format!("&object_id={OBJECT}"),
        format!("&principal_id={OBJECT}"),
        format!("&msi_res_id={ARM}"),
        format!("&mi_res_id={}", ARM.to_lowercase()),
        format!("&resource_id={}", ARM.to_uppercase()),
        format!("&msi-res-id={}", ARM.replace('/', "%2F")),
        "&client_id=".to_owned(),
    ] {
        let target = format!("{T}?resource=https://vault.azure.net&api-version=2018-02-01{extra}");
        assert_eq!(
            node.get("10.0.0.1", &target).await.token(),
            "head.one.tail",
            "{extra}"
        );
    }
    assert_eq!(
        node.get("10.0.0.2", &format!("{T}{Q}&client_id={TWO}"))
            .await
            .token(),
        "head.two.tail"
    );
    assert_eq!(node.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn rule_21_an_identity_that_is_not_the_pods_is_refused_and_never_replaced() {
    let node = plain();
    for (from, extra, reason) in [
        ("10.0.0.1", format!("&client_id={TWO}"), "identity_not_bound"),
        ("10.0.0.1", "&client_id=me".to_owned(), "identity_not_bound"),
        ("10.0.0.3", String::new(), "no_binding_label"),
        ("10.0.0.4", String::new(), "no_binding"),
        // The same label in another namespace.
        ("10.0.0.6", String::new(), "no_binding"),
        ("10.0.0.6", format!("&client_id={ONE}"), "no_binding"),
    ] {
        let got = node.get(from, &format!("{T}{Q}{extra}")).await;
        assert_eq!(
            (got.error(), got.reason()),
            ((400, "invalid_request"), reason),
            "{from} {extra}"
        );
        assert!(got.text().starts_with("Identity not found"), "{}", got.text());
        assert!(!got.text().contains("bank/one") && !got.text().contains(TWO) || extra.contains(TWO));
    }
    assert_eq!(node.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn rule_22_several_identities_are_a_fixed_choice_or_the_real_services_refusal() {
    let first = plain();
    assert_eq!(
        first.get("10.0.0.2", &format!("{T}{Q}")).await.token(),
        "head.one.tail"
    );
    let refuse = node(None, |handler| {
        handler.policy.ambiguous = decide::Ambiguous::Refuse;
    });
    let got = refuse.get("10.0.0.2", &format!("{T}{Q}")).await;
    assert_eq!(
        (got.error(), got.reason()),
        ((400, "invalid_request"), "identity_ambiguous")
    );
    assert!(got.text().starts_with(
        "Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in the token request"
    ));
    assert_eq!(
        refuse.get("10.0.0.1", &format!("{T}{Q}")).await.token(),
        "head.one.tail"
    );
}

#[tokio::test(start_paused = true)]
async fn rule_24_trouble_is_waited_out_and_then_told_with_a_time() {
    use podid_core::Retry;
    let cases: [(Trouble, u16, &str); 2] = [
        (
            || {
                SourceError::new(
                    "imds_connect",
                    TroubleKind::Unavailable,
                    Retry::Backoff,
                    "no answer",
                )
            },
            503,
            "temporarily_unavailable",
        ),
        (
            || SourceError::new("imds_throttled", TroubleKind::Throttled, Retry::Backoff, "busy"),
            429,
            "invalid_request",
        ),
    ];
    for (trouble, status, error) in cases {
        let node = node(Some(trouble), |_| {});
        let before = Instant::now();
        let got = node.get("10.0.0.1", &format!("{T}{Q}")).await;
        assert_eq!(got.error(), (status, error));
        let took = before.elapsed();
        assert!(
            took > Duration::from_secs(10) && took < Duration::from_secs(25),
            "{took:?}"
        );
        got.headers["retry-after"]
            .to_str()
            .unwrap()
            .parse::<u64>()
            .unwrap();
        assert!(node.calls() > 1);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_25_a_pod_at_full_speed_is_throttled_alone_and_never_below_twenty_a_second() {
    let node = node(None, |handler| {
        let rates = Rates::new(RateLimit {
            per_second: 20,
            burst: 20,
        });
        handler.callers = Callers::new(Attestation::Off, None, rates, Arc::clone(&handler.metrics));
    });
    let at = format!("{T}{Q}");
    for _ in 0..20 {
        assert_eq!(node.get("10.0.0.1", &at).await.status, StatusCode::OK);
    }
    let got = node.get("10.0.0.1", &at).await;
    assert_eq!(got.error(), (429, "invalid_request"));
    assert!(got.text().starts_with("Temporarily throttled, too many requests"));
    assert_eq!(node.get("10.0.0.2", &at).await.status, StatusCode::OK);
    // Probes are outside every limit.
    assert_eq!(
        node.ask("10.0.0.1", Method::GET, T, &[]).await.status,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test(start_paused = true)]
async fn rule_26_what_entra_refuses_is_a_400_with_its_words() {
    let node = node(
        Some(|| {
            SourceError::new(
                "imds_invalid_resource",
                TroubleKind::InvalidResource,
                podid_core::Retry::Never,
                "AADSTS50001: The application named x was not found in the tenant",
            )
        }),
        |_| {},
    );
    let got = node.get("10.0.0.1", &format!("{T}{Q}")).await;
    assert_eq!(got.error(), (400, "invalid_resource"));
    assert!(got.text().contains("AADSTS50001"), "{}", got.text());
}

#[tokio::test(start_paused = true)]
async fn rule_27_only_get_gives_tokens() {
    let node = plain();
    for method in [
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::HEAD,
        Method::OPTIONS,
        Method::PATCH,
    ] {
        let got = node
            .ask(
                "10.0.0.1",
                method.clone(),
                &format!("{T}{Q}"),
                &[("Metadata", "true")],
            )
            .await;
        assert_eq!(
            (got.status.as_u16(), got.reason()),
            (405, "method_not_allowed"),
            "{method}"
        );
        assert_eq!(got.headers["allow"], "GET");
    }
    assert_eq!(node.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn rules_28_and_29_what_is_not_there_is_a_404_at_once() {
    let node = plain();
    for path in [
        "/metadata/identity/getplatformmetadata?cred-api-version=2.0",
        "/metadata/identity/issuecredential",
        "/metadata/identity/info",
        "/metadata/attested/document",
        "/metadata/scheduledevents",
        "/latest/meta-data/instance-id",
        "/computeMetadata/v1/",
        "/host/token",
        "/",
    ] {
        for headers in [&[][..], &[("Metadata", "true")]] {
            for from in ["10.0.0.1", "10.9.9.9"] {
                let before = Instant::now();
                let got = node.ask(from, Method::GET, path, headers).await;
                assert_eq!(got.status, StatusCode::NOT_FOUND, "{path}");
                assert!(before.elapsed() < Duration::from_secs(1), "{path}");
            }
        }
    }
}

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
    assert_eq!((got.status.as_u16(), got.reason()), (403, "path_closed"));
}

#[tokio::test(start_paused = true)]
async fn rule_32_request_ids_come_back_when_asked_for() {
    let node = plain();
    let at = format!("{T}{Q}");
    let id = ("x-ms-client-request-id", "7f1d");
    let wanted = node
        .ask(
            "10.0.0.1",
            Method::GET,
            &at,
            &[id, ("x-ms-return-client-request-id", "true")],
        )
        .await;
    assert_eq!(wanted.headers["x-ms-client-request-id"], "7f1d");
    let unwanted = node
        .ask("10.0.0.1", Method::GET, &at, &[id, ("Metadata", "true")])
        .await;
    assert!(
        !unwanted.headers.contains_key("x-ms-client-request-id") && !unwanted.headers.contains_key("server")
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
