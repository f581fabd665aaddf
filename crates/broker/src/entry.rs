//! What the broker knows of one key: the good token, the flight under way, and what the upstream said last.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use parking_lot::{Mutex, MutexGuard};
use podid_core::{AccessToken, SourceError};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::TokenError;
use crate::key::Key;
use crate::limits::SERVE_MARGIN_SECS;

/// One key and its state.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    good: ArcSwapOption<AccessToken>,
    /// When to refresh, in seconds of the wall clock.
    refresh_at: AtomicU64,
    /// When it was asked for last, in seconds of the wall clock.
    used: AtomicU64,
    /// Whether `slot.flight` is there; readable without the lock.
    flying: AtomicBool,
    slot: Mutex<Slot>,
}

#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) flight: Option<Arc<Flight>>,
    /// Not in the store any more; nothing may be added.
    pub(crate) gone: bool,
    /// The last refusal and until when it stands.
    pub(crate) refused: Option<(Arc<SourceError>, Instant)>,
    /// Trouble seen last, and until when the upstream is left alone.
    pub(crate) hold: Option<(Arc<SourceError>, Instant)>,
    /// Refreshes that failed in a row.
    pub(crate) failures: u32,
}

/// One upstream call, tries included, for any number of waiters.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) progress: watch::Sender<Progress>,
    /// A refresh for which somebody now waits.
    pub(crate) urgent: Notify,
    pub(crate) cancel: CancellationToken,
    /// Whether somebody waits, or did; a flight ahead of time starts without.
    wanted: AtomicBool,
}

/// What waiters hear.
#[derive(Clone, Debug)]
pub(crate) enum Progress {
    /// Still trying.
    Trying {
        /// The next try is not before.
        next: Option<Instant>,
        /// What went wrong so far.
        last: Option<Arc<SourceError>>,
    },
    /// The end.
    Done(Result<Arc<AccessToken>, TokenError>),
}

impl Entry {
    pub(crate) fn new(key: Key, now: u64) -> Self {
        Self {
            key,
            good: ArcSwapOption::empty(),
            refresh_at: AtomicU64::new(u64::MAX),
            used: AtomicU64::new(now),
            flying: AtomicBool::new(false),
            slot: Mutex::default(),
        }
    }

    /// The token, if it may be served at `now`; and whether it should be refreshed. Marks the entry as used.
    pub(crate) fn serve(&self, now: u64) -> Option<(Arc<AccessToken>, bool)> {
        if self.used.load(Ordering::Relaxed) != now {
            self.used.store(now, Ordering::Relaxed);
        }
        let good = self.good.load();
        let token = good.as_ref().filter(|token| is_servable(token, now))?;
        let due = self.is_due(now) && !self.is_flying();
        Some((Arc::clone(token), due))
    }

    pub(crate) fn is_due(&self, now: u64) -> bool {
        self.refresh_at() <= now
    }

    pub(crate) fn refresh_at(&self) -> u64 {
        self.refresh_at.load(Ordering::Relaxed)
    }

    pub(crate) fn refresh_not_before(&self, at: u64) {
        self.refresh_at.store(at, Ordering::Relaxed);
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn is_flying(&self) -> bool {
        self.flying.load(Ordering::Relaxed)
    }

    /// When the good token ends; none when there is no token.
    pub(crate) fn expires_on(&self) -> Option<u64> {
        self.good.load().as_ref().map(|token| token.expires_on)
    }

    /// Seconds left of the good token; none when there is no token.
    pub(crate) fn left(&self, now: u64) -> Option<u64> {
        self.good.load().as_ref().map(|token| token.expires_in(now))
    }

    pub(crate) fn has_token(&self) -> bool {
        self.good.load().is_some()
    }

    pub(crate) fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock()
    }

    pub(crate) fn keep(&self, token: Arc<AccessToken>, refresh_at: u64) {
        self.refresh_not_before(refresh_at);
        self.good.store(Some(token));
    }

    /// A new flight, noted in `slot`, which is this entry's.
    pub(crate) fn take_off(&self, slot: &mut Slot, refresh: bool) -> Arc<Flight> {
        let flight = Arc::new(Flight {
            progress: watch::Sender::new(Progress::Trying {
                next: None,
                last: None,
            }),
            urgent: Notify::new(),
            cancel: CancellationToken::new(),
            wanted: AtomicBool::new(!refresh),
        });
        self.flying.store(true, Ordering::Relaxed);
        slot.flight = Some(Arc::clone(&flight));
        flight
    }

    /// The flight of `slot`, which is this entry's, is over.
    pub(crate) fn landed(&self, slot: &mut Slot) {
        slot.flight = None;
        self.flying.store(false, Ordering::Relaxed);
    }

    /// Out of the store: serves nothing any more, and its flight ends.
    pub(crate) fn retire(&self) {
        let mut slot = self.slot();
        slot.gone = true;
        self.good.store(None);
        if let Some(flight) = &slot.flight {
            flight.cancel.cancel();
        }
    }

    /// Whether nothing would be lost without this entry.
    pub(crate) fn is_dead(&self, now: u64) -> bool {
        if self.is_flying() || self.left(now).is_some_and(|left| left > 0) {
            return false;
        }
        let slot = self.slot();
        let stands = |said: &Option<(Arc<SourceError>, Instant)>| {
            said.as_ref().is_some_and(|(_, until)| *until > Instant::now())
        };
        slot.flight.is_none() && !stands(&slot.refused) && !stands(&slot.hold)
    }
}

/// Never a token that is about to end: clients that get one ask again at once, on every call.
pub(crate) fn is_servable(token: &AccessToken, now: u64) -> bool {
    token.expires_in(now) > SERVE_MARGIN_SECS
}

impl Flight {
    /// One more waiter.
    pub(crate) fn join(&self) -> watch::Receiver<Progress> {
        let receiver = self.progress.subscribe();
        if !self.wanted.swap(true, Ordering::Relaxed) {
            self.urgent.notify_one();
        }
        receiver
    }

    /// Whether somebody waits, or did.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    pub(crate) fn has_waiters(&self) -> bool {
        self.progress.receiver_count() > 0
    }

    /// Ends when all who waited have left; never while nobody has come yet.
    pub(crate) async fn abandoned(&self) {
        if !self.is_wanted() {
            std::future::pending::<()>().await;
        }
        self.progress.closed().await;
    }

    pub(crate) fn tell(&self, next: Option<Instant>, last: Option<Arc<SourceError>>) {
        self.progress.send_replace(Progress::Trying { next, last });
    }

    pub(crate) fn done(&self, outcome: Result<Arc<AccessToken>, TokenError>) {
        self.progress.send_replace(Progress::Done(outcome));
    }
}
