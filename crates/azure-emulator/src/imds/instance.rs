//! What a machine knows of itself: `/metadata/instance`, attested data and scheduled events.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::cloud::Cloud;
use crate::front::Ask;
use crate::log::Notes;
use crate::world::machine::{Kind, Machine};

use super::{bad_version, refuse};

/// The versions of the real service. Source: its documentation, "Supported API versions".
pub(crate) const VERSIONS: &[&str] = &[
    "2017-03-01",
    "2017-04-02",
    "2017-08-01",
    "2017-10-01",
    "2017-12-01",
    "2018-02-01",
    "2018-04-02",
    "2018-10-01",
    "2019-02-01",
    "2019-03-11",
    "2019-04-30",
    "2019-06-01",
    "2019-06-04",
    "2019-08-01",
    "2019-08-15",
    "2019-11-01",
    "2020-06-01",
    "2020-07-15",
    "2020-09-01",
    "2020-10-01",
    "2020-12-01",
    "2021-01-01",
    "2021-02-01",
    "2021-03-01",
    "2021-05-01",
    "2021-10-01",
    "2021-11-01",
    "2021-11-15",
    "2021-12-13",
    "2023-07-01",
    "2023-11-15",
    "2024-03-15",
    "2024-07-17",
    "2025-04-07",
];

/// `/metadata/versions`, which needs no version itself.
pub(crate) fn versions(ask: &Ask, notes: &mut Notes) -> Answer {
    if ask.method != Method::GET {
        return refuse(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "only GET is supported",
            notes,
        );
    }
    Answer::ok(json!({ "apiVersions": VERSIONS }))
}

/// `/metadata/instance` and what is inside of it.
pub(crate) fn answer(cloud: &Cloud, ask: &Ask, inside: &[&str], notes: &mut Notes) -> Answer {
    if !has_version(ask) {
        return bad_version(notes);
    }
    let document = cloud.read(|world| {
        let (machine, number) =
            world.machine_at(ask.source.ip(), cloud.settings.fallback_machine.as_deref())?;
        Some(document(cloud, machine, number, ask))
    });
    let document = document.unwrap_or_else(|| bare(ask));
    let mut at = &document;
    for part in inside {
        let next = match at {
            Value::Object(members) => members
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(part))
                .map(|(_, value)| value),
            Value::Array(items) => part.parse::<usize>().ok().and_then(|index| items.get(index)),
            _ => None,
        };
        match next {
            Some(next) => at = next,
            None => {
                return refuse(
                    StatusCode::NOT_FOUND,
                    "not_found",
                    "the element does not exist",
                    notes,
                );
            }
        }
    }
    let text = ask
        .query
        .get("format")
        .is_some_and(|format| format.eq_ignore_ascii_case("text"));
    match at {
        Value::Object(members) if text => Answer::raw(
            "text/plain; charset=utf-8",
            members
                .iter()
                .map(|(name, value)| {
                    if value.is_object() || value.is_array() {
                        format!("{name}/")
                    } else {
                        name.clone()
                    }
                })
                .collect::<Vec<_>>()
                .join("\n"),
        ),
        Value::Array(items) if text => Answer::raw(
            "text/plain; charset=utf-8",
            (0..items.len())
                .map(|index| format!("{index}/"))
                .collect::<Vec<_>>()
                .join("\n"),
        ),
        Value::Object(_) | Value::Array(_) => Answer::ok(at.clone()),
        Value::String(value) if text => Answer::raw("text/plain; charset=utf-8", value.clone()),
        _ if text => Answer::raw("text/plain; charset=utf-8", at.to_string()),
        // The real service refuses JSON for a leaf, and says what to do.
        _ => refuse(
            StatusCode::BAD_REQUEST,
            "Bad request. Use api-version and format=text for a leaf",
            "a leaf is only given as text: add format=text",
            notes,
        ),
    }
}

fn has_version(ask: &Ask) -> bool {
    ask.query
        .get("api-version")
        .is_some_and(|version| VERSIONS.contains(&version))
}

fn address(ask: &Ask) -> String {
    match ask.source.ip() {
        std::net::IpAddr::V4(address) => address.to_string(),
        std::net::IpAddr::V6(_) => String::new(),
    }
}

