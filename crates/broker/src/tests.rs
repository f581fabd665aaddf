//! The broker as its users see it, on a clock that the tests move, with a source in memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use podid_core::{
    AccessToken, Credential, Guid, Identity, ObjectName, Retry, Secret, SourceError, TokenSource, TroubleKind,
};
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::{Broker, Key, Limits, Lookup, SharedBroker, Source, TokenError, Via};

/// Wall-clock time at which every test starts.
const START: u64 = 1_700_000_000;
const HOUR: u64 = 3_600;
const RESOURCE: &str = "https://management.azure.com/";

/// What the source says to a call.
#[derive(Clone, Copy)]
enum Say {
    /// A token of this many seconds.
    Token(u64),
    Refuse,
    Busy,
    Throttle(Option<u64>),
    Hang,
    Panic,
}

/// One call, as the source saw it.
#[derive(Clone, Debug)]
struct Call {
    at: Duration,
    running: usize,
    key: Key,
}

#[derive(Default)]
struct Script {
    calls: Vec<Call>,
    running: usize,
    ended: usize,
}

type Says = Box<dyn Fn(usize, &Key) -> Say + Send + Sync>;

/// A source in memory: says what it was told to say, after as long as it was told to take.
struct Memory {
    start: Instant,
    takes: Duration,
    says: Says,
    script: Arc<Mutex<Script>>,
}

/// Counts down also when a call is dropped half-way.
struct Running(Arc<Mutex<Script>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
    }
}

impl Source for Memory {
    async fn fetch(&self, key: &Key) -> Result<AccessToken, SourceError> {
        let (nth, _running) = {
            let mut script = self.script.lock();
            script.running += 1;
            let call = Call {
                at: self.start.elapsed(),
                running: script.running,
                key: key.clone(),
            };
            script.calls.push(call);
            (script.calls.len(), Running(Arc::clone(&self.script)))
        };
        let trouble = |code, kind, retry| Err(SourceError::new(code, kind, retry, code));
        let says = (self.says)(nth, key);
        sleep(self.takes).await;
        self.script.lock().ended += 1;
        match says {
            Say::Token(secs) => Ok(AccessToken {
                secret: Secret::new(format!("token-{nth}")),
                expires_on: START + self.start.elapsed().as_secs() + secs,
                not_before: None,
                token_type: "Bearer".into(),
                resource: key.resource.as_ref().into(),
                client_id: key.identity.client_id,
            }),
            Say::Refuse => trouble("refused", TroubleKind::IdentityNotFound, Retry::Never),
            Say::Busy => trouble("busy", TroubleKind::Unavailable, Retry::Backoff),
            Say::Throttle(secs) => trouble(
                "throttled",
                TroubleKind::Throttled,
                secs.map_or(Retry::Backoff, |secs| Retry::After(Duration::from_secs(secs))),
            ),
            Say::Hang => std::future::pending().await,
            Say::Panic => panic!("the source panics, as it was told to"),
        }
    }
}

/// A broker, its source and its running refresher.
struct World {
    broker: SharedBroker<Memory>,
    script: Arc<Mutex<Script>>,
    start: Instant,
}

impl World {
    fn new(takes: Duration, says: impl Fn(usize, &Key) -> Say + Send + Sync + 'static) -> Self {
        Self::with(takes, Limits::default(), says)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the paused test runtime is where tasks belong here"
    )]
    fn with(
        takes: Duration,
        limits: Limits,
        says: impl Fn(usize, &Key) -> Say + Send + Sync + 'static,
    ) -> Self {
        let start = Instant::now();
        let script = Arc::new(Mutex::new(Script::default()));
        let source = Memory {
            start,
            takes,
            says: Box::new(says),
            script: Arc::clone(&script),
        };
        let broker = Broker::new(
            source,
            Arc::new(move || START + start.elapsed().as_secs()),
            Box::new(|work| drop(tokio::spawn(work))),
            limits,
            &mut Registry::default(),
        );
        drop(tokio::spawn(Arc::clone(&broker).run(std::future::pending())));
        Self {
            broker,
            script,
            start,
        }
    }

    fn calls(&self) -> Vec<Call> {
        self.script.lock().calls.clone()
    }

    fn secs(&self) -> u64 {
        self.start.elapsed().as_secs()
    }

    async fn ask(&self, identity: &Arc<Identity>) -> Result<String, TokenError> {
        self.ask_for(identity, RESOURCE).await
    }

    async fn ask_for(&self, identity: &Arc<Identity>, resource: &str) -> Result<String, TokenError> {
        let lookup = Lookup {
            identity,
            resource,
            via: &Via::Imds,
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        let token = self.broker.get(lookup, deadline).await?;
        Ok(token.secret.expose().to_owned())
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the paused test runtime is where tasks belong here"
    )]
    fn asking(&self, identity: &Arc<Identity>, resource: &str) -> JoinHandle<Result<String, TokenError>> {
        let world = Self {
            broker: Arc::clone(&self.broker),
            script: Arc::clone(&self.script),
            start: self.start,
        };
        let (identity, resource) = (Arc::clone(identity), resource.to_owned());
        tokio::spawn(async move { world.ask_for(&identity, &resource).await })
    }
}

