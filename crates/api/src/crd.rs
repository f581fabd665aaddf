//! The CRDs, made from the types and then shaped for what schemars cannot say: limits, formats, rules, list keys,
//! embedded objects. It writes no files.

use kube::CustomResourceExt;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use crate::names::{API_APPROVED_ANNOTATION, API_UNAPPROVED, MAX_EXCEPTIONS, MAX_IDENTITIES, PROFILE_NAME};
use crate::{
    AzureAssignedIdentity, AzureIdentity, AzureIdentityBinding, AzurePodIdentityException, PodIdentityProfile,
};

/// ARM id of a user-assigned managed identity, in any case, in RE2 (which both `pattern` and CEL's `matches` use); the
/// same language as [`podid_core::IdentityResourceId`]. aad-pod-identity v1.8.17 has it without anchors and with `.+?`,
/// which lets a query or a second id through.
pub const IDENTITY_ID_PATTERN: &str = "(?i)^/subscriptions/[-0-9A-Za-z_.()\\x{80}-\\x{10FFFF}]+/resourcegroups/[-0-9A-Za-z_.()\\x{80}-\\x{10FFFF}]+/providers/microsoft[.]managedidentity/userassignedidentities/[-0-9A-Za-z_.()\\x{80}-\\x{10FFFF}]+$";

/// A UUID, as client and object ids are.
const UUID_PATTERN: &str = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$";

/// A DNS subdomain: names of objects. Source: Kubernetes, `apimachinery/pkg/util/validation`.
const SUBDOMAIN_PATTERN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// A DNS label: names of namespaces. Source as for subdomains.
const LABEL_PATTERN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// A label's value. Source as for subdomains.
const LABEL_VALUE_PATTERN: &str = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";

/// Longest ARM id taken, in characters: three times a real one, and small enough for the cost limit of CEL rules.
const MAX_ID: u32 = 1024;

/// Fields that the original's CRDs let be null; all other optional fields are absent or have a value.
const NULLABLE: [&str; 3] = ["auxiliaryTenantIDs", "replicas", "metadata"];

/// An object of any shape.
pub(crate) fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object" })
}

/// All CRDs, in the order of their names, as an API server takes them.
pub fn all() -> Vec<Value> {
    let identity = azure_identity();
    let binding = azure_identity_binding();
    let assigned = azure_assigned_identity(&identity, &binding);
    let mut all = vec![
        assigned,
        binding,
        identity,
        azure_pod_identity_exception(),
        pod_identity_profile(),
    ];
    all.iter_mut().for_each(Value::sort_all_objects);
    all
}

fn azure_identity() -> Value {
    let mut crd = original(AzureIdentity::crd());
    at(&mut crd, "spec/type", json!({ "minimum": 0, "maximum": 2 }));
    for id in ["resourceID", "ResourceID"] {
        at(&mut crd, &format!("spec/{id}"), json!({ "maxLength": MAX_ID }));
    }
    for id in ["clientID", "ClientID", "tenantID", "TenantID"] {
        at(&mut crd, &format!("spec/{id}"), json!({ "maxLength": 256 }));
    }
    let format = |field: &str| {
        json!({
            "rule": format!(
                "(has(self.type) && self.type != 0) || !has(self.{field}) || self.{field} == '' || self.{field}.matches('{}')",
                IDENTITY_ID_PATTERN.replace('\\', "\\\\")
            ),
            "message": format!(
                "for type 0, {field} must be an ARM id: /subscriptions/S/resourcegroups/G/providers/Microsoft.ManagedIdentity/userAssignedIdentities/N"
            ),
        })
    };
    let rules = json!([
        format("resourceID"),
        format("ResourceID"),
        agree("resourceID", "ResourceID"),
        agree("clientID", "ClientID"),
        agree("tenantID", "TenantID"),
    ]);
    at(&mut crd, "spec", json!({ "x-kubernetes-validations": rules }));
    crd
}

fn azure_identity_binding() -> Value {
    let mut crd = original(AzureIdentityBinding::crd());
    for name in ["azureIdentity", "AzureIdentity"] {
        at(&mut crd, &format!("spec/{name}"), json!({ "maxLength": 253 }));
    }
    for selector in ["selector", "Selector"] {
        at(&mut crd, &format!("spec/{selector}"), json!({ "maxLength": 63 }));
    }
    let rules = json!([
        agree("azureIdentity", "AzureIdentity"),
        agree("selector", "Selector")
    ]);
    at(&mut crd, "spec", json!({ "x-kubernetes-validations": rules }));
    crd
}

fn azure_assigned_identity(identity: &Value, binding: &Value) -> Value {
    let mut crd = original(AzureAssignedIdentity::crd());
    for (field, of) in [("azureIdentityRef", identity), ("azureBindingRef", binding)] {
        let mut properties = of
            .pointer(&format!("{SCHEMA}/properties"))
            .cloned()
            .unwrap_or_default();
        // What is inside was accepted once; an assignment must stay writable whatever is in it.
        drop_key(&mut properties, "x-kubernetes-validations");
        for limit in ["maxLength", "minimum", "maximum"] {
            drop_key(&mut properties, limit);
        }
        at(
            &mut crd,
            &format!("spec/{field}"),
            json!({ "x-kubernetes-embedded-resource": true, "properties": properties }),
        );
    }
    crd
}

fn azure_pod_identity_exception() -> Value {
    original(AzurePodIdentityException::crd())
}