fn network(ask: &Ask) -> Value {
    json!({ "interface": [{
        "ipv4": {
            "ipAddress": [{ "privateIpAddress": address(ask), "publicIpAddress": "" }],
            "subnet": [{ "address": "", "prefix": "24" }],
        },
        "ipv6": { "ipAddress": [] },
        "macAddress": "",
    }] })
}

/// For a caller that is no machine yet: what every machine has.
fn bare(ask: &Ask) -> Value {
    json!({ "compute": { "azEnvironment": "AzurePublicCloud", "location": "", "name": "", "vmScaleSetName": "" }, "network": network(ask) })
}

fn document(cloud: &Cloud, machine: &Machine, number: u32, ask: &Ask) -> Value {
    let vm_id = machine
        .instances
        .iter()
        .find(|instance| instance.number == number)
        .map(|instance| instance.vm_id.clone());
    let scale_set = machine.kind == Kind::ScaleSet;
    let group = machine.id.split('/').nth(4).unwrap_or_default();
    let host = machine.instance_name(number);
    let (name, id) = if scale_set {
        (
            format!("{}_{number}", machine.name),
            format!("{}/virtualMachines/{number}", machine.id),
        )
    } else {
        (machine.name.clone(), machine.id.clone())
    };
    let size = machine
        .sku
        .get("name")
        .or_else(|| {
            machine
                .properties
                .get("hardwareProfile")
                .and_then(|profile| profile.get("vmSize"))
        })
        .and_then(Value::as_str)
        .unwrap_or("Standard_DS2_v2");
    let tags: Vec<Value> = machine
        .tags
        .iter()
        .map(|(name, value)| json!({ "name": name, "value": value }))
        .collect();
    let tag_text: Vec<String> = machine
        .tags
        .iter()
        .map(|(name, value)| format!("{name}:{}", value.as_str().unwrap_or_default()))
        .collect();
    json!({
        "compute": {
            "azEnvironment": "AzurePublicCloud",
            "isHostCompatibilityLayerVm": "false",
            "location": machine.location,
            "name": name,
            "osProfile": { "adminUsername": "azureuser", "computerName": host, "disablePasswordAuthentication": "true" },
            "osType": "Linux",
            "placementGroupId": "",
            "platformFaultDomain": "0",
            "platformUpdateDomain": "0",
            "priority": "",
            "provider": "Microsoft.Compute",
            "resourceGroupName": group,
            "resourceId": id,
            "sku": "",
            "subscriptionId": cloud.settings.subscription,
            "tags": tag_text.join(";"),
            "tagsList": tags,
            "version": "",
            "vmId": vm_id,
            "vmScaleSetName": if scale_set { machine.name.as_str() } else { "" },
            "vmSize": size,
            "zone": "",
        },
        "network": network(ask),
    })
}

/// Attested data: a document of the right shape whose signature is not Microsoft's, and says so.
pub(crate) fn attested(cloud: &Cloud, ask: &Ask, notes: &mut Notes) -> Answer {
    if !has_version(ask) {
        return bad_version(notes);
    }
    let claims = json!({
        "nonce": ask.query.get("nonce"), "subscriptionId": cloud.settings.subscription,
        "issuedBy": "azure-emulator, not Microsoft", "time": cloud.now_text(),
    });
    match cloud.key.sign(&claims) {
        Ok(token) => Answer::ok(json!({ "encoding": "jwt", "signature": STANDARD.encode(token) })),
        Err(error) => refuse(
            StatusCode::INTERNAL_SERVER_ERROR,
            "unknown",
            &error.to_string(),
            notes,
        ),
    }
}

/// No event is ever scheduled here.
pub(crate) fn scheduled_events(ask: &Ask, notes: &mut Notes) -> Answer {
    match ask.query.get("api-version") {
        None | Some("") => bad_version(notes),
        Some(_) if ask.method == Method::POST => Answer::empty(StatusCode::OK),
        Some(_) => Answer::ok(json!({ "DocumentIncarnation": 1, "Events": [] })),
    }
}
