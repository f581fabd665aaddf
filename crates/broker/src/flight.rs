//! A flight: hold, turn, try, and again while somebody waits. A task of the broker, never of a waiter.

use std::sync::Arc;
use std::time::Duration;

use podid_core::{AccessToken, Retry, SourceError, TroubleKind};
use tokio::time::Instant;

use crate::broker::{Broker, Source};
use crate::entry::{Entry, Flight, Slot, is_servable};
use crate::error::TokenError;
use crate::key::Via;
use crate::lane::{Class, Lane};
use crate::limits::{
    FIRST_BACKOFF, FIRST_REFRESH_BACKOFF, MAX_BACKOFF, MAX_HOLD, MAX_REFRESH_BACKOFF, SERVE_MARGIN_SECS,
    URGENT_SECS,
};

/// What a pod is told to wait when a flight was lost.
const AFTER_A_LOSS: Duration = Duration::from_secs(5);

/// How a flight ends.
enum Landing {
    Token(Arc<AccessToken>),
    Refused(Arc<SourceError>),
    /// Nobody waits any more; the slot is already in order.
    Left,
    Forgotten,
}

impl<S: Source> Broker<S> {
    /// Flies, and puts the entry in order whatever happens.
    pub(crate) async fn fly(self: Arc<Self>, entry: Arc<Entry>, flight: Arc<Flight>) {
        let guard = Guard {
            entry: &entry,
            flight: &flight,
        };
        let tries = self.tries(&entry, &flight);
        tokio::pin!(tries);
        let mut closing = false;
        let landing = loop {
            tokio::select! {
                biased;
                () = flight.cancel.cancelled() => break Landing::Forgotten,
                // The process stops: what nobody waits for need not be finished.
                () = self.closing(), if !closing => {
                    closing = true;
                    if self.leave(&entry, &flight, None, None) {
                        break Landing::Left;
                    }
                }
                landing = &mut tries => break landing,
            }
        };
        self.land(&entry, &flight, landing);
        drop(guard);
    }

    async fn tries(&self, entry: &Arc<Entry>, flight: &Arc<Flight>) -> Landing {
        let lane = self.lane(&entry.key.via);
        let (mut last, mut hold) = entry.slot().hold.clone().unzip();
        let mut failures = 0;
        loop {
            if let Some(until) = hold
                .max(lane.paused_until())
                .filter(|until| *until > Instant::now())
            {
                flight.tell(Some(until), last.clone());
                tokio::select! {
                    () = tokio::time::sleep_until(until) => {}
                    () = flight.urgent.notified() => continue,
                    () = flight.abandoned() => {
                        if self.leave(entry, flight, last.as_ref(), hold) {
                            return Landing::Left;
                        }
                        continue;
                    }
                }
            }
            let seat = tokio::select! {
                seat = lane.acquire(self.class(entry, flight), &entry.key.identity.object) => seat,
                () = flight.urgent.notified() => continue,
                () = flight.abandoned() => {
                    if self.leave(entry, flight, last.as_ref(), hold) {
                        return Landing::Left;
                    }
                    continue;
                }
            };
            let answer = self.attempt(entry).await;
            if entry.key.via == Via::Imds {
                // The metadata service counts for the whole VM, Entra for each application.
                throttle(lane, &answer);
            }
            drop(seat);
            let error = match answer {
                Ok(token) => return Landing::Token(Arc::new(token)),
                Err(error) => Arc::new(error),
            };
            let pause = match error.retry {
                Retry::Never => return Landing::Refused(error),
                Retry::After(asked) => asked.clamp(FIRST_BACKOFF, MAX_HOLD),
                Retry::Backoff => backoff(FIRST_BACKOFF, failures, MAX_BACKOFF),
            };
            failures += 1;
            let until = Instant::now() + pause;
            tracing::debug!(
                identity = %entry.key.identity.object, via = entry.key.via.code(), code = error.code, ?pause,
                error = &*error as &dyn std::error::Error, "a token was not obtained"
            );
            flight.tell(Some(until), Some(Arc::clone(&error)));
            (last, hold) = (Some(error), Some(until));
            if !flight.has_waiters() && self.leave(entry, flight, last.as_ref(), hold) {
                return Landing::Left;
            }
        }
    }

    /// One try.
    async fn attempt(&self, entry: &Entry) -> Result<AccessToken, SourceError> {
        let started = Instant::now();
        let limit = self.limits.attempt;
        let answer = match tokio::time::timeout(limit, self.source.fetch(&entry.key)).await {
            Ok(Ok(token)) if is_servable(&token, self.now()) => Ok(token),
            Ok(Ok(token)) => Err(SourceError::new(
                "token_too_short",
                TroubleKind::Unavailable,
                Retry::Backoff,
                format!(
                    "the upstream gave a token with {} s left; one with {SERVE_MARGIN_SECS} s or less is never handed on",
                    token.expires_in(self.now())
                ),
            )),
            Ok(Err(error)) => Err(error),
            Err(_elapsed) => Err(SourceError::new(
                "upstream_timeout",
                TroubleKind::Unavailable,
                Retry::Backoff,
                format!("the upstream gave no answer within {} s", limit.as_secs()),
            )),
        };
        let code = answer.as_ref().map_or_else(|error| error.code, |_| "ok");
        self.metrics
            .upstream(entry.key.via.code(), code, started.elapsed());
        answer
    }

