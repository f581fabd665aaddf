//! Owners and dependents, namespaces and what is in them. A real cluster needs its controller manager for these.

use serde_json::{Value, json};

use crate::world::World;

async fn owned(world: &World, name: &str, owner: &Value, blocks: bool) -> String {
    let body = json!({ "metadata": { "name": name, "ownerReferences": [{
        "apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
        "blockOwnerDeletion": blocks,
    }] } });
    world.post(&world.core("configmaps"), &body).await.expect(201);
    world.core(&format!("configmaps/{name}"))
}

#[tokio::test]
async fn dependents_go_with_the_last_of_their_owners() {
    let world = World::new().await;
    let owner = world.config_map("owner", json!({})).await;
    let dependent = owned(&world, "dependent", &owner, false).await;
    world
        .delete(&world.core("configmaps/owner"), &json!({}))
        .await
        .expect(200);
    world.gone(&dependent).await;
}

#[tokio::test]
async fn orphans_stay_and_forget_their_owner() {
    let world = World::new().await;
    let owner = world.config_map("owner", json!({})).await;
    let dependent = owned(&world, "dependent", &owner, false).await;
    let options = json!({ "propagationPolicy": "Orphan" });
    world
        .delete(&world.core("configmaps/owner"), &options)
        .await
        .expect(200);
    world.gone(&world.core("configmaps/owner")).await;
    let left = world.get(&dependent).await.expect(200);
    assert_eq!(left["metadata"]["ownerReferences"], Value::Null);
}

#[tokio::test]
async fn in_the_foreground_an_owner_waits_for_its_dependents() {
    let world = World::new().await;
    let owner = world.config_map("owner", json!({})).await;
    let dependent = owned(&world, "dependent", &owner, true).await;
    let hold = json!({ "metadata": { "finalizers": ["podid.dev/test"] } });
    world.patch(&dependent, "merge", &hold).await.expect(200);
    let options = json!({ "propagationPolicy": "Foreground" });
    world
        .delete(&world.core("configmaps/owner"), &options)
        .await
        .expect(200);
    let waits = |answer: &crate::world::Answer| answer.body["metadata"]["deletionTimestamp"].is_string();
    world
        .until(&dependent, "the dependent is being deleted", waits)
        .await;
    let owner = world.get(&world.core("configmaps/owner")).await.expect(200);
    assert_eq!(owner["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    let free = json!({ "metadata": { "finalizers": null } });
    world.patch(&dependent, "merge", &free).await.expect(200);
    world.gone(&dependent).await;
    world.gone(&world.core("configmaps/owner")).await;
}

#[tokio::test]
async fn an_object_of_an_owner_that_is_gone_is_collected() {
    let world = World::new().await;
    let mut owner = world.config_map("owner", json!({})).await;
    owner["metadata"]["uid"] = json!("5d1ad4ae-3c4c-4a9b-9a8f-000000000000");
    let dependent = owned(&world, "dependent", &owner, false).await;
    world.gone(&dependent).await;
}

#[tokio::test]
async fn a_namespace_takes_everything_in_it_along() {
    let world = World::new().await;
    let path = format!("/api/v1/namespaces/{}", world.namespace);
    let held = json!({ "metadata": { "name": "held", "finalizers": ["podid.dev/test"] } });
    world.post(&world.core("configmaps"), &held).await.expect(201);
    world
        .post(&world.core("secrets"), &json!({ "metadata": { "name": "free" } }))
        .await
        .expect(201);
    let deleted = world.delete(&path, &json!({})).await.expect(200);
    assert_eq!(deleted["status"]["phase"], "Terminating");
    world.gone(&world.core("secrets/free")).await;

    let late = world
        .post(&world.core("secrets"), &json!({ "metadata": { "name": "late" } }))
        .await;
    let (reason, message) = late.refused(403);
    assert_eq!(reason, "Forbidden");
    assert!(message.contains("because it is being terminated"), "{message}");
    let free = json!({ "metadata": { "finalizers": null } });
    world
        .patch(&world.core("configmaps/held"), "merge", &free)
        .await
        .expect(200);
    world.gone(&path).await;
}

#[tokio::test]
async fn the_systems_namespaces_stay() {
    let world = World::new().await;
    let (reason, _) = world
        .delete("/api/v1/namespaces/default", &json!({}))
        .await
        .refused(403);
    assert_eq!(reason, "Forbidden");
}
