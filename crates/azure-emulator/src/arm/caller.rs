//! Who calls, by the bearer token, and which action on which scope a request is.

use http::StatusCode;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};

use crate::answer::Refusal;
use crate::cloud::{Cloud, time_text};
use crate::front::Ask;
use crate::jwt;
use crate::world::principal::Principal;

/// What clocks may differ by.
const SKEW_SECS: u64 = 300;

/// The caller of ARM, or of Graph.
pub(crate) fn authenticate(cloud: &Cloud, ask: &Ask, graph: bool) -> Result<Principal, Refusal> {
    let challenge = |code: &str, text: String| {
        let challenge = format!(
            "Bearer authorization_uri=\"{}/{}\", error=\"invalid_token\", error_description=\"{}\"",
            ask.base,
            cloud.settings.tenant,
            text.replace('"', "'")
        );
        Refusal::new(StatusCode::UNAUTHORIZED, code, text).with(WWW_AUTHENTICATE, challenge)
    };
    let header = ask
        .headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let Some(token) = header.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }) else {
        return Err(challenge(
            "AuthenticationFailed",
            "Authentication failed. The 'Authorization' header is missing.".to_owned(),
        ));
    };
    let invalid = |text: &str| challenge("InvalidAuthenticationToken", text.to_owned());
    let read = jwt::read(token).ok_or_else(|| invalid("The access token is invalid."))?;
    if !read.verify(cloud.key.public()) {
        return Err(invalid(
            "The access token is from the wrong issuer, or its signature is invalid.",
        ));
    }
    let (now, expires) = (cloud.clock.unix_secs(), read.time("exp").unwrap_or(0));
    if now > expires.saturating_add(SKEW_SECS) {
        return Err(challenge(
            "ExpiredAuthenticationToken",
            format!(
                "The access token expiry UTC time '{}' is earlier than current UTC time '{}'.",
                time_text(expires),
                time_text(now)
            ),
        ));
    }
    if !read
        .audiences()
        .iter()
        .any(|audience| accepts(audience, ask, graph))
    {
        let text = format!(
            "The access token has been obtained for wrong audience or resource '{}'. It should exactly match with one of the allowed \
             audiences 'https://management.core.windows.net/','https://management.core.windows.net','https://management.azure.com/',\
             'https://management.azure.com'.",
            read.audiences().join(", ")
        );
        return Err(challenge("InvalidAuthenticationTokenAudience", text));
    }
    let object_id = read.text("oid").unwrap_or_default();
    cloud
        .read(|world| world.by_object_id(object_id))
        .ok_or_else(|| invalid("The access token's principal does not exist in the directory."))
}

/// ARM's public names, or the address at which the client reached us.
fn accepts(audience: &str, ask: &Ask, graph: bool) -> bool {
    let audience = audience.trim_end_matches('/').to_ascii_lowercase();
    let known = [
        "https://management.core.windows.net",
        "https://management.azure.com",
    ]
    .contains(&audience.as_str());
    let graph = graph && audience == "https://graph.microsoft.com";
    known || graph || audience == ask.base.to_ascii_lowercase()
}

/// The RBAC action of a request and the key of the scope that it is about; none for what needs no right.
pub(crate) fn action(ask: &Ask) -> Option<(String, String)> {
    let lower = ask.path.lower();
    let verb = match ask.method.as_str() {
        "GET" | "HEAD" => "read",
        "DELETE" => "delete",
        "POST" => "action",
        _ => "write",
    };
    let provider = lower.iter().rposition(|part| *part == "providers");
    match lower.as_slice() {
        ["subscriptions", _, "operationresults", ..] | ["tenants", ..] | ["subscriptions"] => None,
        ["subscriptions", _, "providers", _, "locations", ..] => None,
        // Anybody with any role may ask which providers there are.
        ["subscriptions", _, "providers"] | ["subscriptions", _, "providers", _] => None,
        ["subscriptions", _, "providers", _, "register" | "unregister"] => Some((
            format!("{}/{}/action", ask.path.shown(3), ask.path.shown(4)),
            ask.path.join_lower(2),
        )),
        ["subscriptions", _] | ["subscriptions", _, "locations"] => Some((
            format!("Microsoft.Resources/subscriptions/{verb}"),
            ask.path.join_lower(2),
        )),
        ["subscriptions", _, "resourcegroups", ..] if provider.is_none() => Some((
            format!("Microsoft.Resources/subscriptions/resourceGroups/{verb}"),
            ask.path.join_lower(4.min(lower.len())),
        )),
        _ => {
            let at = provider?;
            let namespace = ask.path.shown(at + 1);
            let count = lower.len();
            // After the namespace stand type, name, type, name, …; a POST ends with the name of its action.
            let types: Vec<&str> = (at + 2..count)
                .step_by(2)
                .map(|index| ask.path.shown(index))
                .collect();
            let action = format!("{namespace}/{}/{verb}", types.join("/"));
            let named = (count - at).is_multiple_of(2);
            let scope = if namespace.eq_ignore_ascii_case("Microsoft.Authorization") {
                ask.path.join_lower(at)
            } else if verb == "action" {
                ask.path.join_lower(count - 1)
            } else if named {
                ask.path.join_lower(count)
            } else if count - at > 3 {
                ask.path.join_lower(count - 1)
            } else {
                ask.path.join_lower(at)
            };
            Some((action, scope))
        }
    }
}

/// ARM's 403.
pub(crate) fn forbidden(caller: &Principal, action: &str, scope: &str) -> Refusal {
    Refusal::new(
        StatusCode::FORBIDDEN,
        "AuthorizationFailed",
        format!(
            "The client '{}' with object id '{}' does not have authorization to perform action '{action}' over scope '{scope}' or the \
             scope is invalid. If access was recently granted, please refresh your credentials.",
            caller.client_id, caller.object_id
        ),
    )
}
