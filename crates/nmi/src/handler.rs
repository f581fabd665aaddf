//! From a request's head to its answer. Decisions are core's, tokens the broker's; here is the order of things.
//!
//! ```text
//! path ─▶ method, X-Forwarded-For, Metadata, query ─▶ whose connection ─▶ rate ─▶ decide ─┬─▶ broker ─▶ 200
//!   │        (no pod needed: probes end here)              ▲                     ▲        ├─▶ pass through
//!   └─ other paths: by policy                              └── wait for a watch ─┘        └─▶ refuse
//! ```

mod grant;
mod host;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request};
use hyper::body::Body;
use podid_broker::{Lookup, SharedBroker, Source, TokenError, Via};
use podid_core::ask::{Selector, TOKEN_PATH};
use podid_core::decide::{Access, Question};
use podid_core::identity::ObjectName;
use podid_core::{AccessToken, Identity, PathGroup, Pod, Policy, Reason, Route, TokenRequest, TroubleKind};
use podid_rt::clock::Clock;
use tokio::time::Instant;

use self::grant::{For, Granted};
use crate::answer::{self, About, Answer, Digits, Errors, Id, Refusal, TokenBody};
use crate::args::ErrorStyle;
use crate::body::BodyError;
use crate::caller::{Callers, Connection};
use crate::forward::{self, Forward};
use crate::log::{self, Refusals};
use crate::metrics::{Done, Metrics, known_resource};
use crate::patience::Patience;
use crate::sources::Sources;
use crate::world::SharedWorld;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const METADATA: HeaderName = HeaderName::from_static("metadata");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-client-request-id");
const RETURN_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-return-client-request-id");
/// Longest request id that is sent back, in bytes; a GUID has 36.
const MAX_REQUEST_ID: usize = 128;
/// How long a request for another path than the token's waits for its pod to be seen. Detectors of other clouds'
/// metadata services want their 404 within a second.
const PATH_WAIT: Duration = Duration::from_millis(500);
/// What the broker gets at least, when waiting for a binding took nearly all of the time. With the longest wait, the
/// sum stays below the 30 s that the least patient client allows.
const LEAST_FETCH: Duration = Duration::from_secs(5);

/// Answers pods' requests.
#[derive(Debug)]
pub(crate) struct Handler<S> {
    pub(crate) world: SharedWorld,
    pub(crate) policy: Policy,
    pub(crate) callers: Callers,
    pub(crate) broker: SharedBroker<S>,
    pub(crate) sources: Sources,
    pub(crate) forward: Forward,
    pub(crate) patience: Patience,
    pub(crate) errors: Errors,
    pub(crate) refusals: Refusals,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Clock,
    /// How long a request may take in all.
    pub(crate) wait: Duration,
}

/// How a request ended, and what its record needs.
struct Ended {
    outcome: Result<Answer, Refusal>,
    reason: Option<Reason>,
    pod: Option<Arc<Pod>>,
}

