//! The rules of the wire, without a socket: a world from watch events, a source in memory, requests and answers.

mod conduct;
mod limits;
mod rules;
mod style;

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
    registry: Registry,
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

/// The least that may be asked for: 20 requests a second, 20 at once.
fn twenty_a_second(handler: &mut Handler<Memory>) {
    let rates = Rates::new(RateLimit {
        per_second: 20,
        burst: 20,
    });
    handler.callers = Callers::new(
        Attestation::Off,
        None,
        Vec::new(),
        rates,
        Arc::clone(&handler.metrics),
    );
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
            Vec::new(),
            Rates::new(RateLimit::default()),
            Arc::clone(&metrics),
        ),
        broker,
        sources: Sources { msi: MsiSource::Imds },
        forward: Forward::new("http://127.0.0.1:1".parse().unwrap()).unwrap(),
        patience: Patience::default(),
        errors: Errors::default(),
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
        registry,
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
