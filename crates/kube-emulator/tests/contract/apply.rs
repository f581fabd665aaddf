//! Server-side apply.

use serde_json::{Value, json};

use crate::world::World;

fn map(data: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" }, "data": data })
}

#[tokio::test]
async fn applying_creates_then_takes_out_what_is_no_longer_applied() {
    let world = World::new().await;
    let path = world.core("configmaps/a");
    world
        .apply(&path, "one", false, &map(json!({ "a": "1", "b": "1" })))
        .await
        .expect(201);
    let merge = json!({ "data": { "c": "1" } });
    world
        .patch(&format!("{path}?fieldManager=two"), "merge", &merge)
        .await
        .expect(200);
    let applied = world
        .apply(&path, "one", false, &map(json!({ "a": "2" })))
        .await
        .expect(200);
    assert_eq!(applied["data"], json!({ "a": "2", "c": "1" }));
    let managers: Vec<&str> = applied["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["manager"].as_str().unwrap())
        .collect();
    assert_eq!(managers, ["one", "two"]);
}

#[tokio::test]
async fn applying_the_same_again_changes_nothing() {
    let world = World::new().await;
    let path = world.core("configmaps/a");
    let one = world
        .apply(&path, "one", false, &map(json!({ "a": "1" })))
        .await
        .expect(201);
    let two = world
        .apply(&path, "one", false, &map(json!({ "a": "1" })))
        .await
        .expect(200);
    assert_eq!(one, two);
}

#[tokio::test]
async fn a_field_of_somebody_else_is_a_conflict_with_its_cause_unless_forced() {
    let world = World::new().await;
    let path = world.core("configmaps/a");
    world
        .apply(&path, "one", false, &map(json!({ "a": "1" })))
        .await
        .expect(201);
    let refused = world.apply(&path, "two", false, &map(json!({ "a": "2" }))).await;
    assert_eq!(
        refused.body["details"]["causes"][0]["reason"],
        "FieldManagerConflict"
    );
    assert_eq!(refused.body["details"]["causes"][0]["field"], ".data.a");
    let (reason, message) = refused.refused(409);
    assert_eq!(reason, "Conflict");
    assert_eq!(
        message,
        "Apply failed with 1 conflict: conflict with \"one\": .data.a"
    );
    // The same value is no conflict, and is then shared.
    world
        .apply(&path, "two", false, &map(json!({ "a": "1" })))
        .await
        .expect(200);
    let forced = world
        .apply(&path, "two", true, &map(json!({ "a": "2" })))
        .await
        .expect(200);
    assert_eq!(forced["data"], json!({ "a": "2" }));
    assert_eq!(forced["metadata"]["managedFields"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn applying_with_the_uid_of_a_deleted_object_does_not_make_it_again() {
    let world = World::new().await;
    let path = world.core("configmaps/a");
    let mut body = map(json!({ "a": "1" }));
    body["metadata"]["uid"] = json!("5d1ad4ae-3c4c-4a9b-9a8f-000000000000");
    let (reason, _) = world.apply(&path, "one", true, &body).await.refused(409);
    assert_eq!(reason, "Conflict");
    world.get(&path).await.expect(404);
    world.config_map("a", json!({})).await;
    let (_, message) = world.apply(&path, "one", true, &body).await.refused(422);
    assert!(message.contains("metadata.uid: Invalid value"), "{message}");
}

#[tokio::test]
async fn applying_needs_a_manager_and_declared_fields() {
    let world = World::new().await;
    let path = world.core("configmaps/a");
    world.patch(&path, "apply", &map(json!({}))).await.refused(422);
    let mut odd = map(json!({}));
    odd["dota"] = json!({});
    let (_, message) = world.apply(&path, "one", false, &odd).await.refused(500);
    assert!(
        message.contains(".dota: field not declared in schema"),
        "{message}"
    );
}

#[tokio::test]
async fn containers_merge_by_name_and_ports_by_number_and_protocol() {
    let world = World::new().await;
    let path = world.core("pods/a");
    let pod = |containers: Value| json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a" }, "spec": { "containers": containers } });
    let ports = json!([{ "containerPort": 80, "name": "web" }]);
    let one = pod(json!([{ "name": "a", "image": "i:1", "ports": ports }]));
    world.apply(&path, "one", false, &one).await.expect(201);
    let image = pod(json!([{ "name": "a", "image": "i:2" }]));
    world.apply(&path, "two", false, &image).await.refused(409);
    let forced = world.apply(&path, "two", true, &image).await.expect(200);
    let container = &forced["spec"]["containers"][0];
    assert_eq!(container["image"], "i:2");
    assert_eq!(
        container["ports"],
        json!([{ "containerPort": 80, "name": "web", "protocol": "TCP" }])
    );
}

#[tokio::test]
async fn an_empty_map_is_nobodys_conflict() {
    let world = World::new().await;
    let path = world.core("configmaps/a");
    world.config_map("a", json!({ "k": "v" })).await;
    for manager in ["one", "two"] {
        let applied = world
            .apply(&path, manager, false, &map(json!({})))
            .await
            .expect(200);
        assert_eq!(applied["data"], json!({ "k": "v" }));
    }
}