impl<S: Source> Handler<S> {
    /// Answers one request of `connection`.
    pub(crate) async fn answer<B>(&self, connection: &Connection, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes, Error = BodyError> + Send + Unpin,
    {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let mut record = Record {
            operation: "invalid",
            resource: "",
            selector: None,
            named: None,
            excepted: false,
        };
        let route = Route::parse(parts.uri.path());
        let Ended { outcome, reason, pod } = match route {
            _ if self.callers.serves_hosts() && host::is_host_token(&route) => {
                record.operation = "host_token";
                self.host_token(connection, &parts, started, &mut record).await
            }
            // Whoever is on the node's network has the metadata service itself.
            _ if connection.is_host() => refused(Reason::PathNotFound),
            Route::Invalid => refused(Reason::PathInvalid),
            Route::NotFound => refused(Reason::PathNotFound),
            Route::Token => {
                record.operation = "token";
                self.token(connection, &parts, body, started, &mut record).await
            }
            Route::Path { group, path } => {
                record.operation = operation(group);
                self.path(connection, &parts, body, group, &path, started).await
            }
        };
        let (mut answer, code) = match outcome {
            Ok(answer) => (answer, reason.map_or("", Reason::code)),
            Err(refusal) => {
                if reason == Some(Reason::PodNotFound) {
                    self.metrics.kubernetes_error("get_pod_list");
                }
                self.refusals
                    .tell(&refusal, reason, pod.as_deref(), connection.peer().ip());
                let about = About {
                    mode: self.policy.mode,
                    peer: connection.peer().ip(),
                    pod: pod.as_ref().map(|pod| &pod.id.object).or(record.named.as_ref()),
                    selector: record.selector.as_ref(),
                    excepted: record.excepted,
                };
                (self.errors.answer(&refusal, &about), refusal.reason)
            }
        };
        echo(&parts.headers, answer.headers_mut());
        let done = Done {
            operation: record.operation,
            reason: code,
            namespace: pod.as_ref().map(|pod| pod.namespace()),
            resource: record.resource,
            status: answer.status().as_u16(),
            took: started.elapsed(),
        };
        self.metrics.answered(connection.recent(), &done);
        if done.operation == "token" || done.operation == "host_token" {
            let peer = connection.peer().ip();
            log::answered(&parts.method, parts.uri.path(), peer, done.status, done.took);
        }
        answer
    }

    /// The answer to a request that met a bug of ours, which is logged and counted.
    pub(crate) fn met_a_bug(
        &self,
        connection: &Connection,
        panic: &(dyn Any + Send),
        started: Instant,
    ) -> Answer {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let refusal = Refusal::bug();
        tracing::error!(
            peer = %connection.peer(),
            code = refusal.reason,
            panic = text.unwrap_or_default(),
            "a request met a bug of the agent, which goes on"
        );
        let about = About {
            mode: self.policy.mode,
            peer: connection.peer().ip(),
            pod: None,
            selector: None,
            excepted: false,
        };
        let answer = self.errors.answer(&refusal, &about);
        let done = Done {
            operation: "failed",
            reason: refusal.reason,
            namespace: None,
            resource: "",
            status: answer.status().as_u16(),
            took: started.elapsed(),
        };
        self.metrics.answered(connection.recent(), &done);
        answer
    }

    async fn token<'p, B>(
        &self,
        connection: &Connection,
        parts: &'p Parts,
        body: B,
        started: Instant,
        record: &mut Record<'p>,
    ) -> Ended
    where
        B: Body<Data = Bytes, Error = BodyError> + Send + Unpin,
    {
        if let Err(reason) = readable(parts) {
            return refused(reason);
        }
        let request = match TokenRequest::parse(parts.uri.query().unwrap_or_default()) {
            Ok(request) => request,
            Err(reason) => return refused(reason),
        };
        record.resource = known_resource(&request.resource);
        record.selector.clone_from(&request.selector);
        if connection.is_crowded() {
            return refused(Reason::TooManyConnections);
        }
        let deadline = started + self.wait;
        loop {
            let granted = match self
                .granted(connection, For::Itself, Question::Token(&request), deadline)
                .await
            {
                Ok(granted) => granted,
                Err(ended) => return *ended,
            };
            let (pod, identity) = match granted {
                Granted::Token { pod, identity } => (pod, identity),
                Granted::Passage { pod } => {
                    record.excepted = true;
                    let asked = Instant::now();
                    let mut ended = self.pass(parts, TOKEN_PATH, body, Some(pod)).await;
                    let given = ended
                        .outcome
                        .as_ref()
                        .is_ok_and(|answer| answer.status().is_success());
                    self.metrics
                        .token_operation("adal_token_msi", given, asked.elapsed());
                    if self.errors.style == ErrorStyle::AadPodIdentity {
                        ended.outcome = match ended.outcome {
                            Ok(answer) => forward::or_refusal(answer).await,
                            refused => refused,
                        };
                    }
                    return ended;
                }
            };
            let fetched = self.fetch(&pod, &identity, &request, deadline).await;
            let outcome = match fetched.map_err(|not| not.refusal(&pod, &identity, deadline)) {
                // What was decided does not hold any more; decide anew.
                Err(None) => continue,
                Err(Some(refusal)) => Err(refusal),
                Ok((token, more)) => {
                    tracing::debug!(
                        pod = %pod.id.object,
                        identity = %identity.object,
                        resource = &*request.resource,
                        "token issued"
                    );
                    let body = |token| self.body(token, &identity, &request);
                    Ok(if more.is_empty() {
                        body(&token).answer()
                    } else {
                        // Source: aad-pod-identity v1.8.17: one for each tenant, the primary one first.
                        answer::several(
                            &std::iter::once(&token)
                                .chain(&more)
                                .map(|token| body(token))
                                .collect::<Vec<_>>(),
                        )
                    })
                }
            };
            return Ended {
                outcome,
                reason: Some(Reason::TokenIssued),
                pod: Some(pod),
            };
        }
    }

