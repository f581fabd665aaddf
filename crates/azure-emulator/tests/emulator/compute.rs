//! Scale sets and the identities on them, by the bodies that the original's controller and `az` send.

use podid_azure_emulator::{Authorization, Config};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::Azure;

const SET: &str = "/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/pool";

async fn with_a_scale_set(config: Config) -> (Azure, Vec<String>) {
    let azure = Azure::start(config).await;
    azure.group("g").await;
    azure
        .put(
            SET,
            json!({ "location": "eastus", "sku": { "name": "Standard_DS2_v2", "capacity": 2 } }),
        )
        .await
        .expect(201);
    let mut ids = Vec::new();
    for name in ["aaa", "bbb"] {
        ids.push(
            azure.identity("g", name).await["id"]
                .as_str()
                .unwrap()
                .to_lowercase(),
        );
    }
    (azure, ids)
}

async fn patch(azure: &Azure, identity: Value) -> Value {
    let reply = azure
        .call(Method::PATCH, SET, Some(json!({ "identity": identity })))
        .await;
    assert_eq!(azure.finish(&reply).await, "Succeeded");
    azure.get(SET).await.expect(200)["identity"].clone()
}

fn names(identity: &Value) -> Vec<String> {
    identity["userAssignedIdentities"]
        .as_object()
        .map(|all| all.keys().cloned().collect())
        .unwrap_or_default()
}

#[tokio::test]
async fn identities_are_added_and_taken_off_one_by_one() {
    let (azure, ids) = with_a_scale_set(Config::default()).await;
    let (a, b) = (ids[0].as_str(), ids[1].as_str());
    let now = patch(
        &azure,
        json!({ "type": "UserAssigned", "userAssignedIdentities": { a: {} } }),
    )
    .await;
    assert_eq!(
        (now["type"].as_str(), names(&now)),
        (Some("UserAssigned"), vec![a.to_owned()])
    );
    assert!(now["userAssignedIdentities"][a]["clientId"].is_string());
    let now = patch(
        &azure,
        json!({ "type": "UserAssigned", "userAssignedIdentities": { b: {} } }),
    )
    .await;
    assert_eq!(names(&now), ids, "what is not named stays");
    // Sent back with its ids and in another case, as az does.
    let again = json!({ "type": "UserAssigned", "userAssignedIdentities": { a.to_uppercase(): { "clientId": "x" }, b: {} } });
    assert_eq!(names(&patch(&azure, again).await), ids);
    let now = patch(
        &azure,
        json!({ "type": "UserAssigned", "userAssignedIdentities": { a: null } }),
    )
    .await;
    assert_eq!(names(&now), [b]);
    let now = patch(
        &azure,
        json!({ "type": "SystemAssigned, UserAssigned", "userAssignedIdentities": {} }),
    )
    .await;
    assert_eq!(
        (now["type"].as_str(), names(&now).len()),
        (Some("SystemAssigned, UserAssigned"), 1)
    );
    let principal = now["principalId"].clone();
    let now = patch(&azure, json!({ "type": "SystemAssigned" })).await;
    assert_eq!((&now["principalId"], names(&now).len()), (&principal, 0));
    assert_eq!(patch(&azure, json!({ "type": "None" })).await, Value::Null);
}

#[tokio::test]
async fn a_bad_identity_is_named_and_nothing_is_changed() {
    let (azure, ids) = with_a_scale_set(Config::default()).await;
    let gone = ids[0].replace("aaa", "gone");
    let body = json!({ "identity": { "type": "UserAssigned", "userAssignedIdentities": { ids[0].clone(): {}, gone.clone(): {} } } });
    let refused = azure.call(Method::PATCH, SET, Some(body)).await;
    assert!(
        refused.text("/error/message").contains(&format!("'{gone}'")),
        "{}",
        refused.body
    );
    assert_eq!(refused.refused(400), "FailedIdentityOperation");
    assert!(azure.get(SET).await.body.get("identity").is_none());
}

