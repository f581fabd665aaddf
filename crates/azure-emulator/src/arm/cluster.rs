//! Managed clusters: create, update as a whole, delete, credentials; their node group, scale sets and kubelet identity.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use crate::answer::{Answer, Outcome, Refusal};
use crate::cloud::{Authorization, Cloud};
use crate::front::Ask;
use crate::kubernetes;
use crate::log::Notes;
use crate::operation::Until;
use crate::path::key;
use crate::world::cluster::{Cluster, IDENTITIES, KIND, Kubernetes, Progress};
use crate::world::identity::{self, Identity};
use crate::world::machine::{Assigned, Instance, Kind, Machine, SCALE_SET};
use crate::world::principal::System;
use crate::world::role::{CONTRIBUTOR, MANAGED_IDENTITY_OPERATOR, RoleAssignment};
use crate::world::{Group, World};

use super::cluster_body::{self, Draft};
use super::compute::ASSIGN;
use super::{Place, page, tags};

/// How long a write of the profile waits for Kubernetes. Shorter than any client's patience.
const PROFILE_WAIT: Duration = Duration::from_secs(10);

/// Answers it.
pub(crate) async fn answer(cloud: &Cloud, ask: &Ask, place: &Place, notes: &mut Notes) -> Outcome {
    let path = ask.path.lower();
    let key = ask.path.join_lower(place.id_len());
    let tenant = cloud.settings.tenant.as_str();
    let missing =
        || Refusal::resource_not_found(KIND, place.name(ask), place.group.as_deref().unwrap_or_default());
    match (ask.method.as_str(), place.after(&path)) {
        ("GET", []) => {
            let scope = place.scope(ask);
            Ok(cloud.read(|world| {
                page(ask, world.clusters_within(&scope), |cluster| {
                    cluster.body(world, tenant)
                })
            }))
        }
        ("GET", [_]) => cloud
            .read(|world| world.cluster(&key).map(|cluster| cluster.body(world, tenant)))
            .map(Answer::ok)
            .ok_or_else(missing),
        ("PUT", [_]) => put(cloud, ask, place, &key, notes),
        ("PATCH", [_]) => {
            let change = ask.json()?;
            cloud
                .write(|world| {
                    let cluster = world.cluster_mut(&key)?;
                    if change.get("tags").is_some() {
                        cluster.tags = tags(&change);
                    }
                    world.cluster(&key).map(|cluster| cluster.body(world, tenant))
                })
                .map(Answer::ok)
                .ok_or_else(missing)
        }
        ("DELETE", [_]) => match cloud.write(|world| world.remove_cluster(&key)) {
            Some(gone) => {
                let answer = Answer::empty(StatusCode::ACCEPTED);
                Ok(cloud.started(
                    answer,
                    cloud.soon(),
                    &ask.base,
                    "Microsoft.ContainerService",
                    &gone.location,
                ))
            }
            None => Ok(Answer::empty(StatusCode::NO_CONTENT)),
        },
        (
            "POST",
            [
                _,
                verb @ ("listclusterusercredential" | "listclusteradmincredential"),
            ],
        ) => {
            let cluster = cloud
                .read(|world| world.cluster(&key).cloned())
                .ok_or_else(missing)?;
            credentials(cloud, &cluster, *verb == "listclusteradmincredential").await
        }
        _ => Err(Refusal::unsupported(&ask.method, &ask.raw_path)),
    }
}

