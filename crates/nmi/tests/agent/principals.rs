//! Service principals: their secret is read from the API server, their token comes from Entra.

use std::io::Write as _;

use podid_azure_emulator::{App, Config};
use podid_rt::stop::Stop;
use podid_rt::tasks::Tasks;
use serde_json::json;

use crate::cluster::Cluster;
use crate::imds::{Imds, detach};
use crate::node::{Agent, T};

#[tokio::test]
async fn a_service_principals_token_comes_from_entra_and_a_wrong_secret_is_told() {
    let app = App::bind(Config::default()).await.unwrap();
    let azure = app.handle();
    let mut tasks = Tasks::new(Stop::new());
    app.spawn(&mut tasks);
    detach(tasks);
    let mut ca = tempfile::NamedTempFile::new().unwrap();
    ca.write_all(azure.ca_pem().as_bytes()).unwrap();

    let (cluster, imds) = (Cluster::start().await, Imds::start().await);
    let (id, tenant) = (azure.client_id(), azure.tenant_id());
    cluster
        .principal("right", id, tenant, azure.client_secret())
        .await;
    cluster.principal("wrong", id, tenant, "guessed").await;
    cluster.binding("shop", "right", "right", "right").await;
    cluster.binding("shop", "wrong", "wrong", "wrong").await;
    cluster
        .pod(
            "shop",
            "right",
            "127.0.0.2",
            json!({ "aadpodidbinding": "right" }),
        )
        .await;
    cluster
        .pod(
            "shop",
            "wrong",
            "127.0.0.3",
            json!({ "aadpodidbinding": "wrong" }),
        )
        .await;
    let authority = format!("--authority-host={}", azure.endpoints().entra[0]);
    let trusted = format!("--ca-file={}", ca.path().display());
    let agent = Agent::ready(&cluster, &imds, &[&authority, &trusted]).await;

    let at = format!("{T}?api-version=2018-02-01&resource=https://management.azure.com/");
    let got = agent.get("127.0.0.2", &at).await;
    assert_eq!(got.status, 200, "{}", got.body);
    assert_eq!(got.token().split('.').count(), 3);
    assert_eq!(
        (&got.json()["client_id"], &got.json()["resource"]),
        (&json!(id), &json!("https://management.azure.com/"))
    );
    let refused = agent.get("127.0.0.3", &at).await;
    assert_eq!(
        (refused.status, refused.reason()),
        (400, "entra_invalid_credential")
    );
    assert_eq!(refused.json()["error"], "invalid_client");
    assert!(!refused.body.contains("guessed"), "{}", refused.body);
    // Neither is the metadata service's business.
    assert!(imds.asked().is_empty());
}
