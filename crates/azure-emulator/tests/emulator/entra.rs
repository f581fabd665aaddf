//! Entra: sign in by secret, by certificate, by another issuer's assertion; claims and signatures.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use podid_azure_emulator::Config;
use reqwest::Method;
use ring::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use rsa::pkcs8::EncodePrivateKey as _;
use serde_json::{Value, json};

use crate::support::{ARM, Azure};

const ISSUER: &str = "https://issuer.test/cluster";
pub(crate) const BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Somebody else's key.
pub(crate) struct Signer {
    pair: RsaKeyPair,
    der: Vec<u8>,
}

impl Signer {
    pub(crate) fn new() -> Self {
        let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).unwrap();
        let der = key.to_pkcs8_der().unwrap().as_bytes().to_vec();
        Self {
            pair: RsaKeyPair::from_pkcs8(&der).unwrap(),
            der,
        }
    }

    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let mut signature = vec![0; self.pair.public().modulus_len()];
        self.pair
            .sign(
                &RSA_PKCS1_SHA256,
                &ring::rand::SystemRandom::new(),
                signed.as_bytes(),
                &mut signature,
            )
            .unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    pub(crate) fn jwks(&self) -> Value {
        let parts = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(self.pair.public_key());
        json!({ "keys": [{ "kty": "RSA", "kid": "k", "n": URL_SAFE_NO_PAD.encode(parts.n), "e": URL_SAFE_NO_PAD.encode(parts.e) }] })
    }
}

pub(crate) fn number(reply: &crate::support::Reply) -> u64 {
    reply.body["error_codes"][0]
        .as_u64()
        .unwrap_or_else(|| panic!("{reply:?}"))
}

#[tokio::test]
async fn a_token_of_either_endpoint_verifies_and_says_who_it_is_for() {
    let azure = Azure::default().await;
    let (id, secret) = (
        azure.emulator.client_id().to_owned(),
        azure.emulator.client_secret().to_owned(),
    );
    let v2 = azure.sign_in(&id, &secret, "https://vault.azure.net").await;
    assert!(v2.body["expires_in"].is_number());
    let claims = azure.verified(v2.text("/access_token")).await;
    assert_eq!(claims["aud"], "https://vault.azure.net");
    assert_eq!(
        (&claims["tid"], &claims["appid"]),
        (&json!(azure.emulator.tenant_id()), &json!(id))
    );
    assert_eq!(
        claims["iss"],
        json!(format!("https://sts.windows.net/{}/", azure.emulator.tenant_id()))
    );
    assert_eq!(
        claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(),
        3599
    );
    assert!(claims.get("xms_mirid").is_none());

    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", &id),
        ("client_secret", &secret),
        ("resource", ARM),
    ];
    let v1 = azure.form("oauth2/token", &fields).await;
    assert!(
        v1.body.as_object().unwrap().values().all(Value::is_string),
        "{}",
        v1.body
    );
    assert_eq!(azure.verified(v1.text("/access_token")).await["aud"], ARM);

    let discovery = format!(
        "{}/{}/v2.0/.well-known/openid-configuration",
        azure.arm(),
        azure.emulator.tenant_id()
    );
    let discovery = azure.send(azure.http.get(discovery)).await;
    assert_eq!(
        discovery.text("/token_endpoint"),
        format!("{}/{}/oauth2/v2.0/token", azure.arm(), azure.emulator.tenant_id())
    );
}

#[tokio::test]
async fn an_answer_has_the_number_that_the_client_gave_its_request() {
    let azure = Azure::default().await;
    let url = format!("{}/{}/oauth2/v2.0/token", azure.arm(), azure.emulator.tenant_id());
    let reply = azure
        .send(azure.http.post(url).header("client-request-id", "a-number"))
        .await;
    assert_eq!(
        (reply.status, reply.header("client-request-id")),
        (400, "a-number")
    );
}

