//! The control API, under `/_emulator/`: request log, faults, nodes, applications. Whoever wants it must have the
//! emulator's key; it is on the HTTPS door alone.

use std::net::IpAddr;
use std::time::Duration;

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::answer::{Answer, Outcome, Refusal};
use crate::certificate;
use crate::cloud::Cloud;
use crate::fault::Fault;
use crate::front::Ask;
use crate::path::key;
use crate::world::World;
use crate::world::identity::Federated;
use crate::world::machine::Node;
use crate::world::principal::{Application, ClientSecret};

/// The longest wait for a request, seconds.
const MAX_WAIT_SECS: u64 = 60;

/// Answers it.
pub(crate) async fn answer(cloud: &Cloud, ask: &Ask) -> Answer {
    if ask.path.lower() == ["_emulator", "ca"] {
        return Answer::raw("application/x-pem-file", cloud.ca_pem.clone());
    }
    let key = ask
        .headers
        .get("x-emulator-key")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if !ClientSecret::new(cloud.settings.control_key.as_str()).matches(key) {
        return Refusal::new(
            StatusCode::UNAUTHORIZED,
            "EmulatorKey",
            "The header x-emulator-key must have the emulator's key.",
        )
        .into();
    }
    route(cloud, ask).await.unwrap_or_else(Answer::from)
}

async fn route(cloud: &Cloud, ask: &Ask) -> Outcome {
    let path = ask.path.lower();
    let rest = path.get(1..).unwrap_or_default();
    match (ask.method.as_str(), rest) {
        ("GET", ["requests"]) => Ok(requests(cloud, ask).await),
        ("DELETE", ["requests"]) => {
            cloud.log.clear();
            Ok(Answer::empty(StatusCode::NO_CONTENT))
        }
        ("GET", ["unsupported"]) => Ok(Answer::ok(json!({ "operations": cloud.log.list_unsupported() }))),
        ("GET", ["faults"]) => Ok(Answer::ok(json!({ "faults": cloud.faults.list() }))),
        ("POST", ["faults"]) => {
            let fault: Fault = parse(ask)?;
            let id = cloud
                .faults
                .set(fault)
                .map_err(|error| Refusal::bad("InvalidFault", error.to_string()))?;
            Ok(Answer::json(StatusCode::CREATED, json!({ "id": id })))
        }
        ("DELETE", ["faults"]) => {
            cloud.faults.clear(None);
            Ok(Answer::empty(StatusCode::NO_CONTENT))
        }
        ("DELETE", ["faults", id]) => match id.parse() {
            Ok(id) if cloud.faults.clear(Some(id)) => Ok(Answer::empty(StatusCode::NO_CONTENT)),
            _ => Err(missing("fault", id)),
        },
        ("GET", ["nodes"]) => Ok(cloud.read(|world| {
            Answer::ok(json!({ "nodes": world.nodes().map(|node| shown(world, node)).collect::<Vec<_>>() }))
        })),
        ("PUT", ["nodes", _]) => {
            let wanted: NodeBody = parse(ask)?;
            let name = ask.path.shown(2).to_owned();
            cloud
                .write(|world| {
                    join(world, &name, wanted.addresses, wanted.machine.as_deref())?;
                    Ok(world
                        .node(&name)
                        .map(|node| shown(world, node))
                        .unwrap_or_default())
                })
                .map(Answer::ok)
        }
        ("DELETE", ["nodes", name]) => {
            let shown = ask.path.shown(2);
            if cloud.write(|world| world.remove_node(shown)) {
                Ok(Answer::empty(StatusCode::NO_CONTENT))
            } else {
                Err(missing("node", name))
            }
        }
        ("GET", ["applications"]) => Ok(cloud.read(|world| {
            Answer::ok(
                json!({ "applications": world.applications().map(application_body).collect::<Vec<_>>() }),
            )
        })),
        ("POST", ["applications"]) => {
            let application = application(parse(ask)?)?;
            let mut body = application_body(&application);
            if let (Some(body), Some(secret)) = (body.as_object_mut(), application.secrets.first()) {
                body.insert("clientSecret".to_owned(), json!(secret.expose()));
            }
            cloud.write(|world| world.put_application(application));
            Ok(Answer::json(StatusCode::CREATED, body))
        }
        ("DELETE", ["applications", id]) => {
            if cloud.write(|world| world.remove_application(id)) {
                Ok(Answer::empty(StatusCode::NO_CONTENT))
            } else {
                Err(missing("application", id))
            }
        }
        ("DELETE", ["tokens"]) => {
            cloud.tokens.clear();
            Ok(Answer::empty(StatusCode::NO_CONTENT))
        }
        _ => Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            "There are /_emulator/ca, requests, unsupported, faults, nodes, applications and tokens; see docs/guides/azure-emulator.md.",
        )),
    }
}

fn parse<T: serde::de::DeserializeOwned>(ask: &Ask) -> Result<T, Refusal> {
    if ask.method == Method::POST || ask.method == Method::PUT {
        return serde_json::from_slice(&ask.body).map_err(Refusal::content);
    }
    Err(Refusal::content("no body"))
}

