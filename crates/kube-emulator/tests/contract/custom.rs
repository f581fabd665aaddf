//! Custom resource definitions: what is accepted, and how objects are pruned, defaulted and validated.

use serde_json::{Value, json};

use crate::world::World;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// A definition of `Widget`s with this schema of the spec, in a group of the test's own.
fn definition(group: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("widgets.{group}") },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": { "kind": "Widget", "plural": "widgets", "shortNames": ["wg"] },
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": { "status": {} },
                "additionalPrinterColumns": [{ "name": "Size", "type": "integer", "jsonPath": ".spec.size" }],
                "schema": { "openAPIV3Schema": { "type": "object", "properties": {
                    "spec": spec,
                    "status": { "type": "object", "properties": { "phase": { "type": "string" } } },
                } } },
            }],
        },
    })
}

/// Makes the definition and waits until it is served; the path of its objects.
async fn define(world: &World, spec: Value) -> String {
    let group = format!("{}.podid.dev", world.namespace);
    world
        .post(DEFINITIONS, &definition(&group, spec))
        .await
        .expect(201);
    let path = format!("{DEFINITIONS}/widgets.{group}");
    world
        .until(&path, "the definition is established", |answer| {
            let conditions = answer.body["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            conditions
                .iter()
                .any(|one| one["type"] == "Established" && one["status"] == "True")
        })
        .await;
    let path = world.group(&format!("{group}/v1"), "widgets");
    world
        .until(&path, "its objects are served", |answer| answer.code.is_success())
        .await;
    path
}

fn widget(path: &str, name: &str, spec: Value) -> Value {
    let group = path.split('/').nth(2).unwrap();
    json!({ "apiVersion": format!("{group}/v1"), "kind": "Widget", "metadata": { "name": name }, "spec": spec })
}

fn sizes() -> Value {
    json!({
        "type": "object",
        "properties": {
            "size": { "type": "integer", "minimum": 1, "default": 3 },
            "mode": { "type": "string", "enum": ["on", "off"] },
            "items": {
                "type": "array", "maxItems": 2,
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": { "type": "object", "required": ["name"], "properties": {
                    "name": { "type": "string" }, "value": { "type": "string" },
                } },
            },
        },
        "x-kubernetes-validations": [
            { "rule": "self.size < 10 || self.mode == 'on'", "message": "large ones must be on" },
            { "rule": "!has(oldSelf.mode) || self.mode == oldSelf.mode", "message": "the mode stays" },
        ],
    })
}

#[tokio::test]
async fn objects_are_pruned_defaulted_and_validated() {
    let world = World::new().await;
    let path = define(&world, sizes()).await;
    let made = world
        .post(&path, &widget(&path, "a", json!({ "mode": "on", "odd": 1 })))
        .await
        .expect(201);
    assert_eq!(made["spec"], json!({ "mode": "on", "size": 3 }));
    assert_eq!(made["metadata"]["generation"], 1);
    let nulls = widget(
        &path,
        "nulls",
        json!({ "mode": null, "size": null, "items": null }),
    );
    let made = world.post(&path, &nulls).await.expect(201);
    assert_eq!(made["spec"], json!({ "size": 3 }));
    let kindless = json!({ "metadata": { "name": "b" }, "spec": {} });
    let (_, message) = world.post(&path, &kindless).await.refused(400);
    assert!(message.contains("Object 'Kind' is missing"), "{message}");

    let strict = format!("{path}?fieldValidation=Strict");
    let (_, message) = world
        .post(&strict, &widget(&path, "b", json!({ "odd": 1 })))
        .await
        .refused(400);
    assert!(message.contains("unknown field \"spec.odd\""), "{message}");
    for (spec, part) in [
        (
            json!({ "size": 0 }),
            "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1",
        ),
        (
            json!({ "mode": "x" }),
            "spec.mode: Unsupported value: \"x\": supported values: \"on\", \"off\"",
        ),
        (json!({ "size": 11, "mode": "off" }), "large ones must be on"),
        (json!({ "size": "1" }), "must be of type integer"),
        (
            json!({ "items": [{ "name": "a" }, { "name": "a" }] }),
            "spec.items[1]: Duplicate value: {\"name\":\"a\"}",
        ),
        (json!({ "items": [{}] }), "spec.items[0].name: Required value"),
        (
            json!({ "items": [{ "name": "a" }, { "name": "b" }, { "name": "c" }] }),
            "must have at most 2 items",
        ),
    ] {
        let refused = world.post(&path, &widget(&path, "b", spec)).await;
        assert!(!refused.body["details"]["causes"].as_array().unwrap().is_empty());
        let (reason, message) = refused.refused(422);
        assert_eq!(reason, "Invalid");
        assert!(message.contains(part), "{message}");
    }
    let patch = json!({ "spec": { "mode": "off" } });
    let (_, message) = world
        .patch(&format!("{path}/a"), "merge", &patch)
        .await
        .refused(422);
    assert!(message.contains("the mode stays"), "{message}");
}

