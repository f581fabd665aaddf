//! Who may do what: missing, wrong and expired tokens; roles in audit and in force.

use std::time::Duration;

use podid_azure_emulator::{Authorization, Config};
use reqwest::Method;
use serde_json::json;

use crate::support::{ARM, Azure, CLUSTER, OPERATOR, cluster};

#[tokio::test]
async fn only_a_token_of_ours_for_arm_that_still_lives_is_let_in() {
    let clock = podid_rt::clock::Clock::fixed(1_800_000_000);
    let azure = Azure::start(Config {
        clock: clock.clone(),
        ..Config::default()
    })
    .await;
    let url = format!("{}/subscriptions?api-version=2022-12-01", azure.arm());
    let missing = azure.send(azure.http.get(&url)).await;
    assert!(
        missing
            .header("www-authenticate")
            .starts_with("Bearer authorization_uri=\"https://")
    );
    assert_eq!(missing.refused(401), "AuthenticationFailed");
    let ask = async |token: &str| azure.send(azure.http.get(&url).bearer_auth(token)).await;
    assert_eq!(ask("x.y.z").await.refused(401), "InvalidAuthenticationToken");
    let (id, secret) = (azure.emulator.client_id(), azure.emulator.client_secret());
    let vault = azure.sign_in(id, secret, "https://vault.azure.net").await;
    assert_eq!(
        ask(vault.text("/access_token")).await.refused(401),
        "InvalidAuthenticationTokenAudience"
    );
    for audience in [
        ARM,
        "https://management.core.windows.net/",
        "https://management.azure.com",
        azure.arm(),
    ] {
        let token = azure.sign_in(id, secret, audience).await;
        ask(token.text("/access_token")).await.expect(200);
    }
    let other = Azure::default().await;
    let foreign = other
        .sign_in(other.emulator.client_id(), other.emulator.client_secret(), ARM)
        .await;
    assert_eq!(
        ask(foreign.text("/access_token")).await.refused(401),
        "InvalidAuthenticationToken"
    );
    let token = azure.sign_in(id, secret, ARM).await;
    clock.advance(Duration::from_hours(2));
    assert_eq!(
        ask(token.text("/access_token")).await.refused(401),
        "ExpiredAuthenticationToken"
    );
}

/// The tutorial grants rights on the node group, and lists machines of another group.
async fn machines_of_the_identitys_group(authorization: Authorization) -> (Azure, String) {
    let azure = Azure::start(Config {
        authorization,
        machine: false,
        ..Config::default()
    })
    .await;
    azure.group("g").await;
    azure.group("ids").await;
    let made = azure
        .put(CLUSTER, cluster(Some("azure"), json!({ "enabled": true })))
        .await
        .expect(201);
    let identity = azure.identity("ids", "app-identity").await;
    let node_group = format!("{}/resourceGroups/MC_g_c_eastus", azure.sub());
    azure
        .grant(
            "Reader",
            identity["properties"]["principalId"].as_str().unwrap(),
            &node_group,
        )
        .await
        .expect(201);
    azure
        .grant(
            OPERATOR,
            made["identity"]["principalId"].as_str().unwrap(),
            identity["id"].as_str().unwrap(),
        )
        .await
        .expect(201);
    let mut cluster = azure.get(CLUSTER).await.expect(200);
    cluster["properties"]["podIdentityProfile"]["userAssignedIdentities"] =
        json!([{ "name": "a", "namespace": "n", "identity": { "resourceId": identity["id"] } }]);
    azure.put(CLUSTER, cluster).await.expect(200);
    let token = azure
        .machine_token(&format!(
            "&client_id={}",
            identity["properties"]["clientId"].as_str().unwrap()
        ))
        .await;
    let token = token.text("/access_token").to_owned();
    (azure, token)
}

#[tokio::test]
async fn audit_lets_the_tutorials_list_pass_and_notes_the_missing_right() {
    let (azure, token) = machines_of_the_identitys_group(Authorization::Audit).await;
    let list = "/resourceGroups/ids/providers/Microsoft.Compute/virtualMachines";
    azure.call_as(&token, Method::GET, list, None).await.expect(200);
    let last = azure.emulator.requests(0).pop().unwrap();
    assert_eq!(
        last.denied.as_deref(),
        Some("Microsoft.Compute/virtualMachines/read")
    );
    azure
        .call_as(&token, Method::GET, &list.replace("ids", "MC_g_c_eastus"), None)
        .await
        .expect(200);
    assert_eq!(azure.emulator.requests(0).pop().unwrap().denied, None);
}

