//! What a state folder keeps, and what stands in the way of a start.

use std::net::TcpListener;
use std::path::Path;

use podid_azure_emulator::{App, Config, Listen};
use serde_json::json;

use crate::support::{ARM, Azure, CLUSTER, cluster};

fn kept(path: &Path) -> Config {
    Config {
        state: Some(path.to_owned()),
        ..Config::default()
    }
}

#[tokio::test]
async fn everything_is_there_again_after_a_restart_and_old_tokens_still_hold() {
    let dir = tempfile::tempdir().unwrap();
    let azure = Azure::start(kept(dir.path())).await;
    azure.group("g").await;
    let identity = azure.identity("g", "app-identity").await;
    azure
        .put(CLUSTER, cluster(Some("azure"), json!({ "enabled": true })))
        .await
        .expect(201);
    let principal = identity["properties"]["principalId"].as_str().unwrap();
    azure.grant("Reader", principal, &azure.sub()).await.expect(201);
    let token = azure
        .sign_in(azure.emulator.client_id(), azure.emulator.client_secret(), ARM)
        .await
        .text("/access_token")
        .to_owned();
    let (ca, secret) = (
        azure.emulator.ca_pem().to_owned(),
        azure.emulator.client_secret().to_owned(),
    );
    let cluster = azure.get(CLUSTER).await.expect(200);
    azure.stop().await;

    let azure = Azure::start(kept(dir.path())).await;
    assert_eq!(
        (azure.emulator.ca_pem(), azure.emulator.client_secret()),
        (ca.as_str(), secret.as_str())
    );
    azure.verified(&token).await;
    let found = azure
        .call_as(
            &token,
            reqwest::Method::GET,
            identity["id"].as_str().unwrap(),
            None,
        )
        .await;
    assert_eq!(found.expect(200), identity);
    assert_eq!(azure.get(CLUSTER).await.expect(200), cluster);
    assert_eq!(
        azure.grant("Reader", principal, &azure.sub()).await.refused(409),
        "RoleAssignmentExists"
    );
    assert_eq!(
        std::fs::read_to_string(azure.emulator.ca_file().unwrap()).unwrap(),
        ca
    );
}

#[tokio::test]
async fn a_folder_or_port_that_is_taken_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let azure = Azure::start(kept(dir.path())).await;
    let error = App::bind(kept(dir.path())).await.err().unwrap();
    assert_eq!(
        (
            error.code(),
            error.to_string().contains("in use by another emulator")
        ),
        ("emulator_state", true)
    );
    let taken = azure.arm().trim_start_matches("https://").parse().unwrap();
    let error = App::bind(Config {
        https: vec![Listen::Address(taken)],
        ..Config::default()
    })
    .await
    .err()
    .unwrap();
    assert_eq!(error.code(), "emulator_listen");
    assert!(
        error.to_string().contains(&taken.to_string())
            && error.to_string().contains("another program listens there")
    );
}

#[tokio::test]
async fn a_state_that_cannot_be_read_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("state.json"), "{ not json").unwrap();
    let error = App::bind(kept(dir.path())).await.err().unwrap();
    assert!(error.to_string().contains("state.json"), "{error}");
    assert_eq!(
        std::fs::read_to_string(dir.path().join("state.json")).unwrap(),
        "{ not json"
    );
}

#[tokio::test]
async fn doors_that_are_given_are_served_and_each_name_is_in_the_certificate() {
    let (first, second) = (
        TcpListener::bind("127.0.0.1:0").unwrap(),
        TcpListener::bind("127.0.0.7:0").unwrap(),
    );
    let second_address = second.local_addr().unwrap();
    let azure = Azure::start(Config {
        https: vec![Listen::Given(first), Listen::Given(second)],
        names: vec!["arm.example.test".to_owned()],
        ..Config::default()
    })
    .await;
    assert_eq!(azure.emulator.endpoints().arm.len(), 2);
    let roots = reqwest::Certificate::from_pem_bundle(azure.emulator.ca_pem().as_bytes()).unwrap();
    let port = second_address.port();
    let mut client = reqwest::Client::builder().no_proxy().tls_certs_only(roots);
    let names = ["arm.example.test", "management.azure.test", "login.azure.test"];
    for name in names {
        client = client.resolve(name, second_address);
    }
    let client = client.build().unwrap();
    for host in names.iter().copied().chain(["127.0.0.7"]) {
        let url = format!("https://{host}:{port}/metadata/endpoints?api-version=2022-09-01");
        let answer: serde_json::Value = client.get(url).send().await.unwrap().json().await.unwrap();
        assert_eq!(
            answer["resourceManager"],
            format!("https://{host}:{port}"),
            "absolute URLs are where the client came"
        );
    }
}
