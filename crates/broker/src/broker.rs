//! The broker itself: what callers use, and the task that refreshes.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use podid_core::{AccessToken, Identity, ObjectName, SourceError};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::entry::{Entry, Flight, Progress};
use crate::error::TokenError;
use crate::key::{Key, Lookup, Via, same_identity};
use crate::lane::Lane;
use crate::limits::{Limits, MAX_LOOK, MIN_LOOK};
use crate::metrics::Metrics;
use crate::store::Store;

/// What a pod is told to wait when its own deadline passed and nothing better is known.
const AFTER_A_DEADLINE: Duration = Duration::from_secs(5);

/// Where tokens come from.
pub trait Source: Send + Sync + 'static {
    /// Asks once. Does not retry; the broker does. The future is dropped when the key is forgotten.
    fn fetch(&self, key: &Key) -> impl Future<Output = Result<AccessToken, SourceError>> + Send;
}

/// Wall-clock time in seconds since 1970-01-01T00:00:00Z.
pub type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Starts a short task that is waited for when the process drains.
pub type Spawn = Box<dyn Fn(Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync>;

/// A handle to the broker.
pub type SharedBroker<S> = Arc<Broker<S>>;

/// Tokens: cached, fetched once for all who wait, refreshed ahead.
pub struct Broker<S> {
    pub(crate) source: S,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    clock: WallClock,
    spawn: Spawn,
    store: Store,
    imds: Arc<Lane>,
    entra: Arc<Lane>,
    closing: CancellationToken,
}

/// What is kept of one key, without its token.
#[derive(Clone, Debug)]
pub struct Remembered {
    /// The key.
    pub key: Key,
    /// When the good token ends, in seconds since 1970-01-01T00:00:00Z; none when there is no token.
    pub expires_on: Option<u64>,
    /// From when on it is fetched anew, in the same seconds; none when there is no token.
    pub refresh_at: Option<u64>,
    /// When it was asked for last, in the same seconds.
    pub used: u64,
    /// Whether the upstream is being asked.
    pub fetching: bool,
    /// Refreshes that failed in a row.
    pub failures: u32,
    /// What the upstream refused for good, as long as that stands.
    pub refused: Option<Arc<SourceError>>,
}

impl<S> fmt::Debug for Broker<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("entries", &self.store.len())
            .finish_non_exhaustive()
    }
}

impl<S: Source> Broker<S> {
    /// An empty broker. `spawn` starts its flights; [`Broker::run`] must run beside it, or nothing is refreshed.
    pub fn new(
        source: S,
        clock: WallClock,
        spawn: Spawn,
        limits: Limits,
        registry: &mut Registry,
    ) -> SharedBroker<S> {
        Arc::new(Self {
            source,
            imds: Lane::new(limits.imds),
            entra: Lane::new(limits.entra),
            limits,
            metrics: Metrics::register(registry),
            clock,
            spawn,
            store: Store::new(),
            closing: CancellationToken::new(),
        })
    }

    /// A token with more than five minutes left, from memory, else from the upstream.
    ///
    /// Trouble that may pass is waited out until `deadline` (or not at all, when the upstream has said that it will
    /// last longer). Leaving early harms no other waiter.
    pub async fn get(
        self: &Arc<Self>,
        lookup: Lookup<'_>,
        deadline: Instant,
    ) -> Result<Arc<AccessToken>, TokenError> {
        if let Some(token) = self.lookup(lookup) {
            return Ok(token);
        }
        let receiver = loop {
            let entry = self.store.entry(lookup, &self.limits, self.now());
            match entry.and_then(|entry| self.join(&entry)) {
                Ok(Joined::Served(token)) => return Ok(token),
                Ok(Joined::Waiting(receiver)) => break receiver,
                Ok(Joined::Gone) => {}
                Err(error) => {
                    self.metrics.refused.inc();
                    return Err(error);
                }
            }
        };
        self.metrics.waited.inc();
        wait(receiver, deadline).await
    }