fn identity(namespace: &str, n: u128) -> Arc<Identity> {
    Arc::new(Identity {
        object: ObjectName::new(namespace, format!("id-{n}")),
        client_id: Some(Guid::from_u128(n)),
        object_id: None,
        resource_id: None,
        credential: Credential::Managed(TokenSource::Imds),
        namespaced: true,
    })
}

const MILLIS: Duration = Duration::from_millis(50);

#[tokio::test(start_paused = true)]
async fn any_number_of_waiters_share_one_upstream_call() {
    let world = World::new(MILLIS, |_, _| Say::Token(HOUR));
    let one = identity("ns", 1);
    let waiters: Vec<_> = (0..250).map(|_| world.asking(&one, RESOURCE)).collect();
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap().unwrap(), "token-1");
    }
    assert_eq!(world.ask(&one).await.unwrap(), "token-1");
    assert_eq!(world.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_first_waiter_may_leave_without_harm_to_others() {
    let world = World::new(MILLIS, |_, _| Say::Token(HOUR));
    let one = identity("ns", 1);
    let first = world.asking(&one, RESOURCE);
    sleep(Duration::from_millis(10)).await;
    let second = world.asking(&one, RESOURCE);
    sleep(Duration::from_millis(10)).await;
    first.abort();
    assert_eq!(second.await.unwrap().unwrap(), "token-1");
    assert_eq!(world.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_flight_that_everybody_left_ends_after_its_try() {
    let world = World::new(MILLIS, |_, _| Say::Busy);
    let one = identity("ns", 1);
    let only = world.asking(&one, RESOURCE);
    sleep(Duration::from_millis(10)).await;
    only.abort();
    sleep(Duration::from_mins(2)).await;
    assert_eq!(world.calls().len(), 1);
    assert_eq!(world.broker.keys().len(), 0, "what is over is dropped");
}

#[tokio::test(start_paused = true)]
async fn a_token_is_refreshed_ahead_around_half_life_and_never_served_near_its_end() {
    let world = World::new(MILLIS, |_, _| Say::Token(HOUR));
    let one = identity("ns", 1);
    world.ask(&one).await.unwrap();
    sleep(Duration::from_secs(1_300)).await;
    assert_eq!(
        world.calls().len(),
        1,
        "the refresh point is 40 to 60 % of the life"
    );
    sleep(Duration::from_mins(16)).await;
    assert_eq!(world.calls().len(), 2);
    assert_eq!(world.ask(&one).await.unwrap(), "token-2");
}

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_keeps_the_last_good_one_until_five_minutes_are_left() {
    for trouble in [Say::Busy, Say::Refuse, Say::Throttle(None), Say::Hang] {
        let world = World::new(
            MILLIS,
            move |nth, _| {
                if nth == 1 { Say::Token(HOUR) } else { trouble }
            },
        );
        let one = identity("ns", 1);
        world.ask(&one).await.unwrap();
        while world.secs() < HOUR - 305 {
            assert_eq!(world.ask(&one).await.unwrap(), "token-1");
            sleep(Duration::from_secs(3)).await;
        }
        let calls = world.calls().len();
        assert!(
            (3..15).contains(&calls),
            "tried again, but not in a storm: {calls}"
        );
        sleep(Duration::from_secs(6)).await;
        world
            .ask(&one)
            .await
            .expect_err("with five minutes left it is never served");
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiter_hurries_a_refresh_whose_token_has_become_too_old() {
    // All refreshing seats hang; the token's own refresh waits behind them until somebody needs it.
    let limits = Limits {
        attempt: Duration::from_hours(2),
        ..Limits::default()
    };
    let world = World::with(MILLIS, limits, |nth, _| match nth {
        1..=3 => Say::Token(HOUR),
        4 | 5 => Say::Hang,
        _ => Say::Token(HOUR),
    });
    for n in 1..=3 {
        world.ask(&identity("ns", n)).await.unwrap();
    }
    sleep(Duration::from_secs(HOUR - 200)).await;
    let mut served = 0;
    for n in 1..=3 {
        served += usize::from(world.ask(&identity("ns", n)).await.is_ok());
    }
    assert_eq!((served, world.calls().len()), (1, 6));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_ends_too_soon_is_not_handed_on() {
    let world = World::new(MILLIS, |nth, _| Say::Token(if nth < 3 { 300 } else { 302 }));
    assert_eq!(world.ask(&identity("ns", 1)).await.unwrap(), "token-3");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_final_and_remembered_briefly() {
    let world = World::new(MILLIS, |_, _| Say::Refuse);
    let one = identity("ns", 1);
    for _ in 0..10 {
        let error = world.ask(&one).await.unwrap_err();
        assert_eq!((error.code(), error.retry()), ("refused", Retry::Never));
    }
    assert_eq!(world.calls().len(), 1);
    world.broker.forgive(|key| key.identity.object == one.object);
    world.ask(&one).await.unwrap_err();
    assert_eq!(world.calls().len(), 2, "an event lets it be asked again");
    sleep(Duration::from_secs(6)).await;
    world.ask(&one).await.unwrap_err();
    assert_eq!(world.calls().len(), 3);
    sleep(Duration::from_mins(1)).await;
    assert_eq!(world.broker.keys().len(), 0, "and then forgotten");
}

#[tokio::test(start_paused = true)]
async fn trouble_that_passes_is_waited_out_inside_the_request() {
    let world = World::new(
        MILLIS,
        |nth, _| if nth < 4 { Say::Busy } else { Say::Token(HOUR) },
    );
    assert_eq!(world.ask(&identity("ns", 1)).await.unwrap(), "token-4");
    assert!(
        (2..6).contains(&world.secs()),
        "0.5 + 1 + 2 s, less up to a quarter: {}",
        world.secs()
    );
}

#[tokio::test(start_paused = true)]
async fn trouble_that_stays_ends_at_the_deadline_with_when_to_come_back() {
    let world = World::new(MILLIS, |_, _| Say::Busy);
    let error = world.ask(&identity("ns", 1)).await.unwrap_err();
    assert_eq!(error.code(), "busy");
    assert!(
        matches!(error, TokenError::Unavailable { retry_after, .. } if retry_after <= Duration::from_secs(20))
    );
    assert!(
        (15..=20).contains(&world.secs()),
        "gives up when the next try would come too late: {}",
        world.secs()
    );
    assert!((5..12).contains(&world.calls().len()), "{}", world.calls().len());
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_hangs_ends_at_the_deadline() {
    let world = World::new(MILLIS, |_, _| Say::Hang);
    let error = world.ask(&identity("ns", 1)).await.unwrap_err();
    assert_eq!((error.code(), world.secs()), ("upstream_slow", 20));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_panics_neither_blocks_its_key_nor_its_waiters() {
    let world = World::new(
        MILLIS,
        |nth, _| if nth == 1 { Say::Panic } else { Say::Token(HOUR) },
    );
    let one = identity("ns", 1);
    assert!(matches!(
        world.ask(&one).await,
        Err(TokenError::Unavailable { .. })
    ));
    assert_eq!(world.ask(&one).await.unwrap(), "token-2");
}

#[tokio::test(start_paused = true)]
async fn what_the_upstream_asks_for_is_kept() {
    let world = World::new(MILLIS, |nth, _| {
        if nth == 1 {
            Say::Throttle(Some(7))
        } else {
            Say::Token(HOUR)
        }
    });
    let (one, two) = (world.asking(&identity("a", 1), RESOURCE), async {
        sleep(Duration::from_secs(1)).await;
        world.ask(&identity("b", 2)).await
    });
    let (one, two) = tokio::join!(one, two);
    assert!(one.unwrap().is_ok() && two.is_ok());
    let calls = world.calls();
    assert!(
        calls[1].at >= Duration::from_secs(7),
        "the whole VM keeps still: {calls:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_pause_longer_than_the_deadline_is_told_at_once_to_everybody() {
    let world = World::new(MILLIS, |_, _| Say::Throttle(Some(60)));
    for n in 1..=3 {
        let error = world.ask(&identity("ns", n)).await.unwrap_err();
        assert!(
            matches!(error.retry(), Retry::After(after) if after > Duration::from_secs(55)),
            "{error:?}"
        );
    }
    assert!(world.secs() < 2 && world.calls().len() == 1);
}

/// Most calls that started within any `window`.
fn busiest(calls: &[Call], window: Duration) -> usize {
    calls
        .iter()
        .enumerate()
        .map(|(at, first)| {
            calls[at..]
                .iter()
                .take_while(|call| call.at < first.at + window)
                .count()
        })
        .max()
        .unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_keys_stays_within_the_quota_and_everybody_gets_a_token() {
    let world = World::new(Duration::from_millis(150), |_, _| Say::Token(HOUR));
    let waiters: Vec<_> = (0..250)
        .map(|n| world.asking(&identity("ns", n), RESOURCE))
        .collect();
    for waiter in waiters {
        waiter.await.unwrap().unwrap();
    }
    let calls = world.calls();
    assert_eq!(calls.len(), 250);
    assert_eq!(busiest(&calls, Duration::from_secs(1)), 20);
    assert_eq!(calls.iter().map(|call| call.running).max(), Some(5));
}

#[tokio::test(start_paused = true)]
async fn a_noisy_tenant_does_not_keep_others_waiting() {
    let limits = Limits {
        per_identity: 500,
        flights_per_identity: 500,
        ..Limits::default()
    };
    let world = World::with(Duration::from_millis(20), limits, |_, _| Say::Token(HOUR));
    let noisy = identity("noisy", 1);
    let storm: Vec<_> = (0..300)
        .map(|n| world.asking(&noisy, &format!("https://{n}.example")))
        .collect();
    sleep(Duration::from_millis(500)).await;
    let before = world.calls().len();
    world.ask(&identity("quiet", 2)).await.unwrap();
    let calls = world.calls();
    let place = calls
        .iter()
        .position(|call| &*call.key.identity.object.namespace == "quiet")
        .unwrap();
    // Seats given at one moment are taken in any order.
    assert!(place - before < 5, "{place} after {before}");
    for waiter in storm {
        waiter.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn first_tokens_go_before_refreshes() {
    let world = World::new(Duration::from_millis(400), |_, _| Say::Token(HOUR));
    let old: Vec<_> = (0..60)
        .map(|n| world.asking(&identity("old", n), RESOURCE))
        .collect();
    for waiter in old {
        waiter.await.unwrap().unwrap();
    }
    // Past every refresh point, with nobody looking: one look then starts all refreshes at once.
    sleep(Duration::from_secs(1_300)).await;
    let refreshed = world.calls().len();
    assert_eq!(refreshed, 60);
    while world.calls().len() < 62 {
        sleep(MILLIS).await;
    }
    let asked = Instant::now();
    let new: Vec<_> = (100..110)
        .map(|n| world.asking(&identity("new", n), RESOURCE))
        .collect();
    for waiter in new {
        waiter.await.unwrap().unwrap();
    }
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "refreshes take two seats at most: {:?}",
        asked.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn forgotten_keys_serve_nothing_and_their_waiters_are_told() {
    let world = World::new(MILLIS, |_, _| Say::Token(HOUR));
    let (one, two) = (identity("ns", 1), identity("ns", 2));
    world.ask(&one).await.unwrap();
    let waiting = world.asking(&two, RESOURCE);
    sleep(Duration::from_millis(10)).await;
    assert_eq!(world.broker.retain([]), 2);
    assert!(matches!(waiting.await.unwrap(), Err(TokenError::Forgotten)));
    assert!(
        world
            .broker
            .lookup(Lookup {
                identity: &one,
                resource: RESOURCE,
                via: &Via::Imds
            })
            .is_none()
    );
    assert_eq!(world.broker.keys().len(), 0);
    assert_eq!(world.script.lock().running, 0, "its call was dropped too");
}

#[tokio::test(start_paused = true)]
async fn what_is_still_there_unchanged_is_retained() {
    let world = World::new(MILLIS, |_, _| Say::Token(HOUR));
    let one = identity("ns", 1);
    world.ask(&one).await.unwrap();
    // The same object read again, with another mark that the upstream never sees.
    let again = Arc::new(Identity {
        object_id: Some(Guid::from_u128(77)),
        ..Identity::clone(&one)
    });
    assert_eq!(world.broker.retain([&again]), 0);
    assert_eq!(world.ask(&again).await.unwrap(), "token-1");
    let other = Arc::new(Identity {
        client_id: Some(Guid::from_u128(78)),
        ..Identity::clone(&one)
    });
    assert_eq!(world.broker.retain([&other]), 1);
}

#[tokio::test(start_paused = true)]
async fn entries_of_one_identity_are_bounded_and_other_identities_are_not_touched() {
    let world = World::new(Duration::from_millis(1), |_, _| Say::Token(HOUR));
    let quiet = identity("quiet", 2);
    world.ask(&quiet).await.unwrap();
    let noisy = identity("noisy", 1);
    for n in 0..100 {
        world
            .ask_for(&noisy, &format!("https://{n}.example"))
            .await
            .unwrap();
    }
    let keys = world.broker.keys();
    assert_eq!(keys.len(), Limits::default().per_identity + 1);
    assert_eq!(world.ask(&quiet).await.unwrap(), "token-1");
    let waiters: Vec<_> = (200..300)
        .map(|n| world.asking(&noisy, &format!("https://{n}.example")))
        .collect();
    let mut refused = 0;
    for waiter in waiters {
        refused += usize::from(matches!(waiter.await.unwrap(), Err(TokenError::TooMany)));
    }
    assert_eq!(refused, 100 - Limits::default().flights_per_identity);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_nobody_asks_for_is_refreshed_for_a_day_and_then_left() {
    let world = World::new(MILLIS, |_, _| Say::Token(24 * HOUR));
    world.ask(&identity("ns", 1)).await.unwrap();
    sleep(Duration::from_hours(80)).await;
    assert!((2..=4).contains(&world.calls().len()), "{}", world.calls().len());
    assert_eq!(world.broker.keys().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn every_input_of_the_upstream_call_separates() {
    let world = World::new(Duration::from_millis(1), |_, _| Say::Token(HOUR));
    let base = identity("ns", 1);
    let with = |change: &dyn Fn(&mut Identity)| {
        let mut identity = Identity::clone(&base);
        change(&mut identity);
        Arc::new(identity)
    };
    let secret = |tenant: &str, secret: &str, authority: Option<&str>| Credential::ClientSecret {
        tenant: tenant.into(),
        auxiliary_tenants: Vec::new(),
        secret: ObjectName::new("ns", secret),
        authority: authority.map(Into::into),
    };
    let certificate = Credential::ClientCertificate {
        tenant: "t".into(),
        secret: ObjectName::new("ns", "s"),
        authority: None,
    };
    let credential = |tenant: &str, version: Option<&str>| Via::Credential {
        tenant: tenant.into(),
        secret_version: version.map(Into::into),
    };
    let federation = |tenant: &str, account: &str| Via::Federation {
        tenant: tenant.into(),
        service_account: ObjectName::new("ns", account),
    };
    let resource_id =
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/n";
    let calls: Vec<(Arc<Identity>, &str, Via)> = vec![
        (Arc::clone(&base), "r", Via::Imds),
        (Arc::clone(&base), "r/", Via::Imds),
        (
            with(&|id| id.object = ObjectName::new("other", "id-1")),
            "r",
            Via::Imds,
        ),
        (
            with(&|id| id.client_id = Some(Guid::from_u128(2))),
            "r",
            Via::Imds,
        ),
        (with(&|id| id.client_id = None), "r", Via::Imds),
        (
            with(&|id| id.resource_id = resource_id.parse().ok()),
            "r",
            Via::Imds,
        ),
        (Arc::clone(&base), "r", federation("t", "a")),
        (Arc::clone(&base), "r", federation("t", "b")),
        (Arc::clone(&base), "r", federation("u", "a")),
        (
            with(&|id| id.credential = secret("t", "s", None)),
            "r",
            credential("t", None),
        ),
        (
            with(&|id| id.credential = secret("t", "s", None)),
            "r",
            credential("u", None),
        ),
        (
            with(&|id| id.credential = secret("t", "s", None)),
            "r",
            credential("t", Some("1")),
        ),
        (
            with(&|id| id.credential = secret("t", "s", None)),
            "r",
            credential("t", Some("2")),
        ),
        (
            with(&|id| id.credential = secret("u", "s", None)),
            "r",
            credential("t", None),
        ),
        (
            with(&|id| id.credential = secret("t", "z", None)),
            "r",
            credential("t", None),
        ),
        (
            with(&|id| id.credential = secret("t", "s", Some("https://a"))),
            "r",
            credential("t", None),
        ),
        (
            with(&|id| id.credential = certificate.clone()),
            "r",
            credential("t", None),
        ),
    ];
    let mut seen = HashMap::new();
    for round in 0..2 {
        for (at, (identity, resource, via)) in calls.iter().enumerate() {
            let lookup = Lookup {
                identity,
                resource,
                via,
            };
            let deadline = Instant::now() + Duration::from_secs(20);
            let token = world.broker.get(lookup, deadline).await.unwrap();
            let token = token.secret.expose().to_owned();
            if round == 0 {
                assert_eq!(
                    seen.insert(token, at),
                    None,
                    "call {at} was answered from another's"
                );
            } else {
                assert_eq!(seen.get(&token), Some(&at));
            }
        }
    }
    assert_eq!(world.calls().len(), calls.len());
}
