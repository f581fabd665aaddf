//! Gives pods a node: the one with the fewest pods among those whose labels the pod selects.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;

use super::{Kubelet, event, is_over};

/// Labels of a node.
pub(crate) fn labels(node: &str) -> BTreeMap<String, String> {
    let labels = [
        ("kubernetes.io/hostname", node),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch()),
        ("kubernetes.azure.com/mode", "system"),
        ("agentpool", "nodepool1"),
    ];
    labels
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// This machine's architecture by Go's name, which Kubernetes uses.
pub(crate) fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Tries to give `pod` a node; says once in an event when there is none for it.
pub(super) async fn schedule(
    kubelet: &Kubelet,
    pod: &Arc<Pod>,
    all: &HashMap<String, Arc<Pod>>,
    complained: &mut BTreeSet<String>,
) {
    let (Some(name), Some(namespace), Some(uid)) =
        (&pod.metadata.name, &pod.metadata.namespace, &pod.metadata.uid)
    else {
        return;
    };
    if pod.metadata.deletion_timestamp.is_some() || is_over(pod) {
        return;
    }
    let api = Api::<Pod>::namespaced(kubelet.client.clone(), namespace);
    let Some(node) = pick(kubelet.nodes.keys().map(String::as_str), pod, all) else {
        if complained.insert(uid.clone()) {
            let why = format!(
                "0/{} nodes are available: they do not match the pod's node selector.",
                kubelet.nodes.len()
            );
            event::warn(kubelet, pod, "FailedScheduling", &why).await;
            let status = json!({ "metadata": { "uid": uid }, "status": { "conditions": [{
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why,
                "lastTransitionTime": super::logs::now(&kubelet.clock).strftime("%FT%TZ").to_string(),
            }] } });
            if let Err(error) = api
                .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
                .await
            {
                tracing::debug!(%error, pod = name, "the pod has gone meanwhile");
            }
        }
        return;
    };
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.clone()),
            uid: Some(uid.clone()),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    };
    let bound: Result<serde_json::Value, _> = api
        .create_subresource("binding", name, &PostParams::default(), &binding)
        .await;
    match bound {
        Ok(_) => {
            let said = format!("Successfully assigned {namespace}/{name} to {node}");
            event::tell(kubelet, pod, "Scheduled", &said).await;
        }
        // Deleted or bound meanwhile: the watch says so next.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
        Err(error) => tracing::warn!(%error, pod = name, node, "the pod cannot be bound to its node"),
    }
}

fn pick<'a>(
    nodes: impl Iterator<Item = &'a str>,
    pod: &Pod,
    all: &HashMap<String, Arc<Pod>>,
) -> Option<&'a str> {
    let selector = pod.spec.as_ref().and_then(|spec| spec.node_selector.as_ref());
    let busy = |node: &str| {
        all.values()
            .filter(|other| !is_over(other))
            .filter(|other| other.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node))
            .count()
    };
    nodes
        .filter(|node| {
            let labels = labels(node);
            selector
                .into_iter()
                .flatten()
                .all(|(key, value)| labels.get(key) == Some(value))
        })
        .min_by_key(|node| busy(node))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: serde_json::Value) -> Arc<Pod> {
        let pod = json!({ "metadata": { "name": "p" }, "spec": spec });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn a_pod_goes_to_the_emptiest_node_that_it_selects() {
        let all = HashMap::from([(
            "1".to_owned(),
            pod(json!({ "containers": [], "nodeName": "node-1" })),
        )]);
        let nodes = || ["node-1", "node-2"].into_iter();
        let linux = pod(json!({ "containers": [], "nodeSelector": { "kubernetes.io/os": "linux" } }));
        assert_eq!(pick(nodes(), &linux, &all), Some("node-2"));
        let first = pod(json!({ "containers": [], "nodeSelector": { "kubernetes.io/hostname": "node-1" } }));
        assert_eq!(pick(nodes(), &first, &all), Some("node-1"));
        let windows = pod(json!({ "containers": [], "nodeSelector": { "kubernetes.io/os": "windows" } }));
        assert_eq!(pick(nodes(), &windows, &all), None);
    }
}
