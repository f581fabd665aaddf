//! Entra's token endpoints. Bodies: Entra's documentation; requests of az 2.91.0 for the second version.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use podid_azure::{Authorities, ClientCertificate, Endpoint, Entra, Proof, TlsRoots, TokenAsk};
use podid_core::{Retry, Secret, SourceError, TroubleKind};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde_json::Value;

use crate::server::{Server, say};
use crate::{CLIENT, NOW, clock, pairs};

const PEM: &[u8] = include_bytes!("client.pem");
const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";

async fn entra() -> (Server, Entra) {
    let server = Server::start().await.unwrap();
    let authorities = Authorities::new(server.url.as_str().parse().unwrap());
    let entra = Entra::new(authorities, &TlsRoots::default(), clock()).unwrap();
    (server, entra)
}

fn ask(endpoint: Endpoint, proof: Proof<'_>) -> TokenAsk<'_> {
    TokenAsk {
        authority: None,
        tenant: TENANT,
        client_id: CLIENT,
        resource: "https://management.azure.com/",
        endpoint,
        proof,
    }
}

#[tokio::test]
async fn a_secret_goes_to_either_endpoint_in_its_own_words() {
    let (server, entra) = entra().await;
    let secret = Secret::new("p&ss w=rd".to_owned());
    server.will(say(
        200,
        r#"{"token_type":"Bearer","expires_in":3599,"ext_expires_in":3599,"access_token":"a.b.c"}"#,
    ));
    let token = entra
        .token(ask(Endpoint::V2, Proof::Secret(&secret)))
        .await
        .unwrap();
    assert_eq!(
        (token.expires_on, &*token.resource),
        (NOW + 3599, "https://management.azure.com/")
    );
    server.will(say(
        200,
        r#"{"token_type":"Bearer","expires_in":"3599","expires_on":"1700003599","not_before":"1699999700","resource":"https://management.azure.com/","access_token":"a.b.c"}"#,
    ));
    let token = entra
        .token(ask(Endpoint::V1, Proof::Secret(&secret)))
        .await
        .unwrap();
    assert_eq!(
        (token.expires_on, token.not_before),
        (1_700_003_599, Some(1_699_999_700))
    );
    let seen = server.seen();
    assert_eq!(seen[0].path, format!("/{TENANT}/oauth2/v2.0/token"));
    assert_eq!(seen[1].path, format!("/{TENANT}/oauth2/token"));
    for seen in &seen {
        assert_eq!(seen.method.as_str(), "POST");
        assert_eq!(seen.header("content-type"), "application/x-www-form-urlencoded");
    }
    let common = [
        ("client_id", "0f0e0d0c-0b0a-0908-0706-050403020100"),
        ("grant_type", "client_credentials"),
    ];
    let v2 = [
        ("scope", "https://management.azure.com//.default"),
        ("client_secret", "p&ss w=rd"),
    ];
    let v1 = [
        ("resource", "https://management.azure.com/"),
        ("client_secret", "p&ss w=rd"),
    ];
    assert_eq!(pairs(&seen[0].form()), [common, v2].concat());
    assert_eq!(pairs(&seen[1].form()), [common, v1].concat());
}

#[tokio::test]
async fn an_assertion_of_another_issuer_is_sent_as_it_is() {
    let (server, entra) = entra().await;
    let assertion = Secret::new("ey.service.account".to_owned());
    server.will(say(
        200,
        r#"{"token_type":"Bearer","expires_in":86399,"access_token":"a.b.c"}"#,
    ));
    entra
        .token(ask(Endpoint::V2, Proof::Assertion(&assertion)))
        .await
        .unwrap();
    let form = server.seen()[0].form();
    assert!(pairs(&form).contains(&(
        "client_assertion_type",
        "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    )));
    assert!(pairs(&form).contains(&("client_assertion", "ey.service.account")));
}

#[tokio::test]
async fn a_certificates_assertion_verifies_and_says_who_for_whom_and_how_long() {
    let (server, entra) = entra().await;
    let certificate = ClientCertificate::from_pem(PEM).unwrap();
    server.will(say(
        200,
        r#"{"token_type":"Bearer","expires_in":3599,"access_token":"a.b.c"}"#,
    ));
    entra
        .token(ask(Endpoint::V2, Proof::Certificate(&certificate)))
        .await
        .unwrap();
    let form = server.seen()[0].form();
    let assertion = &form.iter().find(|(key, _)| key == "client_assertion").unwrap().1;
    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    let key = PrivatePkcs8KeyDer::from_pem_slice(PEM).unwrap();
    let key = ring::rsa::KeyPair::from_pkcs8(key.secret_pkcs8_der()).unwrap();
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public().as_ref())
        .verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap())
        .unwrap();
    let part = |text: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap();
    let (header, claims) = signed
        .split_once('.')
        .map(|(header, claims)| (part(header), part(claims)))
        .unwrap();
    let der = CertificateDer::from_pem_slice(PEM).unwrap();
    let sha1 = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &der);
    assert_eq!(
        (header["alg"].as_str(), header["x5t"].as_str()),
        (Some("RS256"), Some(&*URL_SAFE_NO_PAD.encode(sha1)))
    );
    assert_eq!(header["x5c"][0], STANDARD.encode(&der));
    let client = CLIENT.to_string();
    assert_eq!(
        (claims["iss"].as_str(), claims["sub"].as_str()),
        (Some(&*client), Some(&*client))
    );
    assert_eq!(claims["aud"], format!("{}{TENANT}/oauth2/v2.0/token", server.url));
    assert_eq!(
        (claims["nbf"].as_u64(), claims["exp"].as_u64()),
        (Some(NOW), Some(NOW + 600))
    );
}

#[tokio::test]
async fn a_refusal_reaches_the_pod_without_trace_ids_and_the_secret_reaches_nobody() {
    let (server, entra) = entra().await;
    let secret = Secret::new("hush-hush".to_owned());
    server.will(say(
        401,
        r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided. Ensure the secret being sent is the secret value. Trace ID: 0ec1 Correlation ID: 5ac2 Timestamp: 2024-05-05 05:05:05Z","error_codes":[7000215],"trace_id":"0ec1"}"#,
    ));
    let error = entra
        .token(ask(Endpoint::V1, Proof::Secret(&secret)))
        .await
        .unwrap_err();
    assert!(!format!("{error:?}").contains("hush-hush"));
    let error = SourceError::from(error);
    assert_eq!(
        (error.code, error.kind, error.retry),
        (
            "entra_invalid_credential",
            TroubleKind::InvalidCredential,
            Retry::Never
        )
    );
    assert_eq!(
        error.text,
        "AADSTS7000215: Invalid client secret provided. Ensure the secret being sent is the secret value"
    );
}

#[tokio::test]
async fn a_secret_is_never_sent_to_an_authority_that_the_operator_does_not_know() {
    let (known, entra) = entra().await;
    let stranger = Server::start().await.unwrap();
    let secret = Secret::new("hush".to_owned());
    let ask = TokenAsk {
        authority: Some(stranger.url.as_str()),
        ..ask(Endpoint::V1, Proof::Secret(&secret))
    };
    assert_eq!(
        entra.token(ask).await.unwrap_err().code(),
        "entra_authority_refused"
    );
    assert_eq!((known.seen().len(), stranger.seen().len()), (0, 0));
}
