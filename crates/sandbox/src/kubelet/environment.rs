//! The environment, command and arguments of a container, as Kubernetes defines them. It reads no other object:
//! values from ConfigMaps and Secrets are refused.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};

/// A container's configuration cannot be made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnvironmentError {
    /// A field that is not known here.
    #[error("environment variable {name}: the field path {path:?} is not supported")]
    Field {
        /// The variable.
        name: String,
        /// The field.
        path: String,
    },
    /// A source that is not known here.
    #[error("environment variable {0}: the sandbox takes values from `value` and `fieldRef` only")]
    Source(String),
    /// `envFrom`.
    #[error("the sandbox does not support envFrom")]
    From,
}

/// Where a pod is, for `fieldRef`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Its address.
    pub pod_ip: Ipv4Addr,
    /// Its node's address.
    pub host_ip: Ipv4Addr,
}

/// What a container is started with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Invocation {
    /// All variables, the container's own over the given ones.
    pub environment: BTreeMap<String, OsString>,
    /// Instead of the image's program.
    pub command: Vec<String>,
    /// Its arguments.
    pub arguments: Vec<String>,
}

impl Invocation {
    /// Of `container` of `pod`, with `given` under its own variables.
    pub(crate) fn of(
        container: &Container,
        pod: &Pod,
        place: Place,
        given: &BTreeMap<String, OsString>,
    ) -> Result<Self, EnvironmentError> {
        if container.env_from.as_ref().is_some_and(|from| !from.is_empty()) {
            return Err(EnvironmentError::From);
        }
        // Only the container's own variables can be referred to, each those before it.
        let mut own: BTreeMap<String, String> = BTreeMap::new();
        for variable in container.env.iter().flatten() {
            let value = value(variable, pod, place, &own)?;
            own.insert(variable.name.clone(), value);
        }
        let expand_all = |texts: &Option<Vec<String>>| {
            texts
                .iter()
                .flatten()
                .map(|text| expand(text, &own))
                .collect::<Vec<_>>()
        };
        let command = expand_all(&container.command);
        let arguments = expand_all(&container.args);
        let mut environment = given.clone();
        environment.extend(own.into_iter().map(|(name, value)| (name, value.into())));
        Ok(Self {
            environment,
            command,
            arguments,
        })
    }
}

fn value(
    variable: &EnvVar,
    pod: &Pod,
    place: Place,
    before: &BTreeMap<String, String>,
) -> Result<String, EnvironmentError> {
    let Some(from) = &variable.value_from else {
        return Ok(expand(variable.value.as_deref().unwrap_or_default(), before));
    };
    let field = from
        .field_ref
        .as_ref()
        .ok_or_else(|| EnvironmentError::Source(variable.name.clone()))?;
    field_of(pod, place, &field.field_path).ok_or_else(|| EnvironmentError::Field {
        name: variable.name.clone(),
        path: field.field_path.clone(),
    })
}

/// A field of the pod, of those that the downward API knows; a label or annotation that is not there is empty.
fn field_of(pod: &Pod, place: Place, path: &str) -> Option<String> {
    let text = |text: &Option<String>| Some(text.clone().unwrap_or_default());
    let spec = pod.spec.as_ref();
    match path {
        "metadata.name" => text(&pod.metadata.name),
        "metadata.namespace" => text(&pod.metadata.namespace),
        "metadata.uid" => text(&pod.metadata.uid),
        "spec.nodeName" => text(&spec?.node_name),
        "spec.serviceAccountName" => Some(
            spec?
                .service_account_name
                .clone()
                .unwrap_or_else(|| "default".to_owned()),
        ),
        "status.podIP" | "status.podIPs" => Some(place.pod_ip.to_string()),
        "status.hostIP" | "status.hostIPs" => Some(place.host_ip.to_string()),
        _ => {
            let (map, key) = path.strip_suffix("']")?.split_once("['")?;
            let map = match map {
                "metadata.labels" => &pod.metadata.labels,
                "metadata.annotations" => &pod.metadata.annotations,
                _ => return None,
            };
            Some(
                map.as_ref()
                    .and_then(|map| map.get(key))
                    .cloned()
                    .unwrap_or_default(),
            )
        }
    }
}

/// `$(NAME)` becomes the variable's value, `$$` one dollar; what names no variable stays as it is.
/// Source: Kubernetes, `third_party/forked/golang/expansion`.
fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = after.strip_prefix('(').and_then(|after| after.split_once(')')) {
            if let Some(value) = variables.get(name) {
                out.push_str(value);
            } else {
                out.push_str("$(");
                out.push_str(name);
                out.push(')');
            }
            rest = after;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PLACE: Place = Place {
        pod_ip: Ipv4Addr::new(10, 244, 0, 10),
        host_ip: Ipv4Addr::new(10, 240, 0, 4),
    };

    fn pod(container: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "demo", "namespace": "my-app", "uid": "u", "labels": { "a/b": "c" } },
            "spec": { "containers": [container], "nodeName": "node-1" },
        }))
        .unwrap()
    }

    fn of(container: serde_json::Value) -> Result<Invocation, EnvironmentError> {
        let pod = pod(container);
        let container = pod.spec.clone().unwrap_or_default().containers.remove(0);
        let given = BTreeMap::from([
            ("A".to_owned(), "given".into()),
            ("PATH".to_owned(), "/bin".into()),
        ]);
        Invocation::of(&container, &pod, PLACE, &given)
    }

    #[test]
    fn the_tutorials_fields_and_references_are_filled_in() {
        let field = |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
        let made = of(json!({
            "name": "demo",
            "args": ["--ip=$(MY_POD_IP)", "$$(MY_POD_IP)", "$(UNKNOWN)", "a$b$"],
            "env": [
                field("MY_POD_NAME", "metadata.name"), field("MY_POD_NAMESPACE", "metadata.namespace"),
                field("MY_POD_IP", "status.podIP"), field("L", "metadata.labels['a/b']"),
                { "name": "A", "value": "own-$(MY_POD_NAME)-$(LATER)" }, { "name": "LATER", "value": "x" },
            ],
        }))
        .unwrap();
        assert_eq!(
            made.arguments,
            ["--ip=10.244.0.10", "$(MY_POD_IP)", "$(UNKNOWN)", "a$b$"]
        );
        let get = |name: &str| made.environment[name].to_str().unwrap();
        assert_eq!(
            (get("MY_POD_NAME"), get("MY_POD_NAMESPACE"), get("L")),
            ("demo", "my-app", "c")
        );
        assert_eq!((get("A"), get("PATH")), ("own-demo-$(LATER)", "/bin"));
    }

    #[test]
    fn what_cannot_be_filled_in_is_refused_by_name() {
        let secret = json!({ "name": "S", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } });
        assert_eq!(
            of(json!({ "name": "c", "env": [secret] })),
            Err(EnvironmentError::Source("S".to_owned()))
        );
        let odd = json!({ "name": "O", "valueFrom": { "fieldRef": { "fieldPath": "spec.containers" } } });
        assert!(
            of(json!({ "name": "c", "env": [odd] }))
                .unwrap_err()
                .to_string()
                .contains("spec.containers")
        );
    }
}
