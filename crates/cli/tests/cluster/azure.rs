//! `podid add` with an Azure login: against the emulated Azure, logged in by the environment's flags and by az.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test helpers")]

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use kube::Api;
use podid_api::PodIdentityProfile;
use podid_azure_emulator::{App, Config, Fault, SharedEmulator};
use podid_rt::stop::Stop;
use podid_rt::tasks::Tasks;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::world::{CLIENT_ID, World};

/// The emulated Azure with an identity and a managed cluster, and a cluster with pod identity on.
struct Azure {
    emulator: SharedEmulator,
    folder: TempDir,
    http: reqwest::Client,
    token: String,
    world: World,
    _tasks: Tasks,
}

impl Azure {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let app = App::bind(Config {
            ca_out: Some(folder.path().join("ca.pem")),
            ..Config::default()
        })
        .await
        .unwrap();
        let emulator = app.handle();
        let mut tasks = Tasks::new(Stop::new());
        app.spawn(&mut tasks);
        let roots = reqwest::Certificate::from_pem_bundle(emulator.ca_pem().as_bytes()).unwrap();
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only(roots)
            .build()
            .unwrap();
        let form = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}&scope=https://management.azure.com//.default",
            emulator.client_id(),
            emulator.client_secret()
        );
        let url = format!(
            "{}/{}/oauth2/v2.0/token",
            emulator.endpoints().entra[0],
            emulator.tenant_id()
        );
        let signed_in = http
            .post(url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form);
        let answer: Value = signed_in.send().await.unwrap().json().await.unwrap();
        let azure = Self {
            token: answer["access_token"].as_str().unwrap().to_owned(),
            emulator,
            folder,
            http,
            world: World::without_controller().await,
            _tasks: tasks,
        };
        azure
            .put(&azure.identity(), json!({ "location": "eastus" }))
            .await;
        let cluster = json!({
            "location": "eastus", "identity": { "type": "SystemAssigned" },
            "properties": {
                "dnsPrefix": "c", "networkProfile": { "networkPlugin": "azure" },
                "agentPoolProfiles": [{ "name": "np", "count": 1, "vmSize": "", "osType": "Linux", "type": "VirtualMachineScaleSets", "mode": "System" }],
            },
        });
        azure
            .put(
                &format!(
                    "{}/providers/Microsoft.ContainerService/managedClusters/c",
                    azure.group()
                ),
                cluster,
            )
            .await;
        azure.world.podid("enable").await.ok();
        azure
    }

    fn group(&self) -> String {
        format!(
            "/subscriptions/{}/resourceGroups/azure-emulator",
            self.emulator.subscription_id()
        )
    }

    fn identity(&self) -> String {
        format!(
            "{}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/web",
            self.group()
        )
    }

    fn url(&self, id: &str) -> String {
        format!("{}{id}?api-version=2024-02-01", self.emulator.endpoints().arm[0])
    }

    async fn put(&self, id: &str, body: Value) {
        let put = self.http.put(self.url(id)).bearer_auth(&self.token).json(&body);
        put.send().await.unwrap().error_for_status().unwrap();
    }

    async fn get(&self, id: &str) -> Value {
        let get = self.http.get(self.url(id)).bearer_auth(&self.token);
        get.send().await.unwrap().json().await.unwrap()
    }

    /// The roles of a principal, as (role's id, scope), given at the identity itself.
    async fn grants(&self, principal: &Value) -> usize {
        let all = self
            .get(&format!(
                "{}/providers/Microsoft.Authorization/roleAssignments",
                self.identity()
            ))
            .await;
        let of_it = |one: &&Value| {
            one["properties"]["principalId"] == *principal
                && one["properties"]["scope"]
                    .as_str()
                    .is_some_and(|scope| scope.eq_ignore_ascii_case(&self.identity()))
        };
        all["value"].as_array().unwrap().iter().filter(of_it).count()
    }

    /// A line that adds the identity, with the login of the emulator's own service principal.
    fn add(&self, more: &str) -> String {
        format!(
            "add --namespace my-app --identity-resource-id {} --azure-login environment --azure-tenant-id {} \
             --azure-client-id {} --azure-client-secret {} --azure-authority-host {} --arm-endpoint {} --ca-file {} {more}",
            self.identity(),
            self.emulator.tenant_id(),
            self.emulator.client_id(),
            self.emulator.client_secret(),
            self.emulator.endpoints().entra[0],
            self.emulator.endpoints().arm[0],
            self.folder.path().join("ca.pem").display(),
        )
    }

    /// A stand-in for az that is logged in.
    fn az(&self) -> String {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/az/az");
        let az = self.folder.path().join("az");
        symlink(fixture, &az).unwrap();
        let cloud =
            json!({ "name": "Emu", "endpoints": { "resourceManager": self.emulator.endpoints().arm[0] } });
        std::fs::write(self.folder.path().join("cloud.json"), cloud.to_string()).unwrap();
        az.display().to_string()
    }

    fn log_az_in(&self) {
        // The names are those that az 2.91 prints.
        let token = json!({
            "accessToken": self.token, "expiresOn": "2099-01-01 00:00:00.000000", "expires_on": 4_070_908_800_u64,
            "subscription": self.emulator.subscription_id(), "tenant": self.emulator.tenant_id(), "tokenType": "Bearer",
        });
        std::fs::write(self.folder.path().join("token.json"), token.to_string()).unwrap();
    }

    async fn entry(&self) -> Value {
        let profile = Api::<PodIdentityProfile>::all(self.world.client.clone())
            .get("cluster")
            .await
            .unwrap();
        serde_json::to_value(profile.spec.identities()).unwrap()[0].clone()
    }
}

