//! Federated credentials of a managed identity.

use http::StatusCode;

use crate::answer::{Answer, Outcome, Refusal};
use crate::cloud::Cloud;
use crate::front::Ask;
use crate::world::identity::{Federated, MAX_FEDERATED};

use super::{Place, identity, page, text};

const KIND: &str = "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials";

/// Answers it.
pub(crate) fn answer(cloud: &Cloud, ask: &Ask, place: &Place) -> Outcome {
    let path = ask.path.lower();
    let key = ask.path.join_lower(place.id_len());
    let at = place.id_len() + 1;
    let (name, lower) = (ask.path.shown(at), ask.path.shown(at).to_ascii_lowercase());
    let of = cloud
        .read(|world| world.identity(&key).map(|identity| identity.id.clone()))
        .ok_or_else(|| identity::missing(ask, place))?;
    let missing = || {
        Refusal::resource_not_found(
            KIND,
            &format!("{}/{name}", place.name(ask)),
            place.group.as_deref().unwrap_or_default(),
        )
    };
    match (ask.method.as_str(), place.after(&path)) {
        ("GET", [_, _]) => Ok(cloud.read(|world| {
            let all = world
                .identity(&key)
                .into_iter()
                .flat_map(|identity| identity.federated.values());
            page(ask, all, |credential| credential.body(&of))
        })),
        ("GET", [_, _, _]) => cloud
            .read(|world| {
                world
                    .identity(&key)?
                    .federated
                    .get(&lower)
                    .map(|credential| credential.body(&of))
            })
            .map(Answer::ok)
            .ok_or_else(missing),
        ("PUT", [_, _, _]) => {
            let credential = parse(ask, name)?;
            cloud.write(|world| {
                let identity = world
                    .identity_mut(&key)
                    .ok_or_else(|| identity::missing(ask, place))?;
                let before = identity.federated.contains_key(&lower);
                allowed(identity.federated.iter(), &lower, &credential)?;
                let body = credential.body(&of);
                identity.federated.insert(lower.clone(), credential);
                Ok(Answer::json(
                    if before {
                        StatusCode::OK
                    } else {
                        StatusCode::CREATED
                    },
                    body,
                ))
            })
        }
        ("DELETE", [_, _, _]) => {
            let gone = cloud.write(|world| {
                world
                    .identity_mut(&key)
                    .and_then(|identity| identity.federated.remove(&lower))
            });
            Ok(Answer::empty(if gone.is_some() {
                StatusCode::OK
            } else {
                StatusCode::NO_CONTENT
            }))
        }
        _ => Err(Refusal::unsupported(&ask.method, &ask.raw_path)),
    }
}

fn parse(ask: &Ask, name: &str) -> Result<Federated, Refusal> {
    let body = ask.json()?;
    let needed = |member: &str| {
        text(&body, &format!("/properties/{member}"))
            .map(str::to_owned)
            .ok_or_else(|| {
                Refusal::bad("BadRequest", format!("The property '{member}' is required.")).about(member)
            })
    };
    let audiences: Vec<String> = body
        .pointer("/properties/audiences")
        .and_then(serde_json::Value::as_array)
        .map(|all| {
            all.iter()
                .filter_map(|one| one.as_str().map(str::to_owned))
                .collect()
        })
        .unwrap_or_default();
    if audiences.len() != 1 {
        return Err(Refusal::bad(
            "BadRequest",
            "The property 'audiences' must have exactly one value.",
        )
        .about("audiences"));
    }
    let issuer = needed("issuer")?;
    if !issuer.starts_with("https://") {
        return Err(Refusal::bad(
            "BadRequest",
            format!("The issuer '{issuer}' must be an https URL."),
        )
        .about("issuer"));
    }
    Ok(Federated {
        name: name.to_owned(),
        issuer,
        subject: needed("subject")?,
        audiences,
    })
}

/// At most so many, and no two with the same issuer and subject.
fn allowed<'a>(
    known: impl ExactSizeIterator<Item = (&'a String, &'a Federated)>,
    lower: &str,
    new: &Federated,
) -> Result<(), Refusal> {
    let (mut count, mut twin) = (0, None);
    for (name, credential) in known {
        if name != lower {
            count += 1;
            if credential.issuer == new.issuer && credential.subject == new.subject {
                twin = Some(credential.name.clone());
            }
        }
    }
    if let Some(twin) = twin {
        return Err(Refusal::new(
            StatusCode::CONFLICT,
            "Conflict",
            format!("Issuer and subject combination already exists for this Managed Identity, in '{twin}'."),
        ));
    }
    if count >= MAX_FEDERATED {
        return Err(Refusal::bad(
            "BadRequest",
            format!(
                "Too many Federated Identity Credentials: at most {MAX_FEDERATED} are allowed for a Managed Identity."
            ),
        ));
    }
    Ok(())
}
