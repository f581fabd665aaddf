//! The part of Microsoft Graph with which `az role assignment` finds service principals.

use http::StatusCode;
use serde_json::{Value, json};

use crate::answer::{Answer, Refusal};
use crate::arm::caller;
use crate::cloud::Cloud;
use crate::front::Ask;
use crate::log::Notes;
use crate::world::principal::Principal;

/// Objects of one `getByIds`. Source: Microsoft Graph documentation.
const MAX_IDS: usize = 1_000;

/// Answers it.
pub(crate) fn answer(cloud: &Cloud, ask: &Ask, notes: &mut Notes) -> Answer {
    // Graph's token has Graph as its audience, under whatever name the client knows it.
    match caller::authenticate(cloud, ask, true) {
        Ok(caller) => notes.principal = Some(caller.client_id),
        Err(refusal) => {
            notes.code = Some(refusal.code.clone());
            return refusal.into();
        }
    }
    route(cloud, ask).unwrap_or_else(|refusal| {
        notes.code = Some(refusal.code.clone());
        if refusal.code == crate::answer::UNSUPPORTED {
            cloud.log.unsupported(format!("{} {}", ask.method, ask.raw_path));
        }
        refusal.into()
    })
}

fn route(cloud: &Cloud, ask: &Ask) -> Result<Answer, Refusal> {
    let path = ask.path.lower();
    match (ask.method.as_str(), path.as_slice()) {
        ("GET", [_, "serviceprincipals"]) => {
            let Some(filter) = ask.query.get("$filter") else {
                return Err(Refusal::unsupported(
                    &ask.method,
                    "/v1.0/servicePrincipals without $filter",
                ));
            };
            let found = find(cloud, filter)?;
            Ok(Answer::ok(json!({
                "@odata.context": format!("{}/v1.0/$metadata#servicePrincipals", ask.base),
                "value": found.iter().map(body).collect::<Vec<_>>(),
            })))
        }
        ("GET", [_, "serviceprincipals" | "directoryobjects", _]) => {
            let id = ask.path.shown(2);
            cloud.read(|world| world.by_object_id(id)).map(|found| Answer::ok(body(&found))).ok_or_else(|| {
                let text = format!("Resource '{id}' does not exist or one of its queried reference-property objects are not present.");
                Refusal::new(StatusCode::NOT_FOUND, "Request_ResourceNotFound", text)
            })
        }
        ("POST", [_, "directoryobjects", "getbyids" | "microsoft.graph.getbyids"]) => {
            let request = ask.json()?;
            let ids = request
                .get("ids")
                .and_then(Value::as_array)
                .filter(|ids| ids.len() <= MAX_IDS);
            let ids = ids.ok_or_else(|| {
                Refusal::bad(
                    "Request_BadRequest",
                    "ids must be a list of at most 1000 object ids.",
                )
            })?;
            let found: Vec<Value> = cloud.read(|world| {
                ids.iter()
                    .filter_map(Value::as_str)
                    .filter_map(|id| world.by_object_id(id))
                    .map(|found| body(&found))
                    .collect()
            });
            Ok(Answer::ok(json!({ "value": found })))
        }
        // `az` looks for users too when it must guess what an assignee is; there is none.
        ("GET", [_, "users"]) => Ok(Answer::ok(json!({ "value": [] }))),
        _ => Err(Refusal::unsupported(&ask.method, &ask.raw_path)),
    }
}

/// `servicePrincipalNames/any(c:c eq 'X')`, `appId eq 'X'`, `id eq 'X'`, `displayName eq 'X'`.
fn find(cloud: &Cloud, filter: &str) -> Result<Vec<Principal>, Refusal> {
    let unknown = || Refusal::bad("Request_UnsupportedQuery", format!("Unsupported Query: {filter}"));
    let value = filter.split('\'').nth(1).ok_or_else(unknown)?;
    let property = filter
        .split(['/', ' '])
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    cloud.read(|world| match property.as_str() {
        "serviceprincipalnames" | "appid" => Ok(world.by_client_id(value).into_iter().collect()),
        "id" => Ok(world.by_object_id(value).into_iter().collect()),
        "displayname" => Ok(world
            .applications()
            .map(crate::world::principal::Application::principal)
            .chain(
                world
                    .identities_within("")
                    .map(crate::world::identity::Identity::principal),
            )
            .filter(|principal| principal.name == value)
            .collect()),
        _ => Err(unknown()),
    })
}

fn body(principal: &Principal) -> Value {
    let managed = principal.resource_id.is_some();
    json!({
        "@odata.type": "#microsoft.graph.servicePrincipal",
        "id": principal.object_id,
        "appId": principal.client_id,
        "displayName": principal.name,
        "servicePrincipalType": if managed { "ManagedIdentity" } else { "Application" },
        "servicePrincipalNames": [principal.client_id],
        "alternativeNames": principal.resource_id.iter().map(|id| json!(id)).collect::<Vec<_>>(),
        "accountEnabled": true,
    })
}
