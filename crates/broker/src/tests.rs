//! The broker as its users see it, on a clock that the tests move, with a source in memory.

mod keys;
mod lane;
mod refresh;
mod threads;

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
    /// Not before so many seconds have passed.
    Later(u64),
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
            Say::Later(secs) => trouble(
                "later",
                TroubleKind::Unavailable,
                Retry::After(Duration::from_secs(secs)),
            ),
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

    fn with(
        takes: Duration,
        limits: Limits,
        says: impl Fn(usize, &Key) -> Say + Send + Sync + 'static,
    ) -> Self {
        Self::made(takes, limits, std::future::pending(), says)
    }

    /// One that is told to stop after a while; a try may take as long as it likes.
    fn stopped_after(
        stop: Duration,
        takes: Duration,
        says: impl Fn(usize, &Key) -> Say + Send + Sync + 'static,
    ) -> Self {
        let limits = Limits {
            attempt: Duration::from_hours(1),
            ..Limits::default()
        };
        Self::made(takes, limits, sleep(stop), says)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the paused test runtime is where tasks belong here"
    )]
    fn made(
        takes: Duration,
        limits: Limits,
        stop: impl Future<Output = ()> + Send + 'static,
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
        drop(tokio::spawn(Arc::clone(&broker).run(stop)));
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
async fn what_the_upstream_asks_for_one_key_is_kept_for_that_key() {
    let world = World::new(MILLIS, |_, key| {
        if &*key.resource == RESOURCE {
            Say::Later(60)
        } else {
            Say::Token(HOUR)
        }
    });
    let one = identity("ns", 1);
    for _ in 0..10 {
        let error = world.ask(&one).await.unwrap_err();
        // Long enough for the flight to see that nobody waits.
        sleep(Duration::from_millis(1)).await;
        assert!(
            matches!(error.retry(), Retry::After(after) if after > Duration::from_secs(55)),
            "{error:?}"
        );
    }
    assert_eq!((world.calls().len(), world.secs()), (1, 0));
    world.ask_for(&one, "https://other.example").await.unwrap();
    sleep(Duration::from_mins(1)).await;
    world.ask(&one).await.unwrap_err();
    assert_eq!(world.calls().len(), 3, "asked again when it may be");
}
