//! Create, read, update, delete, patch: versions, conflicts, validation of fields.

use serde_json::{Value, json};

use crate::world::World;

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

#[tokio::test]
async fn a_new_object_gets_what_its_author_cannot_choose() {
    let world = World::new().await;
    let made = world.config_map("a", json!({ "k": "v" })).await;
    assert_eq!(made["apiVersion"], "v1");
    assert_eq!(made["kind"], "ConfigMap");
    assert_eq!(made["metadata"]["namespace"], world.namespace);
    assert_eq!(made["metadata"]["uid"].as_str().unwrap().len(), 36);
    assert!(
        made["metadata"]["creationTimestamp"]
            .as_str()
            .unwrap()
            .ends_with('Z')
    );
    assert_eq!(world.get(&world.core("configmaps/a")).await.expect(200), made);

    let again = world
        .post(&world.core("configmaps"), &json!({ "metadata": { "name": "a" } }))
        .await;
    let (reason, message) = again.refused(409);
    assert_eq!(reason, "AlreadyExists");
    assert_eq!(message, "configmaps \"a\" already exists");
}

#[tokio::test]
async fn generated_names_are_new_names() {
    let world = World::new().await;
    let body = json!({ "metadata": { "generateName": "x-" } });
    let one = world.post(&world.core("configmaps"), &body).await.expect(201);
    let two = world.post(&world.core("configmaps"), &body).await.expect(201);
    assert!(one["metadata"]["name"].as_str().unwrap().starts_with("x-"));
    assert_ne!(one["metadata"]["name"], two["metadata"]["name"]);
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let world = World::new().await;
    let (reason, message) = world.get(&world.core("configmaps/none")).await.refused(404);
    assert_eq!(
        (reason.as_str(), message.as_str()),
        ("NotFound", "configmaps \"none\" not found")
    );
    let (_, message) = world.get("/api/v1/things").await.refused(404);
    assert_eq!(message, "the server could not find the requested resource");
    assert_eq!(world.get("/apis/none.io/v1/things").await.code.as_u16(), 404);
    let lost = world
        .post(
            "/api/v1/namespaces/none/configmaps",
            &json!({ "metadata": { "name": "a" } }),
        )
        .await;
    assert_eq!(lost.refused(404).1, "namespaces \"none\" not found");
    let nameless = world
        .post(&world.core("configmaps"), &json!({ "metadata": {} }))
        .await;
    assert!(
        nameless
            .refused(422)
            .1
            .contains("name or generateName is required")
    );
    let odd = world
        .post(
            &world.core("configmaps"),
            &json!({ "metadata": { "name": "A_b" } }),
        )
        .await;
    assert!(odd.refused(422).1.contains("RFC 1123"));
}

#[tokio::test]
async fn a_stale_update_is_a_conflict_and_changes_nothing() {
    let world = World::new().await;
    let path = world.core("configmaps/a");
    let one = world.config_map("a", json!({ "k": "1" })).await;
    let mut two = one.clone();
    two["data"]["k"] = json!("2");
    let two = world.put(&path, &two).await.expect(200);
    assert!(version(&two) > version(&one));

    let mut stale = one;
    stale["data"]["k"] = json!("3");
    let (reason, message) = world.put(&path, &stale).await.refused(409);
    assert_eq!(reason, "Conflict");
    assert_eq!(
        message,
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the \
         latest version and try again"
    );
    assert_eq!(world.get(&path).await.expect(200), two);
}

#[tokio::test]
async fn an_update_that_changes_nothing_keeps_the_version() {
    let world = World::new().await;
    let one = world.config_map("a", json!({ "k": "1" })).await;
    let path = world.core("configmaps/a");
    let same = world.put(&path, &one).await.expect(200);
    assert_eq!(version(&same), version(&one));
    let patched = world
        .patch(&path, "merge", &json!({ "data": { "k": "1" } }))
        .await
        .expect(200);
    assert_eq!(version(&patched), version(&one));
}

#[tokio::test]
async fn each_kind_of_patch_does_its_own() {
    let world = World::new().await;
    let path = world.core("configmaps/a");
    world.config_map("a", json!({ "a": "1", "b": "1" })).await;
    let merged = world
        .patch(&path, "merge", &json!({ "data": { "a": null, "c": "1" } }))
        .await
        .expect(200);
    assert_eq!(merged["data"], json!({ "b": "1", "c": "1" }));
    let replaced =
        json!([{ "op": "test", "path": "/data/b", "value": "1" }, { "op": "remove", "path": "/data/b" }]);
    let patched = world.patch(&path, "json", &replaced).await.expect(200);
    assert_eq!(patched["data"], json!({ "c": "1" }));
    world.patch(&path, "json", &replaced).await.expect(422);
    let strategic = world
        .patch(&path, "strategic-merge", &json!({ "data": { "d": "1" } }))
        .await
        .expect(200);
    assert_eq!(strategic["data"], json!({ "c": "1", "d": "1" }));
    let (reason, _) = world.patch(&path, "novel", &json!({})).await.refused(415);
    assert_eq!(reason, "UnsupportedMediaType");
}

