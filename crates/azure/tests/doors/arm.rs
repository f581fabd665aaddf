//! ARM. Bodies: aad-pod-identity v1.8.17 as run, and ARM's documentation of asynchronous operations.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use podid_azure::arm::{FederatedCredential, Host, IdentityChange};
use podid_azure::{Arm, TlsRoots};
use podid_core::{AccessToken, IdentityResourceId, Retry, Secret};
use serde_json::{Value, json};

use crate::server::{Server, say};
use crate::{NOW, clock, pairs};

const HOST: &str =
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/pool";

struct World {
    server: Server,
    arm: Arm,
    fetched: Arc<AtomicUsize>,
}

async fn world() -> World {
    let server = Server::start().await.unwrap();
    let fetched = Arc::new(AtomicUsize::new(0));
    let fetch = {
        let fetched = Arc::clone(&fetched);
        Arc::new(move || {
            let nth = fetched.fetch_add(1, Ordering::Relaxed) + 1;
            let token = AccessToken {
                secret: Secret::new(format!("token-{nth}")),
                expires_on: NOW + 3_600,
                not_before: None,
                token_type: "Bearer".into(),
                resource: "https://management.azure.com/".into(),
                client_id: None,
            };
            Box::pin(std::future::ready(Ok(token))) as podid_azure::arm::Fetching
        })
    };
    let arm = Arm::new(&server.url, &TlsRoots::default(), fetch, clock()).unwrap();
    World { server, arm, fetched }
}

fn id(name: &str) -> IdentityResourceId {
    format!(
        "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
    )
    .parse()
    .unwrap()
}

fn host() -> Host {
    HOST.parse().unwrap()
}

fn adding(name: &str) -> IdentityChange {
    IdentityChange {
        add: vec![id(name)],
        remove: Vec::new(),
    }
}

fn model(identity: &Value) -> String {
    json!({"id": HOST, "location": "westeurope", "etag": "\"7\"", "identity": identity, "properties": {"provisioningState": "Succeeded"}})
        .to_string()
}

