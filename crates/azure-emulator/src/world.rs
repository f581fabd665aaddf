//! What exists in the emulated Azure: a plain synchronous store with look-ups by id, client id, principal and address.
//! It knows nothing of HTTP. Keys are ARM ids in lower case.
//!
//! request ─▶ read or write one lock ─▶ maps + index ─▶ revision counts up ─▶ state folder (see `persist`)

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::path::{key, within};

pub(crate) mod cluster;
pub(crate) mod identity;
pub(crate) mod machine;
pub(crate) mod principal;
pub(crate) mod role;

use cluster::Cluster;
use identity::Identity;
use machine::{Machine, Node};
use principal::{Application, Principal, Who};
use role::RoleAssignment;

/// Everything that exists.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct World {
    pub(crate) groups: BTreeMap<String, Group>,
    identities: BTreeMap<String, Identity>,
    assignments: BTreeMap<String, RoleAssignment>,
    machines: BTreeMap<String, Machine>,
    clusters: BTreeMap<String, Cluster>,
    applications: BTreeMap<String, Application>,
    nodes: BTreeMap<String, Node>,
    /// `subscription/namespace/feature` in lower case to its state.
    pub(crate) features: BTreeMap<String, String>,
    /// `subscription/namespace` in lower case, of the providers that were unregistered.
    pub(crate) unregistered: BTreeSet<String>,
    #[serde(skip)]
    index: Index,
}

/// A resource group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) location: String,
    #[serde(default)]
    pub(crate) tags: Map<String, Value>,
    /// The resource that it belongs to, for node groups.
    #[serde(default)]
    pub(crate) managed_by: Option<String>,
}

#[derive(Debug, Default)]
struct Index {
    principals: HashMap<String, Who>,
    clients: HashMap<String, Who>,
    grants: HashMap<String, BTreeSet<String>>,
    sources: HashMap<IpAddr, String>,
    revision: u64,
}

impl World {
    /// Makes the index anew, after reading a state.
    pub(crate) fn reindex(&mut self) {
        self.index = Index {
            revision: self.index.revision,
            ..Index::default()
        };
        for (key, identity) in &self.identities {
            let who = Who::Identity(key.clone());
            self.index.know(&identity.principal_id, &identity.client_id, who);
        }
        for (client_id, application) in &self.applications {
            let who = Who::Application(client_id.clone());
            self.index.know(&application.object_id, client_id, who);
        }
        for (key, machine) in &self.machines {
            if let Some(system) = &machine.system {
                self.index
                    .know(&system.principal_id, &system.client_id, Who::Machine(key.clone()));
            }
        }
        for (key, cluster) in &self.clusters {
            if let Some(system) = &cluster.system {
                self.index
                    .know(&system.principal_id, &system.client_id, Who::Cluster(key.clone()));
            }
        }
        for (key, assignment) in &self.assignments {
            self.index
                .grants
                .entry(assignment.principal_id.to_ascii_lowercase())
                .or_default()
                .insert(key.clone());
        }
        for (name, node) in &self.nodes {
            for address in &node.addresses {
                self.index.sources.insert(*address, name.clone());
            }
        }
    }

    /// Counts the changes.
    pub(crate) fn revision(&self) -> u64 {
        self.index.revision
    }

    /// Something without a method of its own was changed.
    pub(crate) fn touch(&mut self) {
        self.changed();
    }

    fn changed(&mut self) {
        self.index.revision += 1;
    }

    // === groups ===

    /// The group of that key.
    pub(crate) fn group(&self, key: &str) -> Option<&Group> {
        self.groups.get(key)
    }

    /// Adds or replaces a group.
    pub(crate) fn put_group(&mut self, group: Group) {
        self.groups.insert(key(&group.id), group);
        self.changed();
    }

    /// Takes a group away, with all that is in it.
    pub(crate) fn remove_group(&mut self, group: &str) {
        self.groups.remove(group);
        for cluster in keys_within(&self.clusters, group) {
            self.remove_cluster(&cluster);
        }
        for machine in keys_within(&self.machines, group) {
            self.remove_machine(&machine);
        }
        for identity in keys_within(&self.identities, group) {
            self.remove_identity(&identity);
        }
        self.remove_grants_within(group);
        self.changed();
    }

    // === identities ===

    /// The managed identity of that key.
    pub(crate) fn identity(&self, key: &str) -> Option<&Identity> {
        self.identities.get(key)
    }

    /// The managed identities of a subscription or a group.
    pub(crate) fn identities_within<'a>(&'a self, scope: &'a str) -> impl Iterator<Item = &'a Identity> {
        range(&self.identities, scope)
    }

    /// Adds or replaces a managed identity.
    pub(crate) fn put_identity(&mut self, identity: Identity) {
        let key = key(&identity.id);
        self.index.know(
            &identity.principal_id,
            &identity.client_id,
            Who::Identity(key.clone()),
        );
        self.identities.insert(key, identity);
        self.changed();
    }

    /// To change it, other than its ids.
    pub(crate) fn identity_mut(&mut self, key: &str) -> Option<&mut Identity> {
        self.index.revision += 1;
        self.identities.get_mut(key)
    }

