//! Discovery documents. Endpoints are where the client reached us, since only that is sure to be reachable for it.

use http::StatusCode;
use serde_json::json;

use crate::answer::Answer;
use crate::cloud::Cloud;
use crate::front::Ask;

use super::refusal::Aadsts;

/// Names under which any tenant goes.
const ANY: [&str; 3] = ["common", "organizations", "consumers"];

/// `iss` of v1 tokens, in Entra's own form.
pub(crate) fn issuer_v1(tenant: &str) -> String {
    format!("https://sts.windows.net/{tenant}/")
}

/// Whether the tenant is ours, or a name for any.
pub(crate) fn is_tenant(cloud: &Cloud, tenant: &str) -> bool {
    ANY.contains(&tenant) || tenant.eq_ignore_ascii_case(&cloud.settings.tenant)
}

/// No such tenant.
pub(crate) fn no_tenant(tenant: &str) -> Aadsts {
    Aadsts::new(
        StatusCode::BAD_REQUEST,
        "invalid_request",
        90002,
        format!(
            "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud. \
             Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant."
        ),
    )
}

/// `openid-configuration`.
pub(crate) fn configuration(cloud: &Cloud, ask: &Ask, tenant: &str, v2: bool) -> Answer {
    if !is_tenant(cloud, tenant) {
        return no_tenant(tenant).at(cloud).into();
    }
    let base = format!("{}/{tenant}", ask.base);
    let (part, issuer) = if v2 {
        (
            "/oauth2/v2.0",
            format!("https://login.microsoftonline.com/{}/v2.0", cloud.settings.tenant),
        )
    } else {
        ("/oauth2", issuer_v1(&cloud.settings.tenant))
    };
    let keys = if v2 {
        "/discovery/v2.0/keys"
    } else {
        "/discovery/keys"
    };
    Answer::ok(json!({
        "token_endpoint": format!("{base}{part}/token"),
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
        "jwks_uri": format!("{base}{keys}"),
        "response_modes_supported": ["query", "fragment", "form_post"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "issuer": issuer,
        "request_uri_parameter_supported": false,
        "authorization_endpoint": format!("{base}{part}/authorize"),
        "device_authorization_endpoint": format!("{base}{part}/devicecode"),
        "claims_supported": ["sub", "iss", "aud", "exp", "iat", "nbf", "appid", "oid", "tid", "ver"],
        "tenant_region_scope": null,
        "cloud_instance_name": "microsoftonline.com",
    }))
}

/// Instance discovery: every host that asks is one of ours.
pub(crate) fn instance(ask: &Ask) -> Answer {
    let host = ask
        .host
        .rsplit_once(':')
        .map_or(ask.host.as_str(), |(name, _)| name);
    let tenant = ask
        .query
        .get("authorization_endpoint")
        .and_then(|url| url.split('/').nth(3))
        .unwrap_or("common")
        .to_owned();
    Answer::ok(json!({
        "tenant_discovery_endpoint": format!("{}/{tenant}/v2.0/.well-known/openid-configuration", ask.base),
        "api-version": "1.1",
        "metadata": [{ "preferred_network": host, "preferred_cache": host, "aliases": [host] }],
    }))
}