#[tokio::test]
async fn enforce_refuses_it_until_the_role_is_there() {
    let (azure, token) = machines_of_the_identitys_group(Authorization::Enforce).await;
    let list = "/resourceGroups/ids/providers/Microsoft.Compute/virtualMachines";
    let refused = azure.call_as(&token, Method::GET, list, None).await;
    assert!(
        refused
            .text("/error/message")
            .contains("'Microsoft.Compute/virtualMachines/read'")
    );
    assert_eq!(refused.refused(403), "AuthorizationFailed");
    azure
        .call_as(&token, Method::GET, &list.replace("ids", "MC_g_c_eastus"), None)
        .await
        .expect(200);
    // A reader may not grant itself more.
    let own = azure.emulator.requests(0).pop().unwrap().principal.unwrap();
    let graph = azure
        .get(&format!("//v1.0/servicePrincipals?$filter=appId%20eq%20'{own}'"))
        .await;
    let principal = graph.text("/value/0/id").to_owned();
    let path = format!(
        "{}/providers/Microsoft.Authorization/roleAssignments/{}",
        azure.sub(),
        uuid::Uuid::new_v4()
    );
    let body = json!({ "properties": { "roleDefinitionId": "x/8e3af657-a8ff-443c-a75c-2fe8c4bcb635", "principalId": principal } });
    assert_eq!(
        azure
            .call_as(&token, Method::PUT, &path, Some(body))
            .await
            .refused(403),
        "AuthorizationFailed"
    );
    azure
        .grant(
            "Reader",
            &principal,
            &format!("{}/resourceGroups/ids", azure.sub()),
        )
        .await
        .expect(201);
    azure.call_as(&token, Method::GET, list, None).await.expect(200);
}

#[tokio::test]
async fn a_cluster_without_the_right_over_an_identity_may_not_use_it_where_rights_count() {
    for (authorization, status) in [(Authorization::Enforce, 400), (Authorization::Audit, 200)] {
        let azure = Azure::start(Config {
            authorization,
            ..Config::default()
        })
        .await;
        azure.group("g").await;
        azure
            .put(CLUSTER, cluster(Some("azure"), json!({ "enabled": true })))
            .await
            .expect(201);
        let identity = azure.identity("g", "app-identity").await;
        let mut body = azure.get(CLUSTER).await.expect(200);
        body["properties"]["podIdentityProfile"]["userAssignedIdentities"] =
            json!([{ "name": "a", "namespace": "n", "identity": { "resourceId": identity["id"] } }]);
        let put = azure.put(CLUSTER, body).await.expect(status);
        if status == 400 {
            assert!(
                put["error"]["message"].as_str().unwrap().starts_with(
                    "Cluster identity has no assignment permission over identity 'resourceId: /"
                )
            );
        }
    }
}

#[tokio::test]
async fn grants_from_above_are_listed_at_a_scope_and_grants_below_only_without_at_scope() {
    let azure = Azure::start(Config {
        machine: false,
        ..Config::default()
    })
    .await;
    azure.group("g").await;
    let identity = azure.identity("g", "app-identity").await;
    let principal = identity["properties"]["principalId"].as_str().unwrap();
    let id = identity["id"].as_str().unwrap();
    for scope in [
        azure.sub(),
        format!("{}/resourceGroups/g", azure.sub()),
        id.to_owned(),
    ] {
        azure.grant("Reader", principal, &scope).await.expect(201);
    }
    let count = async |scope: &str, filter: &str| {
        let path = format!("{scope}/providers/Microsoft.Authorization/roleAssignments?$filter={filter}");
        azure.get(&path).await.expect(200)["value"]
            .as_array()
            .unwrap()
            .len()
    };
    let assigned = format!("atScope()%20and%20assignedTo('{principal}')");
    assert_eq!(
        count(
            &id.to_uppercase().replace("/SUBSCRIPTIONS", "/subscriptions"),
            &assigned
        )
        .await,
        3
    );
    assert_eq!(count(&azure.sub(), &assigned).await, 1);
    assert_eq!(
        count(&azure.sub(), &format!("principalId%20eq%20'{principal}'")).await,
        3
    );
}