    /// Takes a managed identity away. Machines keep their dangling reference, as in Azure.
    pub(crate) fn remove_identity(&mut self, key: &str) -> Option<Identity> {
        let identity = self.identities.remove(key)?;
        self.index.forget(&identity.principal_id, &identity.client_id);
        self.remove_grants_within(key);
        self.changed();
        Some(identity)
    }

    // === principals ===

    /// Who has that client id.
    pub(crate) fn by_client_id(&self, client_id: &str) -> Option<Principal> {
        self.principal(self.index.clients.get(&client_id.to_ascii_lowercase())?)
    }

    /// Who has that object id.
    pub(crate) fn by_object_id(&self, object_id: &str) -> Option<Principal> {
        self.principal(self.index.principals.get(&object_id.to_ascii_lowercase())?)
    }

    /// The managed identity with that client id, by its key.
    pub(crate) fn identity_by_client_id(&self, client_id: &str) -> Option<&str> {
        identity_key(self.index.clients.get(&client_id.to_ascii_lowercase()))
    }

    /// The managed identity with that principal id, by its key.
    pub(crate) fn identity_by_object_id(&self, object_id: &str) -> Option<&str> {
        identity_key(self.index.principals.get(&object_id.to_ascii_lowercase()))
    }

    fn principal(&self, who: &Who) -> Option<Principal> {
        Some(match who {
            Who::Identity(key) => self.identities.get(key)?.principal(),
            Who::Application(client_id) => self.applications.get(client_id)?.principal(),
            Who::Machine(key) => {
                let machine = self.machines.get(key)?;
                machine.system.as_ref()?.principal(&machine.name, &machine.id)
            }
            Who::Cluster(key) => {
                let cluster = self.clusters.get(key)?;
                cluster.system.as_ref()?.principal(&cluster.name, &cluster.id)
            }
        })
    }

    /// The application with that client id.
    pub(crate) fn application(&self, client_id: &str) -> Option<&Application> {
        self.applications.get(&client_id.to_ascii_lowercase())
    }

    /// All applications.
    pub(crate) fn applications(&self) -> impl Iterator<Item = &Application> {
        self.applications.values()
    }

    /// Adds or replaces an application.
    pub(crate) fn put_application(&mut self, application: Application) {
        let client_id = application.client_id.to_ascii_lowercase();
        if let Some(old) = self.applications.get(&client_id) {
            self.index.forget(&old.object_id, &client_id);
        }
        self.index.know(
            &application.object_id,
            &client_id,
            Who::Application(client_id.clone()),
        );
        self.applications.insert(client_id, application);
        self.changed();
    }

    /// Takes an application away.
    pub(crate) fn remove_application(&mut self, client_id: &str) -> bool {
        let Some(old) = self.applications.remove(&client_id.to_ascii_lowercase()) else {
            return false;
        };
        self.index.forget(&old.object_id, &old.client_id);
        self.changed();
        true
    }

    // === role assignments ===

    /// The role assignment of that key.
    pub(crate) fn assignment(&self, key: &str) -> Option<&RoleAssignment> {
        self.assignments.get(key)
    }

    /// All role assignments.
    pub(crate) fn assignments(&self) -> impl Iterator<Item = &RoleAssignment> {
        self.assignments.values()
    }

    /// The role assignments of a principal.
    pub(crate) fn assignments_of(&self, principal_id: &str) -> impl Iterator<Item = &RoleAssignment> {
        self.index
            .grants
            .get(&principal_id.to_ascii_lowercase())
            .into_iter()
            .flatten()
            .filter_map(|key| self.assignments.get(key))
    }

    /// Adds or replaces a role assignment.
    pub(crate) fn put_assignment(&mut self, assignment: RoleAssignment) {
        let key = key(&assignment.id);
        self.remove_assignment(&key);
        self.index
            .grants
            .entry(assignment.principal_id.to_ascii_lowercase())
            .or_default()
            .insert(key.clone());
        self.assignments.insert(key, assignment);
        self.changed();
    }

    /// Takes a role assignment away.
    pub(crate) fn remove_assignment(&mut self, key: &str) -> Option<RoleAssignment> {
        let assignment = self.assignments.remove(key)?;
        if let Some(keys) = self
            .index
            .grants
            .get_mut(&assignment.principal_id.to_ascii_lowercase())
        {
            keys.remove(key);
        }
        self.changed();
        Some(assignment)
    }

    fn remove_grants_within(&mut self, scope: &str) {
        for key in keys_within(&self.assignments, scope) {
            self.remove_assignment(&key);
        }
    }

    // === machines ===

    /// The virtual machine or scale set of that key.
    pub(crate) fn machine(&self, key: &str) -> Option<&Machine> {
        self.machines.get(key)
    }

    /// The virtual machines and scale sets of a subscription or a group.
    pub(crate) fn machines_within<'a>(&'a self, scope: &'a str) -> impl Iterator<Item = &'a Machine> {
        range(&self.machines, scope)
    }

