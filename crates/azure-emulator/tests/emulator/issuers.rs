//! Issuers of federated assertions as Entra meets them: over HTTPS, with published keys that change, or out of reach.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use parking_lot::Mutex;
use podid_azure_emulator::Config;
use podid_rt::stop::Stop;
use podid_rt::tasks::Tasks;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};

use crate::entra::{BEARER, Signer, number};
use crate::support::{ARM, Azure, Reply};

const SUBJECT: &str = "system:serviceaccount:ns:sa";
const AUDIENCE: &str = "api://AzureADTokenExchange";

/// An issuer that publishes keys over HTTPS.
struct Issuer {
    url: String,
    keys: Arc<Mutex<Value>>,
    /// Paths that were asked for.
    asked: Arc<Mutex<Vec<String>>>,
    authority: tempfile::NamedTempFile,
    _tasks: Tasks,
}

impl Issuer {
    fn start(keys: Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("https://{}/cluster", listener.local_addr().unwrap());
        let pair = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])
            .unwrap()
            .self_signed(&pair)
            .unwrap();
        let authority = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(authority.path(), certificate.pem()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der())),
            )
            .unwrap();
        let (keys, asked) = (Arc::new(Mutex::new(keys)), Arc::new(Mutex::new(Vec::new())));
        let service = {
            let (keys, asked, url) = (keys.clone(), asked.clone(), url.clone());
            hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let path = request.uri().path().to_owned();
                let body = if path.ends_with("/keys") {
                    keys.lock().clone()
                } else {
                    json!({ "issuer": url, "jwks_uri": format!("{url}/keys") })
                };
                asked.lock().push(path);
                let answer = http::Response::new(Full::new(Bytes::from(body.to_string())));
                std::future::ready(Ok::<_, Infallible>(answer))
            })
        };
        let mut tasks = Tasks::new(Stop::new());
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let served = podid_rt::serve::serve(
            listener,
            Some(Arc::new(tls)),
            service,
            tasks.group(),
            tasks.stop().clone(),
        );
        tasks.spawn("issuer", served);
        Self {
            url,
            keys,
            asked,
            authority,
            _tasks: tasks,
        }
    }
}

/// An identity that trusts that issuer; its client id.
async fn trusting(azure: &Azure, issuer: &str) -> String {
    azure.group("g").await;
    let identity = azure.identity("g", "app-identity").await;
    let path = format!(
        "{}/federatedIdentityCredentials/one",
        identity["id"].as_str().unwrap()
    );
    let body = json!({ "properties": { "issuer": issuer, "subject": SUBJECT, "audiences": [AUDIENCE] } });
    azure.put(&path, body).await.expect(201);
    identity["properties"]["clientId"].as_str().unwrap().to_owned()
}

fn token(signer: &Signer, key: &str, issuer: &str) -> String {
    let now = podid_rt::clock::Clock::system().unix_secs();
    let claims = json!({ "iss": issuer, "sub": SUBJECT, "aud": AUDIENCE, "exp": now + 600 });
    signer.sign(&json!({ "alg": "RS256", "kid": key }), &claims)
}

async fn exchange(azure: &Azure, client_id: &str, token: &str) -> Reply {
    let scope = format!("{ARM}/.default");
    let fields = [
        ("client_id", client_id),
        ("client_assertion", token),
        ("client_assertion_type", BEARER),
        ("grant_type", "client_credentials"),
        ("scope", scope.as_str()),
    ];
    azure.form("oauth2/v2.0/token", &fields).await
}

/// A key set in which the signer's key has that name.
fn published(signer: &Signer, key: &str) -> Value {
    let mut keys = signer.jwks();
    keys["keys"][0]["kid"] = json!(key);
    keys
}

#[tokio::test]
async fn an_issuers_keys_are_fetched_once_and_again_when_a_new_one_signs() {
    let (old, new) = (Signer::new(), Signer::new());
    // The provider must be there before the issuer's TLS is; a second installation changes nothing.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let issuer = Issuer::start(published(&old, "old"));
    let azure = Azure::start(Config {
        issuer_cas: vec![issuer.authority.path().to_owned()],
        ..Config::default()
    })
    .await;
    let client_id = trusting(&azure, &issuer.url).await;
    for _ in 0..2 {
        let answer = exchange(&azure, &client_id, &token(&old, "old", &issuer.url)).await;
        let claims = azure.verified(answer.text("/access_token")).await;
        assert_eq!(claims["appid"], json!(client_id));
    }
    assert_eq!(
        *issuer.asked.lock(),
        ["/cluster/.well-known/openid-configuration", "/cluster/keys"],
        "the second exchange asks nobody"
    );

    let by_new = token(&new, "new", &issuer.url);
    let refused = exchange(&azure, &client_id, &by_new).await;
    assert_eq!(
        (refused.status, number(&refused)),
        (401, 700_027),
        "the new key is not published yet"
    );
    *issuer.keys.lock() = published(&new, "new");
    podid_testkit::eventually("the new key is known", || async {
        let answer = exchange(&azure, &client_id, &by_new).await;
        if answer.status == 200 { Ok(()) } else { Err(answer) }
    })
    .await
    .unwrap();
    let refused = exchange(&azure, &client_id, &token(&old, "old", &issuer.url)).await;
    assert_eq!(
        (refused.status, number(&refused)),
        (401, 700_027),
        "a key that is published no more does not count"
    );
}

#[tokio::test]
async fn an_issuer_that_nobody_serves_is_named_with_the_reason() {
    let azure = Azure::default().await;
    // A port that was free a moment ago, and that nobody listens on.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let issuer = format!("https://{free}/gone");
    let client_id = trusting(&azure, &issuer).await;
    let refused = exchange(&azure, &client_id, &token(&Signer::new(), "k", &issuer)).await;
    assert_eq!((refused.status, number(&refused)), (401, 50166));
    let says = refused.text("/error_description");
    assert!(
        says.contains(&issuer) && says.contains("Connection refused"),
        "{says}"
    );
}

#[tokio::test]
async fn an_issuer_whose_certificate_is_not_trusted_is_not_believed() {
    let signer = Signer::new();
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let issuer = Issuer::start(published(&signer, "k"));
    let azure = Azure::default().await;
    let client_id = trusting(&azure, &issuer.url).await;
    let refused = exchange(&azure, &client_id, &token(&signer, "k", &issuer.url)).await;
    assert_eq!((refused.status, number(&refused)), (401, 50166));
    assert!(issuer.asked.lock().is_empty());
}