#[tokio::test]
async fn rights_over_an_identity_count_where_rights_count() {
    let (azure, ids) = with_a_scale_set(Config {
        authorization: Authorization::Enforce,
        ..Config::default()
    })
    .await;
    let made = azure
        .control(Method::POST, "applications", Some(json!({ "name": "mic" })))
        .await
        .expect(201);
    let (client_id, object_id) = (
        made["clientId"].as_str().unwrap(),
        made["objectId"].as_str().unwrap(),
    );
    azure
        .grant(
            "Virtual Machine Contributor",
            object_id,
            &format!("{}/resourceGroups/g", azure.sub()),
        )
        .await
        .expect(201);
    let token = azure
        .sign_in(
            client_id,
            made["clientSecret"].as_str().unwrap(),
            crate::support::ARM,
        )
        .await;
    let token = token.text("/access_token");
    let body =
        json!({ "identity": { "type": "UserAssigned", "userAssignedIdentities": { ids[0].clone(): {} } } });
    let refused = azure.call_as(token, Method::PATCH, SET, Some(body.clone())).await;
    assert!(
        refused
            .text("/error/message")
            .contains(&format!("linked scope(s) '{}'", ids[0]))
    );
    assert_eq!(refused.refused(403), "LinkedAuthorizationFailed");
    azure
        .grant(crate::support::OPERATOR, object_id, &ids[0])
        .await
        .expect(201);
    azure
        .call_as(token, Method::PATCH, SET, Some(body))
        .await
        .expect(200);
}

#[tokio::test]
async fn a_change_based_on_an_old_look_is_refused_when_it_says_so() {
    let (azure, ids) = with_a_scale_set(Config::default()).await;
    let before = azure.get(SET).await.text("/etag").to_owned();
    patch(
        &azure,
        json!({ "type": "UserAssigned", "userAssignedIdentities": { ids[0].clone(): {} } }),
    )
    .await;
    let url = format!("{}{}{SET}?api-version=2024-07-01", azure.arm(), azure.sub());
    let token = azure
        .sign_in(
            azure.emulator.client_id(),
            azure.emulator.client_secret(),
            crate::support::ARM,
        )
        .await;
    let send = async |etag: &str| {
        let request = azure
            .http
            .patch(&url)
            .bearer_auth(token.text("/access_token"))
            .header("if-match", etag);
        azure
            .send(request.json(&json!({ "identity": { "type": "None" } })))
            .await
    };
    assert_eq!(send(&before).await.refused(412), "PreconditionFailed");
    let now = azure.get(SET).await.text("/etag").to_owned();
    send(&now).await.expect(200);
}

#[tokio::test]
async fn a_scale_set_has_as_many_machines_as_its_capacity() {
    let (azure, _) = with_a_scale_set(Config::default()).await;
    let list = format!("{SET}/virtualMachines");
    assert_eq!(azure.get(&list).await.body["value"].as_array().unwrap().len(), 2);
    azure
        .call(Method::PATCH, SET, Some(json!({ "sku": { "capacity": 3 } })))
        .await
        .expect(200);
    let machines = azure.get(&list).await;
    assert_eq!(machines.text("/value/2/instanceId"), "2");
    azure.delete(SET).await.expect(202);
    azure.delete(SET).await.expect(204);
    azure.get(SET).await.expect(404);
}

#[tokio::test]
async fn a_virtual_machine_has_what_sdks_take_for_granted_beside_what_was_written() {
    let azure = Azure::default().await;
    azure.group("g").await;
    let path = "/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/one";
    let body = json!({ "location": "eastus", "properties": {
        "hardwareProfile": { "vmSize": "Standard_B2s" },
        "storageProfile": { "osDisk": { "osType": "Windows" }, "dataDisks": [{ "lun": 0 }] },
    } });
    azure.put(path, body).await.expect(201);
    let machine = azure.get(path).await;
    let properties = &machine.body["properties"];
    assert_eq!(
        (
            machine.text("/properties/hardwareProfile/vmSize"),
            machine.text("/properties/storageProfile/osDisk/osType")
        ),
        ("Standard_B2s", "Windows")
    );
    assert_eq!(properties["storageProfile"]["dataDisks"], json!([{ "lun": 0 }]));
    assert_eq!(
        machine.text("/properties/storageProfile/osDisk/createOption"),
        "FromImage"
    );
    assert_eq!(machine.text("/properties/osProfile/computerName"), "one");
    assert!(
        machine
            .text("/properties/networkProfile/networkInterfaces/0/id")
            .ends_with("/one-nic")
    );
    let planted = azure.get("/providers/Microsoft.Compute/virtualMachines").await;
    assert_eq!(planted.text("/value/0/name"), "vm-0");
    assert_eq!(
        planted.body["value"][0]["properties"]["storageProfile"]["dataDisks"],
        json!([])
    );
}
