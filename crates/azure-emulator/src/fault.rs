//! Trouble on demand: per route a status, a delay, a hang, a cut connection or throttling, a number of times or until
//! it is taken back.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use http::{HeaderName, Method, StatusCode};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::answer::Answer;
use crate::world::role::glob;

/// Faults that may be set at the same time.
const MAX_FAULTS: usize = 200;

/// A fault, as the control API and scenario files write it. What is not given does not limit it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Fault {
    /// `arm`, `entra`, `graph`, `imds` or `mirror`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// HTTP method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Path in any case; `*` is any text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Source address of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Answer with this status. The request then has no effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Body of that answer; the service's own error shape when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// Headers of that answer.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Wait so long first, milliseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub delay_ms: u64,
    /// Never answer, until the fault is taken back.
    #[serde(skip_serializing_if = "is_false")]
    pub hang: bool,
    /// Cut the connection instead of answering.
    #[serde(skip_serializing_if = "is_false")]
    pub reset: bool,
    /// Answer 429 to what is more than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle: Option<Throttle>,
    /// How often it happens; for ever when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// Let so many matching requests pass first.
    #[serde(skip_serializing_if = "is_zero")]
    pub after: u64,
}

/// A rate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Throttle {
    /// Requests that pass in any period.
    pub requests: usize,
    /// The period, seconds.
    pub per_secs: u64,
    /// `Retry-After` of the refusal, seconds; none when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_secs: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Why a fault cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    /// Nothing would happen.
    #[error("the fault does nothing: give one of status, delayMs, hang, reset, throttle")]
    Nothing,
    /// Not a status.
    #[error("`{0}` is not an HTTP status")]
    Status(u16),
    /// Not a method.
    #[error("`{0}` is not an HTTP method")]
    Method(String),
    /// Not a header.
    #[error("`{0}` is not a header name")]
    Header(String),
    /// Not a service.
    #[error("`{0}` is no service; there are arm, entra, graph, imds, mirror")]
    Service(String),
    /// Too many.
    #[error("there are {MAX_FAULTS} faults already; take some back")]
    TooMany,
}

/// The faults that are set.
#[derive(Debug)]
pub(crate) struct Faults {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            changed: watch::channel(0).0,
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    set: BTreeMap<u64, Active>,
    last: u64,
}

#[derive(Debug)]
struct Active {
    fault: Fault,
    matched: u64,
    hits: u64,
    passed: VecDeque<Instant>,
}

/// What to do to a request.
#[derive(Debug)]
pub(crate) struct Effect {
    pub(crate) id: u64,
    pub(crate) delay: Duration,
    pub(crate) then: Then,
}

#[derive(Debug)]
pub(crate) enum Then {
    /// Go on as usual.
    Pass,
    /// Answer this.
    Answer(Answer),
    /// Cut.
    Reset,
    /// Wait for the fault's end, then cut.
    Hang,
}

/// The request that is looked at.
pub(crate) struct Seen<'a> {
    pub(crate) service: &'static str,
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) source: &'a str,
}

impl Faults {
    /// Sets a fault; gives its number.
    pub(crate) fn set(&self, fault: Fault) -> Result<u64, FaultError> {
        check(&fault)?;
        let mut inner = self.inner.lock();
        if inner.set.len() >= MAX_FAULTS {
            return Err(FaultError::TooMany);
        }
        inner.last += 1;
        let id = inner.last;
        inner.set.insert(
            id,
            Active {
                fault,
                matched: 0,
                hits: 0,
                passed: VecDeque::new(),
            },
        );
        Ok(id)
    }

    /// Takes one back, or all; says whether there was any.
    pub(crate) fn clear(&self, id: Option<u64>) -> bool {
        let cleared = {
            let mut inner = self.inner.lock();
            let before = inner.set.len();
            inner.set.retain(|at, _| id.is_some_and(|id| id != *at));
            before != inner.set.len()
        };
        self.changed.send_modify(|count| *count += 1);
        cleared
    }

    /// All of them.
    pub(crate) fn list(&self) -> Vec<Value> {
        let inner = self.inner.lock();
        inner
            .set
            .iter()
            .map(|(id, active)| json!({ "id": id, "hits": active.hits, "fault": active.fault }))
            .collect()
    }

    /// The first fault, by age, that is meant for this request.
    pub(crate) fn meet(&self, seen: &Seen<'_>) -> Option<Effect> {
        let mut inner = self.inner.lock();
        let now = Instant::now();
        inner
            .set
            .iter_mut()
            .find_map(|(id, active)| active.meet(*id, seen, now))
    }

