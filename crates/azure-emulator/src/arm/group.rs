//! Resource groups.

use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::answer::{Answer, Outcome, Refusal};
use crate::cloud::Cloud;
use crate::front::Ask;
use crate::world::Group;

use super::{location, page, tags};

/// Characters of a name. Source: <https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules>.
const MAX_NAME: usize = 90;

/// Answers it; `rest` starts with `resourcegroups`.
pub(crate) fn answer(cloud: &Cloud, ask: &Ask, rest: &[&str]) -> Outcome {
    let name = ask.path.shown(3);
    let key = ask.path.join_lower(4);
    match (ask.method.as_str(), rest) {
        ("GET", [_]) => Ok(cloud.read(|world| page(ask, world.groups.values(), body))),
        ("GET", [_, _]) => cloud
            .read(|world| world.group(&key).map(body))
            .map(Answer::ok)
            .ok_or_else(|| Refusal::group_not_found(name)),
        ("HEAD", [_, _]) => {
            let there = cloud.read(|world| world.group(&key).is_some());
            Ok(Answer::empty(if there {
                StatusCode::NO_CONTENT
            } else {
                StatusCode::NOT_FOUND
            }))
        }
        ("PUT", [_, _]) => put(cloud, ask, name, &key),
        ("PATCH", [_, _]) => {
            let change = ask.json()?;
            cloud
                .write(|world| {
                    let mut group = world.group(&key)?.clone();
                    if change.get("tags").is_some() {
                        group.tags = tags(&change);
                    }
                    let shown = body(&group);
                    world.put_group(group);
                    Some(shown)
                })
                .map(Answer::ok)
                .ok_or_else(|| Refusal::group_not_found(name))
        }
        ("DELETE", [_, _]) => delete(cloud, ask, name, &key),
        ("GET", [_, _, "resources"]) => resources(cloud, ask, name, &key),
        _ => Err(Refusal::unsupported(&ask.method, &ask.raw_path)),
    }
}

fn put(cloud: &Cloud, ask: &Ask, name: &str, key: &str) -> Outcome {
    let wanted = ask.json()?;
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '(' | ')');
    if name.is_empty() || name.chars().count() > MAX_NAME || name.ends_with('.') || !name.chars().all(fits) {
        return Err(Refusal::bad(
            "InvalidResourceGroup",
            format!(
                "The provided resource group name '{name}' has these invalid characters or is too long. The name can only be a letter, \
                 digit, '-', '.', '(', ')' or '_', not end with '.', and be at most {MAX_NAME} characters long."
            ),
        ));
    }
    let location = location(&wanted)?;
    cloud.write(|world| {
        let before = world.group(key).cloned();
        if let Some(before) = before.as_ref().filter(|before| before.location != location) {
            return Err(Refusal::new(
                StatusCode::CONFLICT,
                "InvalidResourceGroupLocation",
                format!(
                    "Invalid resource group location '{location}'. The Resource group already exists in location '{}'.",
                    before.location
                ),
            ));
        }
        let status = if before.is_some() { StatusCode::OK } else { StatusCode::CREATED };
        let group = Group {
            id: before.as_ref().map_or_else(|| id(cloud, name), |before| before.id.clone()),
            name: before.as_ref().map_or_else(|| name.to_owned(), |before| before.name.clone()),
            location,
            tags: tags(&wanted),
            managed_by: before.and_then(|before| before.managed_by),
        };
        let shown = body(&group);
        world.put_group(group);
        Ok(Answer::json(status, shown))
    })
}

fn delete(cloud: &Cloud, ask: &Ask, name: &str, key: &str) -> Outcome {
    cloud.write(|world| {
        if world.group(key).is_none() {
            return Err(Refusal::group_not_found(name));
        }
        world.remove_group(key);
        Ok(())
    })?;
    Ok(cloud.started_at_location(cloud.soon(), &ask.base))
}

fn resources(cloud: &Cloud, ask: &Ask, name: &str, key: &str) -> Outcome {
    let brief = |id: &str, name: &str, kind: &str, location: &str, tags: &Map<String, Value>| json!({ "id": id, "name": name, "type": kind, "location": location, "tags": tags });
    cloud.read(|world| {
        if world.group(key).is_none() {
            return Err(Refusal::group_not_found(name));
        }
        let identities = world.identities_within(key).map(|it| {
            brief(
                &it.id,
                &it.name,
                crate::world::identity::KIND,
                &it.location,
                &it.tags,
            )
        });
        let machines = world
            .machines_within(key)
            .map(|it| brief(&it.id, &it.name, it.kind.name(), &it.location, &it.tags));
        let clusters = world.clusters_within(key).map(|it| {
            brief(
                &it.id,
                &it.name,
                crate::world::cluster::KIND,
                &it.location,
                &it.tags,
            )
        });
        Ok(page(ask, identities.chain(machines).chain(clusters), |item| item))
    })
}

/// A group's id. The subscription is written as the emulator knows it.
pub(crate) fn id(cloud: &Cloud, name: &str) -> String {
    format!(
        "/subscriptions/{}/resourceGroups/{name}",
        cloud.settings.subscription
    )
}

fn body(group: &Group) -> Value {
    let mut body = json!({
        "id": group.id, "name": group.name, "type": "Microsoft.Resources/resourceGroups", "location": group.location,
        "tags": group.tags, "properties": { "provisioningState": "Succeeded" },
    });
    if let (Some(by), Some(body)) = (&group.managed_by, body.as_object_mut()) {
        body.insert("managedBy".to_owned(), json!(by));
    }
    body
}
