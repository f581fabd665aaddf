//! Watch events in, snapshots out. Plain and synchronous; one task owns it.
//!
//! apply / delete / reset ─▶ objects, what is dirty ─▶ snapshot(): only what is dirty is built anew ─▶ World

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::identity::{Assignment, Binding, Exception, Identity, ObjectName};
use crate::pod::{Phase, Pod};
use crate::world::{At, Bound, NamespaceView, Pods, World};

/// Most removed identities that are remembered; beyond it all are forgotten, which costs a wait and no more.
const MAX_REMOVED: usize = 1024;

/// The objects of the node's world.
#[derive(Debug, Default)]
pub struct Index {
    pods: HashMap<Arc<str>, Arc<Pod>>,
    identities: BTreeMap<ObjectName, Arc<Identity>>,
    bindings: BTreeMap<ObjectName, Binding>,
    exceptions: BTreeMap<ObjectName, Arc<Exception>>,
    assignments: BTreeMap<ObjectName, Assignment>,
    pods_dirty: bool,
    dirty: BTreeSet<Arc<str>>,
    version: u64,
    world: World,
}

impl Index {
    /// An empty world.
    pub fn new() -> Self {
        Self::default()
    }

    /// A pod is new or changed.
    pub fn apply_pod(&mut self, pod: Pod) {
        let uid = Arc::clone(&pod.id.uid);
        if self.pods.get(&uid).is_some_and(|old| **old == pod) {
            return;
        }
        self.pods.insert(uid, Arc::new(pod));
        self.pods_dirty = true;
    }

    /// A pod is gone. By uid, so that the late deletion of an old pod does not touch a new one of its name or address.
    pub fn delete_pod(&mut self, uid: &str) {
        self.pods_dirty |= self.pods.remove(uid).is_some();
    }

    /// These are all pods there are.
    pub fn reset_pods(&mut self, pods: Vec<Pod>) {
        self.pods = pods
            .into_iter()
            .map(|pod| (Arc::clone(&pod.id.uid), Arc::new(pod)))
            .collect();
        self.pods_dirty = true;
    }

    /// An identity is new or changed.
    pub fn apply_identity(&mut self, identity: Identity) {
        self.dirty.insert(Arc::clone(&identity.object.namespace));
        self.identities
            .insert(identity.object.clone(), Arc::new(identity));
    }

    /// An identity is gone, or not valid any more.
    pub fn delete_identity(&mut self, object: &ObjectName) {
        self.dirty.insert(Arc::clone(&object.namespace));
        self.identities.remove(object);
    }

    /// These are all identities there are.
    pub fn reset_identities(&mut self, identities: Vec<Identity>) {
        self.dirty.extend(self.identities.keys().map(namespace));
        self.identities.clear();
        for identity in identities {
            self.apply_identity(identity);
        }
    }

    /// A binding is new or changed.
    pub fn apply_binding(&mut self, binding: Binding) {
        self.dirty.insert(Arc::clone(&binding.object.namespace));
        self.bindings.insert(binding.object.clone(), binding);
    }

    /// A binding is gone, or not valid any more.
    pub fn delete_binding(&mut self, object: &ObjectName) {
        self.dirty.insert(Arc::clone(&object.namespace));
        self.bindings.remove(object);
    }

    /// These are all bindings there are.
    pub fn reset_bindings(&mut self, bindings: Vec<Binding>) {
        self.dirty.extend(self.bindings.keys().map(namespace));
        self.bindings.clear();
        for binding in bindings {
            self.apply_binding(binding);
        }
    }

    /// An exception is new or changed.
    pub fn apply_exception(&mut self, exception: Exception) {
        self.dirty.insert(Arc::clone(&exception.object.namespace));
        self.exceptions
            .insert(exception.object.clone(), Arc::new(exception));
    }

    /// An exception is gone, or not valid any more.
    pub fn delete_exception(&mut self, object: &ObjectName) {
        self.dirty.insert(Arc::clone(&object.namespace));
        self.exceptions.remove(object);
    }

