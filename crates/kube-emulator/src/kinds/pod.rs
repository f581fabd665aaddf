//! Pods: defaults, status of a new pod, what must be there, what may change.

use serde_json::{Value, json};

use super::metadata::{is_label, label_cause};
use super::{forbidden, invalid, required};
use crate::json::{self, list, text};
use crate::status::Cause;

const CONTAINER_LISTS: [&str; 2] = ["initContainers", "containers"];
/// Where a pod finds the token of its service account.
const TOKEN_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long a node may be away before its pods are evicted, in seconds. Source: DefaultTolerationSeconds admission.
const TOLERATED_SECONDS: u64 = 300;

/// Defaults of a pod. Source: `SetDefaults_PodSpec`, and the admission of service accounts, priorities and tolerations.
pub(super) fn default(pod: &mut Value) {
    for (field, value) in [
        ("restartPolicy", json!("Always")),
        ("dnsPolicy", json!("ClusterFirst")),
        ("schedulerName", json!("default-scheduler")),
        ("securityContext", json!({})),
        ("terminationGracePeriodSeconds", json!(30)),
        ("enableServiceLinks", json!(true)),
    ] {
        json::default(pod, &["spec", field], value);
    }
    for list in CONTAINER_LISTS {
        let Some(Value::Array(containers)) = pod.pointer_mut(&format!("/spec/{list}")) else {
            continue;
        };
        containers.iter_mut().for_each(default_container);
    }
}

/// What admission adds to every write of a pod: its priority, and how long it stays on a node that is away.
pub(super) fn admit(pod: &mut Value) {
    json::default(pod, &["spec", "preemptionPolicy"], "PreemptLowerPriority");
    json::default(pod, &["spec", "priority"], 0);
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = list(pod, &["spec", "tolerations"]).iter().any(|one| {
            let (of, operator) = (text(one, &["key"]), text(one, &["operator"]));
            of == key || (of.is_empty() && operator == "Exists")
        });
        if !tolerated {
            let mut tolerations = list(pod, &["spec", "tolerations"]).to_vec();
            tolerations.push(json!({
                "effect": "NoExecute",
                "key": key,
                "operator": "Exists",
                "tolerationSeconds": TOLERATED_SECONDS,
            }));
            json::set(pod, &["spec", "tolerations"], tolerations);
        }
    }
}

fn default_container(container: &mut Value) {
    let image = text(container, &["image"]);
    let tag = image
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .split_once(':')
        .map(|(_, tag)| tag);
    let latest = !image.contains('@') && tag.is_none_or(|tag| tag == "latest");
    json::default(
        container,
        &["imagePullPolicy"],
        if latest { "Always" } else { "IfNotPresent" },
    );
    json::default(container, &["terminationMessagePath"], "/dev/termination-log");
    json::default(container, &["terminationMessagePolicy"], "File");
    json::default(container, &["resources"], json!({}));
    if let Some(Value::Array(ports)) = container.get_mut("ports") {
        for port in ports {
            json::default(port, &["protocol"], "TCP");
        }
    }
    if let Some(Value::Array(env)) = container.get_mut("env") {
        for one in env {
            if json::at(one, &["valueFrom", "fieldRef"]).is_some() {
                json::default(one, &["valueFrom", "fieldRef", "apiVersion"], "v1");
            }
        }
    }
}

/// The service account of a new pod, and its status.
pub(super) fn prepare_create(pod: &mut Value) {
    let account = text(pod, &["spec", "serviceAccountName"]);
    let account = if account.is_empty() {
        text(pod, &["spec", "serviceAccount"])
    } else {
        account
    };
    let account = if account.is_empty() {
        "default".to_owned()
    } else {
        account.to_owned()
    };
    json::set(pod, &["spec", "serviceAccountName"], account.as_str());
    json::set(pod, &["spec", "serviceAccount"], account);
    admit(pod);
    let class = qos_class(pod);
    json::set(pod, &["status"], json!({ "phase": "Pending", "qosClass": class }));
}

