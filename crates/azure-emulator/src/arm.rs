//! Azure Resource Manager: who calls, may they, and which operation it is. Paths in any case, any api-version.

pub(crate) mod caller;
mod cluster;
mod cluster_body;
mod compute;
mod federated;
mod group;
mod identity;
mod metadata;
mod provider;
mod role;

use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::answer::{Answer, Outcome, Refusal, UNSUPPORTED};
use crate::cloud::{Authorization, Cloud};
use crate::front::Ask;
use crate::log::Notes;
use crate::world::principal::Principal;

/// Items of a page, as many Azure services have.
const PAGE: usize = 200;

/// Answers it.
pub(crate) async fn answer(cloud: &Cloud, ask: &Ask, notes: &mut Notes) -> Answer {
    if let Some(answer) = metadata::answer(cloud, ask) {
        return answer;
    }
    let outcome = match caller::authenticate(cloud, ask, false) {
        Ok(caller) => {
            notes.principal = Some(caller.client_id.clone());
            operate(cloud, ask, &caller, notes).await
        }
        Err(refusal) => Err(refusal),
    };
    let mut answer = outcome.unwrap_or_else(|refusal| {
        notes.code = Some(refusal.code.clone());
        if refusal.code == UNSUPPORTED {
            cloud.log.unsupported(format!("{} {}", ask.method, ask.raw_path));
        }
        refusal.into()
    });
    let id = uuid::Uuid::new_v4().to_string();
    for name in ["x-ms-request-id", "x-ms-correlation-request-id"] {
        answer
            .headers
            .push((http::HeaderName::from_static(name), id.clone()));
    }
    if let Some(id) = ask
        .headers
        .get("x-ms-client-request-id")
        .and_then(|value| value.to_str().ok())
    {
        answer.headers.push((
            http::HeaderName::from_static("x-ms-client-request-id"),
            id.to_owned(),
        ));
    }
    answer
}

async fn operate(cloud: &Cloud, ask: &Ask, caller: &Principal, notes: &mut Notes) -> Outcome {
    if ask.query.arm("api-version").is_none() {
        return Err(Refusal::bad(
            "MissingApiVersionParameter",
            "The api-version query parameter (?api-version=) is required for all requests.",
        ));
    }
    let path = ask.path.lower();
    if let ["subscriptions", subscription, ..] = path.as_slice()
        && !subscription.eq_ignore_ascii_case(&cloud.settings.subscription)
    {
        let shown = ask.path.shown(1);
        return Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "SubscriptionNotFound",
            format!("The subscription '{shown}' could not be found."),
        ));
    }
    if let Some((action, scope)) = caller::action(ask)
        && !cloud.read(|world| world.may(&caller.object_id, &action, &scope))
    {
        notes.denied = Some(action.clone());
        if cloud.settings.authorization == Authorization::Enforce {
            return Err(caller::forbidden(caller, &action, &scope));
        }
        tracing::debug!(principal = %caller.client_id, %action, %scope, "no right to this; passed, since authorization is audit");
    }
    let method = ask.method.as_str();
    if let Some(at) = ask.path.last_provider("microsoft.authorization") {
        return role::answer(cloud, ask, at);
    }
    let rest = path.get(2..).unwrap_or_default();
    match (method, path.first().copied(), rest) {
        ("GET", Some("tenants"), _) => Ok(metadata::tenants(cloud)),
        ("GET", Some("subscriptions"), []) => Ok(metadata::subscriptions(cloud, ask)),
        ("GET", Some("subscriptions"), ["locations"]) => Ok(metadata::locations(cloud)),
        ("GET", Some("subscriptions"), ["operationresults", id]) => {
            cloud.operation_result(id, &format!("{}{}?{}", ask.base, ask.raw_path, ask.raw_query))
        }
        ("GET", Some("subscriptions"), ["providers", _, "locations", _, "operations", id]) => {
            cloud.operation_status(id)
        }
        ("GET", Some("subscriptions"), ["providers", _, "locations", _, "operationresults", id]) => {
            cloud.operation_result(id, &format!("{}{}?{}", ask.base, ask.raw_path, ask.raw_query))
        }
        (_, Some("subscriptions"), ["resourcegroups", ..]) if !rest.contains(&"providers") => {
            group::answer(cloud, ask, rest)
        }
        (_, Some("subscriptions"), ["providers", "microsoft.features", ..]) => {
            provider::features(cloud, ask, rest)
        }
        (
            _,
            Some("subscriptions"),
            ["providers"] | ["providers", _] | ["providers", _, "register" | "unregister"],
        ) => provider::answer(cloud, ask, rest),
        (_, Some("subscriptions"), _) => resource(cloud, ask, caller, notes).await,
        _ => Err(Refusal::unsupported(&ask.method, &ask.raw_path)),
    }
}