#[tokio::test]
async fn the_ids_come_from_arm_and_the_clusters_identity_is_granted_the_role_once() {
    let azure = Azure::new().await;
    let identity = azure.get(&azure.identity()).await;
    let cluster = format!(
        "{}/providers/Microsoft.ContainerService/managedClusters/c",
        azure.group()
    );
    let principal = azure.get(&cluster).await["identity"]["principalId"].clone();

    let flags = "-g azure-emulator --cluster-name c";
    let would = azure
        .world
        .podid(&azure.add(&format!("{flags} --name a --dry-run=server")))
        .await
        .ok();
    assert!(would.words.contains("would be granted\n"), "{}", would.words);
    assert_eq!(azure.grants(&principal).await, 0);

    let ran = azure
        .world
        .podid(&azure.add(&format!("{flags} --name a")))
        .await
        .ok();
    assert!(
        ran.words
            .contains("role: Managed Identity Operator over web for ")
            && ran.words.contains(" granted\n"),
        "{}",
        ran.words
    );
    assert_eq!(azure.grants(&principal).await, 1);
    let entry = azure.entry().await;
    assert_eq!(entry["identity"]["clientId"], identity["properties"]["clientId"]);
    assert_eq!(
        entry["identity"]["objectId"],
        identity["properties"]["principalId"]
    );

    let ran = azure
        .world
        .podid(&azure.add(&format!("{flags} --name b")))
        .await
        .ok();
    assert!(ran.words.contains("is there already\n"), "{}", ran.words);
    assert_eq!(azure.grants(&principal).await, 1);
}

#[tokio::test]
async fn az_lends_its_login_and_without_one_the_ids_may_be_given() {
    let azure = Azure::new().await;
    let common = format!(
        "add --namespace my-app --identity-resource-id {} --ca-file {}",
        azure.identity(),
        azure.folder.path().join("ca.pem").display()
    );
    let az = azure.az();
    let nobody = format!("--azure-login auto --az {az} --azure-tenant-id= --azure-client-secret=");

    let line = format!("{common} --name a {nobody} --client-id {CLIENT_ID} --cluster-identity {CLIENT_ID}");
    let ran = azure.world.podid(&line).await.ok();
    assert!(
        ran.words.starts_with(
            "no Azure login: neither in the environment nor by az: Please run 'az login' to setup account.\n"
        ),
        "{}",
        ran.words
    );
    assert!(
        ran.words.contains(&format!("hint: the grant is yours to see to: az role assignment create --role \"Managed Identity Operator\" --assignee-object-id {CLIENT_ID}")),
        "{}",
        ran.words
    );

    let error = azure
        .world
        .podid(&format!("{common} --name b --azure-login az --az {az}"))
        .await
        .result
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "no Azure login: az: Please run 'az login' to setup account."
    );

    azure.log_az_in();
    azure
        .world
        .podid(&format!("{common} --name b --azure-login az --az {az} -o json"))
        .await
        .ok();
    let profile = Api::<PodIdentityProfile>::all(azure.world.client.clone())
        .get("cluster")
        .await
        .unwrap();
    let identity = azure.get(&azure.identity()).await;
    assert_eq!(
        profile.spec.identities()[1].identity.client_id.as_deref(),
        identity["properties"]["clientId"].as_str()
    );
}

#[tokio::test]
async fn what_azure_refuses_is_said_and_nothing_is_added() {
    let azure = Azure::new().await;
    let missing = azure.add("--name a").replace("/web ", "/nobody ");
    let error = azure.world.podid(&missing).await.result.unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("userAssignedIdentities/nobody not found."),
        "{error}"
    );
    assert_eq!(error.exit_code(), std::process::ExitCode::from(3));

    let other = azure
        .world
        .podid(&azure.add(&format!("--name a --client-id {CLIENT_ID}")))
        .await;
    assert!(
        other
            .result
            .unwrap_err()
            .to_string()
            .starts_with("the client id of web is ")
    );

    azure
        .emulator
        .set_fault(Fault {
            method: Some("PUT".to_owned()),
            path: Some("*/roleAssignments/*".to_owned()),
            status: Some(403),
            body: Some(json!({ "error": { "code": "AuthorizationFailed", "message": "you may not" } })),
            ..Fault::default()
        })
        .unwrap();
    let line = azure.add("--name a -g azure-emulator --cluster-name c");
    let refused = tokio::time::timeout(Duration::from_secs(20), azure.world.podid(&line)).await;
    let error = refused.unwrap().result.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Could not grant Managed Identity Operator permission for cluster"
    );
    assert!(
        error
            .hint()
            .unwrap()
            .contains("az role assignment create --role \"Managed Identity Operator\"")
    );
    assert_eq!(azure.entry().await, Value::Null);
}