#[tokio::test]
async fn the_generation_counts_changes_of_the_spec_and_the_status_has_a_way_of_its_own() {
    let world = World::new().await;
    let path = define(&world, sizes()).await;
    let mut body = widget(&path, "a", json!({ "size": 1 }));
    body["status"] = json!({ "phase": "made up" });
    let made = world.post(&path, &body).await.expect(201);
    assert_eq!(made["status"], Value::Null);
    let path = format!("{path}/a");

    let status = json!({ "status": { "phase": "Ready" }, "spec": { "size": 9 } });
    let one = world
        .patch(&format!("{path}/status"), "merge", &status)
        .await
        .expect(200);
    assert_eq!(
        (&one["status"]["phase"], &one["spec"]["size"]),
        (&json!("Ready"), &json!(1))
    );
    assert_eq!(one["metadata"]["generation"], 1);
    let two = world.patch(&path, "merge", &status).await.expect(200);
    assert_eq!(
        (&two["status"]["phase"], &two["spec"]["size"]),
        (&json!("Ready"), &json!(9))
    );
    assert_eq!(two["metadata"]["generation"], 2);
    let three = world
        .patch(&path, "merge", &json!({ "metadata": { "labels": { "a": "b" } } }))
        .await
        .expect(200);
    assert_eq!(three["metadata"]["generation"], 2);
    world
        .patch(&path, "strategic-merge", &json!({}))
        .await
        .refused(415);
}

#[tokio::test]
async fn lists_with_keys_are_applied_item_by_item() {
    let world = World::new().await;
    let collection = define(&world, sizes()).await;
    let path = format!("{collection}/a");
    let items = |items: Value| widget(&collection, "a", json!({ "items": items }));
    world
        .apply(
            &path,
            "one",
            false,
            &items(json!([{ "name": "a", "value": "1" }])),
        )
        .await
        .expect(201);
    world
        .apply(
            &path,
            "two",
            false,
            &items(json!([{ "name": "b", "value": "1" }])),
        )
        .await
        .expect(200);
    let left = world
        .apply(&path, "one", false, &items(json!([])))
        .await
        .expect(200);
    assert_eq!(left["spec"]["items"], json!([{ "name": "b", "value": "1" }]));
}

#[tokio::test]
async fn a_definition_that_cannot_hold_is_refused_at_once() {
    let world = World::new().await;
    let group = format!("{}.podid.dev", world.namespace);
    let rule = |rule: &str| {
        json!({ "type": "object", "properties": { "size": { "type": "integer" } },
            "x-kubernetes-validations": [{ "rule": rule }] })
    };
    for (spec, part) in [
        (rule("self.size >"), "compilation failed"),
        (rule("self.size.unheardOf() == 1"), "compilation failed"),
        (rule("nobody == 1"), "undeclared reference to 'nobody'"),
        (rule("self.nobody == 1"), "undefined field 'nobody'"),
        (
            json!({ "type": "object", "properties": { "a": {} } }),
            "Required value",
        ),
        (
            json!({ "type": "object", "properties": { "a": { "type": "string", "pattern": "(" } } }),
            "regular expression",
        ),
    ] {
        let refused = world.post(DEFINITIONS, &definition(&group, spec.clone())).await;
        let (reason, message) = refused.refused(422);
        assert_eq!(reason, "Invalid", "{spec}");
        assert!(message.contains(part), "{message}");
    }
    let mut named = definition(&group, sizes());
    named["metadata"]["name"] = json!("other.podid.dev");
    let (_, message) = world.post(DEFINITIONS, &named).await.refused(422);
    assert!(
        message.contains("must be spec.names.plural+\".\"+spec.group"),
        "{message}"
    );
}

#[tokio::test]
async fn a_protected_group_needs_approval() {
    let world = World::new().await;
    let group = format!("{}.k8s.io", world.namespace);
    let mut body = definition(&group, sizes());
    let (_, message) = world.post(DEFINITIONS, &body).await.refused(422);
    assert!(
        message.contains("protected groups must have approval annotation"),
        "{message}"
    );
    body["metadata"]["annotations"] = json!({ "api-approved.kubernetes.io": "unapproved, a test" });
    world.post(DEFINITIONS, &body).await.expect(201);
    world
        .delete(&format!("{DEFINITIONS}/widgets.{group}"), &json!({}))
        .await
        .expect(200);
}

#[tokio::test]
async fn deleting_a_definition_deletes_its_objects_and_ends_their_watches() {
    let world = World::new().await;
    let path = define(&world, sizes()).await;
    world
        .post(&path, &widget(&path, "a", json!({})))
        .await
        .expect(201);
    let group = path.split('/').nth(2).unwrap();
    let definition = format!("{DEFINITIONS}/widgets.{group}");
    world.delete(&definition, &json!({})).await.expect(200);
    world.gone(&definition).await;
    world.gone(&path).await;
}

#[tokio::test]
async fn the_definitions_of_podid_are_accepted_and_keep_their_rules() {
    let world = World::new().await;
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let body: Value = serde_saphyr::from_str(&text).unwrap();
        let name = body["metadata"]["name"].as_str().unwrap();
        let path = format!("{DEFINITIONS}/{name}?fieldValidation=Strict");
        world
            .apply(
                &path.replace("?fieldValidation=Strict", ""),
                "contract",
                true,
                &body,
            )
            .await;
        let stored = world.get(&format!("{DEFINITIONS}/{name}")).await.expect(200);
        // Nothing of a schema is lost on the way.
        assert_eq!(stored["spec"]["versions"], body["spec"]["versions"], "{name}");
        count += 1;
    }
    assert!(count >= 5, "{count}");
    let collection = world.group("aadpodidentity.k8s.io/v1", "azureidentities");
    world
        .until(&collection, "identities are served", |answer| {
            answer.code.is_success()
        })
        .await;
    let identity = |resource: &str| {
        json!({ "apiVersion": "aadpodidentity.k8s.io/v1", "kind": "AzureIdentity", "metadata": { "name": "a" },
            "spec": { "type": 0, "clientID": "00000000-0000-0000-0000-000000000001", "resourceID": resource } })
    };
    let (reason, _) = world.post(&collection, &identity("nonsense")).await.refused(422);
    assert_eq!(reason, "Invalid");
    let good =
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i";
    world.post(&collection, &identity(good)).await.expect(201);
}
