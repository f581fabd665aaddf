//! The metadata service's rules, one row each.

use std::time::Duration;

use http::header::HeaderValue;
use podid_azure_emulator::{Config, NodeConfig};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{ARM, Azure};

const T: &str = "/metadata/identity/oauth2/token";
const Q: &str = "?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net";
const VM: &str = "/resourceGroups/azure-emulator/providers/Microsoft.Compute/virtualMachines/vm-0";

struct Row {
    method: &'static str,
    path: String,
    headers: &'static [(&'static str, &'static str)],
    status: u16,
    says: &'static str,
}

#[tokio::test]
async fn each_request_gets_what_the_real_service_gives() {
    const M: &[(&str, &str)] = &[("Metadata", "true")];
    let row = |method, path: &str, headers, status, says| Row {
        method,
        path: path.to_owned(),
        headers,
        status,
        says,
    };
    let get = |path: &str, headers, status, says| row("GET", path, headers, status, says);
    let tq = format!("{T}{Q}");
    let rows = [
        get(&tq, M, 200, ""),
        get(T, &[], 400, "Required metadata header not specified"),
        get(
            &format!("{T}?api-version=2018-02-01"),
            &[],
            400,
            "Required metadata header not specified",
        ),
        get(&tq, &[], 400, "Required metadata header not specified"),
        get(
            &tq,
            &[("Metadata", "1")],
            400,
            "Required metadata header not specified",
        ),
        get(&tq, &[("metadata", "True")], 200, ""),
        get(
            &format!("{T}?api-version=2018-02-01"),
            M,
            400,
            "Required query variable 'resource' is missing",
        ),
        get(
            &format!("{T}?api-version=2018-02-01&resource="),
            M,
            400,
            "Required query variable 'resource' is missing",
        ),
        get(
            &tq,
            &[("Metadata", "true"), ("X-Forwarded-For", "1.2.3.4")],
            400,
            "X-Forwarded-For",
        ),
        get(&format!("{tq}&resource=x"), M, 400, "more than once"),
        get(&format!("{tq}&RESOURCE=x"), M, 400, "more than once"),
        get(
            &format!("{T}?api-version=2018-02-01&resource=https://vault.azure.net"),
            M,
            200,
            "",
        ),
        get(
            &format!("{T}?resource=https://vault.azure.net&api-version=2019-08-01"),
            M,
            200,
            "",
        ),
        get(
            &format!("{tq}&authority=https://evil.test/t&bypass_cache=true"),
            M,
            200,
            "",
        ),
        get(&format!("{tq}&client_id="), M, 200, ""),
        get(&format!("{tq}&client_id=a&object_id=b"), M, 400, "Only one of"),
        get(
            &format!("{tq}&client_id=0a2e0000-0000-4000-8000-000000000009"),
            M,
            400,
            "Identity not found",
        ),
        get(&format!("{T}/"), M, 400, ""),
        get(&format!("{T}/{Q}"), M, 200, ""),
        get(&format!("/{T}{Q}"), M, 200, ""),
        get(
            &format!("{T}?api-version=2018-02-01&resource=https://nowhere.invalid/"),
            M,
            400,
            "AADSTS50001",
        ),
        row("POST", &tq, M, 405, "only GET"),
        row("PUT", &tq, M, 405, "only GET"),
        get(
            "/metadata/identity/getplatformmetadata?cred-api-version=2.0",
            &[],
            404,
            "",
        ),
        get(
            "/metadata/identity/getplatformmetadata?cred-api-version=2.0",
            M,
            404,
            "",
        ),
        get(
            "/metadata/identity/issuecredential?cred-api-version=2.0",
            &[],
            404,
            "",
        ),
        get("/metadata/instance?api-version=2021-02-01", M, 200, ""),
        get(
            "/metadata/instance?api-version=2021-02-01",
            &[],
            400,
            "Required metadata header",
        ),
        get(
            "/metadata/instance/compute/nothing?api-version=2021-02-01",
            M,
            404,
            "",
        ),
        get("/metadata/versions", M, 200, ""),
        get("/metadata/scheduledevents?api-version=2020-07-01", M, 200, ""),
        get(
            "/metadata/attested/document?api-version=2020-09-01&nonce=1",
            M,
            200,
            "",
        ),
        get("/latest/meta-data/instance-id", &[], 404, ""),
        get("/computeMetadata/v1/", &[], 404, ""),
    ];
    let azure = Azure::start(Config {
        imds_quota: None,
        ..Config::default()
    })
    .await;
    for row in rows {
        let method = Method::from_bytes(row.method.as_bytes()).unwrap();
        let mut request = azure
            .http
            .request(method, format!("{}{}", azure.imds(), row.path));
        for (name, value) in row.headers {
            request = request.header(*name, *value);
        }
        let reply = azure.send(request).await;
        assert_eq!(
            reply.status, row.status,
            "{} {} {}",
            row.method, row.path, reply.body
        );
        if row.status >= 400 {
            // Clients crash on error bodies that are not of this shape, and retry on this header.
            assert!(reply.headers.get("retry-after").is_none());
            let text = if row.path.contains("api-version") || row.says.is_empty() {
                "error"
            } else {
                "error_description"
            };
            let description = reply.body["error_description"].as_str().unwrap_or_default();
            assert!(
                !reply.text("/error").is_empty() && description.contains(row.says),
                "{text}: {} {}",
                row.path,
                reply.body
            );
        }
    }
}