#[tokio::test]
async fn unknown_and_doubled_fields_are_refused_when_strict_and_warned_of_otherwise() {
    let world = World::new().await;
    let pod = br#"{"metadata":{"name":"a"},"spec":{"containres":[],"containers":[{"name":"a","image":"i","image":"i"}]}}"#;
    let path = world.core("pods");
    let strict = world
        .send(
            "POST",
            &format!("{path}?fieldValidation=Strict"),
            "application/json",
            pod.to_vec(),
            "",
        )
        .await;
    let (reason, message) = strict.refused(400);
    assert_eq!(reason, "BadRequest");
    for part in [
        "strict decoding error",
        "unknown field \"spec.containres\"",
        "duplicate field \"spec.containers[0].image\"",
    ] {
        assert!(message.contains(part), "{message}");
    }
    world.get(&world.core("pods/a")).await.expect(404);
    let made = world
        .send(
            "POST",
            &format!("{path}?fieldValidation=Ignore"),
            "application/json",
            pod.to_vec(),
            "",
        )
        .await
        .expect(201);
    assert_eq!(made["spec"]["containres"], Value::Null);
}

#[tokio::test]
async fn a_dry_run_checks_and_stores_nothing() {
    let world = World::new().await;
    let path = format!("{}?dryRun=All", world.core("configmaps"));
    let made = world
        .post(&path, &json!({ "metadata": { "name": "a" } }))
        .await
        .expect(201);
    assert_eq!(made["metadata"]["name"], "a");
    world.get(&world.core("configmaps/a")).await.expect(404);
}

#[tokio::test]
async fn deleting_asks_for_the_right_uid() {
    let world = World::new().await;
    let path = world.core("configmaps/a");
    let made = world.config_map("a", json!({})).await;
    let (reason, message) = world
        .delete(&path, &json!({ "preconditions": { "uid": "other" } }))
        .await
        .refused(409);
    assert_eq!(reason, "Conflict");
    assert!(
        message.contains("the UID in the precondition (other) does not match the UID in record"),
        "{message}"
    );
    let uid = &made["metadata"]["uid"];
    let status = world
        .delete(&path, &json!({ "preconditions": { "uid": uid } }))
        .await
        .expect(200);
    assert_eq!(status["status"], "Success");
    assert_eq!(&status["details"]["uid"], uid);
    world.get(&path).await.expect(404);
}

#[tokio::test]
async fn a_finalizer_holds_an_object_until_it_is_taken_off() {
    let world = World::new().await;
    let path = world.core("configmaps/a");
    let body = json!({ "metadata": { "name": "a", "finalizers": ["podid.dev/test"] } });
    world.post(&world.core("configmaps"), &body).await.expect(201);
    let pending = world.delete(&path, &json!({})).await.expect(200);
    assert!(pending["metadata"]["deletionTimestamp"].is_string());
    world.get(&path).await.expect(200);
    let more = json!({ "metadata": { "finalizers": ["podid.dev/test", "podid.dev/more"] } });
    let (reason, _) = world.patch(&path, "merge", &more).await.refused(422);
    assert_eq!(reason, "Invalid");
    let patch = json!({ "metadata": { "finalizers": null } });
    world.patch(&path, "merge", &patch).await.expect(200);
    world.gone(&path).await;
}

#[tokio::test]
async fn secrets_keep_bytes_and_take_text() {
    let world = World::new().await;
    let body = json!({ "metadata": { "name": "a" }, "stringData": { "k": "value" } });
    let made = world.post(&world.core("secrets"), &body).await.expect(201);
    assert_eq!(made["type"], "Opaque");
    assert_eq!(made["data"], json!({ "k": "dmFsdWU=" }));
    assert_eq!(made["stringData"], Value::Null);
}

#[tokio::test]
async fn a_body_of_another_kind_or_format_is_refused() {
    let world = World::new().await;
    let other = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "a" } });
    world.post(&world.core("configmaps"), &other).await.refused(400);
    let broken = world
        .send(
            "POST",
            &world.core("configmaps"),
            "application/json",
            b"{".to_vec(),
            "",
        )
        .await;
    broken.refused(400);
    let (reason, _) = world
        .send("POST", &world.core("configmaps"), "text/plain", b"x".to_vec(), "")
        .await
        .refused(415);
    assert_eq!(reason, "UnsupportedMediaType");
    let yaml = b"metadata: {name: b}\ndata: {k: v}\n".to_vec();
    world
        .send("POST", &world.core("configmaps"), "application/yaml", yaml, "")
        .await
        .expect(201);
}
