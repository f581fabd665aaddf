//! What is installed: the objects that the chart renders by default, built into the program, with the caller's names for
//! namespace and images. `cargo xtask kube render` writes them; there is no second list.

use kube::api::{ApiResource, DynamicObject, GroupVersionKind, TypeMeta};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use crate::error::CliError;

const RENDERED: &str = include_str!("../../../../deploy/kustomize/base/podid.yaml");
/// What closes new nodes in the API server itself; not every one has the kind.
const POLICY: &str = include_str!("../../../../deploy/kustomize/components/startup-taint/policy.yaml");
/// The namespace in it.
pub(super) const NAMESPACE: &str = "podid-system";
/// What stands before the images' names in it.
const REPOSITORY: &str = "localhost";
/// On everything that is podid's.
pub(super) const NAME_LABEL: &str = "app.kubernetes.io/name";
/// Its value.
pub(super) const NAME: &str = "podid";
/// Kinds that outlive an `uninstall` without `--purge`: users' objects are in them.
const KEPT: [&str; 2] = ["CustomResourceDefinition", "Namespace"];

/// Where the objects go, and where their images come from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placing<'a> {
    pub(super) namespace: &'a str,
    pub(super) repository: Option<&'a str>,
    pub(super) tag: Option<&'a str>,
}

/// All objects, in the order in which they are made.
pub(super) fn all(placing: Placing<'_>) -> Result<Vec<DynamicObject>, CliError> {
    read(RENDERED, placing)
}

/// The policy that closes new nodes, and its binding.
pub(super) fn policy(placing: Placing<'_>) -> Result<Vec<DynamicObject>, CliError> {
    read(POLICY, placing)
}

/// Whether the API server knows such policies.
pub(super) async fn serves_policy(client: &Client) -> Result<bool, CliError> {
    match client
        .list_api_group_resources("admissionregistration.k8s.io/v1")
        .await
    {
        Ok(list) => Ok(list
            .resources
            .iter()
            .any(|one| one.name == "mutatingadmissionpolicies")),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(CliError::from_kube(
            "ask which admission policies there are".to_owned(),
            error,
        )),
    }
}

fn read(rendered: &str, placing: Placing<'_>) -> Result<Vec<DynamicObject>, CliError> {
    let read: Result<Vec<Value>, _> = serde_saphyr::from_multiple(rendered);
    let broken = |source: Box<dyn std::error::Error + Send + Sync>| CliError::Unreadable { source };
    let mut objects = Vec::new();
    for mut value in read.map_err(|error| broken(error.into()))? {
        place(&mut value, placing);
        let object: DynamicObject = serde_json::from_value(value).map_err(|error| broken(error.into()))?;
        objects.push(object);
    }
    Ok(objects)
}

/// Puts namespace and images in place.
fn place(object: &mut Value, placing: Placing<'_>) {
    if object.get("kind").is_some_and(|kind| kind == "Namespace")
        && let Some(name) = object.pointer_mut("/metadata/name")
    {
        *name = placing.namespace.into();
    }
    visit(object, &mut |key, text| match key {
        "namespace" if text == NAMESPACE => placing.namespace.clone_into(text),
        "image" => *text = image(text, placing),
        _ => {}
    });
}

fn image(rendered: &str, placing: Placing<'_>) -> String {
    let name = rendered.strip_prefix(REPOSITORY).unwrap_or(rendered);
    let (name, tag) = name.rsplit_once(':').unwrap_or((name, ""));
    format!(
        "{}{name}:{}",
        placing.repository.unwrap_or(REPOSITORY).trim_end_matches('/'),
        placing.tag.unwrap_or(tag)
    )
}

/// Calls `edit` with every text that has a key.
fn visit(value: &mut Value, edit: &mut impl FnMut(&str, &mut String)) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) => edit(key, text),
                    other => visit(other, edit),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| visit(item, edit)),
        _ => {}
    }
}

/// Whether an object of this kind goes only with `--purge`.
pub(super) fn is_kept(object: &DynamicObject) -> bool {
    KEPT.contains(&kind(object))
}

/// Whether it carries podid's name: nothing else is ever deleted.
pub(super) fn is_ours(object: &DynamicObject) -> bool {
    object.labels().get(NAME_LABEL).is_some_and(|name| name == NAME)
}

/// Its kind.
pub(super) fn kind(object: &DynamicObject) -> &str {
    object.types.as_ref().map_or("", |types| &types.kind)
}

/// As people name it: `DaemonSet podid-system/podid-nmi`.
pub(super) fn title(object: &DynamicObject) -> String {
    let name = object.name_any();
    match object.namespace() {
        Some(namespace) => format!("{} {namespace}/{name}", kind(object)),
        None => format!("{} {name}", kind(object)),
    }
}

/// The door to objects of its kind, in its namespace.
pub(super) fn api(client: &Client, object: &DynamicObject) -> Api<DynamicObject> {
    let types = object.types.clone().unwrap_or_default();
    let resource = resource(&types);
    match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// Kinds of this API version and name.
pub(super) fn resource(types: &TypeMeta) -> ApiResource {
    let (group, version) = types
        .api_version
        .split_once('/')
        .unwrap_or(("", &types.api_version));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &types.kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACING: Placing<'_> = Placing {
        namespace: "identity",
        repository: Some("example.test/podid/"),
        tag: None,
    };

    #[test]
    fn every_object_is_in_the_callers_namespace_and_from_the_callers_registry() {
        let objects = all(PLACING).unwrap();
        let text = serde_json::to_string(&objects).unwrap();
        assert!(!text.contains(NAMESPACE), "the rendered namespace is left");
        assert!(!text.contains("localhost/"), "a rendered image is left");
        let images: Vec<_> = text
            .split("\"image\":\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
            .collect();
        let version = env!("CARGO_PKG_VERSION");
        let expected =
            ["podid-nmi", "podid-controller"].map(|name| format!("example.test/podid/{name}:{version}"));
        assert_eq!(images, expected);
    }

    #[test]
    fn all_but_the_namespace_carry_the_label_by_which_they_are_known_to_be_ours() {
        let others: Vec<String> = all(PLACING)
            .unwrap()
            .iter()
            .filter(|one| !is_ours(one))
            .map(title)
            .collect();
        assert_eq!(others, Vec::<String>::new());
    }

    #[test]
    fn what_users_objects_are_in_comes_first_and_is_kept() {
        let objects = all(PLACING).unwrap();
        let kinds: Vec<&str> = objects.iter().filter(|one| is_kept(one)).map(kind).collect();
        assert_eq!(kinds.first(), Some(&"Namespace"));
        assert_eq!(kinds.len(), 6, "a namespace and five definitions: {kinds:?}");
    }
}
