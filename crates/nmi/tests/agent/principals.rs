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

/// One test file of `fixtures/pkcs12`.
macro_rules! pkcs12 {
    ($name:literal) => {
        include_bytes!(concat!("../../../../fixtures/pkcs12/", $name)).as_slice()
    };
}

#[tokio::test]
async fn a_certificate_in_pkcs12_proves_a_service_principal_and_a_hostile_file_is_told_at_once() {
    let app = App::bind(Config::default()).await.unwrap();
    let azure = app.handle();
    let mut tasks = Tasks::new(Stop::new());
    app.spawn(&mut tasks);
    detach(tasks);
    let mut ca = tempfile::NamedTempFile::new().unwrap();
    ca.write_all(azure.ca_pem().as_bytes()).unwrap();
    let id = "44444444-4444-4444-8444-444444444444";
    let registered = reqwest::Client::builder()
        .tls_certs_only(reqwest::Certificate::from_pem_bundle(azure.ca_pem().as_bytes()).unwrap())
        .build()
        .unwrap()
        .post(format!("{}/_emulator/applications", azure.endpoints().entra[0]))
        .header("x-emulator-key", azure.client_secret())
        .json(&json!({
            "name": "certified", "clientId": id,
            "certificatePem": include_str!("../../../../fixtures/pkcs12/certificate.pem"),
        }))
        .send()
        .await
        .unwrap();
    assert!(
        registered.status().is_success(),
        "{}",
        registered.text().await.unwrap()
    );

    let (cluster, imds) = (Cluster::start().await, Imds::start().await);
    let files = [
        ("modern", pkcs12!("modern.p12"), "s3cret ü"),
        ("legacy", pkcs12!("legacy.p12"), "s3cret ü"),
        ("wrong", pkcs12!("modern.p12"), "guessed"),
        ("work", pkcs12!("work.p12"), "x"),
    ];
    for (last, (name, file, password)) in (2..).zip(files) {
        cluster
            .certified(name, id, azure.tenant_id(), file, password)
            .await;
        cluster.binding("shop", name, name, name).await;
        let label = json!({ "aadpodidbinding": name });
        cluster.pod("shop", name, &format!("127.0.0.{last}"), label).await;
    }
    let authority = format!("--authority-host={}", azure.endpoints().entra[0]);
    let trusted = format!("--ca-file={}", ca.path().display());
    let agent = Agent::ready(&cluster, &imds, &[&authority, &trusted]).await;
    let at = format!("{T}?api-version=2018-02-01&resource=https://management.azure.com/");
    for from in ["127.0.0.2", "127.0.0.3"] {
        let got = agent.get(from, &at).await;
        assert_eq!(
            (got.status, &got.json()["client_id"]),
            (200, &json!(id)),
            "{}",
            got.body
        );
    }
    for (from, why) in [
        ("127.0.0.4", "the password does not open the PKCS#12 file"),
        ("127.0.0.5", "more than 1500000 iterations"),
    ] {
        let got = agent.get(from, &at).await;
        assert_eq!(
            (got.status, got.reason()),
            (400, "secret_unusable"),
            "{}",
            got.body
        );
        assert!(
            got.body.contains(why) && !got.body.contains("guessed"),
            "{}",
            got.body
        );
    }
}