    /// These are all exceptions there are.
    pub fn reset_exceptions(&mut self, exceptions: Vec<Exception>) {
        self.dirty.extend(self.exceptions.keys().map(namespace));
        self.exceptions.clear();
        for exception in exceptions {
            self.apply_exception(exception);
        }
    }

    /// An assignment is new or changed.
    pub fn apply_assignment(&mut self, assignment: Assignment) {
        self.dirty.insert(Arc::clone(&assignment.pod.namespace));
        let object = assignment.object.clone();
        if let Some(old) = self.assignments.insert(object, assignment) {
            self.dirty.insert(old.pod.namespace);
        }
    }

    /// An assignment is gone, or not valid any more.
    pub fn delete_assignment(&mut self, object: &ObjectName) {
        if let Some(old) = self.assignments.remove(object) {
            self.dirty.insert(old.pod.namespace);
        }
    }

    /// These are all assignments there are.
    pub fn reset_assignments(&mut self, assignments: Vec<Assignment>) {
        self.dirty.extend(
            self.assignments
                .values()
                .map(|old| Arc::clone(&old.pod.namespace)),
        );
        self.assignments.clear();
        for assignment in assignments {
            self.apply_assignment(assignment);
        }
    }

    /// Whether the next snapshot differs from the last one.
    pub fn is_dirty(&self) -> bool {
        self.pods_dirty || !self.dirty.is_empty()
    }

    /// The world as it is now.
    pub fn snapshot(&mut self) -> World {
        if std::mem::take(&mut self.pods_dirty) {
            let version = self.world.pods.version + 1;
            self.world.pods = Arc::new(pods(&self.pods, version));
        }
        let dirty = std::mem::take(&mut self.dirty);
        if !dirty.is_empty() {
            self.version += 1;
            let mut namespaces = HashMap::clone(&self.world.namespaces);
            for namespace in dirty {
                let view = self.view(&namespace, namespaces.get(&namespace).map(AsRef::as_ref));
                // A namespace keeps its view when emptied: its version must not fall back.
                namespaces.insert(namespace, Arc::new(view));
            }
            self.bound_memory(&mut namespaces);
            self.world.namespaces = Arc::new(namespaces);
        }
        self.world.clone()
    }

    fn view(&self, namespace: &Arc<str>, old: Option<&NamespaceView>) -> NamespaceView {
        let mut bound: HashMap<Arc<str>, Draft> = HashMap::new();
        for binding in within(&self.bindings, namespace) {
            let draft = bound.entry(Arc::clone(&binding.selector)).or_default();
            let object = ObjectName {
                namespace: Arc::clone(namespace),
                name: Arc::clone(&binding.identity),
            };
            match self.identities.get(&object) {
                Some(identity) => draft.add(Arc::clone(identity), binding.default),
                None => draft.missing.push(object.name),
            }
        }
        let mut assigned: HashMap<Arc<str>, Draft> = HashMap::new();
        for assignment in self
            .assignments
            .values()
            .filter(|assignment| assignment.pod.namespace == *namespace)
        {
            let draft = assigned.entry(Arc::clone(&assignment.pod.name)).or_default();
            if assignment.assigned {
                draft.add(Arc::clone(&assignment.identity), assignment.default);
            } else {
                draft.pending.push(Arc::clone(&assignment.identity));
            }
        }
        let bound: HashMap<_, _> = bound
            .into_iter()
            .map(|(key, draft)| (key, draft.finish()))
            .collect();
        NamespaceView {
            version: self.version,
            removed: old.map(|old| removed(old, &bound)).unwrap_or_default(),
            bound,
            assigned: assigned
                .into_iter()
                .map(|(key, draft)| (key, draft.finish()))
                .collect(),
            exceptions: within(&self.exceptions, namespace).cloned().collect(),
        }
    }

    /// Keeps what is remembered of the past within bounds.
    fn bound_memory(&self, namespaces: &mut HashMap<Arc<str>, Arc<NamespaceView>>) {
        let removed: usize = namespaces
            .values()
            .flat_map(|view| view.removed.values())
            .map(Vec::len)
            .sum();
        if removed <= MAX_REMOVED && namespaces.len() <= MAX_REMOVED + self.declaring() {
            return;
        }
        namespaces.retain(|_, view| !view.declares_nothing());
        for view in namespaces.values_mut().filter(|view| !view.removed.is_empty()) {
            Arc::make_mut(view).removed.clear();
        }
    }