fn missing(what: &str, name: &str) -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "NotFound",
        format!("There is no {what} '{name}'."),
    )
}

/// `?since=N` gives what came after number N, `&wait=S` waits so long for the first such request.
async fn requests(cloud: &Cloud, ask: &Ask) -> Answer {
    let number = |name: &str| {
        ask.query
            .get(name)
            .and_then(|value| value.parse::<u64>().ok())
            .unwrap_or(0)
    };
    let since = number("since");
    let wait = Duration::from_secs(number("wait").min(MAX_WAIT_SECS));
    // Over time is an empty list.
    let _in_time = tokio::time::timeout(wait, cloud.log.after(since)).await;
    Answer::ok(json!({ "requests": cloud.log.since(since), "last": cloud.log.last() }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeBody {
    addresses: Vec<IpAddr>,
    #[serde(default)]
    machine: Option<String>,
}

fn shown(world: &World, node: &Node) -> Value {
    let machine = node
        .machine
        .as_ref()
        .and_then(|(key, number)| world.machine(key).map(|machine| (machine, number)));
    json!({
        "name": node.name,
        "addresses": node.addresses,
        "machine": machine.map(|(machine, _)| &machine.id),
        "instance": machine.map(|(_, number)| number),
        "providerId": machine.map(|(machine, number)| match machine.kind {
            crate::world::machine::Kind::Vm => format!("azure://{}", machine.id),
            crate::world::machine::Kind::ScaleSet => format!("azure://{}/virtualMachines/{number}", machine.id),
        }),
    })
}

/// Makes a node known. Without a machine named it becomes one of the first cluster's, or waits for a cluster.
pub(crate) fn join(
    world: &mut World,
    name: &str,
    addresses: Vec<IpAddr>,
    machine: Option<&str>,
) -> Result<(), Refusal> {
    let before = world.node(name).and_then(|node| node.machine.clone());
    let place = match machine {
        Some(id) => {
            let at = key(id);
            if world.machine(&at).is_none() {
                return Err(missing("machine", id));
            }
            Some(at)
        }
        None => world.clusters_within("").next().and_then(|cluster| {
            let group = cluster.node_group_key();
            world
                .machines_within(&group)
                .next()
                .map(|machine| key(&machine.id))
        }),
    };
    let machine = match (before, place) {
        (Some(before), place) if place.is_none() || place.as_ref() == Some(&before.0) => Some(before),
        (_, None) => None,
        (_, Some(at)) => {
            let taken: Vec<u32> = world
                .nodes()
                .filter(|node| node.is_on(&at))
                .filter_map(|node| Some(node.machine.as_ref()?.1))
                .collect();
            let mut machine = world.machine(&at).cloned();
            let free = machine.as_ref().and_then(|machine| {
                machine
                    .instances
                    .iter()
                    .map(|instance| instance.number)
                    .find(|number| !taken.contains(number))
            });
            match (free, machine.as_mut()) {
                (Some(number), _) => Some((at, number)),
                (None, Some(machine)) if machine.kind == crate::world::machine::Kind::ScaleSet => {
                    let number = machine.instances.last().map_or(0, |last| last.number + 1);
                    machine
                        .instances
                        .push(crate::world::machine::Instance::new(number));
                    world.put_machine(machine.clone());
                    Some((at, number))
                }
                // Several addresses of one virtual machine.
                _ => Some((at, 0)),
            }
        }
    };
    world.put_node(Node {
        name: name.to_owned(),
        addresses,
        machine,
    });
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ApplicationBody {
    name: String,
    #[serde(default)]
    client_id: Option<String>,
    #[serde(default)]
    client_secret: Option<String>,
    #[serde(default)]
    certificate_pem: Option<String>,
    #[serde(default)]
    federated: Vec<Federated>,
}

/// An application with the credentials that are given, or else with a secret of its own.
fn application(body: ApplicationBody) -> Result<Application, Refusal> {
    let ApplicationBody {
        name,
        client_id,
        client_secret,
        certificate_pem,
        federated,
    } = body;
    let client_id = match client_id {
        None => Uuid::new_v4().to_string(),
        Some(id) => Uuid::try_parse(&id)
            .map_err(|_not_a_guid| Refusal::content(format!("clientId '{id}' is not a GUID")))?
            .to_string(),
    };
    let certificates =
        match certificate_pem {
            Some(pem) => vec![certificate::from_pem(&pem).ok_or_else(|| {
                Refusal::content("certificatePem is not a certificate in PEM with an RSA key")
            })?],
            None => Vec::new(),
        };
    let given = !certificates.is_empty() || !federated.is_empty();
    let secret = client_secret.or_else(|| (!given).then(|| Uuid::new_v4().simple().to_string()));
    Ok(Application {
        client_id,
        object_id: Uuid::new_v4().to_string(),
        name,
        secrets: secret.into_iter().map(ClientSecret::new).collect(),
        certificates,
        federated,
    })
}

fn application_body(application: &Application) -> Value {
    json!({ "name": application.name, "clientId": application.client_id, "objectId": application.object_id })
}