#[tokio::test]
async fn a_token_says_how_long_it_lives_and_is_the_same_until_half_of_that() {
    let clock = podid_rt::clock::Clock::fixed(1_800_000_000);
    let azure = Azure::start(Config {
        clock: clock.clone(),
        ..Config::default()
    })
    .await;
    let first = azure.machine_token("").await;
    assert!(
        first.body.as_object().unwrap().values().all(Value::is_string),
        "{}",
        first.body
    );
    assert_eq!(first.header("content-type"), "application/json; charset=utf-8");
    assert_eq!(
        (
            first.text("/expires_in"),
            first.text("/expires_on"),
            first.text("/resource")
        ),
        ("86400", "1800086400", ARM)
    );
    clock.advance(Duration::from_secs(2));
    let second = azure.machine_token("").await;
    assert_eq!(
        (second.text("/expires_in"), second.text("/expires_on")),
        ("86398", "1800086400")
    );
    assert_eq!(first.text("/access_token"), second.text("/access_token"));
    clock.advance(Duration::from_hours(12));
    assert_eq!(azure.machine_token("").await.text("/expires_in"), "86400");
}

#[tokio::test]
async fn each_way_to_name_an_identity_gives_the_same_one() {
    let azure = Azure::start(Config {
        imds_quota: None,
        ..Config::default()
    })
    .await;
    azure.group("g").await;
    let identity = azure.identity("g", "app-identity").await;
    let (id, client_id, object_id) = (
        identity["id"].as_str().unwrap(),
        identity["properties"]["clientId"].as_str().unwrap(),
        identity["properties"]["principalId"].as_str().unwrap(),
    );
    let selectors = [
        ("client_id", client_id.to_uppercase()),
        ("object_id", object_id.to_owned()),
        ("principal_id", object_id.to_uppercase()),
        ("msi_res_id", id.to_uppercase()),
        ("mi_res_id", id.to_owned()),
        ("msi-res-id", id.to_owned()),
        ("resource_id", id.replace('/', "%2F")),
    ];
    for (name, value) in &selectors {
        let refused = azure.machine_token(&format!("&{name}={value}")).await;
        assert_eq!(
            refused.text("/error_description"),
            "Identity not found",
            "it is not on the machine yet"
        );
    }
    let assign = json!({ "identity": { "type": "SystemAssigned, UserAssigned", "userAssignedIdentities": { id: {} } } });
    azure.call(Method::PATCH, VM, Some(assign)).await.expect(200);
    for (name, value) in &selectors {
        let token = azure.machine_token(&format!("&{name}={value}")).await;
        assert_eq!(token.text("/client_id"), client_id, "{name}");
    }
    // Without a selector the machine's own identity is meant.
    assert_ne!(azure.machine_token("").await.text("/client_id"), client_id);
    let only = json!({ "identity": { "type": "UserAssigned", "userAssignedIdentities": { id: {} } } });
    azure.call(Method::PATCH, VM, Some(only)).await.expect(200);
    assert_eq!(azure.machine_token("").await.text("/client_id"), client_id);
}

#[tokio::test]
async fn an_identity_that_is_made_anew_is_not_the_one_on_the_machine() {
    let azure = Azure::default().await;
    azure.group("g").await;
    let identity = azure.identity("g", "app-identity").await;
    let id = identity["id"].as_str().unwrap();
    let assign = json!({ "identity": { "type": "UserAssigned", "userAssignedIdentities": { id: {} } } });
    azure.call(Method::PATCH, VM, Some(assign)).await.expect(200);
    azure.machine_token("").await.expect(200);
    azure.delete(id).await.expect(200);
    azure.identity("g", "app-identity").await;
    assert_eq!(
        azure.machine_token("").await.text("/error_description"),
        "Identity not found"
    );
    let machine = azure.get(VM).await;
    assert_eq!(
        machine.body["identity"]["userAssignedIdentities"][id]["clientId"],
        Value::Null
    );
}

