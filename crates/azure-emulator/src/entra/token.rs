//! The token endpoints, v1 and v2: client credentials by secret, by certificate or by a federated assertion.

use http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::answer::Answer;
use crate::cloud::Cloud;
use crate::front::Ask;
use crate::log::Notes;
use crate::query::Query;
use crate::world::principal::Principal;

use super::assertion;
use super::discovery::{is_tenant, issuer_v1, no_tenant};
use super::refusal::Aadsts;

/// An issued token.
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    pub(crate) token: String,
    pub(crate) not_before: u64,
    pub(crate) expires_on: u64,
}

/// How a principal proved who it is, as `appidacr` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    Secret,
    Assertion,
}

/// Answers a token request.
pub(crate) async fn issue(cloud: &Cloud, ask: &Ask, tenant: &str, v2: bool, notes: &mut Notes) -> Answer {
    match grant(cloud, ask, tenant, v2, notes).await {
        Ok(answer) => answer
            .with(http::header::CACHE_CONTROL, "no-store, no-cache")
            .with(http::header::PRAGMA, "no-cache"),
        Err(refusal) => {
            notes.code = Some(format!("AADSTS{}", refusal.number));
            refusal.at(cloud).into()
        }
    }
}

async fn grant(
    cloud: &Cloud,
    ask: &Ask,
    tenant: &str,
    v2: bool,
    notes: &mut Notes,
) -> Result<Answer, Aadsts> {
    if !is_tenant(cloud, tenant) {
        return Err(no_tenant(tenant));
    }
    let form = Query::parse(&ask.body_text());
    let field = |name: &str| form.get(name).filter(|value| !value.is_empty());
    let grant_type = field("grant_type").ok_or_else(|| Aadsts::missing("grant_type"))?;
    if grant_type != "client_credentials" {
        return Err(Aadsts::new(
            StatusCode::BAD_REQUEST,
            "unsupported_grant_type",
            70003,
            format!("The app requested an unsupported grant type '{grant_type}'."),
        ));
    }
    let client_id = field("client_id").ok_or_else(|| Aadsts::missing("client_id"))?;
    notes.principal = Some(client_id.to_owned());
    let (principal, proof) = authenticate(cloud, ask, &form, client_id).await?;
    let resource = resource(&form, v2)?;
    let issued = cloud.issue(
        &principal,
        &resource,
        proof,
        cloud.settings.token_lifetime.as_secs(),
    )?;
    let life = issued.expires_on.saturating_sub(cloud.clock.unix_secs());
    Ok(Answer::ok(if v2 {
        json!({ "token_type": "Bearer", "expires_in": life, "ext_expires_in": life, "access_token": issued.token })
    } else {
        json!({
            "token_type": "Bearer", "expires_in": life.to_string(), "ext_expires_in": life.to_string(),
            "expires_on": issued.expires_on.to_string(), "not_before": issued.not_before.to_string(),
            "resource": resource, "access_token": issued.token,
        })
    }))
}

async fn authenticate(
    cloud: &Cloud,
    ask: &Ask,
    form: &Query,
    client_id: &str,
) -> Result<(Principal, Proof), Aadsts> {
    let Some(principal) = cloud.read(|world| world.by_client_id(client_id)) else {
        return Err(Aadsts::new(
            StatusCode::BAD_REQUEST,
            "unauthorized_client",
            700_016,
            format!(
                "Application with identifier '{client_id}' was not found in the directory '{}'. This can happen if the application \
                 has not been installed by the administrator of the tenant or consented to by any user in the tenant. You may have \
                 sent your authentication request to the wrong tenant.",
                cloud.settings.tenant
            ),
        ));
    };
    let field = |name: &str| form.get(name).filter(|value| !value.is_empty());
    if let Some(token) = field("client_assertion") {
        let kind = field("client_assertion_type").ok_or_else(|| Aadsts::missing("client_assertion_type"))?;
        if kind != assertion::TYPE {
            return Err(Aadsts::client(
                50027,
                "JWT token is invalid or malformed: unknown client_assertion_type.",
            ));
        }
        assertion::check(cloud, ask, &principal, token).await?;
        return Ok((principal, Proof::Assertion));
    }
    let Some(secret) = field("client_secret") else {
        return Err(Aadsts::client(
            7_000_218,
            "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
        ));
    };
    let right = cloud.read(|world| {
        world
            .application(client_id)
            .is_some_and(|app| app.secrets.iter().any(|known| known.matches(secret)))
    });
    if right {
        return Ok((principal, Proof::Secret));
    }
    Err(Aadsts::client(
        7_000_215,
        format!(
            "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client \
             secret ID, for a secret added to app '{client_id}'."
        ),
    ))
}

