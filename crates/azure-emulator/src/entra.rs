//! Entra as clients of tokens see it: discovery, keys and the token endpoints. Nobody signs in with a password here.

pub(crate) mod assertion;
pub(crate) mod discovery;
pub(crate) mod issuer;
pub(crate) mod refusal;
pub(crate) mod token;

use http::{HeaderName, Method, StatusCode};

use crate::answer::Answer;
use crate::cloud::Cloud;
use crate::front::Ask;
use crate::log::Notes;
use refusal::Aadsts;

/// Answers what is addressed to a tenant.
pub(crate) async fn answer(cloud: &Cloud, ask: &Ask, notes: &mut Notes) -> Answer {
    let answer = route(cloud, ask, notes).await;
    // MSAL for Java looks for the number that it gave.
    let id = ask
        .headers
        .get(CLIENT_REQUEST_ID)
        .and_then(|value| value.to_str().ok());
    match id {
        Some(id) => answer.with(HeaderName::from_static(CLIENT_REQUEST_ID), id),
        None => answer,
    }
}

const CLIENT_REQUEST_ID: &str = "client-request-id";

async fn route(cloud: &Cloud, ask: &Ask, notes: &mut Notes) -> Answer {
    let path = ask.path.lower();
    let reading = ask.method == Method::GET || ask.method == Method::HEAD;
    match path.as_slice() {
        ["common", "discovery", "instance"] if reading => discovery::instance(ask),
        [tenant, ".well-known", "openid-configuration"] if reading => {
            discovery::configuration(cloud, ask, tenant, false)
        }
        [tenant, "v2.0", ".well-known", "openid-configuration"] if reading => {
            discovery::configuration(cloud, ask, tenant, true)
        }
        [_, "discovery", "keys"] | [_, "discovery", "v2.0", "keys"] if reading => {
            Answer::ok(cloud.key.jwks(&discovery::issuer_v1(&cloud.settings.tenant)))
        }
        [tenant, "oauth2", "token"] if ask.method == Method::POST => {
            token::issue(cloud, ask, tenant, false, notes).await
        }
        [tenant, "oauth2", "v2.0", "token"] if ask.method == Method::POST => {
            token::issue(cloud, ask, tenant, true, notes).await
        }
        [_, "oauth2", "token"] | [_, "oauth2", "v2.0", "token"] => Answer::from(
            Aadsts::new(
                StatusCode::BAD_REQUEST,
                "invalid_request",
                900_561,
                format!(
                    "The endpoint only accepts POST requests. Received a {} request.",
                    ask.method
                ),
            )
            .at(cloud),
        ),
        _ => {
            cloud.log.unsupported(format!("{} {}", ask.method, ask.raw_path));
            notes.code = Some(crate::answer::UNSUPPORTED.to_owned());
            Answer::from(
                Aadsts::new(
                    StatusCode::NOT_FOUND,
                    "invalid_request",
                    900_144,
                    format!(
                        "The emulator does not know the operation '{} {}'.",
                        ask.method, ask.raw_path
                    ),
                )
                .at(cloud),
            )
        }
    }
}
