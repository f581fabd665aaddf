//! Turns towards one upstream: bounded rate and concurrency, first tokens before refreshes, namespaces in turn and
//! within one its identities in turn. Knows nothing of tokens.
//!
//! acquire ─▶ queue[class][namespace][identity] ─▶ pump (rate, seats, pause) ─▶ Seat ─▶ drop ─▶ pump …
//!
//! There is no task: who waits sleeps until the time that the last pump named and pumps itself.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use podid_core::ObjectName;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::limits::MAX_HOLD;

/// Bounds of a lane.
#[derive(Clone, Copy, Debug)]
pub struct LaneLimits {
    /// Most requests at a time.
    pub in_flight: usize,
    /// Most refreshes among them.
    pub refreshing: usize,
    /// Most requests for identities of one namespace among them.
    pub per_namespace: usize,
    /// Most requests within any `window`.
    pub rate: usize,
    /// See `rate`.
    pub window: Duration,
}

/// What is more urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Somebody waits, or soon would.
    First,
    /// Ahead of time.
    Refresh,
}

/// Turns towards one upstream.
#[derive(Debug)]
pub(crate) struct Lane {
    limits: LaneLimits,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    first: Fair,
    refresh: Fair,
    running: usize,
    refreshing: usize,
    by_namespace: HashMap<Arc<str>, usize>,
    /// Starts within the window, oldest first; at most `rate` of them.
    starts: VecDeque<Instant>,
    paused_until: Option<Instant>,
    /// Throttled answers in a row.
    throttled: u32,
}

/// The right to one request; ends when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    lane: Option<Arc<Lane>>,
    namespace: Arc<str>,
    class: Class,
}

type Ticket = oneshot::Sender<Seat>;

impl Lane {
    pub(crate) fn new(limits: LaneLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            state: Mutex::default(),
            wake: Notify::new(),
        })
    }

    /// Waits for a turn. Leaving the wait leaves the queue.
    pub(crate) async fn acquire(self: &Arc<Self>, class: Class, object: &ObjectName) -> Seat {
        let mut queued = self.enqueue(class, object);
        loop {
            let woken = self.wake.notified();
            tokio::pin!(woken);
            // Registered before looking, so that no change between looking and waiting is missed.
            woken.as_mut().enable();
            let next = self.pump();
            let timer = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                seat = &mut queued.turn => {
                    queued.granted = true;
                    return seat.expect("a ticket leaves its queue only with a seat or with its receiver gone");
                }
                () = woken => {}
                () = timer => {}
            }
        }
    }

    /// Until when nobody gets a turn, if the upstream asked for that.
    pub(crate) fn paused_until(&self) -> Option<Instant> {
        let until = self.state.lock().paused_until;
        until.filter(|until| *until > Instant::now())
    }

    /// The upstream asked for a pause, or is throttling without saying for how long.
    pub(crate) fn pause(&self, asked: Option<Duration>) {
        let mut state = self.state.lock();
        let own = Duration::from_secs(1 << state.throttled.min(3));
        state.throttled = state.throttled.saturating_add(1);
        let until = Instant::now() + asked.unwrap_or(own).min(MAX_HOLD);
        state.paused_until = state.paused_until.max(Some(until));
    }

    /// The upstream answered without throttling.
    pub(crate) fn flows(&self) {
        self.state.lock().throttled = 0;
    }

    /// Waiting and running requests.
    pub(crate) fn load(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.first.len + state.refresh.len, state.running)
    }

    fn enqueue(self: &Arc<Self>, class: Class, object: &ObjectName) -> Queued {
        let (ticket, turn) = oneshot::channel();
        self.state.lock().queue(class).push(object, ticket);
        Queued {
            lane: Arc::clone(self),
            class,
            object: object.clone(),
            turn,
            granted: false,
        }
    }

    /// Gives all turns that there are now. Returns when time alone will give the next one.
    fn pump(self: &Arc<Self>) -> Option<Instant> {
        let now = Instant::now();
        let mut state = self.state.lock();
        loop {
            if let Some(until) = state.paused_until.filter(|until| *until > now) {
                return Some(until);
            }
            while state
                .starts
                .front()
                .is_some_and(|start| *start + self.limits.window <= now)
            {
                state.starts.pop_front();
            }
            if state.running >= self.limits.in_flight {
                return None;
            }
            if state.starts.len() >= self.limits.rate {
                return state.starts.front().map(|oldest| *oldest + self.limits.window);
            }
            let (class, namespace, ticket) = state.next(&self.limits)?;
            let seat = Seat {
                lane: Some(Arc::clone(self)),
                namespace: Arc::clone(&namespace),
                class,
            };
            match ticket.send(seat) {
                Ok(()) => state.started(class, namespace, now),
                // Nobody waits any more. The seat must not end as seats do: that takes the lock that is held here.
                Err(mut seat) => seat.lane = None,
            }
        }
    }
}