#[tokio::test]
async fn a_change_is_read_patched_and_followed_to_its_end() {
    let world = world().await;
    let operation = format!(
        "{}subscriptions/s/providers/Microsoft.Compute/locations/l/operations/1?api-version=x",
        world.server.url
    );
    world
        .server
        .will(say(200, model(&json!({"type": "SystemAssigned"}))));
    world.server.will(
        say(202, "{}")
            .with("azure-asyncoperation", operation.as_str())
            .with("location", "https://elsewhere.example/")
            .with("retry-after", "0"),
    );
    world
        .server
        .will(say(200, r#"{"status":"InProgress"}"#).with("retry-after", "0"));
    world.server.will(say(503, "").with("retry-after", "0"));
    world
        .server
        .will(say(200, r#"{"name":"1","status":"Succeeded"}"#));
    world
        .arm
        .change_host_identities(&host(), &adding("a"))
        .await
        .unwrap();
    let seen = world.server.seen();
    let asked: Vec<_> = seen
        .iter()
        .map(|seen| (seen.method.as_str(), seen.path.as_str()))
        .collect();
    let poll = (
        "GET",
        "/subscriptions/s/providers/Microsoft.Compute/locations/l/operations/1",
    );
    assert_eq!(asked, [("GET", HOST), ("PATCH", HOST), poll, poll, poll]);
    assert_eq!(pairs(&seen[1].query), [("api-version", "2024-07-01")]);
    assert_eq!(
        (seen[1].header("if-match"), seen[1].header("content-type")),
        ("\"7\"", "application/json")
    );
    assert_eq!(
        serde_json::from_str::<Value>(&seen[1].body).unwrap(),
        json!({"identity": {"type": "SystemAssigned, UserAssigned", "userAssignedIdentities": {id("a").to_string(): {}}}})
    );
    assert!(
        seen.iter()
            .all(|seen| seen.header("authorization") == "Bearer token-1")
    );
    assert_eq!(world.fetched.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn what_is_already_so_costs_one_read() {
    let world = world().await;
    let there =
        json!({"type": "UserAssigned", "userAssignedIdentities": {id("A").to_string(): {"clientId": "x"}}});
    world.server.will(say(200, model(&there)));
    world
        .arm
        .change_host_identities(&host(), &adding("a"))
        .await
        .unwrap();
    assert_eq!(world.server.seen().len(), 1);
}

#[tokio::test]
async fn an_operation_that_fails_says_why() {
    let world = world().await;
    let operation = format!("{}op", world.server.url);
    world.server.will(say(200, model(&Value::Null)));
    world
        .server
        .will(say(200, "{}").with("azure-asyncoperation", operation));
    world.server.will(say(
        200,
        r#"{"status":"Failed","error":{"code":"FailedIdentityOperation","message":"no such identity"}}"#,
    ));
    let error = world
        .arm
        .change_host_identities(&host(), &adding("a"))
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.arm_code()),
        ("arm_operation_failed", Some("FailedIdentityOperation"))
    );
}

#[tokio::test]
async fn the_token_is_never_sent_to_another_address() {
    let world = world().await;
    let stranger = Server::start().await.unwrap();
    world.server.will(say(200, model(&Value::Null)));
    world
        .server
        .will(say(202, "").with("location", stranger.url.as_str()));
    let error = world
        .arm
        .change_host_identities(&host(), &adding("a"))
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), stranger.seen().len()),
        ("arm_foreign_operation", 0)
    );
}

#[tokio::test]
async fn a_host_that_goes_away_or_was_changed_by_others_is_left_alone() {
    let world = world().await;
    world
        .server
        .will(say(200, r#"{"properties":{"provisioningState":"Deleting"}}"#));
    let error = world
        .arm
        .change_host_identities(&host(), &adding("a"))
        .await
        .unwrap_err();
    assert_eq!((error.code(), world.server.seen().len()), ("arm_deleting", 1));
    world.server.will(say(200, model(&Value::Null)));
    world.server.will(say(412, ""));
    let error = world
        .arm
        .change_host_identities(&host(), &adding("a"))
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.retry()),
        ("arm_changed", Retry::After(Duration::ZERO))
    );
}

#[tokio::test]
async fn after_throttling_nothing_more_is_sent_of_that_kind() {
    let world = world().await;
    world.server.will(say(429, "").with("retry-after", "600"));
    for held_back in [0, 1] {
        let error = world.arm.host_identities(&host()).await.unwrap_err();
        assert_eq!(error.code(), "arm_throttled");
        assert!(
            matches!(error.retry(), Retry::After(after) if after > Duration::from_secs(590)),
            "{held_back}"
        );
    }
    assert_eq!(world.server.seen().len(), 1);
    // Other kinds of resources are counted by themselves.
    world.server.will(say(
        200,
        r#"{"properties":{"clientId":"00000000-0000-0000-0000-000000000001","principalId":"00000000-0000-0000-0000-000000000002","tenantId":"00000000-0000-0000-0000-000000000003"}}"#,
    ));
    world.arm.managed_identity(&id("a")).await.unwrap();
}

#[tokio::test]
async fn a_refused_token_is_fetched_anew() {
    let world = world().await;
    world.server.will(say(
        401,
        r#"{"error":{"code":"InvalidAuthenticationToken","message":"expired"}}"#,
    ));
    world.server.will(say(200, model(&Value::Null)));
    assert_eq!(
        world.arm.host_identities(&host()).await.unwrap_err().code(),
        "arm_unauthenticated"
    );
    world.arm.host_identities(&host()).await.unwrap();
    assert_eq!(world.server.seen()[1].header("authorization"), "Bearer token-2");
}

#[tokio::test]
async fn federated_credentials_are_listed_put_and_deleted() {
    let world = world().await;
    let credential = FederatedCredential {
        name: "podid-my-app".to_owned(),
        issuer: "https://issuer.example/".to_owned(),
        subject: "system:serviceaccount:my-app:default".to_owned(),
        audiences: vec!["api://AzureADTokenExchange".to_owned()],
    };
    let properties = json!({"issuer": credential.issuer, "subject": credential.subject, "audiences": credential.audiences});
    world.server.will(say(
        201,
        json!({"name": credential.name, "properties": properties}).to_string(),
    ));
    world.server.will(say(
        200,
        json!({"value": [{"name": credential.name, "properties": properties}]}).to_string(),
    ));
    world.server.will(say(204, ""));
    world.server.will(say(404, ""));
    world
        .arm
        .put_federated_credential(&id("a"), &credential)
        .await
        .unwrap();
    assert_eq!(
        world.arm.federated_credentials(&id("a")).await.unwrap(),
        [credential]
    );
    for _there_and_not_there in 0..2 {
        world
            .arm
            .delete_federated_credential(&id("a"), "podid-my-app")
            .await
            .unwrap();
    }
    let seen = world.server.seen();
    assert_eq!(
        seen[0].path,
        format!("{}/federatedIdentityCredentials/podid-my-app", id("a"))
    );
    assert_eq!(
        serde_json::from_str::<Value>(&seen[0].body).unwrap(),
        json!({"properties": properties})
    );
    let methods: Vec<_> = seen.iter().map(|seen| seen.method.as_str()).collect();
    assert_eq!(methods, ["PUT", "GET", "DELETE", "DELETE"]);
    let error = world
        .arm
        .delete_federated_credential(&id("a"), "../../x")
        .await
        .unwrap_err();
    assert_eq!((error.code(), world.server.seen().len()), ("arm_name_invalid", 4));
}