/// The audience: exactly as asked, slash and all.
fn resource(form: &Query, v2: bool) -> Result<String, Aadsts> {
    let parameter = if v2 { "scope" } else { "resource" };
    let asked = form
        .get(parameter)
        .filter(|value| !value.is_empty())
        .ok_or_else(|| Aadsts::missing(parameter))?;
    let resource = if v2 {
        // Scopes may come with OpenID's own ones, which mean nothing for client credentials.
        let mut scopes = asked
            .split(' ')
            .filter(|scope| !matches!(*scope, "" | "openid" | "profile" | "offline_access"));
        let scope = scopes.next().unwrap_or_default();
        match (scope.strip_suffix("/.default"), scopes.next()) {
            (Some(resource), None) if !resource.is_empty() => resource,
            _ => {
                return Err(Aadsts::new(
                    StatusCode::BAD_REQUEST,
                    "invalid_scope",
                    1_002_012,
                    format!(
                        "The provided value for scope {asked} is not valid. Client credential flows must have a scope value with \
                         /.default suffixed to the resource identifier (application ID URI)."
                    ),
                ));
            }
        }
    } else {
        asked
    };
    Ok(resource.to_owned())
}

/// Whether a resource can be an application of the tenant: a URI or a GUID; names under `.invalid` never exist (RFC 6761).
pub(crate) fn exists(resource: &str) -> bool {
    if Uuid::try_parse(resource).is_ok() {
        return true;
    }
    let Some((scheme, rest)) = resource.split_once(':') else {
        return false;
    };
    let host = rest.trim_start_matches('/').split('/').next().unwrap_or_default();
    !scheme.is_empty()
        && scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
        && !host.is_empty()
        && !host.contains(char::is_whitespace)
        && !host
            .split(':')
            .next()
            .is_some_and(|name| name.ends_with(".invalid"))
}

impl Cloud {
    /// Signs a token of `principal` for `resource`.
    ///
    /// The claims are those of Entra's v1 access tokens; `xms_mirid` tells managed identities apart.
    pub(crate) fn issue(
        &self,
        principal: &Principal,
        resource: &str,
        proof: Proof,
        life: u64,
    ) -> Result<Issued, Aadsts> {
        if !exists(resource) {
            return Err(Aadsts::new(
                StatusCode::BAD_REQUEST,
                "invalid_resource",
                500_011,
                format!(
                    "The resource principal named {resource} was not found in the tenant named {}. This can happen if the application \
                     has not been installed by the administrator of the tenant or consented to by any user in the tenant. You might \
                     have sent your authentication request to the wrong tenant.",
                    self.settings.tenant
                ),
            ));
        }
        let tenant = &self.settings.tenant;
        let now = self.clock.unix_secs();
        let (not_before, expires_on) = (now, now.saturating_add(life));
        let issuer = issuer_v1(tenant);
        let mut claims = json!({
            "aud": resource, "iss": issuer, "iat": now, "nbf": not_before, "exp": expires_on,
            "aio": Uuid::new_v4().simple().to_string(),
            "appid": principal.client_id, "appidacr": if proof == Proof::Secret { "1" } else { "2" },
            "idp": issuer, "idtyp": "app", "oid": principal.object_id, "sub": principal.object_id,
            "rh": "0.", "tid": tenant, "uti": Uuid::new_v4().simple().to_string(), "ver": "1.0",
        });
        if let (Some(id), Some(claims)) = (&principal.resource_id, claims.as_object_mut()) {
            claims.insert("xms_mirid".to_owned(), Value::String(id.clone()));
        }
        let token = self.key.sign(&claims).map_err(|error| {
            Aadsts::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "server_error",
                90033,
                error.to_string(),
            )
        })?;
        Ok(Issued {
            token,
            not_before,
            expires_on,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audience_is_exactly_what_stands_before_the_suffix() {
        let of = |scope: &str| resource(&Query::parse(&format!("scope={scope}")), true);
        assert_eq!(
            of("https://management.core.windows.net//.default").unwrap(),
            "https://management.core.windows.net/"
        );
        assert_eq!(
            of("api://AzureADTokenExchange/.default").unwrap(),
            "api://AzureADTokenExchange"
        );
        assert_eq!(
            of("https://vault.azure.net/user_impersonation")
                .unwrap_err()
                .number,
            1_002_012
        );
        assert_eq!(of("/.default").unwrap_err().number, 1_002_012);
    }

    #[test]
    fn only_what_can_be_a_resource_exists() {
        for (resource, there) in [
            ("https://vault.azure.net", true),
            ("api://3b0f6a9e-4a4c-4a9b-8f65-000000000001", true),
            ("00000003-0000-0000-c000-000000000000", true),
            ("urn:x", true),
            ("https://nowhere.invalid/", false),
            ("https://nowhere.invalid:8443/", false),
            ("vault", false),
            ("https://", false),
        ] {
            assert_eq!(exists(resource), there, "{resource}");
        }
    }
}
