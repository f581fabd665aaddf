//! The published keys of other issuers, for federated assertions: given beforehand, of a bound Kubernetes, or fetched
//! over HTTPS from the issuer's discovery document. Kept for some minutes; an unknown key id asks again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use crate::cloud::Cloud;
use crate::jwt::{self, PublicKey};
use crate::kubernetes;

/// How long fetched keys are believed.
const KEEP: Duration = Duration::from_mins(5);
/// An unknown key id does not make us ask more often than this.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// For a whole answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a discovery document or key set.
const BODY_LIMIT: usize = 1 << 20;
/// Issuers that are remembered.
const CAPACITY: usize = 1_000;

/// Keys with their ids.
pub(crate) type Keys = Arc<Vec<(Option<String>, PublicKey)>>;

/// The issuers that we have asked or were told of.
pub(crate) struct Issuers {
    given: HashMap<String, Keys>,
    fetched: Mutex<HashMap<String, (Keys, Instant)>>,
    http: reqwest::Client,
}

/// Why an issuer's keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IssuerError {
    #[error("the issuer is not an https URL")]
    Scheme,
    #[error("{url} cannot be read: {why}")]
    Fetch { url: String, why: String },
    #[error("{url} says that its issuer is '{says}'")]
    Other { url: String, says: String },
    #[error("{url} names no jwks_uri")]
    NoKeys { url: String },
}

impl Issuers {
    /// Trusts `roots` (PEM) beside the system's certificate authorities.
    pub(crate) fn new(
        roots: &[reqwest::Certificate],
        given: HashMap<String, Value>,
    ) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .tls_certs_merge(roots.iter().cloned())
            .build()?;
        let given = given
            .into_iter()
            .map(|(issuer, jwks)| (issuer, Arc::new(jwt::keys(&jwks))))
            .collect();
        Ok(Self {
            given,
            fetched: Mutex::default(),
            http,
        })
    }

    /// The keys of an issuer; `kid` is the one that is wanted.
    pub(crate) async fn keys(
        &self,
        cloud: &Cloud,
        issuer: &str,
        kid: Option<&str>,
    ) -> Result<Keys, IssuerError> {
        if let Some(keys) = self.given.get(issuer) {
            return Ok(Arc::clone(keys));
        }
        let now = Instant::now();
        if let Some((keys, at)) = self.fetched.lock().get(issuer) {
            let age = now.duration_since(*at);
            let has = kid.is_none() || keys.iter().any(|(id, _)| id.as_deref() == kid);
            if age < if has { KEEP } else { ASK_AGAIN } {
                return Ok(Arc::clone(keys));
            }
        }
        let jwks = match kubernetes::published_keys(cloud, issuer).await {
            Some(jwks) => jwks,
            None => self.fetch(issuer).await?,
        };
        let keys: Keys = Arc::new(jwt::keys(&jwks));
        let mut fetched = self.fetched.lock();
        if fetched.len() >= CAPACITY {
            fetched.clear();
        }
        fetched.insert(issuer.to_owned(), (Arc::clone(&keys), now));
        drop(fetched);
        Ok(keys)
    }

    async fn fetch(&self, issuer: &str) -> Result<Value, IssuerError> {
        if !issuer.starts_with("https://") {
            return Err(IssuerError::Scheme);
        }
        let url = format!(
            "{}/.well-known/openid-configuration",
            issuer.trim_end_matches('/')
        );
        let document = self.get(&url).await?;
        let says = document.get("issuer").and_then(Value::as_str).unwrap_or_default();
        if says != issuer {
            return Err(IssuerError::Other {
                url,
                says: says.to_owned(),
            });
        }
        match document.get("jwks_uri").and_then(Value::as_str) {
            Some(keys) if keys.starts_with("https://") => self.get(keys).await,
            _ => Err(IssuerError::NoKeys { url }),
        }
    }

    async fn get(&self, url: &str) -> Result<Value, IssuerError> {
        let failed = |why: &dyn std::fmt::Display| IssuerError::Fetch {
            url: url.to_owned(),
            why: why.to_string(),
        };
        let mut response = self
            .http
            .get(url)
            .send()
            .await
            .map_err(|error| failed(&chain(&error)))?;
        if !response.status().is_success() {
            return Err(failed(&response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| failed(&chain(&error)))? {
            if body.len() + chunk.len() > BODY_LIMIT {
                return Err(failed(&"the answer is too large"));
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|error| failed(&error))
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
