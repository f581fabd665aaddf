//! The metadata service. Bodies: recorded answers of the real service in public issues.

use std::time::Duration;

use podid_azure::{Imds, Who};
use podid_core::{IdentityResourceId, Retry};
use tokio::net::TcpListener;

use crate::server::{Server, say};
use crate::{CLIENT, NOW, clock, pairs};

const TOKEN: &str = r#"{"access_token":"eyJ0eXAi.eyJhdWQi.c2ln","client_id":"0f0e0d0c-0b0a-0908-0706-050403020100","expires_in":"86317","expires_on":"1700086317","ext_expires_in":"86399","not_before":"1699999618","resource":"https://management.azure.com/","token_type":"Bearer"}"#;

#[tokio::test]
async fn asks_for_exactly_one_identity_as_the_service_is_asked() {
    let server = Server::start().await.unwrap();
    let imds = Imds::new(&server.url, clock()).unwrap();
    server.will(say(200, TOKEN));
    let token = imds
        .token(Who::ClientId(CLIENT), "https://management.azure.com/")
        .await
        .unwrap();
    assert_eq!(token.secret.expose(), "eyJ0eXAi.eyJhdWQi.c2ln");
    assert_eq!(
        (token.expires_on, token.not_before, token.client_id),
        (NOW + 86_317, Some(1_699_999_618), Some(CLIENT))
    );
    let id: IdentityResourceId =
        "/subscriptions/s/resourceGroups/My-Group/providers/Microsoft.ManagedIdentity/userAssignedIdentities/App"
            .parse()
            .unwrap();
    server.will(say(200, TOKEN));
    imds.token(Who::ResourceId(&id), "api://a b&c").await.unwrap();
    let seen = server.seen();
    for seen in &seen {
        assert_eq!(
            (seen.method.as_str(), seen.path.as_str()),
            ("GET", "/metadata/identity/oauth2/token")
        );
        assert_eq!(seen.header("metadata"), "true");
        assert_eq!(seen.header("x-forwarded-for"), "");
        assert!(seen.body.is_empty());
    }
    assert_eq!(
        pairs(&seen[0].query),
        [
            ("api-version", "2018-02-01"),
            ("resource", "https://management.azure.com/"),
            ("client_id", "0f0e0d0c-0b0a-0908-0706-050403020100"),
        ]
    );
    assert_eq!(
        pairs(&seen[1].query),
        [
            ("api-version", "2018-02-01"),
            ("resource", "api://a b&c"),
            ("msi_res_id", id.as_str())
        ]
    );
}

#[tokio::test]
async fn what_the_service_asks_for_reaches_the_caller() {
    let server = Server::start().await.unwrap();
    let imds = Imds::new(&server.url, clock()).unwrap();
    server.will(
        say(
            429,
            r#"{"error":"invalid_request","error_description":"Temporarily throttled, too many requests"}"#,
        )
        .with("retry-after", "7"),
    );
    let error = imds.token(Who::ClientId(CLIENT), "r").await.unwrap_err();
    assert_eq!(
        (error.code(), error.retry()),
        ("imds_throttled", Retry::After(Duration::from_secs(7)))
    );
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_an_endless_body_not_read() {
    let server = Server::start().await.unwrap();
    let imds = Imds::new(&server.url, clock()).unwrap();
    server.will(say(307, "").with("location", server.url.to_string()));
    let error = imds.token(Who::ClientId(CLIENT), "r").await.unwrap_err();
    assert_eq!((error.code(), server.seen().len()), ("imds_unavailable", 1));
    server.will(say(200, " ".repeat(5 * 1024 * 1024)));
    let error = imds.token(Who::ClientId(CLIENT), "r").await.unwrap_err();
    assert_eq!(error.code(), "imds_broken");
}

#[tokio::test]
async fn nobody_listening_is_trouble_that_may_pass_and_names_no_address() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    drop(listener);
    let imds = Imds::new(&url, clock()).unwrap();
    let error = imds.token(Who::ClientId(CLIENT), "r").await.unwrap_err();
    assert_eq!((error.code(), error.retry()), ("imds_connect", Retry::Backoff));
    assert!(!error.to_string().contains("127.0.0.1"), "{error}");
    assert!(!format!("{error:?}").contains("client_id"), "{error:?}");
}