#[tokio::test]
async fn so_many_tokens_a_second_and_so_many_at_a_time() {
    let azure = Azure::start(Config {
        imds_latency: Duration::from_secs(2),
        imds_quota: Some((20, 5)),
        ..Config::default()
    })
    .await;
    let all = futures::future::join_all((0..8).map(|_| azure.machine_token(""))).await;
    let passed = all.iter().filter(|reply| reply.status == 200).count();
    let throttled: Vec<_> = all.iter().filter(|reply| reply.status == 429).collect();
    assert_eq!((passed, throttled.len()), (5, 3));
    assert_eq!(
        throttled[0].body,
        json!({ "error": "invalid_request", "error_description": "Temporarily throttled, too many requests" })
    );

    // A refusal for want of the header costs nothing.
    let azure = Azure::start(Config {
        imds_quota: Some((3, 5)),
        ..Config::default()
    })
    .await;
    for _ in 0..10 {
        assert_eq!(
            azure
                .send(azure.http.get(format!("{}{T}", azure.imds())))
                .await
                .status,
            400
        );
    }
    let all = futures::future::join_all((0..10).map(|_| azure.machine_token(""))).await;
    assert!(
        all.iter().any(|reply| reply.status == 429),
        "{:?}",
        all.iter().map(|reply| reply.status).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_version_that_is_not_one_is_answered_with_the_newest() {
    let azure = Azure::default().await;
    for path in [
        "/metadata/instance",
        "/metadata/instance?api-version=2016-01-01",
        "/metadata/instance?api-version=x",
    ] {
        let reply = azure.metadata(path).await;
        assert_eq!(reply.status, 400, "{path}");
        assert_eq!(reply.body["newest-versions"].as_array().unwrap().len(), 3);
    }
    let leaf = azure
        .metadata("/metadata/instance/compute/location?api-version=2021-02-01&format=text")
        .await;
    assert_eq!((leaf.status, leaf.body), (200, json!("eastus")));
}

#[tokio::test]
async fn a_caller_is_the_machine_that_its_address_says() {
    // Loopback is a whole network: each node has an address of its own there.
    let node = |name: &str, address: &str| NodeConfig {
        name: name.to_owned(),
        addresses: vec![address.parse().unwrap()],
    };
    let azure = Azure::start(Config {
        nodes: vec![node("a", "127.0.0.2"), node("b", "127.0.0.3")],
        ..Config::default()
    })
    .await;
    let nodes = azure.control(Method::GET, "nodes", None).await.expect(200);
    assert_eq!(
        nodes["nodes"][0]["machine"],
        Value::Null,
        "there is no cluster yet"
    );
    azure.group("g").await;
    azure
        .put(
            crate::support::CLUSTER,
            crate::support::cluster(Some("azure"), json!({ "enabled": true })),
        )
        .await
        .expect(201);
    let nodes = azure.control(Method::GET, "nodes", None).await.expect(200);
    assert!(
        nodes["nodes"][1]["providerId"]
            .as_str()
            .unwrap()
            .ends_with("-vmss/virtualMachines/1"),
        "{nodes}"
    );
    let name_at = async |address: &str| {
        let from = reqwest::Client::builder()
            .no_proxy()
            .local_address(address.parse::<std::net::IpAddr>().unwrap())
            .build()
            .unwrap();
        let url = format!(
            "{}/metadata/instance/compute?api-version=2021-02-01",
            azure.imds()
        );
        let reply = azure
            .send(from.get(url).header("Metadata", HeaderValue::from_static("true")))
            .await;
        reply.text("/osProfile/computerName").to_owned()
    };
    assert!(name_at("127.0.0.2").await.ends_with("-vmss000000"));
    assert!(name_at("127.0.0.3").await.ends_with("-vmss000001"));
    // A stranger is no machine and has no identity.
    assert_eq!(
        azure.machine_token("").await.text("/error_description"),
        "Identity not found"
    );
    let late = azure
        .control(
            Method::PUT,
            "nodes/late",
            Some(json!({ "addresses": ["127.0.0.4"] })),
        )
        .await;
    assert_eq!(late.body["instance"], 2);
    assert_eq!(
        azure
            .emulator
            .requests(0)
            .iter()
            .filter(|entry| entry.service == "imds")
            .count(),
        3
    );
}
