//! Edits that wait until the controller has done them, or say why it did not.

use kube::Api;
use podid_api::{AzureIdentity, PodIdentityProfile};
use serde_json::{Value, json};

use crate::world::{CLIENT_ID, World, id};

#[tokio::test]
async fn add_waits_until_the_identity_is_assigned_and_delete_until_its_objects_are_gone() {
    let world = World::new().await;
    let ran = world.podid("enable --network-plugin azure --wait").await.ok();
    assert!(ran.words.starts_with("pod identity is on\n"), "{}", ran.words);
    assert!(ran.words.contains("pod identity: in force\n"), "{}", ran.words);

    let line = format!(
        "add --namespace my-app --name web --identity-resource-id {} --client-id {CLIENT_ID} --wait -o table",
        id("web")
    );
    let ran = world.podid(&line).await.ok();
    assert!(
        ran.words.contains("pod identity my-app/web: Assigned\n"),
        "{}",
        ran.words
    );
    assert_eq!(
        ran.data,
        format!(
            "NAME   NAMESPACE   SELECTOR   CLIENTID                               STATE\n\
             web    my-app      web        {CLIENT_ID}   Assigned\n"
        )
    );
    let identities = Api::<AzureIdentity>::namespaced(world.client.clone(), "my-app");
    identities.get("web").await.unwrap();

    let ran = world
        .podid("exception add --namespace my-app --name ex --pod-labels app=web --wait")
        .await
        .ok();
    assert!(
        ran.words
            .contains("pod identity exception my-app/ex: Succeeded\n"),
        "{}",
        ran.words
    );

    let ran = world
        .podid("delete --namespace my-app --name web --wait")
        .await
        .ok();
    assert!(
        ran.words
            .ends_with("pod identity my-app/web: gone, with the objects made from it\n"),
        "{}",
        ran.words
    );
    assert!(identities.get_opt("web").await.unwrap().is_none());

    let ran = world.podid("disable --wait").await.ok();
    assert!(
        ran.words
            .ends_with("pod identity: off, and everything made from it is gone\n"),
        "{}",
        ran.words
    );
}

#[tokio::test]
async fn what_the_controller_cannot_do_is_said_in_its_words_with_what_helps() {
    let world = World::new().await;
    world.podid("enable --wait").await.ok();
    world
        .create(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "my-app" } }))
        .await;
    world
        .create(json!({
            "apiVersion": "aadpodidentity.k8s.io/v1", "kind": "AzureIdentity",
            "metadata": { "name": "web", "namespace": "my-app" },
            "spec": { "type": 0, "resourceID": id("theirs") },
        }))
        .await;
    let line = format!(
        "add --namespace my-app --name web --identity-resource-id {} --wait",
        id("web")
    );
    let error = world.podid(&line).await.result.unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("pod identity my-app/web is not in force: "),
        "{text}"
    );
    assert!(text.ends_with("(object_not_ours)"), "{text}");
    assert_eq!(
        error.hint().unwrap(),
        "delete that object, or choose another name"
    );
}

#[tokio::test]
async fn without_a_controller_the_wait_ends_at_its_bound_and_says_so() {
    let world = World::without_controller().await;
    let error = world
        .podid("enable --wait --timeout 1s")
        .await
        .result
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "pod identity is not done after 1s: the controller has not looked at it yet"
    );
    assert!(error.hint().unwrap().contains("is podid-controller running?"));
}

#[tokio::test]
async fn a_dry_run_on_the_server_is_answered_by_it_and_kept_nowhere() {
    let world = World::without_controller().await;
    let profiles = Api::<PodIdentityProfile>::all(world.client.clone());
    let ran = world.podid("enable --dry-run=server -o name").await.ok();
    assert_eq!(ran.data, "podidentityprofile.podid.dev/cluster\n");
    assert!(
        ran.words.starts_with("pod identity is on (server dry run)\n"),
        "{}",
        ran.words
    );
    let ran = world.podid("enable --dry-run=server -o json").await.ok();
    let answer: Value = serde_json::from_str(&ran.data).unwrap();
    assert!(answer["metadata"]["uid"].is_string(), "{answer}");
    assert!(profiles.get_opt("cluster").await.unwrap().is_none());

    world.podid("enable").await.ok();
    let line = format!(
        "add --namespace my-app --name web --identity-resource-id {} --dry-run=server -o yaml",
        id("web")
    );
    let ran = world.podid(&line).await.ok();
    assert!(ran.data.contains("kind: PodIdentityProfile\n"), "{}", ran.data);
    let profile = profiles.get("cluster").await.unwrap();
    assert_eq!(profile.spec.identities(), []);
}
