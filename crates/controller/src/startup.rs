//! The start-up taint: a node is closed to pods until its agent serves, because before that they reach the real
//! metadata service. Here is what is decided, purely; `view` has what is seen, `keeper` carries it out.
//!
//! ```text
//! new node (not-ready) ─▶ closed ─▶ the agent's pod is Ready ─▶ open, with a note of the boot and the container
//!                           ▲                                     │
//!                           └──── another boot: no rules yet ◀────┘
//! ```
//! The note is what tells a node whose agent is only being replaced (its rules outlive the agent) from one that is new
//! or has lost them. It is on the node itself, so nothing is forgotten when the controller restarts. See ADR 6.

mod keeper;
mod view;

use std::collections::BTreeMap;
use std::str::FromStr;

use k8s_openapi::api::core::v1::Taint;
use podid_api::names::AGENT_READY_ANNOTATION;
use serde_json::{Value, json};

pub(crate) use keeper::Keeper;
pub(crate) use view::{Agents, Nodes, View};

/// The default key of the taint.
pub const DEFAULT_KEY: &str = "podid.dev/agent-not-ready";
/// What keeps pods off, and leaves those alone that run.
const EFFECT: &str = "NoSchedule";
/// The taint of a node that is not Ready. The API server gives it to every new node.
/// Source: <https://kubernetes.io/docs/reference/labels-annotations-taints/#node-kubernetes-io-not-ready>.
const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// What to do about the taint.
#[derive(Clone, Debug)]
pub struct StartupTaint {
    /// Its key.
    pub key: String,
    /// Whether to keep it, or to take it and all notes off every node.
    pub remove: bool,
    /// Where the agents' pods are.
    pub agent_namespace: String,
    /// Which pods there they are, as a label selector.
    pub agent_selector: String,
    /// The labels of the nodes that get an agent.
    pub node_selector: Labels,
}

/// Labels that a node must all have: `key=value,key=value`; empty for every node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, String>);

/// Text that is no list of labels.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not key=value")]
pub struct LabelsError(String);

impl FromStr for Labels {
    type Err = LabelsError;

    fn from_str(text: &str) -> Result<Self, LabelsError> {
        let parts = text.split(',').filter(|part| !part.is_empty());
        let labels = parts.map(|part| match part.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(LabelsError(part.to_owned())),
        });
        labels.collect::<Result<_, _>>().map(Self)
    }
}

impl Labels {
    fn match_all(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// Which agent was Ready last, and in which boot of the node. A container does not survive a reboot, so after one the
/// same container is an old report of the kubelet's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) boot: String,
    pub(crate) container: String,
}

impl Note {
    fn parse(text: &str) -> Option<Self> {
        let (boot, container) = text.split_once(' ')?;
        Some(Self {
            boot: boot.to_owned(),
            container: container.to_owned(),
        })
    }
}

/// What matters of a node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) taints: Vec<Taint>,
    /// Of this boot; empty until the kubelet has said it
    pub(crate) boot: String,
    /// Whether there is one, even one that cannot be read
    pub(crate) noted: bool,
    pub(crate) note: Option<Note>,
    /// Whether it gets an agent at all
    pub(crate) has_agents: bool,
    /// Whether it has begun, and was neither closed nor noted since
    pub(crate) begun: bool,
}

impl Seen {
    fn is_not_ready(&self) -> bool {
        self.taints.iter().any(|taint| taint.key == NOT_READY)
    }

    pub(crate) fn is_closed(&self, key: &str) -> bool {
        self.taints.iter().any(|taint| taint.key == key)
    }
}

/// What to change on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Keep pods off.
    Close,
    /// Let pods come, and note why.
    Open(Note),
    /// Only note.
    Remember(Note),
    /// Take off what was ever put on.
    Clear,
}

/// What to change on `node`, whose Ready agent runs in the container `ready`, if there is one.
pub(crate) fn decide(node: &Seen, ready: Option<&str>, key: &str) -> Option<Change> {
    if !node.has_agents {
        return None;
    }
    let rebooted = node
        .note
        .as_ref()
        .is_some_and(|note| !node.boot.is_empty() && note.boot != node.boot);
    let old_report =
        |container: &str| rebooted && node.note.as_ref().is_some_and(|note| note.container == container);
    let closed = node.is_closed(key);
    if let Some(container) = ready.filter(|container| !old_report(container)) {
        let now = Note {
            boot: node.boot.clone(),
            container: container.to_owned(),
        };
        return match (closed, node.note.as_ref() == Some(&now)) {
            (true, _) => Some(Change::Open(now)),
            (false, false) => Some(Change::Remember(now)),
            (false, true) => None,
        };
    }
    // A node that is Ready and was never noted had pods before podid came, or while nobody looked: closing it now would
    // only stop what works.
    (!closed && (node.begun || rebooted)).then_some(Change::Close)
}

/// What to change on `node` when all is to be as if podid had never been there.
pub(crate) fn clear(node: &Seen, key: &str) -> Option<Change> {
    (node.noted || node.is_closed(key)).then_some(Change::Clear)
}

/// A change as the API server is asked for it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Asked {
    /// A JSON patch: needs no version, so nobody's write overtakes it. A node that begins is written by its kubelet several
    /// times a second, and is Ready before a conflict is over.
    Json(Value),
    /// A merge patch of the version that it was made from: whoever changed the node meanwhile is not overwritten. The list
    /// of taints is one value to the API server.
    Merge(Value),
}

/// How to ask for `change`.
pub(crate) fn patch(node: &Seen, version: &str, change: &Change, key: &str) -> Asked {
    let note = match change {
        Change::Close => {
            let taint = json!({ "key": key, "effect": EFFECT });
            // A list that is not there cannot be added to; one that came meanwhile must not be replaced.
            return Asked::Json(if node.taints.is_empty() {
                json!([
                    { "op": "test", "path": "/spec/taints", "value": null },
                    { "op": "add", "path": "/spec/taints", "value": [taint] },
                ])
            } else {
                json!([{ "op": "add", "path": "/spec/taints/-", "value": taint }])
            });
        }
        Change::Open(note) | Change::Remember(note) => json!(format!("{} {}", note.boot, note.container)),
        Change::Clear => Value::Null,
    };
    let mut patch = json!({
        "metadata": { "resourceVersion": version, "annotations": { AGENT_READY_ANNOTATION: note } },
    });
    if !matches!(change, Change::Remember(_)) && node.is_closed(key) {
        let left: Vec<&Taint> = node.taints.iter().filter(|taint| taint.key != key).collect();
        if let Some(patch) = patch.as_object_mut() {
            patch.insert("spec".to_owned(), json!({ "taints": left }));
        }
    }
    Asked::Merge(patch)
}

#[cfg(test)]
mod tests;
