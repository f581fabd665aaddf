//! The body of a managed cluster: what a PUT may say, what the server fills in and keeps, and the refusals of the pod
//! identity profile. Rules: what az 2.91.0 sends and what people saw of the real service.

use std::collections::HashSet;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::answer::Refusal;
use crate::cloud::Cloud;
use crate::world::World;
use crate::world::cluster::{Cluster, EXCEPTIONS, IDENTITIES, place};

use super::provider::POD_IDENTITY_FEATURE;
use super::{location, text};

/// Entries of each list. Source: the AKS tutorial's limits.
const MAX_ENTRIES: usize = 200;
/// The version of a cluster that names none.
const KUBERNETES_VERSION: &str = "1.32.7";
/// The size of machines for which none is named.
const VM_SIZE: &str = "Standard_DS2_v2";
/// What only the server writes; a PUT may send it back.
const READ_ONLY: [&str; 9] = [
    "provisioningState",
    "powerState",
    "fqdn",
    "privateFQDN",
    "azurePortalFQDN",
    "currentKubernetesVersion",
    "maxAgentPools",
    "resourceUID",
    "identityProfile",
];

/// What a PUT makes of a cluster.
pub(super) struct Draft {
    pub(super) properties: Map<String, Value>,
    pub(super) location: String,
    pub(super) node_group: String,
}

/// Eight digits that are the same for the same cluster.
pub(super) fn number(id: &str) -> u32 {
    let hash = id
        .to_ascii_lowercase()
        .bytes()
        .fold(2_166_136_261_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(16_777_619)
        });
    hash % 100_000_000
}

/// The properties after a PUT.
pub(super) fn compose(
    cloud: &Cloud,
    world: &World,
    before: Option<&Cluster>,
    wanted: &Value,
    name: &str,
    group: &str,
) -> Result<Draft, Refusal> {
    let location = match (before, location(wanted)) {
        (_, Ok(location)) => location,
        (Some(before), Err(_)) => before.location.clone(),
        (None, Err(refusal)) => return Err(refusal),
    };
    if let Some(before) = before.filter(|before| before.location != location) {
        let text = format!(
            "The location '{location}' differs from the cluster's '{}', which cannot be changed.",
            before.location
        );
        return Err(Refusal::bad("PropertyChangeNotAllowed", text).about("location"));
    }
    let empty = Map::new();
    let given = wanted
        .get("properties")
        .and_then(Value::as_object)
        .unwrap_or(&empty);
    let mut properties = before.map(|before| before.properties.clone()).unwrap_or_default();
    for (member, value) in given {
        match (member.as_str(), value) {
            (member, _) if READ_ONLY.contains(&member) => {}
            ("nodeResourceGroup", _) if before.is_some() => {}
            ("kubernetesVersion" | "dnsPrefix", Value::String(text)) if text.is_empty() => {}
            ("podIdentityProfile", _) => {}
            ("oidcIssuerProfile" | "networkProfile", Value::Object(new)) => {
                let mut merged = properties
                    .get(member)
                    .and_then(Value::as_object)
                    .cloned()
                    .unwrap_or_default();
                merged.extend(
                    new.iter()
                        .filter(|(_, value)| !value.is_null())
                        .map(|(key, value)| (key.clone(), value.clone())),
                );
                properties.insert(member.clone(), Value::Object(merged));
            }
            (_, Value::Null) => {
                properties.remove(member);
            }
            _ => {
                properties.insert(member.clone(), value.clone());
            }
        }
    }
    let node_group = text(&Value::Object(properties.clone()), "/nodeResourceGroup").map_or_else(
        || {
            before.map_or_else(
                || node_group(group, name, &location),
                |before| before.node_group.clone(),
            )
        },
        str::to_owned,
    );
    fill(cloud, &mut properties, name, group, &location, &node_group);
    if let Some(profile) = given
        .get("podIdentityProfile")
        .filter(|profile| !profile.is_null())
    {
        let identity = wanted
            .get("identity")
            .and_then(|identity| text(identity, "/type"));
        let managed = match identity {
            Some(kind) => !kind.eq_ignore_ascii_case("none"),
            None => before.is_some_and(|before| before.acts_as().is_some()),
        };
        let profile = profile_of(
            cloud,
            world,
            before.is_none(),
            profile,
            &properties,
            managed,
            (name, group),
        )?;
        properties.insert("podIdentityProfile".to_owned(), Value::Object(profile));
    }
    Ok(Draft {
        properties,
        location,
        node_group,
    })
}

/// `MC_group_name_location`, at most 80 characters as in Azure.
fn node_group(group: &str, name: &str, location: &str) -> String {
    format!("MC_{group}_{name}_{location}").chars().take(80).collect()
}

