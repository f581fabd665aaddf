//! `podid get pods`: what the agents would decide, from what the cluster declares.

use serde_json::{Value, json};

use crate::world::{CLIENT_ID, World, id};

/// A pod on a node; without an address it has not started yet.
fn pod(namespace: &str, name: &str, labels: Value, status: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": namespace, "labels": labels },
        "spec": { "nodeName": "n1", "containers": [{ "name": "c", "image": "i" }] },
        "status": status,
    })
}

fn running(address: &str) -> Value {
    json!({ "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }] })
}

async fn world() -> World {
    let world = World::new().await;
    world.podid("enable").await.ok();
    for (name, flags) in [("a", "--client-id"), ("b", "--object-id")] {
        let line = format!(
            "add --namespace my-app --name {name} --binding-selector foo --identity-resource-id {} {flags} {CLIENT_ID} --wait",
            id(name)
        );
        world.podid(&line).await.ok();
    }
    let line = "exception add --namespace my-app --name agents --pod-labels app=agent --wait";
    world.podid(line).await.ok();
    let labelled = json!({ "aadpodidbinding": "foo" });
    for object in [
        pod("my-app", "agent", json!({ "app": "agent" }), running("10.0.0.1")),
        pod(
            "my-app",
            "done",
            labelled.clone(),
            json!({ "phase": "Succeeded" }),
        ),
        pod("my-app", "plain", json!({}), running("10.0.0.2")),
        pod("my-app", "soon", labelled.clone(), json!({ "phase": "Pending" })),
        pod("my-app", "web", labelled, running("10.0.0.3")),
        pod(
            "my-app",
            "wrong",
            json!({ "aadpodidbinding": "bar" }),
            running("10.0.0.4"),
        ),
    ] {
        world.create(object).await;
    }
    world
}

#[tokio::test]
async fn who_would_get_what_and_why_not() {
    let world = world().await;
    let ran = world.podid("get pods -n my-app").await.ok();
    assert_eq!(
        ran.data,
        "NAME    SELECTOR   GETS               ALSO     REASON\n\
         agent   <none>     <the node's own>   <none>   passed_through\n\
         done    foo        <none>             <none>   pod_finished\n\
         plain   <none>     <none>             <none>   no_binding_label\n\
         soon    foo        a                  b        token_issued\n\
         web     foo        a                  b        token_issued\n\
         wrong   bar        <none>             <none>   no_binding\n"
    );
    assert!(
        ran.words.contains("hint: no_binding: ") && ran.words.contains("hint: no_binding_label: "),
        "{}",
        ran.words
    );

    let ran = world
        .podid("get pods -n my-app --ambiguous-identity refuse web -o json")
        .await
        .ok();
    let view: Value = serde_json::from_str(&ran.data).unwrap();
    assert_eq!(view["reason"], "identity_ambiguous");
    assert_eq!(
        (&view["also"][0]["name"], &view["also"][1]["name"]),
        (&json!("a"), &json!("b"))
    );
    assert_eq!(view["also"][0]["clientId"], CLIENT_ID);

    let ran = world.podid("get pods -A -l app=agent -o name").await.ok();
    assert_eq!(ran.data, "pod/agent\n");
}

#[tokio::test]
async fn names_that_are_not_there_are_said_after_those_that_are() {
    let world = world().await;
    let ran = world.podid("get pods web nobody -n my-app -o name").await;
    assert_eq!(ran.data, "pod/web\n");
    assert_eq!(ran.result.unwrap_err().to_string(), "pods not found: nobody");

    let ran = world.podid("get identities a nobody -n my-app -o name").await;
    assert_eq!(ran.data, "azureidentity.aadpodidentity.k8s.io/a\n");
    let error = ran.result.unwrap_err();
    assert_eq!(error.to_string(), "azureidentities not found: nobody");
    assert_eq!(
        error.hint().unwrap(),
        "`podid get identities -A` shows what is there"
    );
}

#[tokio::test]
async fn explain_tells_the_steps_of_the_agents_decision() {
    let world = world().await;
    let ran = world.podid("explain wrong -n my-app").await.ok();
    let lines: Vec<&str> = ran.data.lines().collect();
    assert!(
        lines[0].starts_with("pod         my-app/wrong (uid "),
        "{}",
        ran.data
    );
    assert_eq!(lines[1], "exception   none matches");
    assert_eq!(lines[2], "binding     selector \"bar\" in namespace my-app");
    assert!(
        lines[4].starts_with("so          no_binding: Identity not found"),
        "{}",
        ran.data
    );

    let line = format!("explain web -n my-app --object-id {CLIENT_ID} -o json");
    let ran = world.podid(&line).await.ok();
    let explanation: Value = serde_json::from_str(&ran.data).unwrap();
    assert_eq!(explanation["identity"]["name"], "b");

    let error = world.podid("explain nobody -n my-app").await.result.unwrap_err();
    assert_eq!(error.to_string(), "pods not found: nobody");
}
