//! The token request of a machine.

use http::StatusCode;
use http::header::HeaderName;
use serde_json::{Map, Value, json};

use crate::answer::Answer;
use crate::cloud::Cloud;
use crate::entra::refusal::Aadsts;
use crate::entra::token::{Issued, Proof, exists};
use crate::front::Ask;
use crate::log::Notes;
use crate::path::key;
use crate::world::World;
use crate::world::machine::Machine;
use crate::world::principal::Principal;

use super::{bad_version, refuse, throttled};

/// The first version that has this endpoint.
const FIRST_VERSION: &str = "2018-02-01";
const NOT_FOUND: &str = "Identity not found";
const SEVERAL: &str = "Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in the token request";

/// Which identity is asked for.
enum Selector<'a> {
    Any,
    ClientId(&'a str),
    ObjectId(&'a str),
    ResourceId(&'a str),
}

/// Answers it. The header has been looked at.
pub(crate) async fn answer(cloud: &Cloud, ask: &Ask, notes: &mut Notes) -> Answer {
    let machine = cloud.read(|world| {
        let found = world.machine_at(ask.source.ip(), cloud.settings.fallback_machine.as_deref());
        found.map(|(machine, number)| format!("{}/{number}", machine.id))
    });
    let Some(_ticket) = cloud.quotas.enter(machine.as_deref().unwrap_or_default()) else {
        notes.code = Some("throttled".to_owned());
        return Answer::json(StatusCode::TOO_MANY_REQUESTS, throttled());
    };
    if !cloud.settings.imds_latency.is_zero() {
        tokio::time::sleep(cloud.settings.imds_latency).await;
    }
    match token(cloud, ask, notes) {
        Ok(answer) | Err(answer) => answer,
    }
}

fn token(cloud: &Cloud, ask: &Ask, notes: &mut Notes) -> Result<Answer, Answer> {
    let bad = |text: &str, notes: &mut Notes| refuse(StatusCode::BAD_REQUEST, "invalid_request", text, notes);
    if let Some(name) = ask.query.duplicate() {
        return Err(bad(
            &format!("Query parameter '{name}' is given more than once"),
            notes,
        ));
    }
    let version = ask.query.get("api-version").unwrap_or_default();
    if !is_date(version) || version < FIRST_VERSION {
        return Err(bad_version(notes));
    }
    let Some(resource) = ask.query.get("resource").filter(|value| !value.is_empty()) else {
        return Err(bad("Required query variable 'resource' is missing", notes));
    };
    let selector = selector(ask).ok_or_else(|| {
        bad(
            "Only one of client_id, object_id and msi_res_id may be given",
            notes,
        )
    })?;
    let principal = cloud.read(|world| {
        let (machine, _) = world
            .machine_at(ask.source.ip(), cloud.settings.fallback_machine.as_deref())
            .ok_or(NOT_FOUND)?;
        select(world, machine, &selector)
    });
    let principal = principal.map_err(|text| bad(text, notes))?;
    notes.principal = Some(principal.client_id.clone());
    if !exists(resource) {
        let text = format!(
            "AADSTS50001: The application named {resource} was not found in the tenant named {}. This can happen if the application \
             has not been installed by the administrator of the tenant or consented to by any user in the tenant.",
            cloud.settings.tenant
        );
        return Err(refuse(StatusCode::BAD_REQUEST, "invalid_resource", &text, notes));
    }
    let now = cloud.clock.unix_secs();
    let issued = if let Some(issued) = cloud.tokens.get(&principal.object_id, resource, now) {
        issued
    } else {
        let life = cloud.settings.identity_token_lifetime.as_secs();
        let issued = cloud
            .issue(&principal, resource, Proof::Assertion, life)
            .map_err(|refusal: Aadsts| {
                refuse(refusal.status, refusal.error, &refusal.description(), notes)
            })?;
        cloud.tokens.put(&principal.object_id, resource, &issued);
        issued
    };
    let answer = Answer::ok(body(&principal, resource, &issued, ask, now));
    let wants_id = ask
        .headers
        .get("x-ms-return-client-request-id")
        .is_some_and(|value| value == "true");
    let id = ask
        .headers
        .get("x-ms-client-request-id")
        .and_then(|value| value.to_str().ok())
        .filter(|_| wants_id);
    Ok(match id {
        Some(id) => answer.with(HeaderName::from_static("x-ms-client-request-id"), id),
        None => answer,
    })
}

/// Every value is text, numbers too. Source: what the SDKs were seen to need.
fn body(principal: &Principal, resource: &str, issued: &Issued, ask: &Ask, now: u64) -> Value {
    let left = issued.expires_on.saturating_sub(now).to_string();
    let mut body = json!({
        "access_token": issued.token,
        "client_id": principal.client_id,
        "expires_in": left,
        "expires_on": issued.expires_on.to_string(),
        "ext_expires_in": issued.expires_on.saturating_sub(issued.not_before).to_string(),
        "not_before": issued.not_before.to_string(),
        "resource": resource,
        "token_type": "Bearer",
    });
    if let Some(body) = body.as_object_mut() {
        let echo: Map<String, Value> = ["object_id", "msi_res_id"]
            .into_iter()
            .filter_map(|name| {
                Some((
                    name.to_owned(),
                    json!(ask.query.get(name).filter(|value| !value.is_empty())?),
                ))
            })
            .collect();
        body.extend(echo);
    }
    body
}

/// The one selector that is given; none when there are two. An empty one is not given.
fn selector(ask: &Ask) -> Option<Selector<'_>> {
    let mut found = ask
        .query
        .pairs()
        .filter(|(_, value)| !value.is_empty())
        .filter_map(|(name, value)| match name {
            "client_id" => Some(Selector::ClientId(value)),
            "object_id" | "principal_id" => Some(Selector::ObjectId(value)),
            "msi_res_id" | "mi_res_id" | "msi-res-id" | "resource_id" => Some(Selector::ResourceId(value)),
            _ => None,
        });
    let first = found.next().unwrap_or(Selector::Any);
    found.next().is_none().then_some(first)
}

/// The identity of that machine that is meant.
fn select(world: &World, machine: &Machine, selector: &Selector<'_>) -> Result<Principal, &'static str> {
    let assigned = |key: &str| {
        machine
            .assigned
            .get(key)
            .and_then(|reference| world.live(key, reference))
            .ok_or(NOT_FOUND)
    };
    let system = || {
        machine
            .system
            .as_ref()
            .map(|system| system.principal(&machine.name, &machine.id))
    };
    match selector {
        Selector::ClientId(id) => match system().filter(|system| system.client_id.eq_ignore_ascii_case(id)) {
            Some(system) => Ok(system),
            None => assigned(world.identity_by_client_id(id).ok_or(NOT_FOUND)?),
        },
        Selector::ObjectId(id) => match system().filter(|system| system.object_id.eq_ignore_ascii_case(id)) {
            Some(system) => Ok(system),
            None => assigned(world.identity_by_object_id(id).ok_or(NOT_FOUND)?),
        },
        Selector::ResourceId(id) => assigned(&key(id)),
        Selector::Any => {
            if let Some(system) = system() {
                return Ok(system);
            }
            let mut all = machine.assigned.keys();
            match (all.next(), all.next()) {
                (Some(only), None) => assigned(only),
                (None, _) => Err(NOT_FOUND),
                (Some(_), Some(_)) => Err(SEVERAL),
            }
        }
    }
}

/// `YYYY-MM-DD`.
fn is_date(text: &str) -> bool {
    text.len() == 10
        && text.char_indices().all(|(at, c)| {
            if matches!(at, 4 | 7) {
                c == '-'
            } else {
                c.is_ascii_digit()
            }
        })
}