    /// The token from memory, if one with more than five minutes is there. Allocates nothing.
    pub fn lookup(self: &Arc<Self>, lookup: Lookup<'_>) -> Option<Arc<AccessToken>> {
        let now = self.now();
        let (token, due) = self.store.peek(lookup, |entry| {
            let (token, due) = entry.serve(now)?;
            Some((token, due.then(|| Arc::clone(entry))))
        })??;
        self.metrics.served.inc();
        if let Some(entry) = due {
            self.refresh(&entry);
        }
        Some(token)
    }

    /// A new token from the upstream although a good one may be there, which stays in use until then and when it fails.
    /// Joins the flight that is under way, if there is one.
    pub async fn renew(
        self: &Arc<Self>,
        lookup: Lookup<'_>,
        deadline: Instant,
    ) -> Result<Arc<AccessToken>, TokenError> {
        let entry = self.store.entry(lookup, &self.limits, self.now())?;
        let (receiver, flight) = {
            let mut slot = entry.slot();
            if slot.gone {
                return Err(TokenError::Forgotten);
            }
            // Who asks for this knows more than we do.
            (slot.refused, slot.hold) = (None, None);
            if let Some(flight) = &slot.flight {
                (flight.join(), None)
            } else {
                let flight = entry.take_off(&mut slot, false);
                (flight.join(), Some(flight))
            }
        };
        if let Some(flight) = flight {
            self.launch(&entry, flight);
        }
        wait(receiver, deadline).await
    }

    /// What is kept, in no order.
    pub fn remembered(&self) -> Vec<Remembered> {
        let mut all = Vec::with_capacity(self.store.len());
        self.store.for_each(|entry| {
            let expires_on = entry.expires_on();
            let slot = entry.slot();
            let stands = slot.refused.as_ref().filter(|(_, until)| *until > Instant::now());
            all.push(Remembered {
                key: entry.key.clone(),
                expires_on,
                refresh_at: expires_on.map(|_| entry.refresh_at()),
                used: entry.used(),
                fetching: slot.flight.is_some(),
                failures: slot.failures,
                refused: stands.map(|(error, _)| Arc::clone(error)),
            });
        });
        all
    }

    /// Forgets everything about the keys of which `goes` is true: tokens, refusals, and flights, whose waiters get
    /// [`TokenError::Forgotten`]. Says how many there were.
    pub fn forget(&self, goes: impl Fn(&Key) -> bool) -> usize {
        self.store.drop_where(|entry| goes(&entry.key))
    }

