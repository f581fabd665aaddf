//! Refusals as Kubernetes Events on the pod, where its owner looks. One event for a pod and reason, counted up; never in a
//! request's way: what does not fit into the queue is dropped, and the log has it anyway.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use k8s_openapi::api::core::v1::Event;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Error};
use podid_core::PodRef;
use podid_rt::clock::Clock;
use podid_rt::stop::Stop;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Events that wait to be written.
const QUEUE: usize = 128;
/// Between two of them: no more than five a second from a node.
const PAUSE: Duration = Duration::from_millis(200);
/// Longest message that an API server takes, in bytes. Source: Kubernetes, `pkg/apis/core/validation/events.go`.
const MAX_MESSAGE: usize = 1024;

/// What a pod's owner is told.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) pod: PodRef,
    /// Reason code.
    pub(crate) code: &'static str,
    pub(crate) text: String,
}

/// Where to put it.
pub(crate) type Sender = mpsc::Sender<Told>;

/// Writes events to the API server.
pub(crate) struct Events {
    pub(crate) client: Client,
    pub(crate) node: String,
    pub(crate) clock: Clock,
    told: mpsc::Receiver<Told>,
}

impl Events {
    pub(crate) fn new(client: Client, node: String, clock: Clock) -> (Sender, Self) {
        let (sender, told) = mpsc::channel(QUEUE);
        (
            sender,
            Self {
                client,
                node,
                clock,
                told,
            },
        )
    }

    /// Writes until told to stop.
    pub(crate) async fn run(mut self, stop: Stop) {
        loop {
            let told = tokio::select! {
                () = stop.requested() => return,
                told = self.told.recv() => told,
            };
            let Some(told) = told else {
                // Nobody can tell anything any more.
                stop.requested().await;
                return;
            };
            let written = tokio::select! {
                () = stop.requested() => return,
                written = self.write(&told) => written,
            };
            if let Err(error) = written {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(pod = %told.pod.object, error, "an event could not be written");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn write(&self, told: &Told) -> Result<(), Error> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &told.pod.object.namespace);
        let name = name(told);
        match api.get_opt(&name).await? {
            None => {
                let event = serde_json::from_value(self.event(told, &name)).map_err(Error::SerdeError)?;
                api.create(&PostParams::default(), &event).await.map(drop)
            }
            Some(old) => {
                let again = json!({
                    "count": old.count.unwrap_or(1) + 1,
                    "lastTimestamp": self.now(),
                    "message": message(told),
                });
                api.patch(&name, &PatchParams::default(), &Patch::Merge(again))
                    .await
                    .map(drop)
            }
        }
    }

    fn event(&self, told: &Told, name: &str) -> Value {
        let PodRef { object, uid } = &told.pod;
        json!({
            "metadata": { "name": name, "namespace": &*object.namespace },
            "involvedObject": {
                "apiVersion": "v1", "kind": "Pod",
                "namespace": &*object.namespace, "name": &*object.name, "uid": &**uid,
            },
            "type": "Warning",
            "reason": camel(told.code),
            "message": message(told),
            "source": { "component": "podid-nmi", "host": self.node },
            "reportingComponent": "podid-nmi",
            "reportingInstance": self.node,
            "firstTimestamp": self.now(),
            "lastTimestamp": self.now(),
            "count": 1,
        })
    }

    fn now(&self) -> String {
        let secs = i64::try_from(self.clock.unix_secs()).unwrap_or_default();
        jiff::Timestamp::from_second(secs).unwrap_or_default().to_string()
    }
}

/// The same for the same pod and reason, so that a second one counts the first up, also after a restart of the agent.
fn name(told: &Told) -> String {
    let mut hasher = DefaultHasher::new();
    (&told.pod.uid, told.code).hash(&mut hasher);
    format!("{}.{:016x}", told.pod.object.name, hasher.finish())
}

fn message(told: &Told) -> String {
    let mut message = format!("{} [{}]", told.text, told.code);
    if message.len() > MAX_MESSAGE {
        message = message.chars().take(MAX_MESSAGE / 4).collect();
    }
    message
}

/// `identity_not_bound` as events write it: `IdentityNotBound`.
fn camel(code: &str) -> String {
    code.split('_')
        .flat_map(|word| {
            let mut letters = word.chars();
            letters
                .next()
                .map(|first| first.to_ascii_uppercase())
                .into_iter()
                .chain(letters)
        })
        .collect()
}
