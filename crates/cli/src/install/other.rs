//! Who else intercepts the metadata service in this cluster: an aad-pod-identity, another podid, or a podid that Helm
//! looks after. The chart refuses with the same sentences. What runs on a node without an object in the cluster is the
//! agent's to find.

use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::Value;

/// Where Helm says whose an object is.
const RELEASE_NAME: &str = "meta.helm.sh/release-name";
const RELEASE_NAMESPACE: &str = "meta.helm.sh/release-namespace";

/// A part of somebody else's interceptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// aad-pod-identity's node agent
    Nmi,
    /// aad-pod-identity's controller
    Mic,
    /// podid's agent
    Agent,
}

/// Why podid's agent cannot be `own` (namespace, name) beside these; none when it can.
pub(super) fn refusal(workloads: &[DynamicObject], own: (&str, &str)) -> Option<String> {
    workloads.iter().find_map(|workload| {
        let (namespace, name) = (workload.namespace().unwrap_or_default(), workload.name_any());
        match part(workload)? {
            Part::Nmi => Some(format!(
                "aad-pod-identity already intercepts the metadata service here: its NMI is DaemonSet {namespace}/{name}; \
                 remove it first (helm uninstall aad-pod-identity, or az aks update --disable-pod-identity), then install podid"
            )),
            Part::Mic => Some(format!(
                "aad-pod-identity already assigns identities here: its MIC is Deployment {namespace}/{name}; remove it \
                 first (helm uninstall aad-pod-identity), then install podid"
            )),
            Part::Agent if (namespace.as_str(), name.as_str()) == own => helm(workload).map(|release| {
                format!("podid was installed by Helm here: use `helm upgrade {release}`, or `helm uninstall {release}` first")
            }),
            Part::Agent => Some(format!(
                "podid already intercepts the metadata service here: its agent is DaemonSet {namespace}/{name}; upgrade \
                 that one, or uninstall it first"
            )),
        }
    })
}

/// The Helm release that it belongs to, as arguments of helm.
pub(super) fn helm(workload: &DynamicObject) -> Option<String> {
    let annotations = workload.annotations();
    let release = annotations.get(RELEASE_NAME)?;
    let namespace = annotations.get(RELEASE_NAMESPACE)?;
    Some(format!("{release} -n {namespace}"))
}

/// What a DaemonSet or Deployment is. Known by its image, and where that was mirrored under another name by its labels
/// (of aad-pod-identity v1.8.17: chart and plain manifests).
fn part(workload: &DynamicObject) -> Option<Part> {
    let label = |name: &str| workload.labels().get(name).map(String::as_str);
    let labelled =
        label("app.kubernetes.io/name") == Some("aad-pod-identity") || label("k8s-app") == Some("aad-pod-id");
    let component = label("app.kubernetes.io/component").or_else(|| label("component"));
    match component {
        Some("nmi") if labelled => return Some(Part::Nmi),
        Some("mic") if labelled => return Some(Part::Mic),
        _ => {}
    }
    images(workload).find_map(|image| {
        // A registry may have a port, so the tag is behind the last slash.
        let (path, last) = image.rsplit_once('/')?;
        let name = last.split([':', '@']).next().unwrap_or(last);
        let original = path.ends_with("aad-pod-identity");
        match name {
            "nmi" if original => Some(Part::Nmi),
            "mic" if original => Some(Part::Mic),
            "podid-nmi" => Some(Part::Agent),
            _ => None,
        }
    })
}

fn images(workload: &DynamicObject) -> impl Iterator<Item = &str> {
    let containers = workload.data.pointer("/spec/template/spec/containers");
    let containers = containers.and_then(Value::as_array).into_iter().flatten();
    containers.filter_map(|container| container.get("image").and_then(Value::as_str))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn workload(name: &str, labels: Value, image: &str) -> DynamicObject {
        serde_json::from_value(json!({
            "metadata": { "name": name, "namespace": "kube-system", "labels": labels },
            "spec": { "template": { "spec": { "containers": [{ "name": "x", "image": image }] } } },
        }))
        .unwrap()
    }

    fn said(workload: DynamicObject) -> String {
        refusal(&[workload], ("podid-system", "podid-nmi")).unwrap_or_default()
    }

    #[test]
    fn the_original_is_known_by_image_wherever_it_was_mirrored_and_by_label() {
        for image in [
            "mcr.microsoft.com/oss/azure/aad-pod-identity/nmi:v1.8.17",
            "registry.test:5000/aad-pod-identity/nmi@sha256:00",
        ] {
            let said = said(workload("nmi", json!({}), image));
            assert!(
                said.contains("its NMI is DaemonSet kube-system/nmi; remove it first"),
                "{image}: {said}"
            );
        }
        let plain = json!({ "k8s-app": "aad-pod-id", "component": "mic" });
        assert!(
            said(workload("mic", plain, "registry.test/m:1"))
                .contains("its MIC is Deployment kube-system/mic")
        );
        let chart =
            json!({ "app.kubernetes.io/name": "aad-pod-identity", "app.kubernetes.io/component": "nmi" });
        assert!(said(workload("x", chart, "registry.test/n:1")).contains("its NMI"));
    }

    #[test]
    fn others_of_the_same_last_name_are_nobody() {
        assert_eq!(
            said(workload(
                "nmi",
                json!({ "component": "nmi" }),
                "registry.test/tools/nmi:1"
            )),
            ""
        );
        assert_eq!(said(workload("mic", json!({}), "nginx")), "");
    }

    #[test]
    fn another_podid_is_refused_and_ones_own_is_upgraded_unless_helm_has_it() {
        let mut own = workload("podid-nmi", json!({}), "localhost/podid-nmi:0.1.0");
        assert!(said(own.clone()).contains("its agent is DaemonSet kube-system/podid-nmi"));
        let place = ("kube-system", "podid-nmi");
        assert_eq!(refusal(std::slice::from_ref(&own), place), None);
        for (key, value) in [(RELEASE_NAME, "mine"), (RELEASE_NAMESPACE, "kube-system")] {
            own.annotations_mut().insert(key.to_owned(), value.to_owned());
        }
        let said = refusal(&[own], place).unwrap();
        assert!(said.contains("`helm upgrade mine -n kube-system`"), "{said}");
    }
}