    /// Adds or replaces a machine; also to change one.
    pub(crate) fn put_machine(&mut self, mut machine: Machine) {
        machine.version += 1;
        let key = key(&machine.id);
        if let Some(system) = self.machines.get(&key).and_then(|old| old.system.as_ref()) {
            self.index.forget(&system.principal_id, &system.client_id);
        }
        if let Some(system) = &machine.system {
            self.index
                .know(&system.principal_id, &system.client_id, Who::Machine(key.clone()));
        }
        self.machines.insert(key, machine);
        self.changed();
    }

    /// Takes a machine away; its nodes are then on none.
    pub(crate) fn remove_machine(&mut self, key: &str) -> Option<Machine> {
        let machine = self.machines.remove(key)?;
        if let Some(system) = &machine.system {
            self.index.forget(&system.principal_id, &system.client_id);
        }
        for node in self.nodes.values_mut().filter(|node| node.is_on(key)) {
            node.machine = None;
        }
        self.remove_grants_within(key);
        self.changed();
        Some(machine)
    }

    // === nodes ===

    /// The node of that name.
    pub(crate) fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// Whether any node is known.
    fn has_nodes(&self) -> bool {
        !self.nodes.is_empty()
    }

    /// The first machine by id that is one or has one.
    fn first_machine(&self) -> Option<&Machine> {
        self.machines
            .values()
            .find(|machine| !machine.instances.is_empty())
    }

    /// All nodes, by name.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// The node that requests from `address` come from.
    pub(crate) fn node_at(&self, address: IpAddr) -> Option<&Node> {
        self.nodes.get(self.index.sources.get(&address)?)
    }

    /// Adds or replaces a node.
    pub(crate) fn put_node(&mut self, node: Node) {
        self.remove_node(&node.name);
        for address in &node.addresses {
            self.index.sources.insert(*address, node.name.clone());
        }
        self.nodes.insert(node.name.clone(), node);
        self.changed();
    }

    /// Takes a node away.
    pub(crate) fn remove_node(&mut self, name: &str) -> bool {
        let Some(node) = self.nodes.remove(name) else {
            return false;
        };
        for address in &node.addresses {
            if self.index.sources.get(address).is_some_and(|of| of == name) {
                self.index.sources.remove(address);
            }
        }
        self.changed();
        true
    }

    // === managed clusters ===

    /// The managed cluster of that key.
    pub(crate) fn cluster(&self, key: &str) -> Option<&Cluster> {
        self.clusters.get(key)
    }

    /// To change it, other than its identity.
    pub(crate) fn cluster_mut(&mut self, key: &str) -> Option<&mut Cluster> {
        self.index.revision += 1;
        self.clusters.get_mut(key)
    }

    /// The managed clusters of a subscription or a group.
    pub(crate) fn clusters_within<'a>(&'a self, scope: &'a str) -> impl Iterator<Item = &'a Cluster> {
        range(&self.clusters, scope)
    }

    /// Adds or replaces a managed cluster.
    pub(crate) fn put_cluster(&mut self, cluster: Cluster) {
        let key = key(&cluster.id);
        if let Some(system) = &cluster.system {
            self.index
                .know(&system.principal_id, &system.client_id, Who::Cluster(key.clone()));
        }
        self.clusters.insert(key, cluster);
        self.changed();
    }

    /// Takes a managed cluster away, with its node group.
    pub(crate) fn remove_cluster(&mut self, cluster: &str) -> Option<Cluster> {
        let gone = self.clusters.remove(cluster)?;
        if let Some(system) = &gone.system {
            self.index.forget(&system.principal_id, &system.client_id);
        }
        self.remove_group(&gone.node_group_key());
        self.remove_grants_within(cluster);
        self.changed();
        Some(gone)
    }
}

impl Index {
    fn know(&mut self, object_id: &str, client_id: &str, who: Who) {
        self.principals
            .insert(object_id.to_ascii_lowercase(), who.clone());
        self.clients.insert(client_id.to_ascii_lowercase(), who);
    }

    fn forget(&mut self, object_id: &str, client_id: &str) {
        self.principals.remove(&object_id.to_ascii_lowercase());
        self.clients.remove(&client_id.to_ascii_lowercase());
    }
}

fn identity_key(who: Option<&Who>) -> Option<&str> {
    match who? {
        Who::Identity(key) => Some(key),
        _ => None,
    }
}

/// The entries at or under `scope`, without looking at others.
fn range<'a, T>(map: &'a BTreeMap<String, T>, scope: &'a str) -> impl Iterator<Item = &'a T> {
    map.range(scope.to_owned()..)
        .take_while(move |(key, _)| key.starts_with(scope))
        .filter(move |(key, _)| within(key, scope))
        .map(|(_, value)| value)
}

fn keys_within<T>(map: &BTreeMap<String, T>, scope: &str) -> Vec<String> {
    map.range(scope.to_owned()..)
        .map(|(key, _)| key)
        .take_while(|key| key.starts_with(scope))
        .filter(|key| within(key, scope))
        .cloned()
        .collect()
}
