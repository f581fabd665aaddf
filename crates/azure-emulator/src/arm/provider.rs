//! Resource providers and preview features.

use http::StatusCode;
use serde_json::{Value, json};

use crate::answer::{Answer, Outcome, Refusal, list};
use crate::cloud::Cloud;
use crate::front::Ask;

/// What there is: namespace, types, api-versions to offer.
const PROVIDERS: &[(&str, &[&str], &[&str])] = &[
    (
        "Microsoft.Resources",
        &["resourceGroups", "subscriptions"],
        &["2024-11-01", "2022-09-01"],
    ),
    (
        "Microsoft.ManagedIdentity",
        &["userAssignedIdentities"],
        &["2025-05-31-preview", "2024-11-30", "2023-01-31"],
    ),
    (
        "Microsoft.Authorization",
        &["roleAssignments", "roleDefinitions"],
        &["2022-04-01"],
    ),
    (
        "Microsoft.Compute",
        &["virtualMachines", "virtualMachineScaleSets"],
        &["2026-04-01", "2024-11-01", "2019-12-01"],
    ),
    (
        "Microsoft.ContainerService",
        &["managedClusters"],
        &["2026-06-01", "2024-02-01", "2021-03-01"],
    ),
    ("Microsoft.Features", &["features"], &["2021-07-01"]),
    ("Microsoft.Network", &["virtualNetworks"], &["2024-05-01"]),
];
/// The feature that pod identity needs.
pub(crate) const POD_IDENTITY_FEATURE: &str = "microsoft.containerservice/enablepodidentitypreview";

/// Whether Azure has that namespace, as far as the emulator knows.
pub(crate) fn is_known(namespace: &str) -> bool {
    find(namespace).is_some()
}

fn find(
    namespace: &str,
) -> Option<&'static (&'static str, &'static [&'static str], &'static [&'static str])> {
    PROVIDERS
        .iter()
        .find(|(name, ..)| name.eq_ignore_ascii_case(namespace))
}

/// Answers `providers[/NAMESPACE[/register]]`.
pub(crate) fn answer(cloud: &Cloud, ask: &Ask, rest: &[&str]) -> Outcome {
    let namespace = ask.path.shown(3);
    let unknown = || {
        Refusal::new(
            StatusCode::NOT_FOUND,
            "InvalidResourceNamespace",
            format!("The resource namespace '{namespace}' is invalid."),
        )
    };
    match (ask.method.as_str(), rest) {
        ("GET", [_]) => Ok(list(
            PROVIDERS.iter().map(|(name, ..)| body(cloud, name)).collect(),
        )),
        ("GET", [_, _]) => Ok(Answer::ok(body(cloud, find(namespace).ok_or_else(unknown)?.0))),
        ("POST", [_, _, verb]) => {
            let name = find(namespace).ok_or_else(unknown)?.0;
            let key = key(cloud, name);
            let register = *verb == "register";
            cloud.write(|world| {
                if register {
                    world.unregistered.remove(&key)
                } else {
                    world.unregistered.insert(key)
                }
            });
            Ok(Answer::ok(body(cloud, name)))
        }
        _ => Err(Refusal::unsupported(&ask.method, &ask.raw_path)),
    }
}

fn key(cloud: &Cloud, name: &str) -> String {
    format!("{}/{name}", cloud.settings.subscription).to_ascii_lowercase()
}

fn body(cloud: &Cloud, name: &str) -> Value {
    let gone = cloud.read(|world| world.unregistered.contains(&key(cloud, name)));
    let (types, versions) = find(name).map_or((&[][..], &[][..]), |(_, types, versions)| (*types, *versions));
    json!({
        "id": format!("/subscriptions/{}/providers/{name}", cloud.settings.subscription),
        "namespace": name,
        "registrationState": if gone { "NotRegistered" } else { "Registered" },
        "registrationPolicy": "RegistrationRequired",
        "resourceTypes": types.iter().map(|kind| json!({
            "resourceType": kind, "apiVersions": versions, "locations": ["East US", "West US 2", "West Europe", "Korea Central"],
        })).collect::<Vec<_>>(),
    })
}

/// Answers `providers/Microsoft.Features/providers/NAMESPACE/features[/NAME[/register]]`.
pub(crate) fn features(cloud: &Cloud, ask: &Ask, rest: &[&str]) -> Outcome {
    let (namespace, feature) = (ask.path.shown(5), ask.path.shown(7));
    let key = format!("{}/{namespace}/{feature}", cloud.settings.subscription).to_ascii_lowercase();
    let state = |cloud: &Cloud| {
        cloud
            .read(|world| world.features.get(&key).cloned())
            .unwrap_or_else(|| "NotRegistered".to_owned())
    };
    match (ask.method.as_str(), rest) {
        ("GET", [_, _, "providers", _, "features"]) => {
            let prefix = format!("{}/{namespace}/", cloud.settings.subscription).to_ascii_lowercase();
            let known: Vec<(String, String)> = cloud.read(|world| {
                let all = world.features.iter().filter(|(key, _)| key.starts_with(&prefix));
                all.map(|(key, state)| (crate::path::name_of(key).to_owned(), state.clone()))
                    .collect()
            });
            Ok(list(
                known
                    .iter()
                    .map(|(name, state)| feature_body(cloud, namespace, name, state))
                    .collect(),
            ))
        }
        ("GET", [_, _, "providers", _, "features", _]) => {
            Ok(Answer::ok(feature_body(cloud, namespace, feature, &state(cloud))))
        }
        (
            "POST",
            [
                _,
                _,
                "providers",
                _,
                "features",
                _,
                verb @ ("register" | "unregister"),
            ],
        ) => {
            // The answer says what begins; it is so at the next look.
            let (now, then) = if *verb == "register" {
                ("Registering", "Registered")
            } else {
                ("Unregistering", "Unregistered")
            };
            let shown = if state(cloud) == then { then } else { now };
            cloud.write(|world| {
                world.features.insert(key.clone(), then.to_owned());
                world.touch();
            });
            Ok(Answer::ok(feature_body(cloud, namespace, feature, shown)))
        }
        _ => Err(Refusal::unsupported(&ask.method, &ask.raw_path)),
    }
}

fn feature_body(cloud: &Cloud, namespace: &str, feature: &str, state: &str) -> Value {
    json!({
        "id": format!(
            "/subscriptions/{}/providers/Microsoft.Features/providers/{namespace}/features/{feature}", cloud.settings.subscription
        ),
        "name": format!("{namespace}/{feature}"),
        "type": "Microsoft.Features/providers/features",
        "properties": { "state": state },
    })
}