#[tokio::test]
async fn who_may_not_sign_in_hears_why() {
    let azure = Azure::default().await;
    let id = azure.emulator.client_id().to_owned();
    let secret = azure.emulator.client_secret().to_owned();
    let wrong = azure.sign_in(&id, "wrong", ARM).await;
    assert_eq!(
        (wrong.status, wrong.text("/error"), number(&wrong)),
        (401, "invalid_client", 7_000_215)
    );
    assert_eq!(
        number(
            &azure
                .sign_in("0a2e0000-0000-4000-8000-00000000dead", &secret, ARM)
                .await
        ),
        700_016
    );
    let none = azure
        .form(
            "oauth2/v2.0/token",
            &[("grant_type", "client_credentials"), ("client_id", &id)],
        )
        .await;
    assert_eq!(number(&none), 7_000_218);
    let grant = azure
        .form(
            "oauth2/v2.0/token",
            &[("grant_type", "password"), ("client_id", &id)],
        )
        .await;
    assert_eq!(
        (number(&grant), grant.text("/error")),
        (70003, "unsupported_grant_type")
    );
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", &id),
        ("client_secret", &secret),
        ("scope", "openid User.Read"),
    ];
    assert_eq!(number(&azure.form("oauth2/v2.0/token", &fields).await), 1_002_012);
    assert_eq!(
        number(&azure.sign_in(&id, &secret, "https://nowhere.invalid").await),
        500_011
    );
    let elsewhere = format!(
        "{}/contoso.test/v2.0/.well-known/openid-configuration",
        azure.arm()
    );
    let elsewhere = azure.send(azure.http.get(elsewhere)).await;
    assert_eq!((elsewhere.status, number(&elsewhere)), (400, 90002));
}

#[tokio::test]
async fn an_assertion_of_another_issuer_is_taken_only_as_the_credential_says() {
    let (signer, stranger) = (Signer::new(), Signer::new());
    let azure = Azure::start(Config {
        issuer_keys: [(ISSUER.to_owned(), signer.jwks())].into(),
        ..Config::default()
    })
    .await;
    azure.group("g").await;
    let identity = azure.identity("g", "app-identity").await;
    let client_id = identity["properties"]["clientId"].as_str().unwrap();
    let now = podid_rt::clock::Clock::system().unix_secs();
    let claims = |change: &dyn Fn(&mut Value)| {
        let mut claims = json!({ "iss": ISSUER, "sub": "system:serviceaccount:ns:sa", "aud": ["api://AzureADTokenExchange"], "exp": now + 600 });
        change(&mut claims);
        claims
    };
    let header = json!({ "alg": "RS256", "kid": "k" });
    let exchange = async |token: &str| {
        let scope = format!("{ARM}/.default");
        let fields = [
            ("client_id", client_id),
            ("client_assertion", token),
            ("client_assertion_type", BEARER),
            ("grant_type", "client_credentials"),
            ("scope", scope.as_str()),
        ];
        azure.form("oauth2/v2.0/token", &fields).await
    };
    let good = signer.sign(&header, &claims(&|_| {}));
    assert_eq!(
        number(&exchange(&good).await),
        70025,
        "there is no credential yet"
    );
    let path = format!(
        "{}/federatedIdentityCredentials/one",
        identity["id"].as_str().unwrap()
    );
    let body = json!({ "properties": { "issuer": ISSUER, "subject": "system:serviceaccount:ns:sa", "audiences": ["api://AzureADTokenExchange"] } });
    azure.put(&path, body.clone()).await.expect(201);
    azure.put(&path.replace("/one", "/two"), body).await.expect(409);

    let token = exchange(&good).await;
    let token = azure.verified(token.text("/access_token")).await;
    assert_eq!(
        (&token["appid"], &token["xms_mirid"]),
        (&json!(client_id), &identity["id"])
    );
    for (wrong, expected) in [
        (
            signer.sign(
                &header,
                &claims(&|claims| claims["sub"] = json!("system:serviceaccount:ns:SA")),
            ),
            700_213,
        ),
        (
            signer.sign(
                &header,
                &claims(&|claims| claims["iss"] = json!("https://issuer.test/Cluster")),
            ),
            700_211,
        ),
        (
            signer.sign(
                &header,
                &claims(&|claims| claims["aud"] = json!("https://kubernetes.default.svc")),
            ),
            700_212,
        ),
        (
            signer.sign(&header, &claims(&|claims| claims["exp"] = json!(now - 600))),
            700_024,
        ),
        (
            signer.sign(&header, &claims(&|claims| claims["nbf"] = json!(now + 6000))),
            700_024,
        ),
        (stranger.sign(&header, &claims(&|_| {})), 700_027),
        (
            signer.sign(&json!({ "alg": "RS256", "kid": "another" }), &claims(&|_| {})),
            700_027,
        ),
        (signer.sign(&json!({ "alg": "none" }), &claims(&|_| {})), 50027),
        ("not-a-token".to_owned(), 50027),
    ] {
        let refused = exchange(&wrong).await;
        assert_eq!(
            (refused.status, number(&refused)),
            (401, expected),
            "{}",
            refused.body
        );
    }
    azure.delete(&path).await.expect(200);
    assert_eq!(number(&exchange(&good).await), 70025);
    assert!(
        azure
            .emulator
            .requests(0)
            .iter()
            .all(|entry| !entry.query.contains("eyJ"))
    );
}

