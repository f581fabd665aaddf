//! The tutorial's ARM flow, by the requests that `az` makes.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Azure, CLUSTER, OPERATOR, cluster};
use podid_azure_emulator::{Config, NodeConfig};

fn node() -> NodeConfig {
    NodeConfig {
        name: "node-0".to_owned(),
        addresses: vec!["127.0.0.1".parse().unwrap()],
    }
}

/// GET, edit the profile, PUT the whole.
async fn edit(azure: &Azure, change: impl FnOnce(&mut Value)) -> crate::support::Reply {
    let mut found = azure.get(CLUSTER).await.expect(200);
    change(&mut found["properties"]["podIdentityProfile"]);
    // az never sends these back.
    for member in [
        "provisioningState",
        "powerState",
        "fqdn",
        "currentKubernetesVersion",
    ] {
        found["properties"].as_object_mut().unwrap().remove(member);
    }
    azure.put(CLUSTER, found).await
}

#[tokio::test]
async fn the_tutorial_runs_from_the_group_to_the_clean_up() {
    let azure = Azure::start(Config {
        nodes: vec![node()],
        ..Config::default()
    })
    .await;
    azure.group("g").await;
    azure.get(CLUSTER).await.expect(404);
    let made = azure
        .put(CLUSTER, cluster(Some("azure"), json!({ "enabled": true })))
        .await;
    assert_eq!(
        (made.status, made.text("/properties/provisioningState")),
        (201, "Creating")
    );
    assert_eq!(azure.finish(&made).await, "Succeeded");
    let found = azure.get(CLUSTER).await;
    assert_eq!(found.text("/properties/provisioningState"), "Succeeded");
    let principal = found.text("/identity/principalId").to_owned();
    let node_group = azure
        .get(&format!(
            "/resourcegroups/{}",
            found.text("/properties/nodeResourceGroup")
        ))
        .await;
    let node_group = node_group.text("/id").to_owned();

    azure.group("ids").await;
    let identity = azure.identity("ids", "application-identity").await;
    let (id, client_id) = (
        identity["id"].as_str().unwrap(),
        identity["properties"]["clientId"].as_str().unwrap(),
    );
    // role assignment create --assignee CLIENT_ID: Graph, definition, assignment; the repeat is a conflict.
    let graph = azure
        .get(&format!(
            "//v1.0/servicePrincipals?$filter=servicePrincipalNames/any(c:c%20eq%20'{client_id}')"
        ))
        .await;
    let object_id = graph.text("/value/0/id").to_owned();
    assert_eq!(object_id, identity["properties"]["principalId"]);
    azure.grant(OPERATOR, &object_id, &node_group).await.expect(201);
    assert_eq!(
        azure.grant(OPERATOR, &object_id, &node_group).await.refused(409),
        "RoleAssignmentExists"
    );
    assert_eq!(
        azure.grant(OPERATOR, client_id, &node_group).await.refused(400),
        "PrincipalNotFound"
    );

    // pod-identity add: no grant yet, so it makes one over the identity, in lower case.
    let scope = id.to_lowercase();
    let grants = format!(
        "{scope}/providers/Microsoft.Authorization/roleAssignments?$filter=atScope()%20and%20assignedTo('{principal}')"
    );
    assert_eq!(azure.get(&grants).await.body["value"], json!([]));
    azure.grant(OPERATOR, &principal, &scope).await.expect(201);
    assert_eq!(
        azure.get(&grants).await.body["value"].as_array().unwrap().len(),
        1
    );
    let entry = json!({ "name": "my-pod-identity", "namespace": "my-app",
        "identity": { "resourceId": id, "clientId": client_id, "objectId": object_id } });
    let put = edit(&azure, |profile| {
        profile["userAssignedIdentities"] = json!([entry]);
    })
    .await;
    assert_eq!(azure.finish(&put).await, "Succeeded");
    let entry = azure.get(CLUSTER).await.body["properties"]["podIdentityProfile"]["userAssignedIdentities"]
        [0]
    .clone();
    assert_eq!(
        (&entry["provisioningState"], &entry["bindingSelector"]),
        (&json!("Assigned"), &Value::Null)
    );

    // The node has the identity now, and kubelet's; nothing says which one without a selector.
    let token = azure.machine_token(&format!("&client_id={client_id}")).await;
    let claims = azure.verified(token.text("/access_token")).await;
    assert_eq!(
        (&claims["oid"], &claims["xms_mirid"]),
        (&json!(object_id), &json!(id))
    );
    assert!(
        azure
            .machine_token("")
            .await
            .text("/error_description")
            .starts_with("Multiple user assigned identities")
    );
    let machines = "/resourceGroups/ids/providers/Microsoft.Compute/virtualMachines";
    let list = azure
        .call_as(token.text("/access_token"), Method::GET, machines, None)
        .await;
    assert_eq!(list.expect(200), json!({ "value": [] }));
    let instance = azure.metadata("/metadata/instance?api-version=2017-08-01").await;
    assert_eq!(instance.text("/compute/resourceGroupName"), "MC_g_c_eastus");

    // exception add, update, delete.
    for labels in [json!({ "app": "x" }), json!({ "app": "y" })] {
        let entry = json!({ "name": "ex1", "namespace": "my-app", "podLabels": labels });
        edit(&azure, |profile| {
            profile["userAssignedIdentityExceptions"] = json!([entry]);
        })
        .await
        .expect(200);
        let found = azure.get(CLUSTER).await;
        assert_eq!(
            found.body["properties"]["podIdentityProfile"]["userAssignedIdentityExceptions"],
            json!([entry])
        );
    }
    edit(&azure, |profile| {
        profile["userAssignedIdentityExceptions"] = json!([]);
    })
    .await
    .expect(200);

    // Clean-up: the entry goes, the identity leaves the node, the cluster takes its node group away.
    edit(&azure, |profile| profile["userAssignedIdentities"] = json!([]))
        .await
        .expect(200);
    let profile = azure.get(CLUSTER).await.body["properties"]["podIdentityProfile"].clone();
    assert_eq!(
        (
            &profile["userAssignedIdentities"],
            &profile["userAssignedIdentityExceptions"]
        ),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(
        azure
            .machine_token(&format!("&client_id={client_id}"))
            .await
            .text("/error_description"),
        "Identity not found"
    );
    azure.delete(id).await.expect(200);
    azure.delete(id).await.expect(204);
    let gone = azure.delete(CLUSTER).await;
    assert_eq!(
        (gone.status, azure.finish(&gone).await.as_str()),
        (202, "Succeeded")
    );
    azure.get(&node_group).await.expect(404);
    let gone = azure.delete("/resourcegroups/g").await;
    assert_eq!(gone.status, 202);
    azure.get(gone.header("location")).await.expect(200);
    assert_eq!(
        azure.delete("/resourcegroups/g").await.refused(404),
        "ResourceGroupNotFound"
    );
    assert_eq!(azure.emulator.unsupported(), std::collections::BTreeMap::new());
}

#[tokio::test]
async fn kubenet_needs_consent_and_is_what_a_cluster_without_a_plugin_has() {
    let azure = Azure::default().await;
    azure.group("g").await;
    for plugin in [Some("kubenet"), None] {
        let refused = azure
            .put(CLUSTER, cluster(plugin, json!({ "enabled": true })))
            .await;
        assert_eq!(
            refused.text("/error/message"),
            "Network plugin kubenet is not supported to use with PodIdentity addon."
        );
    }
    azure.get(CLUSTER).await.expect(404);
    azure
        .put(
            CLUSTER,
            cluster(
                None,
                json!({ "enabled": true, "allowNetworkPluginKubenet": true }),
            ),
        )
        .await
        .expect(201);
    let found = azure.get(CLUSTER).await;
    assert_eq!(found.text("/properties/networkProfile/networkPlugin"), "kubenet");
    assert_eq!(
        found.body["properties"]["podIdentityProfile"]["allowNetworkPluginKubenet"],
        true
    );
    edit(&azure, |profile| *profile = json!({ "enabled": false }))
        .await
        .expect(200);
    assert_eq!(
        azure.get(CLUSTER).await.body["properties"]["podIdentityProfile"],
        json!({ "enabled": false })
    );
}

#[tokio::test]
async fn a_profile_that_the_service_would_refuse_is_refused_and_changes_nothing() {
    let azure = Azure::default().await;
    azure.group("g").await;
    let identity = azure.identity("g", "app-identity").await;
    let entry =
        |name: &str| json!({ "name": name, "namespace": "n", "identity": { "resourceId": identity["id"] } });
    let at_creation = cluster(
        Some("azure"),
        json!({ "enabled": true, "userAssignedIdentities": [entry("a")] }),
    );
    assert_eq!(
        azure.put(CLUSTER, at_creation).await.refused(400),
        "PodIdentityAddonUserAssignedIdentitiesNotAllowedInCreation"
    );
    let mut by_secret = cluster(Some("azure"), json!({ "enabled": true }));
    by_secret.as_object_mut().unwrap().remove("identity");
    assert_eq!(
        azure.put(CLUSTER, by_secret).await.text("/error/message"),
        "PodIdentity addon requires managed identity."
    );
    azure
        .put(CLUSTER, cluster(Some("azure"), json!({ "enabled": true })))
        .await
        .expect(201);
    let many: Vec<Value> = (0..201).map(|at| entry(&format!("p{at}"))).collect();
    for wrong in [
        json!([entry("a"), entry("a")]),
        json!(many),
        json!([{ "name": "a", "namespace": "n" }]),
        json!([{ "name": "a", "identity": { "resourceId": identity["id"] } }]),
        json!([{ "name": "a", "namespace": "n", "identity": { "resourceId": "/subscriptions/s" } }]),
        json!([entry("Not_a_name")]),
    ] {
        assert_eq!(
            edit(&azure, |profile| profile["userAssignedIdentities"] = wrong)
                .await
                .refused(400),
            "BadRequest"
        );
    }
    assert_eq!(
        azure.get(CLUSTER).await.body["properties"]["podIdentityProfile"]["userAssignedIdentities"],
        Value::Null
    );
    // A missing name is made up; 200 are not too many.
    edit(&azure, |profile| {
        profile["userAssignedIdentities"] = json!([entry("")]);
    })
    .await
    .expect(200);
    assert!(
        azure
            .get(CLUSTER)
            .await
            .text("/properties/podIdentityProfile/userAssignedIdentities/0/name")
            .starts_with("podidentity-")
    );
    edit(&azure, |profile| {
        profile["userAssignedIdentities"] = json!(many[..200]);
    })
    .await
    .expect(200);
}

#[tokio::test]
async fn an_entry_of_an_identity_that_is_not_there_fails_and_the_others_do_not() {
    let azure = Azure::default().await;
    azure.group("g").await;
    azure
        .put(CLUSTER, cluster(Some("azure"), json!({ "enabled": true })))
        .await
        .expect(201);
    let there = azure.identity("g", "app-identity").await;
    let gone = there["id"].as_str().unwrap().replace("app-identity", "gone");
    let entries = json!([
        { "name": "a", "namespace": "n", "identity": { "resourceId": gone } },
        { "name": "b", "namespace": "n", "identity": { "resourceId": there["id"] } },
    ]);
    edit(&azure, |profile| profile["userAssignedIdentities"] = entries)
        .await
        .expect(200);
    let found = azure.get(CLUSTER).await;
    let entries = &found.body["properties"]["podIdentityProfile"]["userAssignedIdentities"];
    assert_eq!(
        (&entries[0]["provisioningState"], &entries[1]["provisioningState"]),
        (&json!("Failed"), &json!("Assigned"))
    );
    assert_eq!(
        entries[0]["provisioningInfo"]["error"]["error"]["code"],
        "ResourceNotFound"
    );
}

#[tokio::test]
async fn what_only_the_server_writes_survives_a_put_without_it() {
    let azure = Azure::default().await;
    azure.group("g").await;
    let mut body = cluster(Some("azure"), json!({ "enabled": true }));
    body["properties"]["oidcIssuerProfile"] = json!({ "enabled": true });
    body["properties"]["unheardOf"] = json!({ "a": 1 });
    azure.put(CLUSTER, body).await.expect(201);
    let before = azure.get(CLUSTER).await.expect(200);
    let put = json!({ "location": "eastus", "properties": { "oidcIssuerProfile": { "enabled": true }, "fqdn": "elsewhere" } });
    azure.put(CLUSTER, put).await.expect(200);
    let after = azure.get(CLUSTER).await.expect(200);
    assert!(
        before["properties"]["oidcIssuerProfile"]["issuerURL"]
            .as_str()
            .unwrap()
            .starts_with("https://")
    );
    assert_eq!(before, after);
}

#[tokio::test]
async fn an_operation_takes_as_long_as_it_is_told_to() {
    let azure = Azure::start(Config {
        operation_delay: std::time::Duration::from_millis(300),
        ..Config::default()
    })
    .await;
    azure.group("g").await;
    let made = azure
        .put(CLUSTER, cluster(Some("azure"), json!({ "enabled": true })))
        .await;
    let url = made.header("azure-asyncoperation").to_owned();
    assert_eq!(azure.get(&url).await.text("/status"), "InProgress");
    assert_eq!(azure.finish(&made).await, "Succeeded");
    let gone = azure.delete("/resourcegroups/g").await;
    let location = gone.header("location").to_owned();
    assert_eq!(azure.get(&location).await.status, 202);
    podid_testkit::eventually("the group is gone", || async {
        let seen = azure.get(&location).await;
        if seen.status == 200 {
            Ok(())
        } else {
            Err(seen.status)
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn without_the_feature_pod_identity_is_refused_where_that_is_asked_for() {
    let azure = Azure::start(Config {
        require_features: true,
        ..Config::default()
    })
    .await;
    azure.group("g").await;
    let body = || cluster(Some("azure"), json!({ "enabled": true }));
    assert_eq!(
        azure.put(CLUSTER, body()).await.refused(400),
        "PodIdentityAddonFeatureFlagNotEnabled"
    );
    let feature = "/providers/Microsoft.Features/providers/Microsoft.ContainerService/features/EnablePodIdentityPreview";
    let registering = azure
        .call(Method::POST, &format!("{feature}/register"), None)
        .await;
    assert_eq!(registering.text("/properties/state"), "Registering");
    assert_eq!(azure.get(feature).await.text("/properties/state"), "Registered");
    azure.put(CLUSTER, body()).await.expect(201);
}

#[tokio::test]
async fn an_identity_keeps_its_ids_until_it_is_made_anew() {
    let azure = Azure::default().await;
    azure.group("g").await;
    let first = azure.identity("g", "app-identity").await;
    let path = first["id"].as_str().unwrap();
    let again = azure
        .put(path, json!({ "location": "eastus", "tags": { "a": "b" } }))
        .await
        .expect(200);
    assert_eq!(first["properties"], again["properties"]);
    azure.delete(path).await.expect(200);
    let anew = azure.identity("g", "app-identity").await;
    assert_ne!(first["properties"]["clientId"], anew["properties"]["clientId"]);
}

#[tokio::test]
async fn long_lists_come_in_pages_that_follow_each_other() {
    let azure = Azure::default().await;
    azure.group("g").await;
    for at in 0..5 {
        azure.identity("g", &format!("id-{at}")).await;
    }
    let mut next =
        "/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities?$top=2".to_owned();
    let mut names = Vec::new();
    let mut pages = 0;
    while !next.is_empty() {
        let page = azure.get(&next).await.expect(200);
        names.extend(
            page["value"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["name"].as_str().unwrap().to_owned()),
        );
        next = page["nextLink"].as_str().unwrap_or_default().to_owned();
        pages += 1;
    }
    assert_eq!((pages, names), (3, (0..5).map(|at| format!("id-{at}")).collect()));
}

#[tokio::test]
async fn credentials_of_a_cluster_have_the_names_that_az_looks_for() {
    use base64::Engine as _;
    let azure = Azure::default().await;
    azure.group("g").await;
    azure
        .put(CLUSTER, cluster(Some("azure"), json!({ "enabled": true })))
        .await
        .expect(201);
    let answer = azure
        .call(
            Method::POST,
            &format!("{CLUSTER}/listClusterUserCredential"),
            None,
        )
        .await;
    let text = base64::engine::general_purpose::STANDARD
        .decode(answer.text("/kubeconfigs/0/value"))
        .unwrap();
    let config: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(
        (&config["current-context"], &config["users"][0]["name"]),
        (&json!("c"), &json!("clusterUser_g_c"))
    );
}