    /// Forgets every key whose identity is not one of `live` as it is now.
    pub fn retain<'a>(&self, live: impl IntoIterator<Item = &'a Arc<Identity>>) -> usize {
        let live: HashMap<&ObjectName, &Arc<Identity>> = live
            .into_iter()
            .map(|identity| (&identity.object, identity))
            .collect();
        self.forget(|key| {
            !live
                .get(&key.identity.object)
                .is_some_and(|identity| same_identity(identity, &key.identity))
        })
    }

    /// Forgets only the refusals and pauses of the keys of which `any` is true: something has changed that may help.
    pub fn forgive(&self, any: impl Fn(&Key) -> bool) {
        self.store.for_each(|entry| {
            if any(&entry.key) {
                let mut slot = entry.slot();
                (slot.refused, slot.hold) = (None, None);
            }
        });
    }

    /// Refreshes what is due and still in use, and drops what is over, until `stop`. Then ends the flights for which
    /// nobody waits; those that somebody waits for are finished.
    pub async fn run(self: Arc<Self>, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        loop {
            let pause = self.look();
            tokio::select! {
                () = &mut stop => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.closing.cancel();
    }

    /// One look at everything; says how long until the next.
    fn look(self: &Arc<Self>) -> Duration {
        let now = self.now();
        let idle = self.limits.idle.as_secs();
        let (mut next, mut due) = (u64::MAX, Vec::new());
        self.store.for_each(|entry| {
            if entry.is_flying() || now.saturating_sub(entry.used()) > idle {
            } else if entry.is_due(now) {
                due.push(Arc::clone(entry));
            } else {
                next = next.min(entry.refresh_at());
            }
        });
        for entry in due {
            self.refresh(&entry);
        }
        self.store.drop_where(|entry| entry.is_dead(now));
        self.metrics.entries.set(gauge(self.store.len()));
        for (name, lane) in [("imds", &self.imds), ("entra", &self.entra)] {
            let (queued, running) = lane.load();
            self.metrics.lane(name, gauge(queued), gauge(running));
        }
        Duration::from_secs(next.saturating_sub(now)).clamp(MIN_LOOK, MAX_LOOK)
    }

    /// Starts a refresh, unless a flight is under way.
    fn refresh(self: &Arc<Self>, entry: &Arc<Entry>) {
        let flight = {
            let mut slot = entry.slot();
            if slot.gone || slot.flight.is_some() {
                return;
            }
            entry.take_off(&mut slot, true)
        };
        self.launch(entry, flight);
    }

    fn join(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<Joined, TokenError> {
        let (receiver, flight) = {
            let mut slot = entry.slot();
            if slot.gone {
                return Ok(Joined::Gone);
            }
            // A flight may have landed since the first look.
            if let Some((token, _)) = entry.serve(self.now()) {
                return Ok(Joined::Served(token));
            }
            if let Some(flight) = &slot.flight {
                return Ok(Joined::Waiting(flight.join()));
            }
            let now = Instant::now();
            if let Some((error, until)) = &slot.refused
                && *until > now
            {
                return Err(TokenError::Refused(Arc::clone(error)));
            }
            let flight = entry.take_off(&mut slot, false);
            (flight.join(), flight)
        };
        self.launch(entry, flight);
        Ok(Joined::Waiting(receiver))
    }

    fn launch(self: &Arc<Self>, entry: &Arc<Entry>, flight: Arc<Flight>) {
        (self.spawn)(Box::pin(Arc::clone(self).fly(Arc::clone(entry), flight)));
    }

    pub(crate) fn now(&self) -> u64 {
        (self.clock)()
    }

    pub(crate) fn lane(&self, via: &Via) -> &Arc<Lane> {
        match via {
            Via::Imds => &self.imds,
            Via::Credential { .. } | Via::Federation { .. } => &self.entra,
        }
    }

    pub(crate) async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// The keys that are remembered, in no order.
    #[cfg(test)]
    pub(crate) fn keys(&self) -> Vec<Key> {
        self.store.keys()
    }
}

/// What came of joining an entry.
enum Joined {
    Served(Arc<AccessToken>),
    Waiting(watch::Receiver<Progress>),
    /// The entry left the store meanwhile.
    Gone,
}

/// Waits for the flight's end, or as long as waiting makes sense.
async fn wait(
    mut receiver: watch::Receiver<Progress>,
    deadline: Instant,
) -> Result<Arc<AccessToken>, TokenError> {
    loop {
        let progress = receiver.borrow_and_update().clone();
        let (next, last) = match progress {
            Progress::Done(outcome) => return outcome,
            Progress::Trying { next, last } => (next, last),
        };
        let late = |retry_after: Option<Duration>| TokenError::Unavailable {
            retry_after: retry_after.unwrap_or(AFTER_A_DEADLINE),
            last: last.clone(),
        };
        if let Some(next) = next.filter(|next| *next > deadline) {
            return Err(late(Some(next - Instant::now())));
        }
        tokio::select! {
            biased;
            changed = receiver.changed() => if changed.is_err() {
                return Err(late(None));
            },
            () = tokio::time::sleep_until(deadline) => {
                return Err(late(next.and_then(|next| next.checked_duration_since(Instant::now()))));
            }
        }
    }
}

fn gauge(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
