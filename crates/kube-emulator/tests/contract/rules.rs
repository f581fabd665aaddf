//! podid's own kinds: every bad object is refused for its one fault, in the words that the reference page promises, and
//! the spellings of old releases are taken.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::world::World;

const ID: &str =
    "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i";
const OTHER_ID: &str =
    "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/j";
const GUID: &str = "00000000-0000-0000-0000-000000000001";

/// An object, the field that is blamed, and the sentence, where the page promises one.
type Bad = (&'static str, Value, &'static str, &'static str);

async fn define(world: &World) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds");
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let body: Value = serde_saphyr::from_str(&text).unwrap();
        let name = body["metadata"]["name"].as_str().unwrap();
        let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
        world.apply(&path, "contract", true, &body).await;
        let collection = collection(world, body["spec"]["names"]["plural"].as_str().unwrap());
        world
            .until(&collection, "the kind is served", |answer| {
                answer.code.is_success()
            })
            .await;
    }
}

fn collection(world: &World, plural: &str) -> String {
    if plural == "podidentityprofiles" {
        return "/apis/podid.dev/v1alpha1/podidentityprofiles".to_owned();
    }
    world.group("aadpodidentity.k8s.io/v1", plural)
}

fn object(plural: &str, spec: Value) -> Value {
    let (kind, version, name) = match plural {
        "azureidentities" => ("AzureIdentity", "aadpodidentity.k8s.io/v1", "a"),
        "azureidentitybindings" => ("AzureIdentityBinding", "aadpodidentity.k8s.io/v1", "a"),
        "azurepodidentityexceptions" => ("AzurePodIdentityException", "aadpodidentity.k8s.io/v1", "a"),
        "azureassignedidentities" => ("AzureAssignedIdentity", "aadpodidentity.k8s.io/v1", "a"),
        _ => ("PodIdentityProfile", "podid.dev/v1alpha1", "cluster"),
    };
    let mut object = json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name } });
    if !spec.is_null() {
        object["spec"] = spec;
    }
    object
}

/// Every rule of the kinds of aad-pod-identity, broken alone.
fn bad_objects() -> Vec<Bad> {
    let long = |length: usize| "a".repeat(length);
    let identities = "azureidentities";
    let bindings = "azureidentitybindings";
    vec![
        (identities, Value::Null, "spec", ""),
        (bindings, Value::Null, "spec", ""),
        ("azurepodidentityexceptions", Value::Null, "spec", ""),
        ("azureassignedidentities", Value::Null, "spec", ""),
        (identities, json!({ "type": 3 }), "spec.type", ""),
        (identities, json!({ "type": -1 }), "spec.type", ""),
        (identities, json!({ "clientID": long(257) }), "spec.clientID", ""),
        (identities, json!({ "ClientID": long(257) }), "spec.ClientID", ""),
        (identities, json!({ "tenantID": long(257) }), "spec.tenantID", ""),
        (identities, json!({ "TenantID": long(257) }), "spec.TenantID", ""),
        (
            identities,
            json!({ "resourceID": long(1025) }),
            "spec.resourceID",
            "",
        ),
        (
            identities,
            json!({ "ResourceID": long(1025) }),
            "spec.ResourceID",
            "",
        ),
        (
            identities,
            json!({ "type": 0, "resourceID": "nonsense" }),
            "spec",
            "for type 0, resourceID must be an ARM id: /subscriptions/S/resourcegroups/G/providers/Microsoft.ManagedIdentity/userAssignedIdentities/N",
        ),
        (
            identities,
            json!({ "ResourceID": "nonsense" }),
            "spec",
            "for type 0, ResourceID must be an ARM id: /subscriptions/S/resourcegroups/G/providers/Microsoft.ManagedIdentity/userAssignedIdentities/N",
        ),
        (
            identities,
            json!({ "resourceID": ID, "ResourceID": OTHER_ID }),
            "spec",
            "resourceID and its old spelling ResourceID are both given and differ; give only resourceID",
        ),
        (
            identities,
            json!({ "clientID": "a", "ClientID": "b" }),
            "spec",
            "clientID and its old spelling ClientID are both given and differ; give only clientID",
        ),
        (
            identities,
            json!({ "tenantID": "a", "TenantID": "b" }),
            "spec",
            "tenantID and its old spelling TenantID are both given and differ; give only tenantID",
        ),
        (
            bindings,
            json!({ "azureIdentity": long(254) }),
            "spec.azureIdentity",
            "",
        ),
        (
            bindings,
            json!({ "AzureIdentity": long(254) }),
            "spec.AzureIdentity",
            "",
        ),
        (bindings, json!({ "selector": long(64) }), "spec.selector", ""),
        (bindings, json!({ "Selector": long(64) }), "spec.Selector", ""),
        (
            bindings,
            json!({ "azureIdentity": "a", "AzureIdentity": "b" }),
            "spec",
            "azureIdentity and its old spelling AzureIdentity are both given and differ; give only azureIdentity",
        ),
        (
            bindings,
            json!({ "selector": "a", "Selector": "b" }),
            "spec",
            "selector and its old spelling Selector are both given and differ; give only selector",
        ),
    ]
}

