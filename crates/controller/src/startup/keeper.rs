//! Carries out what is decided about the start-up taint. Level-triggered: each round looks at every node.

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use podid_api::names::MANAGED_BY;
use podid_rt::readiness::Guard;
use podid_rt::stop::Stop;

use super::view::Candidate;
use super::{Asked, Change, Nodes, StartupTaint, clear, decide, patch};
use crate::metrics::{ControllerMetrics, Write};

/// Nodes that are changed at a time.
const CONCURRENCY: usize = 16;
/// A round without any event, to repair what no event told.
const EVERY: Duration = Duration::from_mins(5);
/// First and longest wait after a round with trouble. The first is short: a node that begins is changed by others too, and
/// a conflict must not give pods the time to get there.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_mins(1));
/// Shortest time from one round to the next, when nothing failed and when something did: a node that cannot be changed is
/// not tried at the pace of other nodes' events, and does not hold them up for long.
const PACE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

pub(crate) struct Keeper {
    pub(crate) client: Client,
    pub(crate) nodes: Nodes,
    pub(crate) taint: StartupTaint,
    pub(crate) metrics: ControllerMetrics,
}

/// What became of a change; of a round, the worst of its changes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Written {
    Done,
    /// Somebody else changed the node meanwhile.
    Overtaken,
    Failed,
}

impl Keeper {
    /// Runs until told to stop. `done` is lifted after the first round that went well: who waits for the taints to be
    /// removed waits for all of them.
    pub(crate) async fn run(self, watches: impl Future<Output = ()> + Send, done: Guard, stop: Stop) {
        // A half-filled view has nodes without their agents.
        tokio::select! {
            () = stop.requested() => return,
            () = watches => {}
        }
        let mut changes = self.nodes.view.changes();
        let mut wait = BACKOFF.0;
        loop {
            changes.mark_unchanged();
            let written = self.round().await;
            let pause = if written == Written::Done {
                done.ready();
                wait = BACKOFF.0;
                EVERY
            } else {
                let now = wait;
                wait = (wait * 2).min(BACKOFF.1);
                now
            };
            let pace = if written == Written::Failed {
                PACE.1
            } else {
                PACE.0
            };
            tokio::select! {
                () = stop.requested() => return,
                () = tokio::time::sleep(pace) => {}
            }
            tokio::select! {
                () = stop.requested() => return,
                _ = changes.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One round.
    async fn round(&self) -> Written {
        let key = &self.taint.key;
        let nodes = self.nodes.view.candidates();
        let closed = nodes.iter().filter(|node| node.seen.is_closed(key)).count();
        self.metrics
            .closed_nodes
            .set(i64::try_from(closed).unwrap_or(i64::MAX));
        let changes = nodes.into_iter().filter_map(|node| {
            let change = if self.taint.remove {
                clear(&node.seen, key)
            } else {
                decide(&node.seen, node.ready.as_deref(), key)
            };
            Some((node, change?))
        });
        futures::stream::iter(changes)
            .map(|(node, change)| self.write(node, change))
            .buffer_unordered(CONCURRENCY)
            .fold(Written::Done, async |worst, written| worst.max(written))
            .await
    }

    async fn write(&self, node: Candidate, change: Change) -> Written {
        let Candidate {
            name, version, seen, ..
        } = node;
        let written = self
            .ask(&name, &patch(&seen, &version, &change, &self.taint.key))
            .await;
        let verb = match change {
            Change::Close => "close",
            Change::Open(_) => "open",
            Change::Remember(_) => "remember",
            Change::Clear => "clear",
        };
        let (outcome, result) = match written {
            Ok(now) => {
                // The next round may come before the watch tells.
                self.nodes.written(&version, &now);
                tracing::info!(node = name, verb, taint = self.taint.key, "written");
                (Written::Done, "ok")
            }
            Err(kube::Error::Api(status)) if status.is_not_found() => (Written::Done, "gone"),
            // Of a merge patch, and of a JSON patch that does not fit any more.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.code == 422 => {
                tracing::info!(node = name, verb, message = status.message, "overtaken");
                (Written::Overtaken, "overtaken")
            }
            Err(error) => {
                tracing::warn!(
                    node = name,
                    verb,
                    taint = self.taint.key,
                    %error,
                    "the node cannot be changed"
                );
                (Written::Failed, "error")
            }
        };
        let kind = "Node";
        self.metrics
            .writes
            .get_or_create(&Write { verb, kind, result })
            .inc();
        outcome
    }

    async fn ask(&self, name: &str, asked: &Asked) -> kube::Result<Node> {
        let (kind, body) = match asked {
            Asked::Json(body) => ("application/json-patch+json", body),
            Asked::Merge(body) => ("application/merge-patch+json", body),
        };
        // kube's own JSON patches need a crate of their own.
        let request = http::Request::patch(format!("/api/v1/nodes/{name}?fieldManager={MANAGED_BY}"))
            .header(http::header::CONTENT_TYPE, kind)
            .header(http::header::ACCEPT, "application/json")
            .body(body.to_string().into_bytes())
            .map_err(kube::Error::HttpError)?;
        self.client.request(request).await
    }
}
