//! Other hands in the cluster: what is ours is put right again, what is not ours is left alone.

use kube::ResourceExt;
use kube::api::{DeleteParams, PostParams};
use podid_api::{AzureIdentity, AzureIdentityBinding, AzurePodIdentityException};
use podid_testkit::eventually;
use serde_json::json;

use crate::world::{CLIENT_ID, World, entry, id, meddle, state};

#[tokio::test]
async fn what_others_change_or_delete_is_put_right() {
    let world = World::new().await;
    world
        .set(json!({
            "enabled": true, "userAssignedIdentities": [entry("a", "x")],
            "userAssignedIdentityExceptions": [{ "name": "ex", "namespace": "a", "podLabels": { "app": "agent" } }],
        }))
        .await;
    world.ready("Assigned").await;
    let identities = world.within::<AzureIdentity>("a");
    let bindings = world.within::<AzureIdentityBinding>("a");
    let exceptions = world.within::<AzurePodIdentityException>("a");

    identities.delete("x", &DeleteParams::default()).await.unwrap();
    meddle(&bindings, "x", json!({ "spec": { "selector": "everybody" } })).await;
    // An exception that needs more labels excepts fewer pods; one that has the old spelling too is refused by the agent.
    let more = json!({ "spec": { "podLabels": { "more": "x" } }, "metadata": { "annotations": { "note": "mine" } } });
    meddle(&exceptions, "ex", more).await;

    eventually("all three are as they were", || async {
        let identity = identities.get_opt("x").await.unwrap().map(|object| object.spec);
        let binding = bindings.get("x").await.unwrap();
        let exception = exceptions.get("ex").await.unwrap();
        let labels = exception.spec.pod_labels.unwrap_or_default();
        let right = identity
            .as_ref()
            .is_some_and(|spec| spec.client_id.as_deref() == Some(CLIENT_ID))
            && binding.spec.selector.as_deref() == Some("x")
            && labels.len() == 1;
        if right {
            Ok(())
        } else {
            Err((identity, binding.spec, labels))
        }
    })
    .await
    .unwrap();
    // What is people's stays theirs.
    assert_eq!(exceptions.get("ex").await.unwrap().annotations()["note"], "mine");
}

#[tokio::test]
async fn an_object_made_by_hand_is_left_alone_and_holds_up_only_its_own_entry() {
    let world = World::new().await;
    world.namespace("a").await;
    let hand_made: AzureIdentityBinding = serde_json::from_value(json!({
        "apiVersion": "aadpodidentity.k8s.io/v1", "kind": "AzureIdentityBinding",
        "metadata": { "name": "x", "namespace": "a" }, "spec": { "azureIdentity": "theirs", "selector": "theirs" },
    }))
    .unwrap();
    let bindings = world.within::<AzureIdentityBinding>("a");
    let before = bindings.create(&PostParams::default(), &hand_made).await.unwrap();
    world
        .set(json!({ "enabled": true, "userAssignedIdentities": [entry("a", "x"), entry("a", "y")] }))
        .await;
    let status = world.ready("EntriesFailed").await.status.unwrap();
    assert_eq!(
        state(&status.user_assigned_identities, "x"),
        ("Failed".to_owned(), Some("object_not_ours".to_owned()))
    );
    assert_eq!(
        state(&status.user_assigned_identities, "y"),
        ("Assigned".to_owned(), None)
    );
    world
        .until_objects(&[
            "AzureIdentity a/y",
            "AzureIdentityBinding a/x",
            "AzureIdentityBinding a/y",
            "AzurePodIdentityException kube-system/aks-addon-exception",
        ])
        .await;
    let now = bindings.get("x").await.unwrap();
    assert_eq!(now.resource_version(), before.resource_version());

    bindings.delete("x", &DeleteParams::default()).await.unwrap();
    world.ready("Assigned").await;

    // Nor does taking the entry away, or all, touch what is made by hand.
    let hand_made: AzureIdentity = serde_json::from_value(json!({
        "apiVersion": "aadpodidentity.k8s.io/v1", "kind": "AzureIdentity",
        "metadata": { "name": "theirs", "namespace": "a" }, "spec": { "type": 0, "resourceID": id("theirs") },
    }))
    .unwrap();
    world
        .within("a")
        .create(&PostParams::default(), &hand_made)
        .await
        .unwrap();
    world.delete_profile().await;
    world.until_objects(&["AzureIdentity a/theirs"]).await;
}

#[tokio::test]
async fn a_name_that_podid_keeps_for_itself_fails_its_entry_alone() {
    let world = World::new().await;
    world
        .set(json!({
            "enabled": true, "userAssignedIdentities": [entry("a", "x")],
            "userAssignedIdentityExceptions": [
                { "name": "aks-addon-exception", "namespace": "kube-system", "podLabels": { "app": "everything" } }],
        }))
        .await;
    let status = world.ready("EntriesFailed").await.status.unwrap();
    assert_eq!(
        state(&status.user_assigned_identity_exceptions, "aks-addon-exception"),
        ("Failed".to_owned(), Some("name_reserved".to_owned()))
    );
    assert_eq!(
        state(&status.user_assigned_identities, "x"),
        ("Assigned".to_owned(), None)
    );
}
