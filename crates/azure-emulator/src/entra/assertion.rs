//! Client assertions: signed by a certificate of the application, or by another issuer that a federated credential names.

use crate::cloud::{Cloud, time_text};
use crate::front::Ask;
use crate::jwt::{self, PublicKey, Unverified};
use crate::world::identity::Federated;
use crate::world::principal::Principal;

use super::refusal::Aadsts;

/// The only type there is. Source: RFC 7523 section 2.2.
pub(crate) const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// What clocks may differ by. Source: Entra's own five minutes.
const SKEW_SECS: u64 = 300;
const GUIDE: &str = "https://learn.microsoft.com/entra/workload-id/workload-identity-federation";

/// Whether the assertion proves that the caller is `principal`.
pub(crate) async fn check(
    cloud: &Cloud,
    ask: &Ask,
    principal: &Principal,
    token: &str,
) -> Result<(), Aadsts> {
    let malformed = || Aadsts::client(50027, "JWT token is invalid or malformed.");
    let read = jwt::read(token).ok_or_else(malformed)?;
    let issuer = read.text("iss").ok_or_else(malformed)?;
    let subject = read.text("sub").ok_or_else(malformed)?;
    if issuer.eq_ignore_ascii_case(&principal.client_id) {
        return by_certificate(cloud, ask, principal, &read, subject);
    }
    matching(&credentials(cloud, principal), issuer, subject, &read.audiences())?;
    valid_now(cloud, &read)?;
    if read.header.alg != "RS256" {
        let text = format!(
            "Client assertion is signed with the algorithm '{}'; RS256 is required.",
            read.header.alg
        );
        return Err(Aadsts::client(50027, text));
    }
    let keys = cloud
        .issuers
        .keys(cloud, issuer, read.header.kid.as_deref())
        .await
        .map_err(|error| {
            let text = format!("Request to External OIDC endpoint failed. Issuer: '{issuer}'. {error}");
            Aadsts::client(50166, text)
        })?;
    let kid = read.header.kid.as_deref();
    let by_name =
        |(id, _): &&(Option<String>, PublicKey)| kid.is_none() || id.is_none() || id.as_deref() == kid;
    if keys.iter().filter(by_name).any(|(_, key)| read.verify(key)) {
        return Ok(());
    }
    Err(Aadsts::client(
        700_027,
        format!(
            "The certificate with identifier used to sign the client assertion is not registered on application, or the client \
             assertion contains an invalid signature. Issuer: '{issuer}', key: '{}'.",
            kid.unwrap_or("none")
        ),
    ))
}

fn credentials(cloud: &Cloud, principal: &Principal) -> Vec<Federated> {
    cloud.read(|world| {
        let identity = world
            .identity_by_client_id(&principal.client_id)
            .and_then(|key| world.identity(key));
        match (identity, world.application(&principal.client_id)) {
            (Some(identity), _) => identity.federated.values().cloned().collect(),
            (None, Some(application)) => application.federated.clone(),
            (None, None) => Vec::new(),
        }
    })
}

/// Issuer, subject and audience must be those of one credential, letter by letter; the refusal names what differs.
fn matching(known: &[Federated], issuer: &str, subject: &str, audiences: &[&str]) -> Result<(), Aadsts> {
    let refused = |number, what: &str, value: &str| {
        Err(Aadsts::client(
            number,
            format!(
                "No matching federated identity record found for presented assertion {what} '{value}'. Check your federated identity \
                 credential Subject, Audience and Issuer against the presented assertion. {GUIDE}"
            ),
        ))
    };
    if known.is_empty() {
        return Err(Aadsts::client(
            70025,
            "The client has no configured federated identity credentials.",
        ));
    }
    let of_issuer: Vec<_> = known
        .iter()
        .filter(|credential| credential.issuer == issuer)
        .collect();
    if of_issuer.is_empty() {
        return refused(700_211, "issuer", issuer);
    }
    let of_subject: Vec<_> = of_issuer
        .iter()
        .filter(|credential| credential.subject == subject)
        .collect();
    if of_subject.is_empty() {
        return refused(700_213, "subject", subject);
    }
    let accepted = |credential: &&Federated| {
        credential
            .audiences
            .iter()
            .any(|known| audiences.contains(&known.as_str()))
    };
    if !of_subject.iter().any(|credential| accepted(credential)) {
        return refused(700_212, "audience", &audiences.join(", "));
    }
    Ok(())
}

fn valid_now(cloud: &Cloud, read: &Unverified<'_>) -> Result<(), Aadsts> {
    let now = cloud.clock.unix_secs();
    let expires = read.time("exp").unwrap_or(0);
    let from = read.time("nbf").unwrap_or(0);
    if now > expires.saturating_add(SKEW_SECS) || from > now.saturating_add(SKEW_SECS) {
        return Err(Aadsts::client(
            700_024,
            format!(
                "Client assertion is not within its valid time range. Current time: {}, assertion valid from {}, expiry time of \
                 assertion {}.",
                time_text(now),
                time_text(from),
                time_text(expires)
            ),
        ));
    }
    Ok(())
}

fn by_certificate(
    cloud: &Cloud,
    ask: &Ask,
    principal: &Principal,
    read: &Unverified<'_>,
    subject: &str,
) -> Result<(), Aadsts> {
    if !subject.eq_ignore_ascii_case(&principal.client_id) {
        return Err(Aadsts::client(
            700_021,
            "Client assertion application identifier doesn't match 'client_id' parameter.",
        ));
    }
    valid_now(cloud, read)?;
    // The token endpoint as the client reached it, with or without what it added.
    let here = format!("{}{}", ask.base, ask.raw_path);
    let audience = |aud: &&str| {
        aud.split('?')
            .next()
            .is_some_and(|aud| aud.eq_ignore_ascii_case(&here))
    };
    if !read.audiences().iter().any(audience) {
        return Err(Aadsts::client(
            700_023,
            format!("Client assertion audience claim does not match Realm issuer. Expected '{here}'."),
        ));
    }
    let thumbprint = read
        .header
        .x5t
        .as_deref()
        .or(read.header.kid.as_deref())
        .unwrap_or_default()
        .trim_end_matches('=');
    let known = cloud.read(|world| {
        world
            .application(&principal.client_id)
            .map(|application| application.certificates.clone())
            .unwrap_or_default()
    });
    let by = known.iter().find(|certificate| certificate.x5t == thumbprint);
    match by {
        None => Err(Aadsts::client(
            700_027,
            format!(
                "The certificate with identifier used to sign the client assertion is not registered on application. [Reason - The \
                 key was not found., Thumbprint of key used by client: '{thumbprint}']"
            ),
        )),
        Some(certificate) => {
            let key = PublicKey {
                n: certificate.n.clone(),
                e: certificate.e.clone(),
            };
            if read.verify(&key) {
                return Ok(());
            }
            Err(Aadsts::client(
                700_027,
                "Client assertion contains an invalid signature. [Reason - The key was found.]",
            ))
        }
    }
}
