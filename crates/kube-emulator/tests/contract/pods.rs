//! Pods, as an API server treats them before any kubelet does.

use serde_json::{Value, json};

use crate::world::World;

async fn pod(world: &World, name: &str) -> Value {
    let body = json!({ "metadata": { "name": name }, "spec": { "containers": [{ "name": "main", "image": "busybox" }] } });
    world.post(&world.core("pods"), &body).await.expect(201)
}

async fn node(world: &World) -> String {
    let name = format!("node-{}", world.namespace);
    let body = json!({ "metadata": { "name": name }, "status": { "phase": "", "addresses": [] } });
    let made = world.post("/api/v1/nodes", &body).await.expect(201);
    made["metadata"]["name"].as_str().unwrap().to_owned()
}

async fn bind(world: &World, pod: &str, node: &str) -> crate::world::Answer {
    let binding = json!({ "metadata": { "name": pod }, "target": { "kind": "Node", "name": node } });
    world
        .post(&world.core(&format!("pods/{pod}/binding")), &binding)
        .await
}

#[tokio::test]
async fn a_new_pod_is_pending_and_has_its_defaults() {
    let world = World::new().await;
    let pod = pod(&world, "a").await;
    assert_eq!(pod["status"]["phase"], "Pending");
    assert_eq!(pod["status"]["qosClass"], "BestEffort");
    for (field, value) in [
        ("restartPolicy", json!("Always")),
        ("serviceAccountName", json!("default")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("dnsPolicy", json!("ClusterFirst")),
    ] {
        assert_eq!(pod["spec"][field], value, "{field}");
    }
    assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], "Always");
    assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), 2);
    let mount = &pod["spec"]["containers"][0]["volumeMounts"][0];
    assert_eq!(
        mount["mountPath"],
        "/var/run/secrets/kubernetes.io/serviceaccount"
    );
    assert_eq!(mount["name"], pod["spec"]["volumes"][0]["name"]);
    // What admission and the server added belongs to nobody.
    let managed = &pod["metadata"]["managedFields"][0]["fieldsV1"];
    assert!(managed["f:spec"]["f:restartPolicy"].is_object());
    for (part, field) in [
        ("f:spec", "f:priority"),
        ("f:spec", "f:volumes"),
        ("f:status", "f:phase"),
    ] {
        assert!(managed[part][field].is_null(), "{field}");
    }
}