/// Every rule of the profile, broken alone.
fn bad_profiles() -> Vec<Bad> {
    let with = |field: &str, value: Value| {
        let mut entry = json!({ "name": "a", "namespace": "n", "identity": { "resourceId": ID } });
        let place = match field.split_once('.') {
            Some((outer, inner)) => &mut entry[outer][inner],
            None => &mut entry[field],
        };
        *place = value;
        json!({ "enabled": true, "userAssignedIdentities": [entry] })
    };
    let exception = |field: &str, value: Value| {
        let mut entry = json!({ "name": "a", "namespace": "n", "podLabels": { "a": "b" } });
        entry[field] = value;
        json!({ "enabled": true, "userAssignedIdentityExceptions": [entry] })
    };
    let without = |mut spec: Value, pointer: &str| {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        spec.pointer_mut(parent)
            .unwrap()
            .as_object_mut()
            .unwrap()
            .remove(field);
        spec
    };
    let identity = || with("name", json!("a"));
    let many = |count: usize, key: &str, entry: &Value| {
        let entries: Vec<Value> = (0..count)
            .map(|number| {
                let mut entry = entry.clone();
                entry["name"] = json!(format!("a{number}"));
                entry
            })
            .collect();
        json!({ "enabled": true, key: entries })
    };
    let twice = |mut spec: Value, key: &str| {
        let first = spec[key][0].clone();
        spec[key].as_array_mut().unwrap().push(first);
        spec
    };
    let labels: serde_json::Map<String, Value> = (0..65).map(|n| (format!("l{n}"), json!("v"))).collect();
    let entry = json!({ "namespace": "n", "identity": { "resourceId": ID } });
    let excepted = json!({ "namespace": "n", "podLabels": {} });
    let (ids, exceptions) = ("userAssignedIdentities", "userAssignedIdentityExceptions");
    let cases = [
        (Value::Null, "spec"),
        (with("name", json!("A")), "spec.userAssignedIdentities[0].name"),
        (
            with("name", json!("a".repeat(254))),
            "spec.userAssignedIdentities[0].name",
        ),
        (
            with("namespace", json!("a_b")),
            "spec.userAssignedIdentities[0].namespace",
        ),
        (
            with("namespace", json!("a".repeat(64))),
            "spec.userAssignedIdentities[0].namespace",
        ),
        (
            with("bindingSelector", json!("a b")),
            "spec.userAssignedIdentities[0].bindingSelector",
        ),
        (
            with("bindingSelector", json!("a".repeat(64))),
            "spec.userAssignedIdentities[0].bindingSelector",
        ),
        (
            with("identity.clientId", json!("a")),
            "spec.userAssignedIdentities[0].identity.clientId",
        ),
        (
            with("identity.objectId", json!("a")),
            "spec.userAssignedIdentities[0].identity.objectId",
        ),
        (
            with("identity.resourceId", json!("a")),
            "spec.userAssignedIdentities[0].identity.resourceId",
        ),
        (
            with("identity.resourceId", json!(format!("{ID}{}", "a".repeat(1024)))),
            "spec.userAssignedIdentities[0].identity.resourceId",
        ),
        (
            without(identity(), "/userAssignedIdentities/0/identity"),
            "spec.userAssignedIdentities[0].identity",
        ),
        (
            without(identity(), "/userAssignedIdentities/0/identity/resourceId"),
            "spec.userAssignedIdentities[0].identity.resourceId",
        ),
        (
            without(identity(), "/userAssignedIdentities/0/name"),
            "spec.userAssignedIdentities[0].name",
        ),
        (
            without(identity(), "/userAssignedIdentities/0/namespace"),
            "spec.userAssignedIdentities[0].namespace",
        ),
        (many(201, ids, &entry), "spec.userAssignedIdentities"),
        (twice(identity(), ids), "spec.userAssignedIdentities[1]"),
        (
            exception("name", json!("A")),
            "spec.userAssignedIdentityExceptions[0].name",
        ),
        (
            exception("namespace", json!("a_b")),
            "spec.userAssignedIdentityExceptions[0].namespace",
        ),
        (
            exception("podLabels", Value::Object(labels)),
            "spec.userAssignedIdentityExceptions[0].podLabels",
        ),
        (
            without(
                exception("name", json!("a")),
                "/userAssignedIdentityExceptions/0/podLabels",
            ),
            "spec.userAssignedIdentityExceptions[0].podLabels",
        ),
        (
            many(201, exceptions, &excepted),
            "spec.userAssignedIdentityExceptions",
        ),
        (
            twice(exception("name", json!("a")), exceptions),
            "spec.userAssignedIdentityExceptions[1]",
        ),
    ];
    let bad = cases.map(|(spec, field)| ("podidentityprofiles", spec, field, ""));
    bad.into_iter().collect()
}