#[tokio::test]
async fn an_issuer_that_publishes_no_keys_is_said_to_be_out_of_reach() {
    let azure = Azure::default().await;
    azure.group("g").await;
    let identity = azure.identity("g", "app-identity").await;
    // Nothing serves discovery there: the emulator's own ARM door answers, but not as this issuer.
    let issuer = format!("{}/not-an-issuer", azure.arm());
    let path = format!(
        "{}/federatedIdentityCredentials/one",
        identity["id"].as_str().unwrap()
    );
    azure
        .put(
            &path,
            json!({ "properties": { "issuer": issuer, "subject": "s", "audiences": ["a"] } }),
        )
        .await
        .expect(201);
    let now = podid_rt::clock::Clock::system().unix_secs();
    let token = Signer::new().sign(
        &json!({ "alg": "RS256" }),
        &json!({ "iss": issuer, "sub": "s", "aud": "a", "exp": now + 600 }),
    );
    let client_id = identity["properties"]["clientId"].as_str().unwrap();
    let fields = [
        ("client_id", client_id),
        ("client_assertion", token.as_str()),
        ("client_assertion_type", BEARER),
        ("grant_type", "client_credentials"),
        ("scope", "https://vault.azure.net/.default"),
    ];
    let refused = azure.form("oauth2/v2.0/token", &fields).await;
    assert_eq!((refused.status, number(&refused)), (401, 50166));
}

#[tokio::test]
async fn an_application_signs_in_by_its_certificate() {
    let azure = Azure::default().await;
    let signer = Signer::new();
    let pair =
        rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&signer.der.as_slice().into(), &rcgen::PKCS_RSA_SHA256)
            .unwrap();
    let certificate = rcgen::CertificateParams::new(Vec::<String>::new())
        .unwrap()
        .self_signed(&pair)
        .unwrap();
    let made = azure
        .control(
            Method::POST,
            "applications",
            Some(json!({ "name": "app", "certificatePem": certificate.pem() })),
        )
        .await;
    let client_id = made.text("/clientId").to_owned();
    assert!(made.body.get("clientSecret").is_none());
    let thumbprint = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, certificate.der());
    let header = json!({ "alg": "RS256", "typ": "JWT", "x5t": URL_SAFE_NO_PAD.encode(thumbprint) });
    let now = podid_rt::clock::Clock::system().unix_secs();
    let endpoint = format!("{}/{}/oauth2/token", azure.arm(), azure.emulator.tenant_id());
    let ask = async |audience: &str, header: &Value| {
        let claims = json!({ "iss": client_id, "sub": client_id, "aud": audience, "nbf": now, "exp": now + 600, "jti": "1" });
        let token = signer.sign(header, &claims);
        let fields = [
            ("client_id", client_id.as_str()),
            ("client_assertion", token.as_str()),
            ("client_assertion_type", BEARER),
            ("grant_type", "client_credentials"),
            ("resource", ARM),
        ];
        azure.form("oauth2/token", &fields).await
    };
    // As the original agent does it: the audience is the whole URL, with its query.
    let token = ask(&format!("{endpoint}?api-version=1.0"), &header).await;
    assert_eq!(
        azure.verified(token.text("/access_token")).await["appid"],
        json!(client_id)
    );
    assert_eq!(
        number(&ask("https://login.microsoftonline.com/t/oauth2/token", &header).await),
        700_023
    );
    assert_eq!(
        number(&ask(&endpoint, &json!({ "alg": "RS256", "x5t": "other" })).await),
        700_027
    );
}
