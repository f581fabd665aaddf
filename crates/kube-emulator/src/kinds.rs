//! The built-in kinds' own rules: defaults, what status a new object has, what may not change. Types are in `typed`.

mod event;
mod metadata;
mod pod;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::json::{self, text};
use crate::resource::Resource;
use crate::status::Cause;

pub(crate) use metadata::{random_suffix, validate as validate_metadata};

pub(crate) fn required(field: &str, why: &str) -> Cause {
    let message = if why.is_empty() {
        "Required value".to_owned()
    } else {
        format!("Required value: {why}")
    };
    Cause {
        reason: "FieldValueRequired",
        message,
        field: field.to_owned(),
    }
}

pub(crate) fn invalid(field: &str, value: &Value, why: &str) -> Cause {
    Cause {
        reason: "FieldValueInvalid",
        message: format!("Invalid value: {value}: {why}"),
        field: field.to_owned(),
    }
}

pub(crate) fn forbidden(field: &str, why: &str) -> Cause {
    Cause {
        reason: "FieldValueForbidden",
        message: format!("Forbidden: {why}"),
        field: field.to_owned(),
    }
}

/// Defaults that every write of a built-in kind gets.
pub(crate) fn default(resource: &Resource, object: &mut Value) {
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Pod") => pod::default(object),
        ("", "Namespace") => {
            let name = json::name(object).to_owned();
            json::set(
                object,
                &["metadata", "labels", "kubernetes.io/metadata.name"],
                name,
            );
        }
        ("", "Secret") => {
            json::default(object, &["type"], "Opaque");
            if let Some(Value::Object(plain)) = json::remove(object, &["stringData"]) {
                for (key, value) in plain {
                    json::set(
                        object,
                        &["data", &key],
                        STANDARD.encode(value.as_str().unwrap_or_default()),
                    );
                }
            }
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => crate::crd::default(object),
        _ => {}
    }
}

/// What is added to every write of a built-in kind, and belongs to nobody.
pub(crate) fn admit(resource: &Resource, object: &mut Value) {
    if resource.group.is_empty() && resource.kind == "Pod" {
        pod::admit(object);
    }
}

/// Mounts the token of a new pod's account.
pub(crate) fn mount_token(account: &Value, pod: &mut Value) {
    pod::mount_token(account, pod);
}

/// What a new object gets that its author cannot choose.
pub(crate) fn prepare_create(resource: &Resource, object: &mut Value) {
    // A kubelet registers its node together with its status.
    if resource.has_status() && resource.kind != "Node" {
        json::remove(object, &["status"]);
    }
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Pod") => pod::prepare_create(object),
        ("", "Namespace") => {
            json::set(object, &["spec", "finalizers"], json!(["kubernetes"]));
            json::set(object, &["status", "phase"], "Active");
        }
        _ => {}
    }
}

/// What is wrong with a new object of a built-in kind.
pub(crate) fn validate(resource: &Resource, object: &Value) -> Vec<Cause> {
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Pod") => pod::validate(object),
        ("", "Secret") => {
            let mut causes = Vec::new();
            for (key, value) in json::at(object, &["data"])
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
            {
                if STANDARD.decode(value.as_str().unwrap_or_default()).is_err() {
                    causes.push(invalid(
                        &format!("data[{key}]"),
                        &json!("<secret>"),
                        "must be base64",
                    ));
                }
            }
            causes
        }
        ("", "Event") => event::validate(object, "involvedObject", false),
        ("events.k8s.io", "Event") => event::validate(object, "regarding", true),
        ("coordination.k8s.io", "Lease") => {
            match json::at(object, &["spec", "leaseDurationSeconds"]).and_then(Value::as_i64) {
                Some(seconds) if seconds <= 0 => vec![invalid(
                    "spec.leaseDurationSeconds",
                    &json!(seconds),
                    "must be greater than 0",
                )],
                _ => Vec::new(),
            }
        }
        _ => Vec::new(),
    }
}

/// What may not change in an object of a built-in kind.
pub(crate) fn validate_update(resource: &Resource, before: &Value, after: &Value) -> Vec<Cause> {
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Pod") => pod::validate_update(before, after),
        ("", "Secret" | "ConfigMap") => {
            let mut causes = Vec::new();
            if text(before, &["type"]) != text(after, &["type"]) {
                causes.push(invalid(
                    "type",
                    &json!(text(after, &["type"])),
                    "field is immutable",
                ));
            }
            let frozen = json::at(before, &["immutable"]).and_then(Value::as_bool) == Some(true);
            if frozen
                && ["data", "binaryData"]
                    .iter()
                    .any(|field| before.get(field) != after.get(field))
            {
                causes.push(forbidden("data", "field is immutable when `immutable` is set"));
            }
            causes
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => crate::crd::check_update(before, after),
        _ => Vec::new(),
    }
}

/// Brings a status that was just written into its canonical form.
pub(crate) fn settle_status(resource: &Resource, object: &mut Value) {
    if resource.group.is_empty() && resource.kind == "Pod" {
        pod::settle_addresses(object);
    }
}

/// The form in which a resource serves a stored object; none when it is the stored form.
pub(crate) fn to_served(resource: &Resource, stored: &Value) -> Option<Value> {
    let api_version = resource.api_version();
    if text(stored, &["apiVersion"]) == api_version {
        return None;
    }
    let mut served = stored.clone();
    if resource.group == "events.k8s.io" {
        event::to_new(&mut served);
    }
    json::set(&mut served, &["apiVersion"], api_version);
    Some(served)
}

/// The form in which a served object is stored.
pub(crate) fn to_stored(resource: &Resource, mut served: Value) -> Value {
    if resource.group == "events.k8s.io" {
        event::to_old(&mut served);
        json::set(&mut served, &["apiVersion"], "v1");
    } else if let Some(custom) = &resource.custom {
        json::set(&mut served, &["apiVersion"], custom.stored_version.as_str());
    }
    served
}
