//! Discovery, as kube and `kubectl` use it.

use http::{Request, StatusCode};
use kube::discovery::Discovery;

use crate::world::World;

#[tokio::test]
async fn kube_discovers_our_kinds_in_both_forms() {
    let world = World::new().await;
    for discovery in [
        Discovery::new(world.client.clone()).run().await.unwrap(),
        Discovery::new(world.client.clone())
            .run_aggregated()
            .await
            .unwrap(),
    ] {
        for (group, kind) in [
            ("", "Pod"),
            ("", "Namespace"),
            ("", "Node"),
            ("", "Secret"),
            ("", "Event"),
            ("coordination.k8s.io", "Lease"),
            ("events.k8s.io", "Event"),
            ("apiextensions.k8s.io", "CustomResourceDefinition"),
        ] {
            let group = discovery.get(group).unwrap();
            assert!(group.recommended_kind(kind).is_some(), "{kind}");
        }
    }
}

#[tokio::test]
async fn the_version_is_one_that_clients_understand() {
    let world = World::new().await;
    let version = world.client.apiserver_version().await.unwrap();
    assert_eq!(version.major, "1");
    assert!(version.minor.trim_end_matches('+').parse::<u32>().unwrap() >= 32);
}

#[tokio::test]
async fn openapi_says_that_patches_validate_fields() {
    let world = World::new().await;
    let index = world.get("/openapi/v3").await.expect(200);
    let url = index["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = world.get(url).await.expect(200);
    let patch = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Pod");
    let names: Vec<&str> = patch["parameters"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|parameter| parameter["name"].as_str())
        .collect();
    assert!(names.contains(&"fieldValidation"), "{names:?}");
}

#[tokio::test]
async fn a_bad_token_is_refused_in_the_api_servers_shape() {
    let world = World::new().await;
    let mut config = world.config.clone();
    config.auth_info = kube::config::AuthInfo {
        token: Some("nobody".to_owned().into()),
        ..kube::config::AuthInfo::default()
    };
    let stranger = kube::Client::try_from(config).unwrap();
    let request = Request::get("/api/v1/namespaces")
        .body(kube::client::Body::empty())
        .unwrap();
    let response = stranger.send(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let body: serde_json::Value =
        serde_json::from_slice(&response.into_body().collect_bytes().await.unwrap()).unwrap();
    assert_eq!(
        (&body["kind"], &body["reason"]),
        (&"Status".into(), &"Unauthorized".into())
    );
}