fn pod_identity_profile() -> Value {
    let mut crd = shaped(PodIdentityProfile::crd());
    if let Some(schema) = crd.pointer_mut(SCHEMA)
        && let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut)
    {
        let metadata = json!({ "type": "object", "properties": { "name": { "type": "string", "enum": [PROFILE_NAME] } } });
        properties.insert("metadata".to_owned(), metadata);
    }
    for (list, limit) in [
        ("userAssignedIdentities", MAX_IDENTITIES),
        ("userAssignedIdentityExceptions", MAX_EXCEPTIONS),
    ] {
        at(
            &mut crd,
            &format!("spec/{list}"),
            json!({
                "maxItems": limit,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["namespace", "name"],
            }),
        );
        at(
            &mut crd,
            &format!("spec/{list}/[]/name"),
            json!({ "pattern": SUBDOMAIN_PATTERN, "maxLength": 253 }),
        );
        at(
            &mut crd,
            &format!("spec/{list}/[]/namespace"),
            json!({ "pattern": LABEL_PATTERN, "maxLength": 63 }),
        );
    }
    let entry = "spec/userAssignedIdentities/[]";
    at(
        &mut crd,
        &format!("{entry}/bindingSelector"),
        json!({ "pattern": LABEL_VALUE_PATTERN, "maxLength": 63 }),
    );
    at(
        &mut crd,
        &format!("{entry}/identity/resourceId"),
        json!({ "pattern": IDENTITY_ID_PATTERN, "maxLength": MAX_ID }),
    );
    for id in ["clientId", "objectId"] {
        at(
            &mut crd,
            &format!("{entry}/identity/{id}"),
            json!({ "pattern": UUID_PATTERN }),
        );
    }
    at(
        &mut crd,
        "spec/userAssignedIdentityExceptions/[]/podLabels",
        json!({ "maxProperties": 64 }),
    );
    at(
        &mut crd,
        "status/conditions",
        json!({ "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"] }),
    );
    crd
}

/// A rule: both spellings of a field, when both are given, say the same.
fn agree(new: &str, old: &str) -> Value {
    json!({
        "rule": format!(
            "!has(self.{old}) || !has(self.{new}) || self.{old} == '' || self.{new} == '' || self.{old} == self.{new}"
        ),
        "message": format!("{new} and its old spelling {old} are both given and differ; give only {new}"),
    })
}

/// Where the schema of the one version is.
const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema";

/// A CRD of a kind that the original made: no status subresource (MIC patches the status of the whole object), null
/// only where the original's own CRDs allow it, and the annotation that the group needs.
fn original(crd: impl serde::Serialize) -> Value {
    let mut crd = shaped(crd);
    if let Some(version) = crd.pointer_mut("/spec/versions/0").and_then(Value::as_object_mut) {
        version.remove("subresources");
    }
    if let Some(schema) = crd.pointer_mut(SCHEMA) {
        walk(schema, &mut |name, schema| {
            if !NULLABLE.contains(&name) {
                schema.remove("nullable");
            }
        });
    }
    if let Some(metadata) = crd.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        metadata.insert(
            "annotations".to_owned(),
            json!({ API_APPROVED_ANNOTATION: API_UNAPPROVED }),
        );
    }
    crd
}

/// What all CRDs have in common.
fn shaped(crd: impl serde::Serialize) -> Value {
    let mut crd = serde_json::to_value(crd).unwrap_or_default();
    if let Some(names) = crd.pointer_mut("/spec/names").and_then(Value::as_object_mut) {
        let list = names
            .get("kind")
            .and_then(Value::as_str)
            .map(|kind| format!("{kind}List"));
        names.insert("listKind".to_owned(), json!(list));
    }
    if let Some(schema) = crd.pointer_mut(SCHEMA) {
        if let Some(schema) = schema.as_object_mut() {
            schema.remove("title");
        }
        walk(schema, &mut |name, schema| {
            if let Some(Value::String(text)) = schema.get_mut("description") {
                *text = text.replace('\n', " ");
            }
            if schema.get("additionalProperties") == Some(&json!(true)) {
                // An untyped object: known to the schema, its content is pruned, as in the original.
                schema.remove("additionalProperties");
            }
            schema.remove("default");
            if name == "status" {
                schema.remove("nullable");
            }
        });
    }
    crd
}

/// Visits every property of a schema, with its name, the schema itself last and without one.
fn walk(schema: &mut Value, visit: &mut impl FnMut(&str, &mut Map<String, Value>)) {
    fn inner(name: &str, schema: &mut Value, visit: &mut impl FnMut(&str, &mut Map<String, Value>)) {
        let Some(object) = schema.as_object_mut() else {
            return;
        };
        if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
            for (name, property) in properties.iter_mut() {
                inner(name, property, visit);
            }
        }
        for below in ["items", "additionalProperties"] {
            if let Some(schema) = object.get_mut(below) {
                inner("", schema, visit);
            }
        }
        visit(name, object);
    }
    inner("", schema, visit);
}

/// Adds keywords to the schema at a path of properties below the root; `[]` is the items of a list. The path is one of
/// the literals above: a path that does not exist adds nothing, and the tests compare the whole result.
fn at(crd: &mut Value, path: &str, keywords: Value) {
    let mut pointer = SCHEMA.to_owned();
    for step in path.split('/') {
        if step == "[]" {
            pointer.push_str("/items");
        } else {
            pointer.push_str("/properties/");
            pointer.push_str(step);
        }
    }
    debug_assert!(
        crd.pointer(&pointer).is_some(),
        "there is no {path} in the schema"
    );
    if let (Some(Value::Object(schema)), Value::Object(keywords)) = (crd.pointer_mut(&pointer), keywords) {
        schema.extend(keywords);
    }
}

/// Removes a keyword everywhere below.
fn drop_key(value: &mut Value, key: &str) {
    match value {
        Value::Object(map) => {
            map.remove(key);
            map.values_mut().for_each(|value| drop_key(value, key));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| drop_key(value, key)),
        _ => {}
    }
}
