//! Columns and cells of the built-in kinds. Source: the printers of Kubernetes (`pkg/printers/internalversion`).

use jiff::Timestamp;
use serde_json::{Value, json};

use super::short;
use crate::json::{self, list, text};
use crate::resource::Resource;

/// Name, type and priority (1 is only shown in wide tables) of the columns after the name.
pub(super) fn columns(resource: &Resource) -> &'static [(&'static str, &'static str, i64)] {
    match resource.kind.as_str() {
        "Pod" => &[
            ("Ready", "string", 0),
            ("Status", "string", 0),
            ("Restarts", "string", 0),
            ("Age", "string", 0),
            ("IP", "string", 1),
            ("Node", "string", 1),
            ("Nominated Node", "string", 1),
            ("Readiness Gates", "string", 1),
        ],
        "Node" => &[
            ("Status", "string", 0),
            ("Roles", "string", 0),
            ("Age", "string", 0),
            ("Version", "string", 0),
            ("Internal-IP", "string", 1),
            ("External-IP", "string", 1),
            ("OS-Image", "string", 1),
            ("Kernel-Version", "string", 1),
            ("Container-Runtime", "string", 1),
        ],
        "Namespace" => &[("Status", "string", 0), ("Age", "string", 0)],
        "Secret" => &[
            ("Type", "string", 0),
            ("Data", "integer", 0),
            ("Age", "string", 0),
        ],
        "ConfigMap" => &[("Data", "integer", 0), ("Age", "string", 0)],
        "ServiceAccount" => &[("Age", "string", 0)],
        "Event" => &[
            ("Last Seen", "string", 0),
            ("Type", "string", 0),
            ("Reason", "string", 0),
            ("Object", "string", 0),
            ("Subobject", "string", 1),
            ("Source", "string", 1),
            ("Message", "string", 0),
            ("First Seen", "string", 1),
            ("Count", "integer", 1),
            ("Name", "string", 1),
        ],
        "Lease" => &[("Holder", "string", 0), ("Age", "string", 0)],
        "CustomResourceDefinition" => &[("Created At", "date", 0)],
        _ => &[("Age", "string", 0)],
    }
}

/// Whether the name is the last column.
pub(super) fn name_comes_last(resource: &Resource) -> bool {
    resource.kind == "Event"
}

/// The cells of an object, and conditions of its row.
pub(super) fn builtin(resource: &Resource, object: &Value, now: Timestamp) -> (Vec<Value>, Value) {
    let name = json!(json::name(object));
    let age = json!(short(text(object, &["metadata", "creationTimestamp"]), now));
    let size = |field: &str| {
        object
            .get(field)
            .and_then(Value::as_object)
            .map_or(0, serde_json::Map::len)
    };
    let mut conditions = Value::Null;
    let cells = match resource.kind.as_str() {
        "Pod" => {
            if let phase @ ("Succeeded" | "Failed") = text(object, &["status", "phase"]) {
                conditions = json!([{
                    "type": "Completed",
                    "status": "True",
                    "reason": phase,
                    "message": "The pod has completed",
                }]);
            }
            pod(object, name, age, now)
        }
        "Node" => node(object, name, age),
        "Namespace" => vec![name, json!(text(object, &["status", "phase"])), age],
        "Secret" => vec![name, json!(text(object, &["type"])), json!(size("data")), age],
        "ConfigMap" => vec![name, json!(size("data") + size("binaryData")), age],
        "ServiceAccount" => vec![name, age],
        "Event" => event(object, name, now),
        "Lease" => vec![name, json!(text(object, &["spec", "holderIdentity"])), age],
        "CustomResourceDefinition" => vec![name, json!(text(object, &["metadata", "creationTimestamp"]))],
        _ => vec![name, age],
    };
    (cells, conditions)
}

fn or_none(text: &str) -> Value {
    json!(if text.is_empty() { "<none>" } else { text })
}