    /// Returns when the fault is set no more.
    pub(crate) async fn gone(&self, id: u64) {
        let mut changed = self.changed.subscribe();
        loop {
            if !self.inner.lock().set.contains_key(&id) {
                return;
            }
            if changed.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Active {
    fn meet(&mut self, id: u64, seen: &Seen<'_>, now: Instant) -> Option<Effect> {
        let fault = &self.fault;
        let is = |wanted: &Option<String>, got: &str| {
            wanted
                .as_ref()
                .is_none_or(|wanted| wanted.eq_ignore_ascii_case(got))
        };
        let fits = is(&fault.service, seen.service)
            && is(&fault.method, seen.method.as_str())
            && is(&fault.source, seen.source)
            && fault
                .path
                .as_ref()
                .is_none_or(|path| glob(&path.to_ascii_lowercase(), &seen.path.to_ascii_lowercase()));
        if !fits || fault.times.is_some_and(|times| self.hits >= times) {
            return None;
        }
        self.matched += 1;
        if self.matched <= fault.after {
            return None;
        }
        if let Some(throttle) = &fault.throttle {
            let period = Duration::from_secs(throttle.per_secs);
            while self
                .passed
                .front()
                .is_some_and(|at| now.duration_since(*at) >= period)
            {
                self.passed.pop_front();
            }
            if self.passed.len() < throttle.requests {
                self.passed.push_back(now);
                return None;
            }
        }
        self.hits += 1;
        Some(Effect {
            id,
            delay: Duration::from_millis(fault.delay_ms),
            then: fault.then(seen),
        })
    }
}

impl Fault {
    fn then(&self, seen: &Seen<'_>) -> Then {
        if self.reset {
            return Then::Reset;
        }
        if self.hang {
            return Then::Hang;
        }
        let status = self.status.or_else(|| self.throttle.as_ref().map(|_| 429));
        let Some(status) = status.and_then(|status| StatusCode::from_u16(status).ok()) else {
            return Then::Pass;
        };
        let body = self.body.clone().unwrap_or_else(|| shape(seen.service, status));
        let mut answer = Answer::json(status, body);
        if let Some(after) = self
            .throttle
            .as_ref()
            .and_then(|throttle| throttle.retry_after_secs)
        {
            answer = answer.with(http::header::RETRY_AFTER, after.to_string());
        }
        for (name, value) in &self.headers {
            if let Ok(name) = name.parse::<HeaderName>() {
                answer = answer.with(name, value);
            }
        }
        Then::Answer(answer)
    }
}

/// The error shape of a service.
fn shape(service: &str, status: StatusCode) -> Value {
    let text = format!("Injected fault: {status}");
    match service {
        "imds" if status == StatusCode::TOO_MANY_REQUESTS => crate::imds::throttled(),
        "imds" | "entra" => json!({ "error": "unknown", "error_description": text }),
        _ if status == StatusCode::TOO_MANY_REQUESTS => {
            json!({ "error": { "code": "TooManyRequests", "message": "The request is being throttled." } })
        }
        _ => {
            json!({ "error": { "code": status.canonical_reason().unwrap_or("Error").replace(' ', ""), "message": text } })
        }
    }
}

fn check(fault: &Fault) -> Result<(), FaultError> {
    if fault.status.is_none()
        && fault.delay_ms == 0
        && !fault.hang
        && !fault.reset
        && fault.throttle.is_none()
    {
        return Err(FaultError::Nothing);
    }
    if let Some(status) = fault
        .status
        .filter(|status| StatusCode::from_u16(*status).is_err())
    {
        return Err(FaultError::Status(status));
    }
    if let Some(method) = fault
        .method
        .as_ref()
        .filter(|method| Method::from_bytes(method.as_bytes()).is_err())
    {
        return Err(FaultError::Method(method.clone()));
    }
    if let Some(name) = fault
        .headers
        .keys()
        .find(|name| name.parse::<HeaderName>().is_err())
    {
        return Err(FaultError::Header(name.clone()));
    }
    const SERVICES: [&str; 5] = ["arm", "entra", "graph", "imds", "mirror"];
    if let Some(service) = fault
        .service
        .as_ref()
        .filter(|service| !SERVICES.contains(&service.as_str()))
    {
        return Err(FaultError::Service(service.clone()));
    }
    Ok(())
}