    async fn path<B>(
        &self,
        connection: &Connection,
        parts: &Parts,
        body: B,
        group: PathGroup,
        path: &str,
        started: Instant,
    ) -> Ended
    where
        B: Body<Data = Bytes, Error = BodyError> + Send + Unpin,
    {
        if [Method::CONNECT, Method::TRACE].contains(&parts.method) {
            return refused(Reason::MethodNotAllowed);
        }
        if connection.is_crowded() {
            return refused(Reason::TooManyConnections);
        }
        match self.policy.access(group) {
            // Nobody looks whose it is; still, one address does not get all of the real service's quota.
            Access::Open if !self.callers.may_pass(connection) => return refused(Reason::RateLimited),
            Access::Open => return self.pass(parts, path, body, None).await,
            Access::Blocked => {
                let mut ended = refused(Reason::PathBlocked);
                if let Err(refusal) = &mut ended.outcome
                    && group == PathGroup::Instance
                {
                    // Source: aad-pod-identity v1.8.17, `--block-instance-metadata`.
                    refusal.status = http::StatusCode::FORBIDDEN;
                }
                return ended;
            }
            Access::Excepted => {}
        }
        let deadline = started + self.wait.min(PATH_WAIT);
        match self
            .granted(connection, For::Itself, Question::Path(group), deadline)
            .await
        {
            Ok(Granted::Passage { pod } | Granted::Token { pod, .. }) => {
                self.pass(parts, path, body, Some(pod)).await
            }
            // Who asks for what is closed needs no reason beyond that.
            Err(ended) => {
                let closed = refused(Reason::PathClosed);
                Ended {
                    pod: ended.pod,
                    ..closed
                }
            }
        }
    }

    async fn pass<B>(&self, parts: &Parts, path: &str, body: B, pod: Option<Arc<Pod>>) -> Ended
    where
        B: Body<Data = Bytes, Error = BodyError> + Send + Unpin,
    {
        let outcome = self.forward.pass(parts, path, body).await;
        Ended {
            outcome,
            reason: Some(Reason::PassedThrough),
            pod,
        }
    }

    /// The token, and those of further tenants where the identity has some.
    async fn fetch(
        &self,
        pod: &Arc<Pod>,
        identity: &Arc<Identity>,
        request: &TokenRequest<'_>,
        deadline: Instant,
    ) -> Result<(Arc<AccessToken>, Vec<Arc<AccessToken>>), NotFetched> {
        let token = self.fetch_first(pod, identity, request, deadline).await?;
        let mut more = Vec::new();
        for via in Sources::auxiliary(identity) {
            more.push(self.fetch_by(&via, pod, identity, request, deadline).await?);
        }
        Ok((token, more))
    }

    /// The token of the first tenant, or of the only one.
    async fn fetch_first(
        &self,
        pod: &Arc<Pod>,
        identity: &Arc<Identity>,
        request: &TokenRequest<'_>,
        deadline: Instant,
    ) -> Result<Arc<AccessToken>, NotFetched> {
        let via = self.sources.via(identity).ok_or(NotFetched::Unsupported)?;
        self.fetch_by(&via, pod, identity, request, deadline).await
    }

    async fn fetch_by(
        &self,
        via: &Via,
        pod: &Pod,
        identity: &Arc<Identity>,
        request: &TokenRequest<'_>,
        deadline: Instant,
    ) -> Result<Arc<AccessToken>, NotFetched> {
        let lookup = Lookup {
            identity,
            resource: &request.resource,
            via,
        };
        if let Some(token) = self.broker.lookup(lookup) {
            return Ok(token);
        }
        let deadline = deadline.max(Instant::now() + LEAST_FETCH.min(self.wait));
        let token = self
            .broker
            .get(lookup, deadline)
            .await
            .map_err(NotFetched::Error)?;
        // Once for each token that was waited for: bounded by the upstream's quota.
        log::matched(request.selector.as_ref(), pod, identity);
        Ok(token)
    }