fn pod(pod: &Value, name: Value, age: Value, now: Timestamp) -> Vec<Value> {
    let total = list(pod, &["spec", "containers"]).len();
    let mut status = text(pod, &["status", "reason"]).to_owned();
    if status.is_empty() {
        text(pod, &["status", "phase"]).clone_into(&mut status);
    }
    let gated = list(pod, &["status", "conditions"])
        .iter()
        .any(|one| text(one, &["type"]) == "PodScheduled" && text(one, &["reason"]) == "SchedulingGated");
    if gated {
        "SchedulingGated".clone_into(&mut status);
    }
    let (mut ready, mut restarts, mut running) = (0, 0, false);
    let mut last_restart = "";
    let mut initializing = false;
    for (index, container) in list(pod, &["status", "initContainerStatuses"]).iter().enumerate() {
        restarts += container
            .get("restartCount")
            .and_then(Value::as_i64)
            .unwrap_or_default();
        let exit = json::at(container, &["state", "terminated", "exitCode"]).and_then(Value::as_i64);
        if exit == Some(0) || initializing {
            continue;
        }
        initializing = true;
        let waiting = text(container, &["state", "waiting", "reason"]);
        status = match exit {
            Some(code) => match text(container, &["state", "terminated", "reason"]) {
                "" => format!("Init:ExitCode:{code}"),
                reason => format!("Init:{reason}"),
            },
            None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
            None => format!("Init:{index}/{}", list(pod, &["spec", "initContainers"]).len()),
        };
    }
    for container in list(pod, &["status", "containerStatuses"]).iter().rev() {
        restarts += container
            .get("restartCount")
            .and_then(Value::as_i64)
            .unwrap_or_default();
        let finished = text(container, &["lastState", "terminated", "finishedAt"]);
        if finished > last_restart {
            last_restart = finished;
        }
        if initializing {
            continue;
        }
        let waiting = text(container, &["state", "waiting", "reason"]);
        let ended = text(container, &["state", "terminated", "reason"]);
        let is_ready = container
            .get("ready")
            .and_then(Value::as_bool)
            .unwrap_or_default();
        if !waiting.is_empty() {
            waiting.clone_into(&mut status);
        } else if !ended.is_empty() {
            ended.clone_into(&mut status);
        } else if let Some(terminated) = json::at(container, &["state", "terminated"]) {
            let code = |field: &str| terminated.get(field).and_then(Value::as_i64).unwrap_or_default();
            status = match code("signal") {
                0 => format!("ExitCode:{}", code("exitCode")),
                signal => format!("Signal:{signal}"),
            };
        } else if is_ready && json::at(container, &["state", "running"]).is_some() {
            running = true;
            ready += 1;
        }
    }
    if status == "Completed" && running {
        let is_ready = list(pod, &["status", "conditions"])
            .iter()
            .any(|one| text(one, &["type"]) == "Ready" && text(one, &["status"]) == "True");
        if is_ready { "Running" } else { "NotReady" }.clone_into(&mut status);
    }
    if json::is_deleting(pod) {
        if text(pod, &["status", "reason"]) == "NodeLost" {
            "Unknown".clone_into(&mut status);
        } else if !matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut status);
        }
    }
    let restarts = if restarts > 0 && !last_restart.is_empty() {
        format!("{restarts} ({} ago)", short(last_restart, now))
    } else {
        restarts.to_string()
    };
    let ip = match text(pod, &["status", "podIP"]) {
        "" => list(pod, &["status", "podIPs"])
            .first()
            .map_or("", |one| text(one, &["ip"])),
        ip => ip,
    };
    let gates = list(pod, &["spec", "readinessGates"]);
    let gates = if gates.is_empty() {
        "<none>".to_owned()
    } else {
        let open = gates.iter().filter(|gate| {
            list(pod, &["status", "conditions"]).iter().any(|one| {
                text(one, &["type"]) == text(gate, &["conditionType"]) && text(one, &["status"]) == "True"
            })
        });
        format!("{}/{}", open.count(), gates.len())
    };
    vec![
        name,
        json!(format!("{ready}/{total}")),
        json!(status),
        json!(restarts),
        age,
        or_none(ip),
        or_none(text(pod, &["spec", "nodeName"])),
        or_none(text(pod, &["status", "nominatedNodeName"])),
        json!(gates),
    ]
}