/// The sentences that the reference page promises.
fn promised() -> BTreeSet<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/custom-resources.md");
    let page = std::fs::read_to_string(page).unwrap();
    let sentences = page.lines().filter_map(|line| line.strip_prefix("- "));
    sentences.map(str::to_owned).collect()
}

#[tokio::test]
async fn every_rule_of_our_kinds_refuses_alone_and_in_its_own_words() {
    let world = World::new().await;
    define(&world).await;
    let mut said = BTreeSet::new();
    for (plural, spec, field, sentence) in bad_objects().into_iter().chain(bad_profiles()) {
        let path = format!("{}?dryRun=All", collection(&world, plural));
        let text: String = spec.to_string().chars().take(200).collect();
        let what = format!("{plural} {text}");
        let answer = world.post(&path, &object(plural, spec)).await;
        let causes = answer.body["details"]["causes"].clone();
        let (reason, message) = answer.refused(422);
        assert_eq!(reason, "Invalid", "{what}");
        let mut blamed = BTreeSet::new();
        for cause in causes.as_array().unwrap() {
            // That further rules were not looked at is no fault of its own.
            if cause["field"] != "<nil>" {
                blamed.insert(cause["field"].as_str().unwrap().to_owned());
            }
        }
        assert_eq!(blamed, BTreeSet::from([field.to_owned()]), "{what}: {message}");
        if !sentence.is_empty() {
            assert!(message.contains(sentence), "{what}: {message}");
            said.insert(sentence.to_owned());
        }
    }
    assert_eq!(said, promised());

    let mut other = object("podidentityprofiles", json!({ "enabled": true }));
    other["metadata"]["name"] = json!("other");
    let path = format!("{}?dryRun=All", collection(&world, "podidentityprofiles"));
    let (_, message) = world.post(&path, &other).await.refused(422);
    assert!(
        message.contains("metadata.name: Unsupported value: \"other\": supported values: \"cluster\""),
        "{message}"
    );
}

#[tokio::test]
async fn the_spellings_of_old_releases_are_taken_and_kept() {
    let world = World::new().await;
    define(&world).await;
    for (plural, spec) in [
        (
            "azureidentities",
            json!({ "type": 0, "ResourceID": ID, "ClientID": GUID, "TenantID": GUID }),
        ),
        (
            "azureidentities",
            json!({ "type": 1, "ClientID": GUID, "ClientPassword": { "Name": "s", "Namespace": "n" } }),
        ),
        (
            "azureidentities",
            json!({ "resourceID": ID, "ResourceID": ID, "clientID": GUID, "ClientID": GUID }),
        ),
        (
            "azureidentitybindings",
            json!({ "AzureIdentity": "a", "Selector": "b" }),
        ),
        (
            "azureidentitybindings",
            json!({ "azureIdentity": "a", "AzureIdentity": "a", "selector": "b", "Selector": "" }),
        ),
        ("azurepodidentityexceptions", json!({ "PodLabels": { "a": "b" } })),
    ] {
        let path = format!("{}?dryRun=All", collection(&world, plural));
        let stored = world.post(&path, &object(plural, spec.clone())).await.expect(201);
        assert_eq!(stored["spec"], spec);
    }
}
