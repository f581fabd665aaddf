//! Long-running operations: what their headers promise and what a look at them says.

use std::collections::HashMap;

use http::StatusCode;
use http::header::{HeaderName, LOCATION, RETRY_AFTER};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use crate::answer::{Answer, Refusal};
use crate::cloud::Cloud;

/// When to ask again, in seconds. Not 0, which azure-core takes for "not said" and turns into 30.
const RETRY_AFTER_SECS: &str = "1";

/// Operations that are remembered; the oldest are forgotten.
const CAPACITY: usize = 10_000;
/// The header that wins over `Location`.
const AZURE_ASYNC_OPERATION: HeaderName = HeaderName::from_static("azure-asyncoperation");

/// The operations.
#[derive(Debug, Default)]
pub(crate) struct Operations(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    known: HashMap<Uuid, Operation>,
    order: std::collections::VecDeque<Uuid>,
}

#[derive(Clone, Debug)]
struct Operation {
    started: String,
    until: Until,
}

/// When an operation is over.
#[derive(Clone, Debug)]
pub(crate) enum Until {
    /// At that moment.
    Time(Instant),
    /// When the cluster's profile has come to an end in Kubernetes, or, with a bad or slow Kubernetes, at the deadline.
    Profile { cluster: String, deadline: Instant },
}

/// How an operation stands.
enum State {
    InProgress,
    Succeeded,
    Failed(Refusal),
}

impl Operations {
    fn start(&self, until: Until, started: String) -> Uuid {
        let id = Uuid::new_v4();
        let mut inner = self.0.lock();
        if inner.order.len() >= CAPACITY
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.known.remove(&oldest);
        }
        inner.order.push_back(id);
        inner.known.insert(id, Operation { started, until });
        id
    }

    fn find(&self, id: &str) -> Option<(Uuid, Operation)> {
        let id = id.parse().ok()?;
        self.0
            .lock()
            .known
            .get(&id)
            .map(|operation| (id, operation.clone()))
    }
}

impl Cloud {
    /// Adds an operation's headers to the first answer. `provider` and `location` make up the URL as Azure has it.
    pub(crate) fn started(
        &self,
        answer: Answer,
        until: Until,
        base: &str,
        provider: &str,
        location: &str,
    ) -> Answer {
        let id = self.operations.start(until, self.now_text());
        let subscription = &self.settings.subscription;
        let at = |kind: &str| {
            format!(
                "{base}/subscriptions/{subscription}/providers/{provider}/locations/{location}/{kind}/{id}?api-version=2017-08-31"
            )
        };
        let answer = answer
            .with(AZURE_ASYNC_OPERATION, at("operations"))
            .with(RETRY_AFTER, RETRY_AFTER_SECS);
        if answer.status == StatusCode::ACCEPTED {
            answer.with(LOCATION, at("operationresults"))
        } else {
            answer
        }
    }

    /// 202 with `Location` alone, as resource groups do it.
    pub(crate) fn started_at_location(&self, until: Until, base: &str) -> Answer {
        let id = self.operations.start(until, self.now_text());
        let subscription = &self.settings.subscription;
        Answer::empty(StatusCode::ACCEPTED)
            .with(
                LOCATION,
                format!("{base}/subscriptions/{subscription}/operationresults/{id}?api-version=2021-04-01"),
            )
            .with(RETRY_AFTER, RETRY_AFTER_SECS)
    }

    /// The end that is only a matter of time.
    pub(crate) fn soon(&self) -> Until {
        Until::Time(Instant::now() + self.settings.operation_delay)
    }

    fn state(&self, operation: &Operation) -> State {
        let now = Instant::now();
        match &operation.until {
            Until::Time(at) if now >= *at => State::Succeeded,
            Until::Time(_) => State::InProgress,
            Until::Profile { cluster, deadline } => self.read(|world| match world.cluster(cluster) {
                None => State::Failed(Refusal::new(
                    StatusCode::CONFLICT,
                    "OperationPreempted",
                    "The managed cluster was deleted meanwhile.",
                )),
                Some(cluster) if cluster.settled() => State::Succeeded,
                Some(_) if now < *deadline => State::InProgress,
                Some(cluster) => match &cluster.progress.trouble {
                    // The entries say of themselves that they are still on the way.
                    None => State::Succeeded,
                    Some(trouble) => State::Failed(Refusal::new(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "PodIdentityProfileNotWritten",
                        format!("The pod identity profile of '{}' cannot be written to its Kubernetes API: {trouble}", cluster.name),
                    )),
                },
            }),
        }
    }

    /// `…/operations/ID`: 200 with the status in the body.
    pub(crate) fn operation_status(&self, id: &str) -> Result<Answer, Refusal> {
        let (id, operation) = self.operations.find(id).ok_or_else(|| unknown(id))?;
        let mut body = json!({ "name": id.to_string(), "startTime": operation.started });
        let (status, error) = match self.state(&operation) {
            State::InProgress => ("InProgress", None),
            State::Succeeded => ("Succeeded", None),
            State::Failed(refusal) => ("Failed", Some(refusal.error())),
        };
        if let Some(body) = body.as_object_mut() {
            body.insert("status".to_owned(), json!(status));
            if status != "InProgress" {
                body.insert("endTime".to_owned(), Value::String(self.now_text()));
            }
            body.extend(error.map(|error| ("error".to_owned(), error)));
        }
        let answer = Answer::ok(body);
        Ok(if status == "InProgress" {
            answer.with(RETRY_AFTER, RETRY_AFTER_SECS)
        } else {
            answer
        })
    }

    /// `…/operationresults/ID`: 202 while it runs, then 200 without a body.
    pub(crate) fn operation_result(&self, id: &str, again: &str) -> Result<Answer, Refusal> {
        let (_, operation) = self.operations.find(id).ok_or_else(|| unknown(id))?;
        match self.state(&operation) {
            State::InProgress => Ok(Answer::empty(StatusCode::ACCEPTED)
                .with(LOCATION, again)
                .with(RETRY_AFTER, RETRY_AFTER_SECS)),
            State::Succeeded => Ok(Answer::empty(StatusCode::OK)),
            State::Failed(refusal) => Err(refusal),
        }
    }
}

fn unknown(id: &str) -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "NotFound",
        format!("The operation '{id}' could not be found."),
    )
}
