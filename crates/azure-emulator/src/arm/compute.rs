//! Virtual machines, scale sets, and the identities on them.

use std::collections::BTreeMap;

use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::answer::{Answer, Outcome, Refusal};
use crate::cloud::{Authorization, Cloud};
use crate::front::Ask;
use crate::log::Notes;
use crate::path::key;
use crate::world::World;
use crate::world::machine::{Instance, Kind, Machine};
use crate::world::principal::{Principal, System};

use super::{Place, location, page, tags, text};

/// What one may do with an identity that one puts on a machine.
pub(super) const ASSIGN: &str = "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action";
/// Machines of a scale set. Source: Azure's limit.
const MAX_INSTANCES: u64 = 1_000;

/// Answers it.
pub(crate) fn answer(
    cloud: &Cloud,
    ask: &Ask,
    place: &Place,
    caller: &Principal,
    notes: &mut Notes,
) -> Outcome {
    let path = ask.path.lower();
    let kind = if path.get(place.at + 2) == Some(&"virtualmachines") {
        Kind::Vm
    } else {
        Kind::ScaleSet
    };
    let key = ask.path.join_lower(place.id_len());
    let tenant = cloud.settings.tenant.as_str();
    let missing = || {
        Refusal::resource_not_found(
            kind.name(),
            place.name(ask),
            place.group.as_deref().unwrap_or_default(),
        )
    };
    match (ask.method.as_str(), place.after(&path)) {
        ("GET", []) => {
            let scope = place.scope(ask);
            Ok(cloud.read(|world| {
                let all = world
                    .machines_within(&scope)
                    .filter(|machine| machine.kind == kind);
                page(ask, all, |machine| machine.body(world, tenant))
            }))
        }
        ("GET", [_]) => cloud
            .read(|world| world.machine(&key).map(|machine| machine.body(world, tenant)))
            .map(Answer::ok)
            .ok_or_else(missing),
        ("PUT" | "PATCH", [_]) => change(cloud, ask, place, kind, caller, notes),
        ("DELETE", [_]) => match cloud.write(|world| world.remove_machine(&key)) {
            Some(gone) => Ok(started(
                cloud,
                ask,
                Answer::empty(StatusCode::ACCEPTED),
                &gone.location,
            )),
            None => Ok(Answer::empty(StatusCode::NO_CONTENT)),
        },
        ("GET", [_, "virtualmachines"]) if kind == Kind::ScaleSet => cloud.read(|world| {
            let machine = world.machine(&key).ok_or_else(missing)?;
            Ok(page(ask, machine.instances.iter(), |instance| {
                machine.instance_body(instance, world, tenant)
            }))
        }),
        ("GET", [_, "virtualmachines", number]) if kind == Kind::ScaleSet => cloud.read(|world| {
            let machine = world.machine(&key).ok_or_else(missing)?;
            let found = machine
                .instances
                .iter()
                .find(|instance| instance.number.to_string() == *number);
            found
                .map(|instance| Answer::ok(machine.instance_body(instance, world, tenant)))
                .ok_or_else(missing)
        }),
        _ => Err(Refusal::unsupported(&ask.method, &ask.raw_path)),
    }
}

fn started(cloud: &Cloud, ask: &Ask, answer: Answer, location: &str) -> Answer {
    cloud.started(answer, cloud.soon(), &ask.base, "Microsoft.Compute", location)
}

fn change(
    cloud: &Cloud,
    ask: &Ask,
    place: &Place,
    kind: Kind,
    caller: &Principal,
    notes: &mut Notes,
) -> Outcome {
    let wanted = ask.json()?;
    let group = place.group(ask)?.to_owned();
    let key = ask.path.join_lower(place.id_len());
    let name = place.name(ask);
    let patch = ask.method == http::Method::PATCH;
    let tenant = &cloud.settings.tenant;
    let (answer, location) = cloud.write(|world| {
        let before = world.machine(&key).cloned();
        let new = before.is_none();
        let known = ask
            .headers
            .get(http::header::IF_MATCH)
            .and_then(|value| value.to_str().ok());
        let current = before.as_ref().map(Machine::etag);
        if known.is_some_and(|known| known != "*" && current.as_deref() != Some(known)) {
            return Err(Refusal::new(
                StatusCode::PRECONDITION_FAILED,
                "PreconditionFailed",
                format!("The precondition given in the If-Match header is not met by the resource '{name}'."),
            ));
        }
        let mut machine = match before {
            Some(machine) => machine,
            None if patch => return Err(Refusal::resource_not_found(kind.name(), name, &group)),
            None => {
                let id = format!(
                    "{}/providers/{}/{name}",
                    super::group::id(cloud, &group),
                    kind.name()
                );
                fresh(id, name, kind, &wanted)?
            }
        };
        if wanted.get("tags").is_some() {
            machine.tags = tags(&wanted);
        }
        if let Some(properties) = wanted.get("properties").and_then(Value::as_object) {
            merge(&mut machine.properties, properties);
        }
        if let Some(capacity) = wanted
            .pointer("/sku/capacity")
            .and_then(Value::as_u64)
            .filter(|_| kind == Kind::ScaleSet)
        {
            resize(&mut machine, capacity);
        }
        match wanted.get("identity") {
            Some(identity) if !identity.is_null() => {
                apply(cloud, world, &mut machine, identity, patch, caller, notes)?;
            }
            _ => {}
        }
        let location = machine.location.clone();
        world.put_machine(machine);
        let status = if new { StatusCode::CREATED } else { StatusCode::OK };
        let body = world
            .machine(&key)
            .map(|machine| machine.body(world, tenant))
            .unwrap_or_default();
        Ok((Answer::json(status, body), location))
    })?;
    Ok(started(cloud, ask, answer, &location))
}

