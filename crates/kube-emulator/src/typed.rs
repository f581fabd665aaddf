//! Built-in kinds through their types: unknown fields found, values of a wrong type refused, the canonical form given
//! back. Defaults and rules between fields are in `kinds`.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Node, Pod, Secret, ServiceAccount};
use k8s_openapi::api::events::v1::Event as NewEvent;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::status::ApiError;

/// A value in the canonical form of its type.
#[derive(Debug)]
pub(crate) struct Typed {
    pub(crate) value: Value,
    /// Paths of fields that the type does not have, and which were left out.
    pub(crate) unknown: Vec<String>,
}

/// The canonical form of an object of a built-in kind; none when the kind has no type here.
pub(crate) fn builtin(api_version: &str, kind: &str, value: &Value) -> Option<Result<Typed, ApiError>> {
    let round = match (api_version, kind) {
        ("v1", "Pod") => round::<Pod>,
        ("v1", "Namespace") => round::<Namespace>,
        ("v1", "Node") => round::<Node>,
        ("v1", "ServiceAccount") => round::<ServiceAccount>,
        ("v1", "Secret") => round::<Secret>,
        ("v1", "ConfigMap") => round::<ConfigMap>,
        ("v1", "Event") => round::<Event>,
        ("events.k8s.io/v1", "Event") => round::<NewEvent>,
        ("coordination.k8s.io/v1", "Lease") => round::<Lease>,
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition") => round::<CustomResourceDefinition>,
        _ => return None,
    };
    Some(round(value).map_err(|error| {
        ApiError::bad_request(format!(
            "{kind} in version \"{}\" cannot be handled as a {kind}: {error}",
            api_version.rsplit('/').next().unwrap_or(api_version),
        ))
    }))
}

/// The canonical form of a custom resource's metadata.
pub(crate) fn metadata(value: &Value) -> Result<Typed, ApiError> {
    let mut typed = round::<ObjectMeta>(value).map_err(|error| {
        ApiError::bad_request(format!("metadata cannot be handled as ObjectMeta: {error}"))
    })?;
    for path in &mut typed.unknown {
        path.insert_str(0, "metadata.");
    }
    Ok(typed)
}

fn round<T: DeserializeOwned + Serialize>(value: &Value) -> Result<Typed, serde_json::Error> {
    let mut unknown = Vec::new();
    let typed: T = serde_ignored::deserialize(value, |path| unknown.push(field_path(&path)))?;
    let mut value = serde_json::to_value(typed)?;
    whole_numbers(&mut value);
    Ok(Typed { value, unknown })
}

/// Types hold numbers of schemas as floats; a whole one is written without a fraction, as everywhere else.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            if let Some(whole) = number.as_f64().and_then(whole_number) {
                *value = Value::from(whole);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(map) => map.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

fn whole_number(number: f64) -> Option<i64> {
    // The integers that a float holds exactly.
    const LIMIT: f64 = 9_007_199_254_740_992.0;
    let whole = number.fract() == 0.0 && number.abs() <= LIMIT;
    whole.then(|| format!("{number:.0}").parse().ok()).flatten()
}

/// `spec.containers[0].x`, as the API server writes paths.
fn field_path(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", field_path(parent)),
        Path::Map { parent, key } => {
            let parent = field_path(parent);
            if parent.is_empty() {
                key.clone()
            } else {
                format!("{parent}.{key}")
            }
        }
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            field_path(parent)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_misspelt_field_of_a_pod_is_found_with_its_path() {
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a" },
            "spec": { "containers": [{ "name": "a", "image": "i", "argz": [] }], "containres": [] } });
        let typed = builtin("v1", "Pod", &pod).unwrap().unwrap();
        assert_eq!(typed.unknown, ["spec.containers[0].argz", "spec.containres"]);
        assert!(typed.value.pointer("/spec/containres").is_none());
    }

    #[test]
    fn a_wrong_type_is_refused() {
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "spec": { "containers": "a" } });
        builtin("v1", "Pod", &pod).unwrap().unwrap_err();
    }
}
