//! The profile's identities on the nodes' scale sets, through the emulated ARM.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test helpers"
)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::PostParams;
use podid_azure::TlsRoots;
use podid_azure::arm::{Arm, FetchToken};
use podid_azure_emulator as azure_emulator;
use podid_core::{AccessToken, Secret};
use podid_rt::clock::Clock;
use podid_rt::stop::Stop;
use podid_rt::tasks::Tasks;
use podid_testkit::eventually;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::world::{CLIENT_ID, World, state};

const AUDIENCE: &str = "https://management.azure.com/";

/// Azure with a resource group `g`.
struct Azure {
    endpoint: reqwest::Url,
    subscription: String,
    client: reqwest::Client,
    token: String,
    roots: TlsRoots,
    _running: JoinSet<()>,
}

impl Azure {
    async fn new() -> Self {
        let app = azure_emulator::App::bind(azure_emulator::Config::default())
            .await
            .unwrap();
        let emulator = app.handle();
        let mut tasks = Tasks::new(Stop::new());
        app.spawn(&mut tasks);
        let mut running = JoinSet::new();
        running.spawn(async move { tasks.run(Duration::from_secs(1)).await.unwrap() });

        let pem = emulator.ca_pem().as_bytes().to_vec();
        // The client makes sure that there is a TLS provider.
        let roots = TlsRoots::from_pem(&pem).unwrap();
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()])
            .build()
            .unwrap();
        let url = format!(
            "{}/{}/oauth2/v2.0/token",
            emulator.endpoints().entra[0],
            emulator.tenant_id()
        );
        let form = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}&scope={AUDIENCE}.default",
            emulator.client_id(),
            emulator.client_secret()
        );
        let request = client
            .post(url)
            .header("content-type", "application/x-www-form-urlencoded");
        let body: Value = request.body(form).send().await.unwrap().json().await.unwrap();
        let azure = Self {
            endpoint: emulator.endpoints().arm[0].parse().unwrap(),
            subscription: emulator.subscription_id().to_owned(),
            token: body["access_token"].as_str().unwrap().to_owned(),
            client,
            roots,
            _running: running,
        };
        azure
            .put("/resourcegroups/g", json!({ "location": "eastus" }))
            .await;
        azure
    }

    /// ARM as the controller has it.
    fn arm(&self) -> Arm {
        let clock = Clock::system();
        let token = self.token.clone();
        let fetch: FetchToken = Arc::new(move || {
            let secret = Secret::new(token.clone());
            Box::pin(async move {
                Ok(AccessToken {
                    secret,
                    expires_on: u64::MAX,
                    not_before: None,
                    token_type: "Bearer".into(),
                    resource: AUDIENCE.into(),
                    client_id: None,
                })
            })
        });
        Arm::new(
            &self.endpoint,
            &self.roots,
            fetch,
            Arc::new(move || clock.unix_secs()),
        )
        .unwrap()
    }

    fn url(&self, path: &str) -> reqwest::Url {
        let path = format!(
            "/subscriptions/{}{path}?api-version=2024-07-01",
            self.subscription
        );
        self.endpoint.join(&path).unwrap()
    }

    async fn put(&self, path: &str, body: Value) -> Value {
        let request = self
            .client
            .put(self.url(path))
            .bearer_auth(&self.token)
            .json(&body);
        let response = request.send().await.unwrap();
        assert!(
            response.status().is_success(),
            "{path}: {}",
            response.text().await.unwrap()
        );
        response.json().await.unwrap()
    }

    fn id(&self, name: &str) -> String {
        let subscription = &self.subscription;
        format!(
            "/subscriptions/{subscription}/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
        )
    }

    async fn identity(&self, name: &str) -> String {
        let path =
            format!("/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}");
        self.put(&path, json!({ "location": "eastus" })).await;
        self.id(name)
    }

    /// Names of the identities on the scale set, and whether it has one of its own.
    async fn on_scale_set(&self) -> (BTreeSet<String>, bool) {
        let request = self.client.get(self.url(SCALE_SET)).bearer_auth(&self.token);
        let body: Value = request.send().await.unwrap().json().await.unwrap();
        let identity = &body["identity"];
        let there = identity["userAssignedIdentities"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        let names = there
            .keys()
            .map(|id| id.rsplit('/').next().unwrap_or_default().to_lowercase());
        let own = identity["type"]
            .as_str()
            .unwrap_or_default()
            .contains("SystemAssigned");
        (names.collect(), own)
    }

    async fn until_on_scale_set(&self, expected: &[&str]) {
        let expected: BTreeSet<String> = expected.iter().map(|name| (*name).to_owned()).collect();
        let same = eventually("these identities and no others are on the scale set", || async {
            let (now, own) = self.on_scale_set().await;
            assert!(own, "its own identity is never taken away");
            if now == expected { Ok(()) } else { Err(now) }
        });
        same.await.unwrap_or_else(|why| panic!("{why}"));
    }
}

const SCALE_SET: &str = "/resourcegroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/pool";

fn entry(name: &str, id: &str) -> Value {
    json!({ "name": name, "namespace": "a", "identity": { "resourceId": id, "clientId": CLIENT_ID } })
}

#[tokio::test]
async fn identities_come_and_go_with_the_profile_and_others_stay() {
    let azure = Azure::new().await;
    let (one, two) = (azure.identity("one").await, azure.identity("two").await);
    let theirs = azure.identity("theirs").await;
    let body = json!({
        "location": "eastus", "sku": { "name": "Standard_B2s", "capacity": 1 },
        "identity": { "type": "SystemAssigned, UserAssigned", "userAssignedIdentities": { theirs.as_str(): {} } },
    });
    azure.put(SCALE_SET, body).await;
    let world = World::without_controller().await;
    let provider_id = format!(
        "azure:///subscriptions/{}{SCALE_SET}/virtualMachines/0",
        azure.subscription
    );
    let node: Node = serde_json::from_value(json!({
        "metadata": { "name": "pool-0" }, "spec": { "providerID": provider_id },
    }))
    .unwrap();
    Api::all(world.client.clone())
        .create(&PostParams::default(), &node)
        .await
        .unwrap();
    let world = world.start_controller(Some(azure.arm())).await;

    let spec = |entries: Vec<Value>| json!({ "enabled": true, "userAssignedIdentities": entries });
    world
        .set(spec(vec![
            entry("one", &one),
            entry("two", &two),
            entry("theirs", &theirs),
        ]))
        .await;
    world.ready("Assigned").await;
    azure.until_on_scale_set(&["one", "theirs", "two"]).await;

    // One that does not exist holds up nobody.
    let missing = azure.id("missing");
    world
        .set(spec(vec![entry("missing", &missing), entry("two", &two)]))
        .await;
    let status = eventually("the missing one is reported", || async {
        let profile = world.profiles.get("cluster").await.unwrap();
        let entries = profile.status.unwrap_or_default().user_assigned_identities;
        match entries
            .iter()
            .find(|entry| entry.name == "missing" && entry.error.is_some())
        {
            Some(_) => Ok(entries),
            None => Err(entries),
        }
    })
    .await
    .unwrap();
    assert_eq!(state(&status, "two"), ("Assigned".to_owned(), None));
    // What was there before us stays, although it was in the profile for a while.
    azure.until_on_scale_set(&["theirs", "two"]).await;

    world.delete_profile().await;
    azure.until_on_scale_set(&["theirs"]).await;
}