/// What the server fills in.
fn fill(
    cloud: &Cloud,
    properties: &mut Map<String, Value>,
    name: &str,
    group: &str,
    location: &str,
    node_group: &str,
) {
    let mut default = |member: &str, value: Value| {
        properties.entry(member).or_insert(value);
    };
    let prefix: String = format!("{name}-{group}")
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .take(45)
        .collect();
    default("kubernetesVersion", json!(KUBERNETES_VERSION));
    default("dnsPrefix", json!(prefix));
    default("enableRBAC", json!(true));
    default("maxAgentPools", json!(100));
    default("servicePrincipalProfile", json!({ "clientId": "msi" }));
    default("powerState", json!({ "code": "Running" }));
    default("nodeResourceGroup", json!(node_group));
    default(
        "agentPoolProfiles",
        json!([{ "name": "nodepool1", "count": 3, "mode": "System" }]),
    );
    let of_name = number(&format!("{}/{group}/{name}", cloud.settings.subscription));
    let dns = properties
        .get("dnsPrefix")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_ascii_lowercase();
    properties
        .entry("fqdn")
        .or_insert_with(|| json!(format!("{dns}-{of_name:08x}.hcp.{location}.azmk8s.io")));
    let version = properties.get("kubernetesVersion").cloned().unwrap_or_default();
    properties.insert("currentKubernetesVersion".to_owned(), version.clone());
    // `az` without --network-plugin names none, and the tutorial's cluster is then kubenet.
    let network = properties.entry("networkProfile").or_insert_with(|| json!({}));
    if let Some(network) = network.as_object_mut() {
        for (member, value) in [
            ("networkPlugin", json!("kubenet")),
            ("loadBalancerSku", json!("standard")),
            ("outboundType", json!("loadBalancer")),
            ("serviceCidr", json!("10.0.0.0/16")),
            ("dnsServiceIP", json!("10.0.0.10")),
            ("ipFamilies", json!(["IPv4"])),
        ] {
            network.entry(member).or_insert(value);
        }
    }
    if let Some(issuer) = properties
        .get_mut("oidcIssuerProfile")
        .and_then(Value::as_object_mut)
        && issuer.get("enabled") == Some(&json!(true))
    {
        let tenant = &cloud.settings.tenant;
        issuer.entry("issuerURL").or_insert_with(|| {
            json!(format!(
                "https://{location}.oic.prod-aks.azure.com/{tenant}/{}/",
                Uuid::new_v4()
            ))
        });
    }
    if let Some(pools) = properties
        .get_mut("agentPoolProfiles")
        .and_then(Value::as_array_mut)
    {
        for pool in pools.iter_mut().filter_map(Value::as_object_mut) {
            for (member, value) in [
                ("vmSize", json!(VM_SIZE)),
                ("orchestratorVersion", version.clone()),
            ] {
                let blank = pool
                    .get(member)
                    .is_none_or(|value| value.is_null() || value == "");
                if blank {
                    pool.insert(member.to_owned(), value);
                }
            }
            for (member, value) in [
                ("count", json!(1)),
                ("osType", json!("Linux")),
                ("mode", json!("System")),
                ("type", json!("VirtualMachineScaleSets")),
            ] {
                pool.entry(member).or_insert(value);
            }
            pool.insert("currentOrchestratorVersion".to_owned(), version.clone());
            pool.insert("provisioningState".to_owned(), json!("Succeeded"));
            pool.insert("powerState".to_owned(), json!({ "code": "Running" }));
        }
    }
}

/// The profile without what only the server writes, or one of the real service's refusals.
fn profile_of(
    cloud: &Cloud,
    world: &World,
    creating: bool,
    wanted: &Value,
    properties: &Map<String, Value>,
    managed: bool,
    (name, group): (&str, &str),
) -> Result<Map<String, Value>, Refusal> {
    let wanted = wanted
        .as_object()
        .ok_or_else(|| Refusal::content("podIdentityProfile is not an object"))?;
    if wanted.get("enabled") != Some(&json!(true)) {
        return Ok([("enabled".to_owned(), json!(false))].into_iter().collect());
    }
    let flag = format!("{}/{POD_IDENTITY_FEATURE}", cloud.settings.subscription).to_ascii_lowercase();
    if cloud.settings.require_features
        && world
            .features
            .get(&flag)
            .is_none_or(|state| state != "Registered")
    {
        return Err(Refusal::bad(
            "PodIdentityAddonFeatureFlagNotEnabled",
            format!(
                "Provisioning of resource(s) for container service {name} in resource group {group} failed. Message: PodIdentity addon is \
                 not allowed since feature 'Microsoft.ContainerService/EnablePodIdentityPreview' is not enabled."
            ),
        ));
    }
    if !managed {
        return Err(Refusal::bad(
            "BadRequest",
            "PodIdentity addon requires managed identity.",
        ));
    }
    let plugin = properties
        .get("networkProfile")
        .and_then(|network| text(network, "/networkPlugin"))
        .unwrap_or_default();
    let consent = wanted.get("allowNetworkPluginKubenet") == Some(&json!(true));
    if plugin.eq_ignore_ascii_case("kubenet") && !consent {
        return Err(Refusal::bad(
            "BadRequest",
            "Network plugin kubenet is not supported to use with PodIdentity addon.",
        ));
    }
    let identities = list(wanted, IDENTITIES)?;
    if creating && !identities.is_empty() {
        return Err(Refusal::bad(
            "PodIdentityAddonUserAssignedIdentitiesNotAllowedInCreation",
            "PodIdentity addon does not support assigning pod identities on creation.",
        ));
    }
    let mut profile = Map::new();
    profile.insert("enabled".to_owned(), json!(true));
    if let Some(consent) = wanted
        .get("allowNetworkPluginKubenet")
        .filter(|consent| !consent.is_null())
    {
        profile.insert("allowNetworkPluginKubenet".to_owned(), consent.clone());
    }
    let identities: Vec<Value> = identities.iter().map(identity).collect::<Result<_, _>>()?;
    let exceptions: Vec<Value> = list(wanted, EXCEPTIONS)?
        .iter()
        .map(exception)
        .collect::<Result<_, _>>()?;
    for (member, entries) in [(IDENTITIES, identities), (EXCEPTIONS, exceptions)] {
        unique(member, &entries)?;
        // The real service answers null for none.
        if !entries.is_empty() {
            profile.insert(member.to_owned(), Value::Array(entries));
        }
    }
    Ok(profile)
}

