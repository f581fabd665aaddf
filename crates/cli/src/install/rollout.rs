//! Waits until the cluster has done what was asked for, and says how far it is. Watched, not polled.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DynamicObject, ListParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use super::objects;
use crate::error::CliError;
use crate::printer::Printer;

/// At most this many of what is late are named.
const NAMED: usize = 5;

/// How far something is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Progress {
    done: bool,
    text: String,
}

/// Waits until an object is as it should be: a definition is established, a DaemonSet or Deployment has rolled out.
/// Objects of other kinds are as soon as they are there.
pub(super) async fn finished(
    client: &Client,
    object: &DynamicObject,
    limit: Duration,
    printer: &mut Printer,
) -> Result<(), CliError> {
    let judge = match objects::kind(object) {
        "CustomResourceDefinition" => established,
        "DaemonSet" => on_nodes,
        "Deployment" => replicas,
        _ => return Ok(()),
    };
    let what = objects::title(object);
    let mut said = String::new();
    let mut seen = pin!(watch_object(objects::api(client, object), &object.name_any()).default_backoff());
    let watched = async {
        while let Some(next) = seen.next().await {
            // What goes wrong on the way is tried again until the time is over.
            let Ok(Some(now)) = next else { continue };
            let progress = judge(&now.data, now.metadata.generation);
            if progress.text != said {
                said.clone_from(&progress.text);
                printer.say(&format!("{what}: {said}"));
            }
            if progress.done {
                return;
            }
        }
    };
    if tokio::time::timeout(limit, watched).await.is_ok() {
        return Ok(());
    }
    Err(CliError::Unfinished {
        what,
        secs: limit.as_secs(),
        late: late(client, object).await,
    })
}

/// Waits until an object is gone.
pub(super) async fn gone(client: &Client, object: &DynamicObject, limit: Duration) -> Result<(), CliError> {
    let mut seen = pin!(watch_object(objects::api(client, object), &object.name_any()).default_backoff());
    let watched = async {
        while let Some(next) = seen.next().await {
            if matches!(next, Ok(None)) {
                return;
            }
        }
    };
    let late = || CliError::Unfinished {
        what: format!("the deletion of {}", objects::title(object)),
        secs: limit.as_secs(),
        late: object.finalizers().to_vec(),
    };
    tokio::time::timeout(limit, watched)
        .await
        .map_err(|_elapsed| late())
}

fn number(data: &Value, pointer: &str) -> i64 {
    data.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// Whether the status is about the object as it is now.
fn current(data: &Value, generation: Option<i64>) -> bool {
    generation.is_none_or(|generation| number(data, "/status/observedGeneration") >= generation)
}

fn on_nodes(data: &Value, generation: Option<i64>) -> Progress {
    let wanted = number(data, "/status/desiredNumberScheduled");
    let updated = number(data, "/status/updatedNumberScheduled");
    let ready = number(data, "/status/numberReady").min(updated);
    Progress {
        done: current(data, generation) && ready >= wanted,
        text: format!("ready on {ready} of {wanted} nodes"),
    }
}

fn replicas(data: &Value, generation: Option<i64>) -> Progress {
    let wanted = data
        .pointer("/spec/replicas")
        .and_then(Value::as_i64)
        .unwrap_or(1);
    let updated = number(data, "/status/updatedReplicas");
    let ready = number(data, "/status/availableReplicas").min(updated);
    // Those of before are gone as well.
    let all = number(data, "/status/replicas");
    Progress {
        done: current(data, generation) && ready >= wanted && all <= updated,
        text: format!("{ready} of {wanted} ready"),
    }
}

fn established(data: &Value, _generation: Option<i64>) -> Progress {
    let conditions = data.pointer("/status/conditions").and_then(Value::as_array);
    let done = conditions.into_iter().flatten().any(|condition| {
        condition.get("type").is_some_and(|kind| kind == "Established")
            && condition.get("status").is_some_and(|status| status == "True")
    });
    Progress {
        done,
        text: if done {
            "established"
        } else {
            "not yet established"
        }
        .to_owned(),
    }
}

/// Which of its pods are not ready, where, and why. Nothing when that cannot be found out.
async fn late(client: &Client, object: &DynamicObject) -> Vec<String> {
    let selector = object.data.pointer("/spec/selector/matchLabels");
    let selector: Option<BTreeMap<String, String>> =
        selector.and_then(|labels| serde_json::from_value(labels.clone()).ok());
    let (Some(selector), Some(namespace)) = (selector, object.namespace()) else {
        return Vec::new();
    };
    let labels: Vec<String> = selector
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let Ok(list) = pods.list(&ListParams::default().labels(&labels.join(","))).await else {
        return Vec::new();
    };
    list.items.iter().filter_map(trouble).take(NAMED).collect()
}

/// What keeps a pod from being ready.
fn trouble(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let conditions = status.conditions.iter().flatten();
    let mut unmet = conditions.filter(|condition| condition.status != "True");
    if !unmet.any(|condition| condition.type_ == "Ready") {
        return None;
    }
    let init = status.init_container_statuses.iter().flatten();
    let waiting = init
        .chain(status.container_statuses.iter().flatten())
        .find_map(|container| {
            let waiting = container.state.as_ref()?.waiting.as_ref()?;
            let reason = waiting.reason.clone().unwrap_or_default();
            Some(match waiting.message.as_deref() {
                Some(message) => format!("{reason}: {message}"),
                None => reason,
            })
        });
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    Some(format!(
        "{} on {}: {}",
        pod.name_any(),
        node.unwrap_or("no node"),
        waiting.unwrap_or_else(|| "not ready".to_owned())
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_of_before_the_change_is_not_done() {
        let status = json!({
            "observedGeneration": 1, "desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberReady": 2,
        });
        let data = json!({ "status": status });
        assert!(on_nodes(&data, Some(1)).done);
        assert!(!on_nodes(&data, Some(2)).done);
    }

    #[test]
    fn ready_pods_of_the_old_kind_do_not_count() {
        let status = json!({
            "observedGeneration": 2, "desiredNumberScheduled": 3, "updatedNumberScheduled": 1, "numberReady": 3,
        });
        let progress = on_nodes(&json!({ "status": status }), Some(2));
        assert_eq!(
            (progress.done, progress.text.as_str()),
            (false, "ready on 1 of 3 nodes")
        );
        let status =
            json!({ "observedGeneration": 1, "replicas": 2, "updatedReplicas": 1, "availableReplicas": 1 });
        assert!(!replicas(&json!({ "spec": { "replicas": 1 }, "status": status }), Some(1)).done);
    }

    #[test]
    fn a_pod_that_waits_says_where_and_for_what() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "podid-nmi-x" }, "spec": { "nodeName": "n1", "containers": [] },
            "status": {
                "conditions": [{ "type": "Ready", "status": "False" }],
                "containerStatuses": [{
                    "name": "nmi", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": { "waiting": { "reason": "ErrImagePull", "message": "no such image" } },
                }],
            },
        }))
        .unwrap();
        assert_eq!(
            trouble(&pod).unwrap(),
            "podid-nmi-x on n1: ErrImagePull: no such image"
        );
    }
}