#[tokio::test]
async fn a_pod_needs_containers_with_names_and_images_and_an_account() {
    let world = World::new().await;
    let path = world.core("pods");
    for (spec, part) in [
        (json!({ "containers": [] }), "spec.containers: Required value"),
        (
            json!({ "containers": [{ "name": "a" }] }),
            "spec.containers[0].image: Required value",
        ),
        (
            json!({ "containers": [{ "name": "A", "image": "i" }] }),
            "spec.containers[0].name: Invalid value",
        ),
        (
            json!({ "restartPolicy": "Never mind", "containers": [{ "name": "a", "image": "i" }] }),
            "spec.restartPolicy: Unsupported value",
        ),
    ] {
        let (_, message) = world
            .post(&path, &json!({ "metadata": { "name": "a" }, "spec": spec }))
            .await
            .refused(422);
        assert!(message.contains(part), "{message}");
    }
    let spec = json!({ "serviceAccountName": "none", "containers": [{ "name": "a", "image": "i" }] });
    let (reason, message) = world
        .post(&path, &json!({ "metadata": { "name": "a" }, "spec": spec }))
        .await
        .refused(403);
    assert_eq!(reason, "Forbidden");
    assert!(message.contains("serviceaccount \"none\" not found"), "{message}");
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let world = World::new().await;
    pod(&world, "a").await;
    let node = node(&world).await;
    bind(&world, "a", &node).await.expect(201);
    let bound = world.get(&world.core("pods/a")).await.expect(200);
    assert_eq!(bound["spec"]["nodeName"], node);
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
    assert_eq!(bind(&world, "a", &node).await.refused(409).0, "Conflict");
    let selected = world
        .get(&format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}"))
        .await
        .expect(200);
    assert_eq!(selected["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_running_pod_has_its_grace_and_a_waiting_one_goes_at_once() {
    let world = World::new().await;
    let path = world.core("pods/a");
    pod(&world, "a").await;
    pod(&world, "b").await;
    let node = node(&world).await;
    bind(&world, "a", &node).await.expect(201);
    world.delete(&world.core("pods/b"), &json!({})).await.expect(200);
    world.get(&world.core("pods/b")).await.expect(404);
    let pending = world.delete(&path, &json!({})).await.expect(200);
    assert_eq!(pending["metadata"]["deletionGracePeriodSeconds"], 30);
    world.get(&path).await.expect(200);
    let shorter = world
        .delete(&path, &json!({ "gracePeriodSeconds": 5 }))
        .await
        .expect(200);
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    world
        .delete(&path, &json!({ "gracePeriodSeconds": 0 }))
        .await
        .expect(200);
    world.get(&path).await.expect(404);
}

#[tokio::test]
async fn only_the_image_of_a_pod_may_change() {
    let world = World::new().await;
    let path = world.core("pods/a");
    pod(&world, "a").await;
    let image = json!({ "spec": { "containers": [{ "name": "main", "image": "busybox:2" }] } });
    let patched = world.patch(&path, "strategic-merge", &image).await.expect(200);
    assert_eq!(patched["spec"]["containers"][0]["image"], "busybox:2");
    let node = json!({ "spec": { "hostNetwork": true } });
    let (_, message) = world.patch(&path, "strategic-merge", &node).await.refused(422);
    assert!(
        message.contains("pod updates may not change fields other than"),
        "{message}"
    );
}

#[tokio::test]
async fn the_status_of_a_pod_is_written_through_its_own_way() {
    let world = World::new().await;
    let path = world.core("pods/a");
    pod(&world, "a").await;
    let status = json!({ "status": { "phase": "Running", "podIP": "10.0.0.9" } });
    let ignored = world.patch(&path, "merge", &status).await.expect(200);
    assert_eq!(ignored["status"]["phase"], "Pending");
    let written = world
        .patch(&format!("{path}/status"), "merge", &status)
        .await
        .expect(200);
    assert_eq!(written["status"]["phase"], "Running");
    assert_eq!(written["status"]["podIPs"], json!([{ "ip": "10.0.0.9" }]));
}

#[tokio::test]
async fn evicting_deletes() {
    let world = World::new().await;
    pod(&world, "a").await;
    let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": "a" } });
    world
        .post(&world.core("pods/a/eviction"), &eviction)
        .await
        .expect(201);
    world.gone(&world.core("pods/a")).await;
}

#[tokio::test]
async fn a_pod_that_is_on_no_node_has_no_logs() {
    let world = World::new().await;
    pod(&world, "a").await;
    assert_eq!(world.get(&world.core("pods/a/log")).await.code.as_u16(), 204);
    world.get(&world.core("pods/none/log")).await.refused(404);
    let (_, message) = world
        .get(&world.core("pods/a/log?container=other"))
        .await
        .refused(400);
    assert!(
        message.contains("container other is not valid for pod a"),
        "{message}"
    );
}

#[tokio::test]
async fn events_are_found_by_what_they_are_about_in_both_groups() {
    let world = World::new().await;
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": { "name": "a.1" },
        "eventTime": "2026-11-25T00:00:00.000000Z", "reportingController": "podid.dev/test",
        "reportingInstance": "here", "action": "Testing", "reason": "Tested", "type": "Normal", "note": "a note",
        "regarding": { "apiVersion": "v1", "kind": "Pod", "name": "a", "namespace": world.namespace },
    });
    world
        .post(&world.group("events.k8s.io/v1", "events"), &event)
        .await
        .expect(201);
    let query = "fieldSelector=involvedObject.name%3Da,involvedObject.kind%3DPod";
    let list = world
        .get(&format!("{}?{query}", world.core("events")))
        .await
        .expect(200);
    let found = &list["items"][0];
    assert_eq!(
        (&found["message"], &found["reason"]),
        (&json!("a note"), &json!("Tested"))
    );
    assert_eq!(found["involvedObject"]["name"], "a");
    assert_eq!(found["reportingComponent"], "podid.dev/test");
    let vague = json!({ "metadata": { "name": "b" }, "note": "n", "regarding": { "kind": "Pod", "name": "a",
        "namespace": world.namespace } });
    let (_, message) = world
        .post(&world.group("events.k8s.io/v1", "events"), &vague)
        .await
        .refused(422);
    assert!(message.contains("eventTime: Required value"), "{message}");
    let none = world
        .get(&format!(
            "{}?fieldSelector=involvedObject.name%3Db",
            world.core("events")
        ))
        .await
        .expect(200);
    assert_eq!(none["items"], json!([]));
}
