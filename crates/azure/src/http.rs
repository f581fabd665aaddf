//! What the doors have in common on the wire: one kind of client, bounded bodies, `Retry-After`, and what can go wrong
//! below HTTP. Follows no redirect and uses no proxy unless told to.

use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderMap;
use ::http::header::RETRY_AFTER;
use bytes::{Bytes, BytesMut};
use reqwest::{Certificate, Client, Response};
use thiserror::Error;

/// Wall-clock time in seconds since 1970-01-01T00:00:00Z.
pub type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Most bytes of an answer. A scale set's model with hundreds of identities has some 100 KiB.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// Sent with every request; Azure's support asks for it.
const USER_AGENT: &str = concat!("podid/", env!("CARGO_PKG_VERSION"));

/// Which certificate authorities are trusted beside the system's.
#[derive(Clone, Debug, Default)]
pub struct TlsRoots(Vec<Certificate>);

/// Why a client could not be made.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The CA file has no certificate that can be read.
    #[error("the CA bundle cannot be read: expected certificates in PEM")]
    Roots(#[source] reqwest::Error),
    /// It has none at all.
    #[error("the CA bundle has no certificate: expected at least one in PEM")]
    NoRoots,
    /// The TLS library refuses.
    #[error("no HTTP client could be made, probably for lack of system certificates")]
    Tls(#[source] reqwest::Error),
    /// The address is not one to send requests to.
    #[error("{0}")]
    Endpoint(String),
}

impl TlsRoots {
    /// The certificates of a PEM bundle.
    pub fn from_pem(bundle: &[u8]) -> Result<Self, ClientError> {
        let certificates = Certificate::from_pem_bundle(bundle).map_err(ClientError::Roots)?;
        if certificates.is_empty() {
            return Err(ClientError::NoRoots);
        }
        Ok(Self(certificates))
    }
}

/// How a client is to behave.
pub(crate) struct Wire {
    pub(crate) connect: Duration,
    pub(crate) total: Duration,
    /// Whether the environment's proxies are used: never for the metadata service, which is one hop away.
    pub(crate) proxies: bool,
}

/// A client for TLS, trusting the system's roots and `roots`; without `roots`, one for plain HTTP alone, which then needs
/// no certificates on the system.
pub(crate) fn client(wire: &Wire, roots: Option<&TlsRoots>) -> Result<Client, ClientError> {
    // The one provider of the workspace; that somebody has installed it before is fine.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(wire.connect)
        .timeout(wire.total);
    builder = match roots {
        Some(roots) => builder.tls_certs_merge(roots.0.iter().cloned()),
        None => builder.tls_certs_only([]),
    };
    if !wire.proxies {
        builder = builder.no_proxy();
    }
    builder.build().map_err(ClientError::Tls)
}

/// What went wrong below HTTP. Its text has no address: URLs have client ids.
#[derive(Debug, Error)]
pub enum TransportError {
    /// No answer in time.
    #[error("no answer in time")]
    Timeout(#[source] reqwest::Error),
    /// No connection.
    #[error("no connection")]
    Connect(#[source] reqwest::Error),
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[source] reqwest::Error),
    /// The answer is too long.
    #[error("the answer has more than {MAX_ANSWER} bytes")]
    TooLong,
}

impl From<reqwest::Error> for TransportError {
    fn from(error: reqwest::Error) -> Self {
        let error = error.without_url();
        if error.is_timeout() {
            Self::Timeout(error)
        } else if error.is_connect() {
            Self::Connect(error)
        } else {
            Self::Broken(error)
        }
    }
}

/// The whole body.
pub(crate) async fn body(mut response: Response) -> Result<Bytes, TransportError> {
    let mut whole = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        if whole.len() + chunk.len() > MAX_ANSWER {
            return Err(TransportError::TooLong);
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

/// `Retry-After` in either form. Source: RFC 9110, section 10.2.3.
pub(crate) fn retry_after(headers: &HeaderMap, now: u64) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(secs) = text.parse() {
        return Some(Duration::from_secs(secs));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    let at = u64::try_from(date.timestamp().as_second()).ok()?;
    Some(Duration::from_secs(at.saturating_sub(now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let after = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers, 1_445_412_470)
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(
            after("Wed, 21 Oct 2015 07:28:00 GMT"),
            Some(Duration::from_secs(10))
        );
        assert_eq!(after("Wed, 21 Oct 2015 07:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(after("soon"), None);
    }

    #[test]
    fn a_bundle_without_a_certificate_is_refused() {
        assert!(matches!(
            TlsRoots::from_pem(b"no certificate here"),
            Err(ClientError::NoRoots)
        ));
    }
}