/// Gives a new pod its account's token, the cluster's CA and its namespace as files, unless the account or the pod says
/// no. Source: the ServiceAccount admission plugin.
pub(super) fn mount_token(account: &Value, pod: &mut Value) {
    let wish = |value: Option<&Value>| value.and_then(Value::as_bool);
    let pods_own = wish(json::at(pod, &["spec", "automountServiceAccountToken"]));
    let accounts_own = wish(account.get("automountServiceAccountToken"));
    if !pods_own.or(accounts_own).unwrap_or(true) {
        return;
    }
    let name = format!("kube-api-access-{}", super::random_suffix());
    let mut mounted = false;
    for list_name in CONTAINER_LISTS {
        let Some(Value::Array(containers)) = pod.pointer_mut(&format!("/spec/{list_name}")) else {
            continue;
        };
        for container in containers {
            let mut mounts = list(container, &["volumeMounts"]).to_vec();
            if mounts
                .iter()
                .all(|mount| text(mount, &["mountPath"]) != TOKEN_FOLDER)
            {
                mounts.push(json!({ "name": name, "readOnly": true, "mountPath": TOKEN_FOLDER }));
                json::set(container, &["volumeMounts"], mounts);
                mounted = true;
            }
        }
    }
    if mounted {
        let namespace = json!({ "path": "namespace", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" } });
        let mut volumes = list(pod, &["spec", "volumes"]).to_vec();
        volumes.push(
            json!({ "name": name, "projected": { "defaultMode": 420, "sources": [
            { "serviceAccountToken": { "expirationSeconds": 3607, "path": "token" } },
            { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
            { "downwardAPI": { "items": [namespace] } },
        ] } }),
        );
        json::set(pod, &["spec", "volumes"], volumes);
    }
}

fn qos_class(pod: &Value) -> &'static str {
    let (mut any, mut all) = (false, true);
    for container in CONTAINER_LISTS.iter().flat_map(|name| list(pod, &["spec", name])) {
        for resource in ["cpu", "memory"] {
            let request = json::at(container, &["resources", "requests", resource]);
            let limit = json::at(container, &["resources", "limits", resource]);
            any |= request.is_some() || limit.is_some();
            all &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// What must be there.
pub(super) fn validate(pod: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    if list(pod, &["spec", "containers"]).is_empty() {
        causes.push(required("spec.containers", ""));
    }
    let mut names = Vec::new();
    for name in CONTAINER_LISTS {
        for (index, container) in list(pod, &["spec", name]).iter().enumerate() {
            let at = |field: &str| format!("spec.{name}[{index}].{field}");
            let container_name = text(container, &["name"]);
            if container_name.is_empty() {
                causes.push(required(&at("name"), ""));
            } else if !is_label(container_name) {
                causes.push(label_cause(&at("name"), container_name));
            } else if names.contains(&container_name) {
                causes.push(Cause {
                    reason: "FieldValueDuplicate",
                    message: format!("Duplicate value: {container_name:?}"),
                    field: at("name"),
                });
            }
            names.push(container_name);
            if text(container, &["image"]).is_empty() {
                causes.push(required(&at("image"), ""));
            }
            for (place, one) in list(container, &["env"]).iter().enumerate() {
                if text(one, &["name"]).is_empty() {
                    causes.push(required(&at(&format!("env[{place}].name")), ""));
                }
            }
        }
    }
    let policy = text(pod, &["spec", "restartPolicy"]);
    if !matches!(policy, "Always" | "OnFailure" | "Never") {
        causes.push(Cause {
            reason: "FieldValueNotSupported",
            message: format!(
                "Unsupported value: {policy:?}: supported values: \"Always\", \"OnFailure\", \"Never\""
            ),
            field: "spec.restartPolicy".to_owned(),
        });
    }
    if let Some(seconds) = json::at(pod, &["spec", "terminationGracePeriodSeconds"]).and_then(Value::as_i64)
        && seconds < 0
    {
        causes.push(invalid(
            "spec.terminationGracePeriodSeconds",
            &json!(seconds),
            "must be greater than or equal to 0",
        ));
    }
    causes
}

/// Only images, the deadline, more tolerations and a shorter grace may change.
pub(super) fn validate_update(before: &Value, after: &Value) -> Vec<Cause> {
    let mut allowed = after.clone();
    for list_name in CONTAINER_LISTS {
        let old = list(before, &["spec", list_name]);
        if let Some(Value::Array(containers)) = allowed.pointer_mut(&format!("/spec/{list_name}")) {
            for (container, old) in containers.iter_mut().zip(old) {
                json::carry(old, container, &["image"]);
            }
        }
    }
    let old_tolerations = list(before, &["spec", "tolerations"]);
    let kept = list(after, &["spec", "tolerations"]);
    if old_tolerations.iter().all(|one| kept.contains(one)) {
        json::carry(before, &mut allowed, &["spec", "tolerations"]);
    }
    json::carry(before, &mut allowed, &["spec", "activeDeadlineSeconds"]);
    let gates = list(before, &["spec", "schedulingGates"]);
    if list(after, &["spec", "schedulingGates"])
        .iter()
        .all(|gate| gates.contains(gate))
    {
        json::carry(before, &mut allowed, &["spec", "schedulingGates"]);
    }
    let (old, new) = (before.get("spec"), allowed.get("spec"));
    if json::same(old.unwrap_or(&Value::Null), new.unwrap_or(&Value::Null)) {
        return Vec::new();
    }
    vec![forbidden(
        "spec",
        "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
         `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
         `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
    )]
}

/// `podIP` and the first of `podIPs` are one value; who writes only the first means both.
pub(super) fn settle_addresses(pod: &mut Value) {
    let ip = text(pod, &["status", "podIP"]).to_owned();
    let first = list(pod, &["status", "podIPs"])
        .first()
        .map(|one| text(one, &["ip"]).to_owned());
    match (ip.is_empty(), first) {
        (false, first) if first.as_deref() != Some(&ip) => {
            json::set(pod, &["status", "podIPs"], json!([{ "ip": ip }]));
        }
        (true, Some(first)) => json::set(pod, &["status", "podIP"], first),
        _ => {}
    }
}
