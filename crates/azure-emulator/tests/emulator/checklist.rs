//! Every request that `az` makes for the AKS tutorial and what is beyond it, in order: method, path and api-version as
//! captured from azure-cli 2.91.0, and the members that `az` cannot do without.

mod rows;

use std::collections::{BTreeMap, BTreeSet};

use podid_azure_emulator::Config;
use reqwest::Method;
use serde_json::{Value, json};

use self::rows::{Ask, Door, MC, ROWS, Sent};
use crate::support::{Azure, Reply};

/// Asks, and remembers.
struct Asker {
    azure: Azure,
    graph: String,
    kept: BTreeMap<String, String>,
    shapes: BTreeSet<String>,
}

impl Asker {
    fn filled(&self, text: &str) -> String {
        self.kept.iter().fold(text.to_owned(), |text, (name, value)| {
            text.replace(&format!("{{{name}}}"), value)
        })
    }

    async fn body(&self, sent: Sent) -> Option<Value> {
        match sent {
            Sent::Nothing => None,
            Sent::Json(text) => Some(serde_json::from_str(&self.filled(text)).unwrap()),
            Sent::Edited(at, text) => {
                let mut cluster = self.azure.get(&self.filled(MC)).await.expect(200);
                let (object, name) = at.rsplit_once('/').unwrap();
                let value = serde_json::from_str(&self.filled(text)).unwrap();
                cluster.pointer_mut(object).unwrap()[name] = value;
                for read_only in [
                    "provisioningState",
                    "powerState",
                    "fqdn",
                    "currentKubernetesVersion",
                ] {
                    cluster["properties"].as_object_mut().unwrap().remove(read_only);
                }
                Some(cluster)
            }
        }
    }

    async fn send(&mut self, ask: &Ask) -> Reply {
        let path = self.filled(ask.path);
        let url = if path.starts_with("https:") {
            path
        } else {
            format!("{}{path}", self.azure.arm())
        };
        let method = Method::from_bytes(ask.method.as_bytes()).unwrap();
        let mut request = self.azure.http.request(method, url);
        request = match ask.door {
            Door::Open => request,
            Door::Arm => request.bearer_auth(self.azure.token()),
            Door::Graph => request.bearer_auth(&self.graph),
        };
        if let Some(body) = self.body(ask.sent).await {
            request = request.json(&body);
        }
        self.shapes.insert(format!("{} {}", ask.method, ask.path));
        let reply = self.azure.send(request).await;
        if let Some(operation) = reply.headers.get("azure-asyncoperation") {
            assert!(reply.headers.contains_key("retry-after"), "az would wait 30 s");
            self.kept
                .insert("operation".to_owned(), operation.to_str().unwrap().to_owned());
        }
        for (name, pointer) in ask.keep {
            self.kept
                .insert((*name).to_owned(), reply.text(pointer).to_owned());
        }
        reply
    }
}

#[tokio::test]
async fn every_request_of_az_for_the_tutorial_is_answered_with_what_az_needs() {
    let azure = Azure::start(Config {
        machine: false,
        ..Config::default()
    })
    .await;
    let (id, secret) = (azure.emulator.client_id(), azure.emulator.client_secret());
    // Graph is dialled, so its tokens have the emulator's own address for their audience; the scope keeps the slash.
    let graph = azure
        .sign_in(id, secret, &format!("{}/", azure.arm()))
        .await
        .text("/access_token")
        .to_owned();
    let kept = [
        ("S", azure.emulator.subscription_id()),
        ("T", azure.emulator.tenant_id()),
    ];
    let kept = kept.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut asker = Asker {
        azure,
        graph,
        kept: kept.into_iter().collect(),
        shapes: BTreeSet::new(),
    };
    for (line, asks) in ROWS {
        for ask in *asks {
            let reply = asker.send(ask).await;
            let said = format!("{line}: {} {}", ask.method, asker.filled(ask.path));
            assert_eq!(reply.status, ask.status, "{said}: {}", reply.body);
            for pointer in ask.must {
                let found = reply.body.pointer(pointer).filter(|found| !found.is_null());
                assert!(found.is_some(), "{said}: no {pointer} in {}", reply.body);
            }
        }
    }
    let count = asker.shapes.len();
    assert!(count >= 43, "az has 43 shapes, here are {count}");
    assert_eq!(asker.azure.emulator.unsupported(), BTreeMap::new());
}

#[tokio::test]
async fn tokens_by_secret_and_of_the_machine_have_what_az_reads() {
    let azure = Azure::default().await;
    let (id, secret) = (azure.emulator.client_id(), azure.emulator.client_secret());
    let claims = r#"{"access_token": {"xms_cc": {"values": ["CP1"]}}}"#;
    let form = [
        ("client_id", id),
        ("grant_type", "client_credentials"),
        ("client_info", "1"),
        ("client_secret", secret),
        ("claims", claims),
        ("scope", "https://management.core.windows.net//.default"),
    ];
    let token = azure.form("oauth2/v2.0/token", &form).await.expect(200);
    assert!(token["expires_in"].is_u64() && token["access_token"].is_string());
    let machine = azure
        .metadata("/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fmanagement.core.windows.net%2F")
        .await;
    let claims = azure.verified(machine.text("/access_token")).await;
    assert_eq!(claims["tid"], json!(azure.emulator.tenant_id()));
    assert!(!machine.text("/expires_in").is_empty());
}

#[tokio::test]
async fn what_is_unknown_is_refused_loudly_and_listed() {
    let azure = Azure::default().await;
    for path in [
        "/providers/Microsoft.ContainerService/managedClusters/c/agentPools",
        "/providers/Microsoft.ManagedIdentity/locations/eastus",
    ] {
        let refused = azure.get(path).await;
        assert!(refused.text("/error/message").contains(path), "{}", refused.body);
        assert_eq!(refused.refused(501), "NotImplemented", "{path}");
    }
    let listed = azure.control(Method::GET, "unsupported", None).await.expect(200);
    let sub = azure.sub();
    assert_eq!(
        listed["operations"],
        json!({
            (format!("GET {sub}/providers/Microsoft.ContainerService/managedClusters/c/agentPools")): 1,
            (format!("GET {sub}/providers/Microsoft.ManagedIdentity/locations/eastus")): 1,
        })
    );
}
