//! From the profile to objects and status, and back to nothing.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use podid_api::{AzureIdentity, AzureIdentityBinding, AzurePodIdentityException};
use serde_json::json;

use crate::world::{CLIENT_ID, OBJECT_ID, World, entry, id, profile, state};

#[tokio::test]
async fn a_profile_becomes_objects_and_the_status_says_so() {
    let world = World::new().await;
    world
        .set(json!({
            "enabled": true,
            "userAssignedIdentities": [
                { "name": "web", "namespace": "my-app", "bindingSelector": "foo",
                  "identity": { "resourceId": id("web"), "clientId": CLIENT_ID, "objectId": OBJECT_ID } },
                entry("my-app", "jobs"),
            ],
            "userAssignedIdentityExceptions": [
                { "name": "agents", "namespace": "ops", "podLabels": { "app": "agent", "tier": "node" } }],
        }))
        .await;
    let ready = world.ready("Assigned").await;
    let status = ready.status.unwrap();
    for name in ["web", "jobs"] {
        assert_eq!(
            state(&status.user_assigned_identities, name),
            ("Assigned".to_owned(), None)
        );
    }
    assert_eq!(
        state(&status.user_assigned_identity_exceptions, "agents"),
        ("Succeeded".to_owned(), None)
    );
    assert_eq!(status.conditions[0].status, "True");

    world
        .until_objects(&[
            "AzureIdentity my-app/jobs",
            "AzureIdentity my-app/web",
            "AzureIdentityBinding my-app/jobs",
            "AzureIdentityBinding my-app/web",
            "AzurePodIdentityException kube-system/aks-addon-exception",
            "AzurePodIdentityException ops/agents",
        ])
        .await;
    let identity: AzureIdentity = world.within("my-app").get("web").await.unwrap();
    assert_eq!(
        serde_json::to_value(&identity.spec).unwrap(),
        json!({ "type": 0, "resourceID": id("web"), "clientID": CLIENT_ID })
    );
    assert_eq!(identity.annotations()["podid.dev/object-id"], OBJECT_ID);
    assert_eq!(
        identity.labels()["app.kubernetes.io/managed-by"],
        "podid-controller"
    );
    let owner = &identity.owner_references()[0];
    assert_eq!(
        (owner.kind.as_str(), owner.name.as_str(), Some(owner.uid.as_str())),
        ("PodIdentityProfile", "cluster", ready.metadata.uid.as_deref())
    );
    let bindings = world.within::<AzureIdentityBinding>("my-app");
    assert_eq!(
        bindings.get("web").await.unwrap().folded().unwrap(),
        (Some("web"), Some("foo"))
    );
    assert_eq!(
        bindings.get("jobs").await.unwrap().folded().unwrap(),
        (Some("jobs"), Some("jobs"))
    );
    let addon: AzurePodIdentityException = world
        .within("kube-system")
        .get("aks-addon-exception")
        .await
        .unwrap();
    assert_eq!(
        addon.spec.pod_labels.unwrap()["kubernetes.azure.com/managedby"],
        "aks"
    );
}

#[tokio::test]
async fn what_leaves_the_profile_goes_and_the_rest_stays() {
    let world = World::new().await;
    world
        .set(json!({ "enabled": true, "userAssignedIdentities": [entry("a", "x"), entry("b", "y")] }))
        .await;
    world.ready("Assigned").await;
    let kept: AzureIdentity = world.within("b").get("y").await.unwrap();
    world
        .set(json!({ "enabled": true, "userAssignedIdentities": [entry("b", "y")] }))
        .await;
    world
        .until_objects(&[
            "AzureIdentity b/y",
            "AzureIdentityBinding b/y",
            "AzurePodIdentityException kube-system/aks-addon-exception",
        ])
        .await;
    let now: AzureIdentity = world.within("b").get("y").await.unwrap();
    assert_eq!(
        (now.uid(), now.resource_version()),
        (kept.uid(), kept.resource_version())
    );

    world.set(json!({ "enabled": false })).await;
    world.ready("Disabled").await;
    world.until_objects(&[]).await;

    world
        .set(json!({ "enabled": true, "userAssignedIdentities": [entry("b", "y")] }))
        .await;
    world.ready("Assigned").await;
    world.delete_profile().await;
    world.until_objects(&[]).await;
    assert!(world.profiles.get_opt("cluster").await.unwrap().is_none());
    // The pods of people may be in it by now.
    Api::<Namespace>::all(world.client.clone())
        .get("b")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_profile_deleted_while_no_controller_runs_leaves_nothing_once_one_does() {
    let world = World::without_controller().await;
    world.namespace("a").await;
    let left: AzureIdentity = serde_json::from_value(json!({
        "apiVersion": "aadpodidentity.k8s.io/v1", "kind": "AzureIdentity",
        "metadata": {
            "name": "x", "namespace": "a", "labels": { "app.kubernetes.io/managed-by": "podid-controller" },
            "ownerReferences": [{ "apiVersion": "podid.dev/v1alpha1", "kind": "PodIdentityProfile", "name": "cluster", "uid": "gone" }],
        },
        "spec": { "type": 0, "resourceID": id("x") },
    }))
    .unwrap();
    world
        .within("a")
        .create(&PostParams::default(), &left)
        .await
        .unwrap();
    let world = world.start_controller(None).await;
    world.until_objects(&[]).await;
}

#[tokio::test]
async fn kubenet_needs_consent() {
    let world = World::new().await;
    let mut spec =
        json!({ "enabled": true, "networkPlugin": "kubenet", "userAssignedIdentities": [entry("a", "x")] });
    world.set(spec.clone()).await;
    let status = world.ready("KubenetNotAllowed").await.status.unwrap();
    assert_eq!(
        state(&status.user_assigned_identities, "x"),
        ("Failed".to_owned(), Some("kubenet_not_allowed".to_owned()))
    );
    assert_eq!(world.objects().await, Vec::<String>::new());
    spec["allowNetworkPluginKubenet"] = json!(true);
    world.set(spec).await;
    world.ready("Assigned").await;
}

#[tokio::test]
async fn more_than_two_hundred_entries_and_other_profiles_are_refused_by_the_crd() {
    let world = World::without_controller().await;
    let entries = |count: usize| {
        (0..count)
            .map(|n| entry("a", &format!("x{n}")))
            .collect::<Vec<_>>()
    };
    let create = async |profile| world.profiles.create(&PostParams::default(), &profile).await;

    let error = create(profile(
        json!({ "enabled": true, "userAssignedIdentities": entries(201) }),
    ))
    .await
    .unwrap_err();
    assert!(
        matches!(&error, kube::Error::Api(status) if status.code == 422 && status.message.contains("200")),
        "{error}"
    );
    let mut other = profile(json!({ "enabled": true }));
    other.metadata.name = Some("other".to_owned());
    let error = create(other).await.unwrap_err();
    assert!(
        matches!(&error, kube::Error::Api(status) if status.code == 422),
        "{error}"
    );
    let twice = json!({ "enabled": true, "userAssignedIdentities": [entry("a", "x"), entry("a", "x")] });
    let error = create(profile(twice)).await.unwrap_err();
    assert!(
        matches!(&error, kube::Error::Api(status) if status.message.contains("Duplicate")),
        "{error}"
    );
    create(profile(
        json!({ "enabled": true, "userAssignedIdentities": entries(200) }),
    ))
    .await
    .unwrap();
}