fn list<'a>(profile: &'a Map<String, Value>, member: &str) -> Result<&'a [Value], Refusal> {
    match profile.get(member) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(entries)) if entries.len() <= MAX_ENTRIES => Ok(entries),
        Some(Value::Array(entries)) => Err(Refusal::bad(
            "BadRequest",
            format!("podIdentityProfile.{member} has {} entries; at most {MAX_ENTRIES} are allowed for a cluster.", entries.len()),
        )
        .about(member)),
        Some(_) => Err(Refusal::content(format!("podIdentityProfile.{member} is not a list"))),
    }
}

/// Namespace and name; a missing name is made up, as the real service does for `az … add` without `--name`.
fn placed(entry: &Value, prefix: &str) -> Result<Map<String, Value>, Refusal> {
    let namespace = text(entry, "/namespace")
        .ok_or_else(|| Refusal::bad("BadRequest", "namespace is required.").about("namespace"))?;
    let name = text(entry, "/name").map_or_else(
        || {
            let random: String = Uuid::new_v4().simple().to_string().chars().take(8).collect();
            format!("{prefix}-{random}")
        },
        str::to_owned,
    );
    for (what, value) in [("namespace", namespace), ("name", name.as_str())] {
        let fits = |c: char| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || (c == '.' && what == "name")
        };
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        if value.len() > 253
            || !value.chars().all(fits)
            || !ends(value.chars().next())
            || !ends(value.chars().last())
        {
            return Err(Refusal::bad(
                "BadRequest",
                format!("{what} '{value}' is not a valid Kubernetes name."),
            )
            .about(what));
        }
    }
    Ok([
        ("name".to_owned(), json!(name)),
        ("namespace".to_owned(), json!(namespace)),
    ]
    .into_iter()
    .collect())
}

fn identity(entry: &Value) -> Result<Value, Refusal> {
    let mut clean = placed(entry, "podidentity")?;
    let id = text(entry, "/identity/resourceId").ok_or_else(|| {
        Refusal::bad("BadRequest", "identity.resourceId is required.").about("identity.resourceId")
    })?;
    let parts: Vec<String> = id.split('/').map(str::to_ascii_lowercase).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let [
        "",
        "subscriptions",
        _,
        "resourcegroups",
        _,
        "providers",
        "microsoft.managedidentity",
        "userassignedidentities",
        name,
    ] = parts.as_slice()
    else {
        return Err(Refusal::bad(
            "BadRequest",
            format!("identity.resourceId '{id}' is not the id of a user-assigned identity."),
        )
        .about("identity.resourceId"));
    };
    debug_assert!(!name.contains('/'), "split at slashes");
    if let Some(selector) = text(entry, "/bindingSelector") {
        clean.insert("bindingSelector".to_owned(), json!(selector));
    }
    clean.insert(
        "identity".to_owned(),
        entry.get("identity").cloned().unwrap_or_default(),
    );
    Ok(Value::Object(clean))
}

fn exception(entry: &Value) -> Result<Value, Refusal> {
    let mut clean = placed(entry, "podidentityexception")?;
    let labels = match entry.get("podLabels") {
        None | Some(Value::Null) => json!({}),
        Some(Value::Object(labels)) if labels.values().all(Value::is_string) => json!(labels),
        Some(_) => {
            return Err(
                Refusal::bad("BadRequest", "podLabels must be an object of texts.").about("podLabels"),
            );
        }
    };
    clean.insert("podLabels".to_owned(), labels);
    Ok(Value::Object(clean))
}

/// How the real service answers two of one name is not known; here it is refused, since only one could be in force.
fn unique(member: &str, entries: &[Value]) -> Result<(), Refusal> {
    let mut seen = HashSet::new();
    match entries.iter().find(|entry| !seen.insert(place(entry))) {
        None => Ok(()),
        Some(twin) => {
            let (namespace, name) = place(twin);
            Err(Refusal::bad(
                "BadRequest",
                format!("podIdentityProfile.{member} has '{namespace}/{name}' more than once."),
            )
            .about(member))
        }
    }
}