impl State {
    fn queue(&mut self, class: Class) -> &mut Fair {
        match class {
            Class::First => &mut self.first,
            Class::Refresh => &mut self.refresh,
        }
    }

    fn next(&mut self, limits: &LaneLimits) -> Option<(Class, Arc<str>, Ticket)> {
        let by_namespace = &self.by_namespace;
        let has_room = |namespace: &Arc<str>| {
            by_namespace
                .get(namespace)
                .is_none_or(|running| *running < limits.per_namespace)
        };
        if let Some((namespace, ticket)) = self.first.pop(has_room) {
            return Some((Class::First, namespace, ticket));
        }
        if self.refreshing >= limits.refreshing {
            return None;
        }
        let (namespace, ticket) = self.refresh.pop(has_room)?;
        Some((Class::Refresh, namespace, ticket))
    }

    fn started(&mut self, class: Class, namespace: Arc<str>, now: Instant) {
        self.starts.push_back(now);
        self.running += 1;
        self.refreshing += usize::from(class == Class::Refresh);
        *self.by_namespace.entry(namespace).or_default() += 1;
    }

    fn ended(&mut self, class: Class, namespace: &Arc<str>) {
        self.running = self.running.saturating_sub(1);
        if class == Class::Refresh {
            self.refreshing = self.refreshing.saturating_sub(1);
        }
        if let Some(running) = self.by_namespace.get_mut(namespace) {
            *running = running.saturating_sub(1);
            if *running == 0 {
                self.by_namespace.remove(namespace);
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(lane) = self.lane.take() else {
            return;
        };
        lane.state.lock().ended(self.class, &self.namespace);
        if lane.pump().is_some() {
            // Who waited for a seat now waits for time, and does not know for how long.
            lane.wake.notify_waiters();
        }
    }
}

/// A place in the queue.
#[derive(Debug)]
struct Queued {
    lane: Arc<Lane>,
    class: Class,
    object: ObjectName,
    turn: oneshot::Receiver<Seat>,
    granted: bool,
}

impl Drop for Queued {
    fn drop(&mut self) {
        if !self.granted {
            self.turn.close();
            self.lane.state.lock().queue(self.class).purge(&self.object);
        }
    }
}

/// Namespaces in turn, within each its identities in turn, within each the first come.
#[derive(Debug, Default)]
struct Fair {
    turns: VecDeque<Arc<str>>,
    namespaces: HashMap<Arc<str>, Ring>,
    len: usize,
}

#[derive(Debug, Default)]
struct Ring {
    turns: VecDeque<Arc<str>>,
    identities: HashMap<Arc<str>, VecDeque<Ticket>>,
}

impl Fair {
    fn push(&mut self, object: &ObjectName, ticket: Ticket) {
        self.len += 1;
        let ring = self
            .namespaces
            .entry(Arc::clone(&object.namespace))
            .or_insert_with(|| {
                self.turns.push_back(Arc::clone(&object.namespace));
                Ring::default()
            });
        ring.identities
            .entry(Arc::clone(&object.name))
            .or_insert_with(|| {
                ring.turns.push_back(Arc::clone(&object.name));
                VecDeque::new()
            })
            .push_back(ticket);
    }

    fn pop(&mut self, has_room: impl Fn(&Arc<str>) -> bool) -> Option<(Arc<str>, Ticket)> {
        for _ in 0..self.turns.len() {
            let namespace = self.turns.pop_front()?;
            if !has_room(&namespace) {
                self.turns.push_back(namespace);
                continue;
            }
            let ring = self.namespaces.get_mut(&namespace)?;
            let ticket = ring.pop();
            if ring.turns.is_empty() {
                self.namespaces.remove(&namespace);
            } else {
                self.turns.push_back(Arc::clone(&namespace));
            }
            if let Some(ticket) = ticket {
                self.len -= 1;
                return Some((namespace, ticket));
            }
        }
        None
    }

    /// Drops the tickets of `object` that nobody waits for any more.
    fn purge(&mut self, object: &ObjectName) {
        let Some(ring) = self.namespaces.get_mut(&object.namespace) else {
            return;
        };
        let Some(tickets) = ring.identities.get_mut(&object.name) else {
            return;
        };
        let before = tickets.len();
        tickets.retain(|ticket| !ticket.is_closed());
        self.len -= before - tickets.len();
        if tickets.is_empty() {
            ring.identities.remove(&object.name);
            ring.turns.retain(|name| *name != object.name);
        }
        if ring.turns.is_empty() {
            self.namespaces.remove(&object.namespace);
            self.turns.retain(|namespace| *namespace != object.namespace);
        }
    }
}

impl Ring {
    fn pop(&mut self) -> Option<Ticket> {
        let name = self.turns.pop_front()?;
        let tickets = self.identities.get_mut(&name)?;
        let ticket = tickets.pop_front();
        if tickets.is_empty() {
            self.identities.remove(&name);
        } else {
            self.turns.push_back(name);
        }
        ticket
    }
}
