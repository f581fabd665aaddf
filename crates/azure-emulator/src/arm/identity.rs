//! User-assigned managed identities.

use http::StatusCode;

use crate::answer::{Answer, Outcome, Refusal, list};
use crate::cloud::Cloud;
use crate::front::Ask;
use crate::world::identity::{Identity, KIND};

use super::{Place, location, page, tags};

/// Answers it.
pub(crate) fn answer(cloud: &Cloud, ask: &Ask, place: &Place) -> Outcome {
    let path = ask.path.lower();
    let key = ask.path.join_lower(place.id_len());
    let tenant = &cloud.settings.tenant;
    match (ask.method.as_str(), place.after(&path)) {
        ("GET", []) => {
            let scope = place.scope(ask);
            Ok(cloud.read(|world| page(ask, world.identities_within(&scope), |identity| identity.body(tenant))))
        }
        ("GET", [_]) => cloud
            .read(|world| world.identity(&key).map(|identity| identity.body(tenant)))
            .map(Answer::ok)
            .ok_or_else(|| missing(ask, place)),
        ("PUT", [_]) => put(cloud, ask, place, &key),
        ("PATCH", [_]) => {
            let change = ask.json()?;
            cloud
                .write(|world| {
                    let identity = world.identity_mut(&key)?;
                    if change.get("tags").is_some() {
                        identity.tags = tags(&change);
                    }
                    Some(identity.body(tenant))
                })
                .map(Answer::ok)
                .ok_or_else(|| missing(ask, place))
        }
        ("DELETE", [_]) => {
            let gone = cloud.write(|world| world.remove_identity(&key));
            Ok(Answer::empty(if gone.is_some() { StatusCode::OK } else { StatusCode::NO_CONTENT }))
        }
        ("POST", [_, "listassociatedresources"]) => cloud.read(|world| {
            if world.identity(&key).is_none() {
                return Err(missing(ask, place));
            }
            let users = world.machines_within("").filter(|machine| machine.assigned.contains_key(&key));
            Ok(list(
                users
                    .map(|machine| {
                        serde_json::json!({
                            "id": machine.id, "name": machine.name, "type": machine.kind.name(),
                            "resourceGroup": machine.id.split('/').nth(4), "subscriptionId": cloud.settings.subscription,
                            "subscriptionDisplayName": "azure-emulator",
                        })
                    })
                    .collect(),
            ))
        }),
        _ => Err(Refusal::unsupported(&ask.method, &ask.raw_path)),
    }
}

/// The same identity twice keeps its ids; one that was deleted and made again has new ones.
fn put(cloud: &Cloud, ask: &Ask, place: &Place, key: &str) -> Outcome {
    let wanted = ask.json()?;
    let name = place.name(ask);
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let length = name.chars().count();
    if !(3..=128).contains(&length)
        || !name.chars().all(fits)
        || !name.starts_with(|c: char| c.is_ascii_alphanumeric())
    {
        return Err(Refusal::bad(
            "InvalidResourceName",
            format!(
                "The resource name '{name}' is invalid: 3 to 128 letters, digits, '-' and '_', starting with a letter or digit."
            ),
        ));
    }
    let group = place.group(ask)?.to_owned();
    let location = location(&wanted)?;
    let tenant = &cloud.settings.tenant;
    cloud.write(|world| {
        if let Some(identity) = world.identity_mut(key) {
            identity.tags = tags(&wanted);
            return Ok(Answer::ok(identity.body(tenant)));
        }
        // The id of the real service has `resourcegroups` in lower case. Source: requests of az 2.91.0 and answers that people pasted.
        let id = format!(
            "/subscriptions/{}/resourcegroups/{group}/providers/{KIND}/{name}",
            cloud.settings.subscription
        );
        let identity = Identity::new(id, name, &location, tags(&wanted));
        let body = identity.body(tenant);
        world.put_identity(identity);
        Ok(Answer::json(StatusCode::CREATED, body))
    })
}

pub(super) fn missing(ask: &Ask, place: &Place) -> Refusal {
    Refusal::resource_not_found(KIND, place.name(ask), place.group.as_deref().unwrap_or_default())
}