fn fresh(id: String, name: &str, kind: Kind, wanted: &Value) -> Result<Machine, Refusal> {
    Ok(Machine {
        id,
        name: name.to_owned(),
        kind,
        location: location(wanted)?,
        tags: Map::new(),
        system: None,
        assigned: BTreeMap::new(),
        by_profile: std::collections::BTreeSet::new(),
        sku: wanted
            .get("sku")
            .cloned()
            .unwrap_or_else(|| json!({ "name": "Standard_DS2_v2", "tier": "Standard" })),
        properties: Map::new(),
        version: 0,
        instances: if kind == Kind::Vm {
            vec![Instance::new(0)]
        } else {
            Vec::new()
        },
    })
}

/// As many instances as asked for; the newest go first.
fn resize(machine: &mut Machine, capacity: u64) {
    let capacity = usize::try_from(capacity.min(MAX_INSTANCES)).unwrap_or_default();
    machine.instances.truncate(capacity);
    while machine.instances.len() < capacity {
        let next = machine.instances.last().map_or(0, |last| last.number + 1);
        machine.instances.push(Instance::new(next));
    }
}

/// Merges as JSON merge patch does, without what only the server writes.
fn merge(into: &mut Map<String, Value>, from: &Map<String, Value>) {
    for (name, value) in from {
        match (into.get_mut(name), value) {
            _ if matches!(
                name.as_str(),
                "provisioningState" | "vmId" | "uniqueId" | "instanceView" | "timeCreated"
            ) => {}
            (_, Value::Null) => {
                into.remove(name);
            }
            (Some(Value::Object(into)), Value::Object(from)) => merge(into, from),
            _ => {
                into.insert(name.clone(), value.clone());
            }
        }
    }
}

/// Applies an `identity` object. In a PATCH, identities that are not named stay; null takes one off.
fn apply(
    cloud: &Cloud,
    world: &World,
    machine: &mut Machine,
    identity: &Value,
    patch: bool,
    caller: &Principal,
    notes: &mut Notes,
) -> Result<(), Refusal> {
    let kind = text(identity, "/type")
        .unwrap_or_default()
        .to_ascii_lowercase()
        .replace(' ', "");
    let (system, user) = match kind.as_str() {
        "none" => (false, false),
        "systemassigned" => (true, false),
        "userassigned" => (false, true),
        "systemassigned,userassigned" => (true, true),
        _ => {
            return Err(Refusal::bad(
                "InvalidParameter",
                format!(
                    "The value '{}' of parameter 'identity.type' is invalid.",
                    text(identity, "/type").unwrap_or_default()
                ),
            )
            .about("identity.type"));
        }
    };
    let named = identity.get("userAssignedIdentities").and_then(Value::as_object);
    if !user && named.is_some_and(|named| named.values().any(|value| !value.is_null())) {
        return Err(Refusal::bad(
            "InvalidIdentityType",
            "userAssignedIdentities may only be given when identity.type includes 'UserAssigned'.",
        )
        .about("identity.userAssignedIdentities"));
    }
    let mut next = if user && patch {
        machine.assigned.clone()
    } else {
        BTreeMap::new()
    };
    let (mut unknown, mut forbidden) = (Vec::new(), Vec::new());
    for (id, value) in named.into_iter().flatten() {
        let at = key(id);
        if value.is_null() {
            next.remove(&at);
            continue;
        }
        if let Some(there) = machine.assigned.get(&at) {
            // Sent back as it was read. A dangling reference stays dangling.
            next.insert(at, there.clone());
            continue;
        }
        let Some((at, assigned)) = world.reference(id) else {
            unknown.push(id.as_str());
            continue;
        };
        if !world.may(&caller.object_id, ASSIGN, &at) {
            forbidden.push(id.as_str());
        }
        next.insert(at, assigned);
    }
    if !forbidden.is_empty() {
        notes.denied = Some(ASSIGN.to_owned());
        if cloud.settings.authorization == Authorization::Enforce {
            return Err(linked(caller, machine, &forbidden.join(",")));
        }
    }
    if !unknown.is_empty() {
        return Err(Refusal::bad(
            "FailedIdentityOperation",
            format!(
                "Identity operation for resource '{}' failed with error 'Failed to perform resource identity operation. Status: \
                 'BadRequest'. Response: '{{\"error\":{{\"code\":\"BadRequest\",\"message\":\"Resource '{}' was not found.\"}}}}'.'.",
                machine.id,
                unknown.join(",")
            ),
        ));
    }
    machine.system = match (system, machine.system.take()) {
        (false, _) => None,
        (true, Some(there)) => Some(there),
        (true, None) => Some(System::new()),
    };
    machine.by_profile.retain(|at| next.contains_key(at));
    machine.assigned = next;
    Ok(())
}

fn linked(caller: &Principal, machine: &Machine, ids: &str) -> Refusal {
    Refusal::new(
        StatusCode::FORBIDDEN,
        "LinkedAuthorizationFailed",
        format!(
            "The client with object id '{}' has permission to perform action '{}/write' on scope '{}'; however, it does not have \
             permission to perform action(s) '{ASSIGN}' on the linked scope(s) '{ids}' (respectively) or the linked scope(s) are invalid.",
            caller.object_id,
            machine.kind.name(),
            machine.id
        ),
    )
}
