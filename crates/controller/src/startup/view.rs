//! What the watches have seen of nodes and agents, reduced to what the taint depends on.
//!
//! watch ─▶ index (apply, delete, reset) ─▶ View ─▶ changed ─▶ keeper

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use parking_lot::Mutex;
use podid_api::names::AGENT_READY_ANNOTATION;
use podid_rt::watch::Index;
use tokio::sync::watch;

use super::{Labels, Note, Seen};

/// Label and value of nodes that are no machine: no agent can run there.
/// Source: <https://virtual-kubelet.io>.
const VIRTUAL: (&str, &str) = ("type", "virtual-kubelet");

/// The shared view. Clones are the same view.
#[derive(Clone, Debug)]
pub(crate) struct View(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Node → its version and what matters of it
    nodes: BTreeMap<String, (String, Seen)>,
    /// Pod → its node and container, when it is Ready
    agents: BTreeMap<String, (String, String)>,
}

/// A node, its version, and the container of its Ready agent.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) seen: Seen,
    pub(crate) ready: Option<String>,
}

impl View {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            state: Mutex::default(),
            changed: watch::channel(()).0,
        }))
    }

    /// Tells of changes; whatever happened before is already seen.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    /// Every node.
    pub(crate) fn candidates(&self) -> Vec<Candidate> {
        let state = self.0.state.lock();
        let ready: BTreeMap<&str, &str> = state
            .agents
            .values()
            .map(|(node, container)| (node.as_str(), container.as_str()))
            .collect();
        let nodes = state.nodes.iter();
        nodes
            .map(|(name, (version, seen))| Candidate {
                name: name.clone(),
                version: version.clone(),
                seen: seen.clone(),
                ready: ready.get(name.as_str()).map(|&container| container.to_owned()),
            })
            .collect()
    }

    /// Edits the view and tells, unless the edit says that nothing that matters changed.
    fn change(&self, edit: impl FnOnce(&mut State) -> bool) {
        if edit(&mut self.0.state.lock()) {
            self.0.changed.send_replace(());
        }
    }
}

/// Index of nodes.
#[derive(Clone)]
pub(crate) struct Nodes {
    pub(crate) view: View,
    pub(crate) selector: Labels,
    /// Of the start-up taint
    pub(crate) key: String,
}

impl Nodes {
    /// Takes over what a write of ours made of version `before`, unless the watch has been faster.
    pub(crate) fn written(&self, before: &str, node: &Node) {
        let (name, now) = self.reduced(node);
        self.view.change(|state| {
            if let Some(there) = state.nodes.get_mut(&name).filter(|there| there.0 == before) {
                *there = now;
            }
            false
        });
    }

    fn reduced(&self, node: &Node) -> (String, (String, Seen)) {
        let labels = node.labels();
        let note = node.annotations().get(AGENT_READY_ANNOTATION);
        let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
        let seen = Seen {
            taints: node
                .spec
                .as_ref()
                .and_then(|spec| spec.taints.clone())
                .unwrap_or_default(),
            boot: info.map(|info| info.boot_id.clone()).unwrap_or_default(),
            noted: note.is_some(),
            note: note.and_then(|text| Note::parse(text)),
            has_agents: self.selector.match_all(labels)
                && labels.get(VIRTUAL.0).map(String::as_str) != Some(VIRTUAL.1),
            begun: false,
        };
        (
            node.name_any(),
            (node.resource_version().unwrap_or_default(), seen),
        )
    }
}

impl Nodes {
    /// Whether a node has begun and was neither closed nor noted since. It may be Ready sooner than it can be closed, so what
    /// it was a moment ago counts as well.
    fn begun(&self, now: &Seen, before: Option<&Seen>) -> bool {
        now.note.is_none()
            && !now.is_closed(&self.key)
            && (now.is_not_ready() || before.is_some_and(|before| before.begun))
    }
}

impl Index<Node> for Nodes {
    fn apply(&mut self, object: Node) {
        let (name, (version, mut now)) = self.reduced(&object);
        self.view.change(|state| {
            now.begun = self.begun(&now, state.nodes.get(&name).map(|(_, before)| before));
            // Most changes of a node do not matter here.
            let before = state.nodes.insert(name, (version, now.clone()));
            before.is_none_or(|(_, before)| before != now)
        });
    }

    fn delete(&mut self, object: Node) {
        self.view
            .change(|state| state.nodes.remove(&object.name_any()).is_some());
    }

    fn reset(&mut self, objects: Vec<Node>) {
        self.view.change(|state| {
            let nodes = objects.iter().map(|node| {
                let (name, (version, mut now)) = self.reduced(node);
                now.begun = self.begun(&now, state.nodes.get(&name).map(|(_, before)| before));
                (name, (version, now))
            });
            state.nodes = nodes.collect();
            true
        });
    }
}

/// Index of the agents' pods.
pub(crate) struct Agents(pub(crate) View);

/// The node and the container of an agent that serves.
fn ready(pod: &Pod) -> Option<(String, String)> {
    let status = pod.status.as_ref()?;
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let ready = conditions
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    if !ready || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let container = status.container_statuses.as_deref()?.first()?;
    Some((
        pod.spec.as_ref()?.node_name.clone()?,
        container.container_id.clone()?,
    ))
}

impl Index<Pod> for Agents {
    fn apply(&mut self, object: Pod) {
        let name = object.name_any();
        self.0.change(|state| match ready(&object) {
            Some(now) => state.agents.insert(name, now.clone()).as_ref() != Some(&now),
            None => state.agents.remove(&name).is_some(),
        });
    }

    fn delete(&mut self, object: Pod) {
        self.0
            .change(|state| state.agents.remove(&object.name_any()).is_some());
    }

    fn reset(&mut self, objects: Vec<Pod>) {
        self.0.change(|state| {
            let agents = objects
                .iter()
                .filter_map(|pod| Some((pod.name_any(), ready(pod)?)));
            state.agents = agents.collect();
            true
        });
    }
}