    fn body<'a>(
        &self,
        token: &'a AccessToken,
        identity: &Identity,
        request: &'a TokenRequest<'_>,
    ) -> TokenBody<'a> {
        let now = self.clock.unix_secs();
        let left = Digits(token.expires_in(now));
        TokenBody {
            access_token: token.secret.expose(),
            client_id: token.client_id.or(identity.client_id).map(Id),
            expires_in: left,
            expires_on: Digits(token.expires_on),
            ext_expires_in: left,
            not_before: Digits(token.not_before.unwrap_or(now)),
            resource: &request.resource,
            token_type: &token.token_type,
        }
    }
}

/// Why the broker gave no token.
enum NotFetched {
    Unsupported,
    Error(TokenError),
}

impl NotFetched {
    /// What the pod is told; none when it is worth deciding anew, as long as there is time.
    fn refusal(self, pod: &Pod, identity: &Identity, deadline: Instant) -> Option<Refusal> {
        match self {
            Self::Error(TokenError::Forgotten) if Instant::now() < deadline => None,
            Self::Error(error) => Some(from_token_error(&error, pod, identity)),
            Self::Unsupported => Some(Refusal::because(
                Reason::SourceUnsupported,
                identity.object.to_string(),
            )),
        }
    }
}

/// What the record and the refusal of a request need beside its end.
struct Record<'p> {
    operation: &'static str,
    resource: &'static str,
    selector: Option<Selector<'p>>,
    /// The pod that a node agent names.
    named: Option<ObjectName>,
    /// A token request of an excepted pod.
    excepted: bool,
}

fn refused(reason: Reason) -> Ended {
    Ended {
        outcome: Err(Refusal::because(reason, String::new())),
        reason: Some(reason),
        pod: None,
    }
}

/// What must hold of a token request before anybody looks at its query.
fn readable(parts: &Parts) -> Result<(), Reason> {
    if parts.method != Method::GET {
        return Err(Reason::MethodNotAllowed);
    }
    if parts.headers.contains_key(FORWARDED_FOR) {
        return Err(Reason::ForwardedFor);
    }
    // Two of them with different values could be read in two ways.
    let values = parts.headers.get_all(METADATA);
    let is_true = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"true");
    if values.iter().next().is_none() || !values.iter().all(is_true) {
        return Err(Reason::MetadataHeaderMissing);
    }
    Ok(())
}

/// What went wrong upstream, as a pod may read it.
fn from_token_error(error: &TokenError, pod: &Pod, identity: &Identity) -> Refusal {
    tracing::debug!(
        pod = %pod.id.object,
        identity = %identity.object,
        code = error.code(),
        error = error as &dyn std::error::Error,
        "no token"
    );
    let after = match error.retry() {
        podid_core::Retry::After(after) => after.as_secs() + u64::from(after.subsec_nanos() > 0),
        podid_core::Retry::Never | podid_core::Retry::Backoff => 1,
    };
    let throttled = match error {
        TokenError::TooMany => true,
        TokenError::Unavailable { last: Some(last), .. } => last.kind == TroubleKind::Throttled,
        _ => false,
    };
    match error {
        _ if throttled => Refusal::throttled(error.code(), "Temporarily throttled, too many requests", after),
        TokenError::Refused(_) => Refusal {
            error: error.kind().error(),
            ..Refusal::bad_request(error.code(), error.to_string())
        },
        _ => Refusal::unavailable(error.code(), error.to_string(), after),
    }
}

/// Sends the client's request id back where it asks for that.
fn echo(asked: &HeaderMap, answered: &mut HeaderMap) {
    let wants = asked
        .get(RETURN_REQUEST_ID)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    if let (true, Some(id)) = (wants, asked.get(REQUEST_ID))
        && id.len() <= MAX_REQUEST_ID
    {
        answered.insert(REQUEST_ID, id.clone());
    }
}

fn operation(group: PathGroup) -> &'static str {
    match group {
        PathGroup::Instance => "instance",
        PathGroup::Attested => "attested",
        PathGroup::ScheduledEvents => "scheduledevents",
        PathGroup::Identity => "identity",
        PathGroup::Other => "other",
    }
}

#[cfg(test)]
mod tests;