async fn credentials(cloud: &Cloud, cluster: &Cluster, admin: bool) -> Outcome {
    let role = if admin { "clusterAdmin" } else { "clusterUser" };
    let context = if admin {
        format!("{}-admin", cluster.name)
    } else {
        cluster.name.clone()
    };
    let names = kubernetes::Names {
        cluster: cluster.name.clone(),
        context,
        user: format!("{role}_{}_{}", cluster.group, cluster.name),
    };
    let text = match kubernetes::user_kubeconfig_of(cloud, cluster) {
        Some(path) => kubernetes::credentials(&path, &names).await.map_err(|error| {
            Refusal::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "KubeconfigNotReadable",
                format!(
                    "The kubeconfig of the managed cluster '{}' cannot be read: {error}",
                    cluster.name
                ),
            )
        })?,
        // There is no Kubernetes behind this one: a kubeconfig of the right shape, for an address that nobody serves.
        None => names.unbound(
            cluster
                .properties
                .get("fqdn")
                .and_then(Value::as_str)
                .unwrap_or_default(),
        ),
    };
    Ok(Answer::ok(
        json!({ "kubeconfigs": [{ "name": role, "value": STANDARD.encode(text) }] }),
    ))
}

fn put(cloud: &Cloud, ask: &Ask, place: &Place, at: &str, notes: &mut Notes) -> Outcome {
    let wanted = ask.json()?;
    let name = place.name(ask).to_owned();
    let group = place.group(ask)?.to_owned();
    let (answer, until, location) = cloud.write(|world| {
        let before = world.cluster(at).cloned();
        let draft = cluster_body::compose(cloud, world, before.as_ref(), &wanted, &name, &group)?;
        let profile_given = wanted.pointer("/properties/podIdentityProfile").is_some();
        let mut cluster = match before.clone() {
            Some(before) => updated(before, draft, &wanted),
            None => created(cloud, world, draft, &wanted, &name, &group),
        };
        if let Some(identity) = wanted.get("identity") {
            control_plane(world, &mut cluster, identity)?;
        }
        permitted(cloud, world, &cluster, notes)?;
        if profile_given {
            cluster.profile_version += 1;
            cluster.progress.trouble = None;
        }
        if before.is_none() {
            equip(cloud, world, &mut cluster);
        }
        place_identities(world, &cluster);
        let bound = cluster.kubernetes.is_some() && cluster.profile().is_some();
        world.put_cluster(cluster.clone());
        if before.is_none() {
            grant(cloud, world, &cluster);
        }
        let until = if bound && profile_given {
            Until::Profile {
                cluster: at.to_owned(),
                deadline: Instant::now() + PROFILE_WAIT,
            }
        } else {
            cloud.soon()
        };
        let mut body = cluster.body(world, &cloud.settings.tenant);
        let state = if before.is_none() { "Creating" } else { "Updating" };
        if let Some(properties) = body.get_mut("properties").and_then(Value::as_object_mut) {
            properties.insert("provisioningState".to_owned(), json!(state));
        }
        let status = if before.is_none() {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        Ok((Answer::json(status, body), until, cluster.location))
    })?;
    Ok(cloud.started(answer, until, &ask.base, "Microsoft.ContainerService", &location))
}

fn updated(mut cluster: Cluster, draft: Draft, wanted: &Value) -> Cluster {
    cluster.properties = draft.properties;
    if wanted.get("tags").is_some() {
        cluster.tags = tags(wanted);
    }
    if let Some(sku) = wanted.get("sku").filter(|sku| !sku.is_null()) {
        cluster.sku = sku.clone();
    }
    cluster
}

fn created(cloud: &Cloud, world: &World, draft: Draft, wanted: &Value, name: &str, group: &str) -> Cluster {
    Cluster {
        // The id of the real service has `resourcegroups` in lower case.
        id: format!(
            "/subscriptions/{}/resourcegroups/{group}/providers/{KIND}/{name}",
            cloud.settings.subscription
        ),
        name: name.to_owned(),
        group: group.to_owned(),
        location: draft.location,
        tags: tags(wanted),
        sku: wanted
            .get("sku")
            .cloned()
            .unwrap_or_else(|| json!({ "name": "Base", "tier": "Free" })),
        system: None,
        assigned: BTreeMap::new(),
        properties: draft.properties,
        node_group: draft.node_group,
        kubernetes: which_kubernetes(cloud, world, name, group),
        profile_version: 0,
        progress: Progress::default(),
    }
}

/// Its own Kubernetes, else the default one if no other cluster has it.
fn which_kubernetes(cloud: &Cloud, world: &World, name: &str, group: &str) -> Option<Kubernetes> {
    if let Some(path) = cloud
        .settings
        .kubeconfigs
        .get(&format!("{group}/{name}").to_ascii_lowercase())
    {
        return Some(Kubernetes::Own(path.clone()));
    }
    let taken = world
        .clusters_within("")
        .any(|cluster| cluster.kubernetes == Some(Kubernetes::Default));
    (cloud.settings.kubeconfig.is_some() && !taken).then_some(Kubernetes::Default)
}

/// The identity of the control plane.
fn control_plane(world: &World, cluster: &mut Cluster, identity: &Value) -> Result<(), Refusal> {
    match super::text(identity, "/type")
        .unwrap_or_default()
        .to_ascii_lowercase()
        .as_str()
    {
        "systemassigned" => {
            cluster.assigned.clear();
            cluster.system.get_or_insert_with(System::new);
        }
        "userassigned" => {
            let ids = identity
                .get("userAssignedIdentities")
                .and_then(Value::as_object)
                .into_iter()
                .flatten();
            let mut assigned = BTreeMap::new();
            for (id, _) in ids {
                let (key, reference) = world.reference(id).ok_or_else(|| {
                    Refusal::bad(
                        "ManagedIdentityNotFound",
                        format!("The managed identity '{id}' was not found."),
                    )
                    .about("identity")
                })?;
                assigned.insert(key, reference);
            }
            cluster.system = None;
            cluster.assigned = assigned;
        }
        _ => {
            cluster.system = None;
            cluster.assigned.clear();
        }
    }
    Ok(())
}

/// The cluster may only use identities over which it has been given rights.
fn permitted(cloud: &Cloud, world: &World, cluster: &Cluster, notes: &mut Notes) -> Result<(), Refusal> {
    for entry in cluster.entries(IDENTITIES) {
        let id = super::text(entry, "/identity/resourceId").unwrap_or_default();
        if cluster
            .acts_as()
            .is_some_and(|principal| world.may(principal, ASSIGN, &key(id)))
        {
            continue;
        }
        notes.denied = Some(ASSIGN.to_owned());
        if cloud.settings.authorization == Authorization::Enforce {
            return Err(Refusal::bad(
                "PodIdentityAddonIdentitiesAssignmentError",
                format!("Cluster identity has no assignment permission over identity 'resourceId: {id}'."),
            ));
        }
    }
    Ok(())
}

/// A new cluster's node group, kubelet identity and scale sets; free nodes become machines of the first one.
fn equip(cloud: &Cloud, world: &mut World, cluster: &mut Cluster) {
    let group_id = super::group::id(cloud, &cluster.node_group);
    world.put_group(Group {
        id: group_id.clone(),
        name: cluster.node_group.clone(),
        location: cluster.location.clone(),
        tags: Map::new(),
        managed_by: Some(cluster.id.clone()),
    });
    let kubelet = format!("{}-agentpool", cluster.name);
    let id = format!(
        "/subscriptions/{}/resourcegroups/{}/providers/{}/{kubelet}",
        cloud.settings.subscription,
        cluster.node_group,
        identity::KIND
    );
    let identity = Identity::new(id.clone(), &kubelet, &cluster.location, Map::new());
    cluster.properties.insert(
        "identityProfile".to_owned(),
        json!({ "kubeletidentity": { "resourceId": id, "clientId": identity.client_id, "objectId": identity.principal_id } }),
    );
    let kubelet = (
        key(&id),
        Assigned {
            id,
            principal_id: identity.principal_id.clone(),
        },
    );
    world.put_identity(identity);

    let number = cluster_body::number(&cluster.id);
    let pools: Vec<Value> = cluster
        .properties
        .get("agentPoolProfiles")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let free: Vec<_> = world
        .nodes()
        .filter(|node| node.machine.is_none())
        .cloned()
        .collect();
    for (at, pool) in pools.iter().enumerate() {
        let pool_name = super::text(pool, "/name").unwrap_or("nodepool1");
        let name = format!("aks-{pool_name}-{number:08}-vmss");
        let count = pool.get("count").and_then(Value::as_u64).unwrap_or(1);
        let nodes = if at == 0 { free.as_slice() } else { &[] };
        let count = if nodes.is_empty() {
            u32::try_from(count.min(1_000)).unwrap_or(1)
        } else {
            u32::try_from(nodes.len()).unwrap_or(1)
        };
        let machine = Machine {
            id: format!("{group_id}/providers/{SCALE_SET}/{name}"),
            name,
            kind: Kind::ScaleSet,
            location: cluster.location.clone(),
            tags: [("aks-managed-poolName".to_owned(), json!(pool_name))]
                .into_iter()
                .collect(),
            system: None,
            assigned: [kubelet.clone()].into_iter().collect(),
            by_profile: BTreeSet::new(),
            sku: json!({ "name": pool.get("vmSize"), "tier": "Standard", "capacity": count }),
            properties: [("upgradePolicy".to_owned(), json!({ "mode": "Automatic" }))]
                .into_iter()
                .collect(),
            version: 0,
            instances: (0..count).map(Instance::new).collect(),
        };
        let machine_key = key(&machine.id);
        world.put_machine(machine);
        for (number, node) in (0..).zip(nodes) {
            let mut node = node.clone();
            node.machine = Some((machine_key.clone(), number));
            world.put_node(node);
        }
    }
}

/// What AKS grants its own cluster: the node group, and the kubelet's identity.
fn grant(cloud: &Cloud, world: &mut World, cluster: &Cluster) {
    let Some(principal) = cluster.acts_as().map(str::to_owned) else {
        return;
    };
    let kubelet = cluster
        .properties
        .get("identityProfile")
        .and_then(|profile| super::text(profile, "/kubeletidentity/resourceId"));
    let group = super::group::id(cloud, &cluster.node_group);
    let grants = [(group.as_str(), CONTRIBUTOR)]
        .into_iter()
        .chain(kubelet.map(|id| (id, MANAGED_IDENTITY_OPERATOR)));
    for (scope, role) in grants {
        let name = Uuid::new_v4().to_string();
        world.put_assignment(RoleAssignment {
            id: format!("{scope}/providers/Microsoft.Authorization/roleAssignments/{name}"),
            name,
            scope: scope.to_owned(),
            role: role.to_owned(),
            principal_id: principal.clone(),
            principal_type: Some("ServicePrincipal".to_owned()),
            created_on: cloud.now_text(),
        });
    }
}

/// Puts the profile's identities on the cluster's scale sets, and takes off those that it had put there.
fn place_identities(world: &mut World, cluster: &Cluster) {
    let wanted: BTreeMap<String, Assigned> = cluster
        .entries(IDENTITIES)
        .iter()
        .filter_map(|entry| world.reference(super::text(entry, "/identity/resourceId")?))
        .collect();
    let group = cluster.node_group_key();
    let sets: Vec<Machine> = world
        .machines_within(&group)
        .filter(|machine| machine.kind == Kind::ScaleSet)
        .cloned()
        .collect();
    for mut machine in sets {
        let old = std::mem::take(&mut machine.by_profile);
        for key in old.iter().filter(|key| !wanted.contains_key(*key)) {
            machine.assigned.remove(key);
        }
        for (key, reference) in &wanted {
            let there = machine
                .assigned
                .get(key)
                .is_some_and(|there| there.principal_id == reference.principal_id);
            if old.contains(key) || !there {
                machine.by_profile.insert(key.clone());
            }
            if !there {
                machine.assigned.insert(key.clone(), reference.clone());
            }
        }
        world.put_machine(machine);
    }
}