    fn class(&self, entry: &Entry, flight: &Flight) -> Class {
        let left = entry.left(self.now()).unwrap_or_default();
        if flight.is_wanted() || left <= SERVE_MARGIN_SECS + URGENT_SECS {
            Class::First
        } else {
            Class::Refresh
        }
    }

    /// Ends the flight without a token, unless somebody has come meanwhile.
    fn leave(
        &self,
        entry: &Entry,
        flight: &Flight,
        last: Option<&Arc<SourceError>>,
        hold: Option<Instant>,
    ) -> bool {
        let mut slot = entry.slot();
        if flight.has_waiters() {
            return false;
        }
        entry.landed(&mut slot);
        slot.hold = last.cloned().zip(hold);
        if let Some(last) = last {
            self.refresh_failed(entry, &mut slot, last);
        }
        true
    }

    /// Notes how the flight ended, then tells the waiters.
    fn land(&self, entry: &Entry, flight: &Flight, landing: Landing) {
        let mut slot = entry.slot();
        let outcome = match landing {
            Landing::Left => return,
            _ if slot.gone => Err(TokenError::Forgotten),
            Landing::Forgotten => Err(TokenError::Forgotten),
            Landing::Token(token) => {
                let now = self.now();
                (slot.refused, slot.hold, slot.failures) = (None, None, 0);
                entry.keep(Arc::clone(&token), refresh_at(now, token.expires_in(now)));
                Ok(token)
            }
            Landing::Refused(error) => {
                slot.hold = None;
                if entry
                    .left(self.now())
                    .is_some_and(|left| left > SERVE_MARGIN_SECS)
                {
                    // What is good stays good: that a refresh was refused may be the upstream's error. Who took the identity away
                    // for good also takes the binding away, and that ends it here at once.
                    self.refresh_failed(entry, &mut slot, &error);
                } else {
                    slot.refused = Some((Arc::clone(&error), Instant::now() + self.limits.negative));
                }
                Err(TokenError::Refused(error))
            }
        };
        entry.landed(&mut slot);
        drop(slot);
        flight.done(outcome);
    }

    fn refresh_failed(&self, entry: &Entry, slot: &mut Slot, error: &Arc<SourceError>) {
        let now = self.now();
        let Some(left) = entry.left(now) else {
            return;
        };
        let pause = backoff(FIRST_REFRESH_BACKOFF, slot.failures, MAX_REFRESH_BACKOFF);
        slot.failures = slot.failures.saturating_add(1);
        entry.refresh_not_before(now + pause.as_secs().max(1));
        self.metrics.refresh_failures.inc();
        tracing::warn!(
            identity = %entry.key.identity.object, resource = %entry.key.resource, via = entry.key.via.code(),
            code = error.code, left_secs = left, again_in = ?pause, error = &**error as &dyn std::error::Error,
            "a token could not be refreshed; the last good one stays in use"
        );
    }
}

/// Tells the lane how the upstream bears the load.
fn throttle(lane: &Lane, answer: &Result<AccessToken, SourceError>) {
    match answer {
        Err(error) if error.kind == TroubleKind::Throttled => lane.pause(match error.retry {
            Retry::After(asked) => Some(asked),
            Retry::Never | Retry::Backoff => None,
        }),
        _ => lane.flows(),
    }
}

/// When to refresh a token that has `left` seconds at `now`: at a random point around half life, so that tokens fetched
/// together do not come back together, and well before it may not be served any more.
pub(crate) fn refresh_at(now: u64, left: u64) -> u64 {
    let half = left * (400 + u64::from(random_below(200))) / 1000;
    let latest = left.saturating_sub(SERVE_MARGIN_SECS) * 3 / 4;
    now + half.min(latest).max(1)
}

/// `first` doubled `failures` times, at most `longest`, less up to a quarter at random.
fn backoff(first: Duration, failures: u32, longest: Duration) -> Duration {
    let full = first.saturating_mul(1 << failures.min(10)).min(longest);
    full.saturating_sub(full * random_below(250) / 1000)
}

/// A random number below `bound`; good for spreading, for nothing else.
fn random_below(bound: u32) -> u32 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let random = RandomState::new().build_hasher().finish();
    u32::try_from(random % u64::from(bound.max(1))).unwrap_or_default()
}

/// A flight that panics must not leave its waiters waiting and its key taken.
struct Guard<'a> {
    entry: &'a Arc<Entry>,
    flight: &'a Arc<Flight>,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let mut slot = self.entry.slot();
        let mine = slot
            .flight
            .as_ref()
            .is_some_and(|flight| Arc::ptr_eq(flight, self.flight));
        if mine {
            self.entry.landed(&mut slot);
            drop(slot);
            self.flight.done(Err(TokenError::Unavailable {
                retry_after: AFTER_A_LOSS,
                last: None,
            }));
        }
    }
}