/// `…/providers/NAMESPACE/TYPE[/NAME[/…]]`, of a subscription or of a group.
async fn resource(cloud: &Cloud, ask: &Ask, caller: &Principal, notes: &mut Notes) -> Outcome {
    let path = ask.path.lower();
    let at = match path.as_slice() {
        ["subscriptions", _, "providers", ..] => 2,
        ["subscriptions", _, "resourcegroups", _, "providers", ..] => 4,
        _ => return Err(Refusal::unsupported(&ask.method, &ask.raw_path)),
    };
    if at == 4 {
        let key = ask.path.join_lower(4);
        if cloud.read(|world| world.group(&key).is_none()) {
            return Err(Refusal::group_not_found(ask.path.shown(3)));
        }
    }
    let place = Place {
        at,
        group: (at == 4).then(|| ask.path.shown(3).to_owned()),
    };
    let rest = path.get(at + 1..).unwrap_or_default();
    match rest {
        [
            "microsoft.managedidentity",
            "userassignedidentities",
            _,
            "federatedidentitycredentials",
            ..,
        ] => federated::answer(cloud, ask, &place),
        ["microsoft.managedidentity", "userassignedidentities", ..] => identity::answer(cloud, ask, &place),
        [
            "microsoft.compute",
            "virtualmachines" | "virtualmachinescalesets",
            ..,
        ] => compute::answer(cloud, ask, &place, caller, notes),
        ["microsoft.containerservice", "managedclusters", ..] => {
            cluster::answer(cloud, ask, &place, notes).await
        }
        [namespace, ..] if provider::is_known(namespace) => {
            Err(Refusal::unsupported(&ask.method, &ask.raw_path))
        }
        [_, ..] => Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "InvalidResourceNamespace",
            format!("The resource namespace '{}' is invalid.", ask.path.shown(at + 1)),
        )),
        [] => Err(Refusal::unsupported(&ask.method, &ask.raw_path)),
    }
}

/// Where a resource's path has its provider, and its group.
struct Place {
    at: usize,
    group: Option<String>,
}

impl Place {
    /// The segments after the type: name, subtype, …
    fn after<'a>(&self, path: &'a [&'a str]) -> &'a [&'a str] {
        path.get(self.at + 3..).unwrap_or_default()
    }

    /// How many segments make up the resource's id.
    fn id_len(&self) -> usize {
        self.at + 4
    }

    /// Key of the subscription or group whose resources are listed.
    fn scope(&self, ask: &Ask) -> String {
        ask.path.join_lower(self.at)
    }

    /// The resource's name as written.
    fn name<'a>(&self, ask: &'a Ask) -> &'a str {
        ask.path.shown(self.at + 3)
    }

    /// Its group; resources of a subscription have no path of their own here.
    fn group(&self, ask: &Ask) -> Result<&str, Refusal> {
        self.group
            .as_deref()
            .ok_or_else(|| Refusal::unsupported(&ask.method, &ask.raw_path))
    }
}

/// A page of `items`, with the link to the next one. Only what is on the page is shown by `body`.
fn page<T>(ask: &Ask, items: impl Iterator<Item = T>, body: impl Fn(T) -> Value) -> Answer {
    let skip: usize = ask
        .query
        .arm("$skiptoken")
        .and_then(|token| token.parse().ok())
        .unwrap_or(0);
    let size = ask
        .query
        .arm("$top")
        .and_then(|top| top.parse().ok())
        .unwrap_or(PAGE)
        .clamp(1, PAGE);
    let mut items = items.skip(skip);
    let value: Vec<Value> = items.by_ref().take(size).map(body).collect();
    if items.next().is_none() {
        return Answer::ok(json!({ "value": value }));
    }
    let kept: Vec<&str> = ask
        .raw_query
        .split('&')
        .filter(|part| !part.is_empty() && !part.to_ascii_lowercase().contains("skiptoken="))
        .collect();
    let next = format!(
        "{}{}?{}&%24skiptoken={}",
        ask.base,
        ask.raw_path,
        kept.join("&"),
        skip + value.len()
    );
    Answer::ok(json!({ "value": value, "nextLink": next }))
}

/// A member that must be text.
fn text<'a>(body: &'a Value, pointer: &str) -> Option<&'a str> {
    body.pointer(pointer)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
}

/// `tags`, empty when there are none.
fn tags(body: &Value) -> Map<String, Value> {
    body.get("tags")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default()
}

/// The `location` that a new resource must have, as Azure writes it: `East US` is `eastus`.
fn location(body: &Value) -> Result<String, Refusal> {
    text(body, "/location")
        .map(|location| location.replace(' ', "").to_ascii_lowercase())
        .ok_or_else(|| {
            Refusal::bad(
                "LocationRequired",
                "The location property is required for this definition.",
            )
        })
}