    /// An upper bound of the namespaces in which something is declared.
    fn declaring(&self) -> usize {
        self.bindings.len() + self.identities.len() + self.exceptions.len() + self.assignments.len()
    }
}

/// Identities of one selector while they are gathered.
#[derive(Default)]
struct Draft {
    identities: BTreeMap<ObjectName, (Arc<Identity>, bool)>,
    missing: Vec<Arc<str>>,
    pending: Vec<Arc<Identity>>,
}

impl Draft {
    /// The same identity may be bound more than once; one mark is enough.
    fn add(&mut self, identity: Arc<Identity>, default: bool) {
        let entry = self
            .identities
            .entry(identity.object.clone())
            .or_insert((identity, false));
        entry.1 |= default;
    }

    fn finish(self) -> Bound {
        let default = self.identities.values().position(|(_, default)| *default);
        let identities: Vec<_> = self
            .identities
            .into_values()
            .map(|(identity, _)| identity)
            .collect();
        let mut by_client_id = HashMap::with_capacity(identities.len());
        for (at, identity) in identities.iter().enumerate() {
            if let Some(id) = identity.client_id {
                // Two AzureIdentities of one client id are the same to Azure; the first one stands for both.
                by_client_id.entry(id).or_insert(at);
            }
        }
        Bound {
            identities,
            default,
            by_client_id,
            missing: self.missing,
            pending: self.pending,
        }
    }
}

/// The objects of one namespace, in the order of their names.
fn within<'a, T>(objects: &'a BTreeMap<ObjectName, T>, namespace: &Arc<str>) -> impl Iterator<Item = &'a T> {
    let from = ObjectName {
        namespace: Arc::clone(namespace),
        name: Arc::from(""),
    };
    let namespace = Arc::clone(namespace);
    objects
        .range(from..)
        .take_while(move |(object, _)| object.namespace == namespace)
        .map(|(_, value)| value)
}

fn namespace(object: &ObjectName) -> Arc<str> {
    Arc::clone(&object.namespace)
}

/// What was bound before, now or earlier, and is not bound any more.
fn removed(old: &NamespaceView, bound: &HashMap<Arc<str>, Bound>) -> HashMap<Arc<str>, Vec<Arc<Identity>>> {
    let mut removed: HashMap<Arc<str>, Vec<Arc<Identity>>> = HashMap::new();
    let before = old
        .bound
        .iter()
        .map(|(selector, bound)| (selector, &bound.identities));
    for (selector, identities) in before.chain(old.removed.iter()) {
        let now = bound
            .get(selector)
            .map(|bound| bound.identities.as_slice())
            .unwrap_or_default();
        for identity in identities {
            let gone = !now
                .iter()
                .any(|other| other.object == identity.object && other.client_id == identity.client_id);
            let kept = removed.entry(Arc::clone(selector)).or_default();
            if gone && !kept.contains(identity) {
                kept.push(Arc::clone(identity));
            }
        }
    }
    removed.retain(|_, identities| !identities.is_empty());
    removed
}

fn pods(pods: &HashMap<Arc<str>, Arc<Pod>>, version: u64) -> Pods {
    let mut by_address: HashMap<IpAddr, At> = HashMap::with_capacity(pods.len());
    for pod in pods.values().filter(|pod| pod.phase == Phase::Active) {
        for address in &pod.addresses {
            by_address
                .entry(address.to_canonical())
                .and_modify(|at| {
                    if !(pod.host_network && matches!(at, At::Node)) {
                        *at = At::Several;
                    }
                })
                .or_insert_with(|| {
                    if pod.host_network {
                        At::Node
                    } else {
                        At::One(Arc::clone(pod))
                    }
                });
        }
    }
    Pods {
        version,
        by_uid: pods.clone(),
        by_address,
    }
}

#[cfg(test)]
mod tests;