fn node(node: &Value, name: Value, age: Value) -> Vec<Value> {
    let ready = list(node, &["status", "conditions"])
        .iter()
        .find(|one| text(one, &["type"]) == "Ready")
        .map(|one| text(one, &["status"]));
    let mut status = match ready {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if json::at(node, &["spec", "unschedulable"]).and_then(Value::as_bool) == Some(true) {
        status.push_str(",SchedulingDisabled");
    }
    let labels = json::at(node, &["metadata", "labels"]).and_then(Value::as_object);
    let mut roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) => Some(role),
                None if key == "kubernetes.io/role" => value.as_str(),
                None => None,
            },
        )
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    let address = |kind: &str| {
        list(node, &["status", "addresses"])
            .iter()
            .find(|one| text(one, &["type"]) == kind)
            .map_or("", |one| text(one, &["address"]))
    };
    let unknown = |text: &str| json!(if text.is_empty() { "<unknown>" } else { text });
    let info = |field: &str| text(node, &["status", "nodeInfo", field]);
    vec![
        name,
        json!(status),
        or_none(&roles.join(",")),
        age,
        json!(info("kubeletVersion")),
        or_none(address("InternalIP")),
        or_none(address("ExternalIP")),
        unknown(info("osImage")),
        unknown(info("kernelVersion")),
        unknown(info("containerRuntimeVersion")),
    ]
}

fn event(event: &Value, name: Value, now: Timestamp) -> Vec<Value> {
    // Both API groups store one form; the new one is served under other names.
    let pick = |old: &'static str, new: &'static str| {
        let at_old = event.get(old).filter(|value| !value.is_null());
        at_old.or_else(|| event.get(new)).cloned().unwrap_or_default()
    };
    let about = pick("involvedObject", "regarding");
    let source = pick("source", "deprecatedSource");
    let time = |value: Value| value.as_str().unwrap_or_default().to_owned();
    let event_time = time(event.get("eventTime").cloned().unwrap_or_default());
    let first = Some(time(pick("firstTimestamp", "deprecatedFirstTimestamp")))
        .filter(|time| !time.is_empty())
        .unwrap_or_else(|| event_time.clone());
    let series = json::at(event, &["series"]);
    let last = series
        .map(|series| text(series, &["lastObservedTime"]).to_owned())
        .or_else(|| Some(time(pick("lastTimestamp", "deprecatedLastTimestamp"))))
        .filter(|time| !time.is_empty())
        .unwrap_or_else(|| first.clone());
    let count = series
        .and_then(|series| series.get("count")?.as_i64())
        .or_else(|| pick("count", "deprecatedCount").as_i64())
        .unwrap_or(1);
    let reporter = time(pick("reportingComponent", "reportingController"));
    let (component, host) = match text(&source, &["component"]) {
        "" => (reporter, text(event, &["reportingInstance"])),
        component => (component.to_owned(), text(&source, &["host"])),
    };
    let component = if host.is_empty() {
        component
    } else {
        format!("{component}, {host}")
    };
    vec![
        json!(short(&last, now)),
        json!(text(event, &["type"])),
        json!(text(event, &["reason"])),
        json!(format!(
            "{}/{}",
            text(&about, &["kind"]).to_lowercase(),
            text(&about, &["name"])
        )),
        json!(text(&about, &["fieldPath"])),
        json!(component),
        json!(pick("message", "note").as_str().unwrap_or_default().trim()),
        json!(short(&first, now)),
        json!(count),
        name,
    ]
}
