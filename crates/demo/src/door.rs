//! What both HTTP doors share: the client, its limits, and the one kind of error.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Certificate, Client, Response, StatusCode};
use serde::de::DeserializeOwned;

/// For a connection to be there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For a whole answer: the agent may wait 20 s inside a token request for trouble to pass.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest body that is read, bytes.
const BODY_LIMIT: usize = 4 << 20;
/// How much of an error's body is repeated, characters.
const EXCERPT: usize = 300;

/// A request that did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DoorError {
    #[error("cannot read certificate authorities from {}", .file.display())]
    Authorities {
        file: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot make an HTTP client")]
    Client(#[source] reqwest::Error),
    #[error("{what}: no answer")]
    Unreachable {
        what: &'static str,
        #[source]
        source: reqwest::Error,
    },
    #[error("{what}: answered {status}: {text}")]
    Refused {
        what: &'static str,
        status: StatusCode,
        text: String,
    },
    #[error("{what}: the answer is larger than {BODY_LIMIT} bytes")]
    TooLarge { what: &'static str },
    #[error("{what}: the answer cannot be read")]
    Unreadable {
        what: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("{what}: the next page is at another origin, {url}")]
    StrayPage { what: &'static str, url: String },
}

/// The client for all requests: no proxies, no redirects (a token must not follow one).
pub(crate) fn client(ca_file: Option<&Path>) -> Result<Client, DoorError> {
    let mut builder = Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        .user_agent(concat!("podid-demo/", env!("CARGO_PKG_VERSION")));
    if let Some(file) = ca_file {
        let refused = |source| DoorError::Authorities {
            file: file.to_owned(),
            source,
        };
        let pem = std::fs::read(file).map_err(|source| refused(source.into()))?;
        let authorities = Certificate::from_pem_bundle(&pem).map_err(|source| refused(source.into()))?;
        builder = builder.tls_certs_only(authorities);
    }
    builder.build().map_err(DoorError::Client)
}

/// Sends, insists on success, reads a bounded body.
pub(crate) async fn fetch<T: DeserializeOwned>(
    what: &'static str,
    request: reqwest::RequestBuilder,
) -> Result<T, DoorError> {
    let response = request
        .send()
        .await
        .map_err(|source| DoorError::Unreachable { what, source })?;
    let status = response.status();
    let body = read(what, response).await?;
    if status != StatusCode::OK {
        // Only error bodies are ever repeated; a token is in a body with status 200.
        let text = String::from_utf8_lossy(&body).chars().take(EXCERPT).collect();
        return Err(DoorError::Refused { what, status, text });
    }
    serde_json::from_slice(&body).map_err(|source| DoorError::Unreadable { what, source })
}

async fn read(what: &'static str, mut response: Response) -> Result<Vec<u8>, DoorError> {
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|source| DoorError::Unreachable { what, source })?
    {
        if body.len().saturating_add(chunk.len()) > BODY_LIMIT {
            return Err(DoorError::TooLarge { what });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
