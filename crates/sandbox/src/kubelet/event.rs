//! Events on pods, where people look (`kubectl describe pod`).

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use super::Kubelet;
use super::logs::now;

/// Something went as it should.
pub(super) async fn tell(kubelet: &Kubelet, pod: &Pod, reason: &str, message: &str) {
    post(kubelet, pod, "Normal", reason, message).await;
}

/// Something did not.
pub(super) async fn warn(kubelet: &Kubelet, pod: &Pod, reason: &str, message: &str) {
    tracing::warn!(
        namespace = pod.metadata.namespace,
        pod = pod.metadata.name,
        reason,
        message,
        "a pod is in trouble"
    );
    post(kubelet, pod, "Warning", reason, message).await;
}

async fn post(kubelet: &Kubelet, pod: &Pod, kind: &str, reason: &str, message: &str) {
    let metadata = &pod.metadata;
    let (Some(name), Some(namespace)) = (&metadata.name, &metadata.namespace) else {
        return;
    };
    let time = now(&kubelet.clock).strftime("%FT%TZ").to_string();
    let event = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": { "name": format!("{name}.{}", uuid::Uuid::new_v4().simple()), "namespace": namespace },
        "involvedObject": {
            "apiVersion": "v1", "kind": "Pod", "name": name, "namespace": namespace, "uid": metadata.uid,
        },
        "type": kind,
        "reason": reason,
        "message": message,
        "source": { "component": "podid-sandbox" },
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    });
    let posted = match serde_json::from_value::<Event>(event) {
        Ok(event) => {
            Api::<Event>::namespaced(kubelet.client.clone(), namespace)
                .create(&PostParams::default(), &event)
                .await
        }
        Err(error) => Err(kube::Error::SerdeError(error)),
    };
    if let Err(error) = posted {
        // The namespace may be on its way out; the pod does not depend on its events.
        tracing::debug!(%error, reason, "an event cannot be written");
    }
}
