//! Azure Resource Manager: small typed calls, one request each, and long-running operations followed to their end. Which
//! call to make, and whether to make it again, is the caller's; [`ArmError::retry`] says what would help.
//! Source: <https://learn.microsoft.com/azure/azure-resource-manager/management/async-operations>.
//!
//! ```text
//! host       VM or scale set: read its identities, add and remove some
//! identity   a managed identity and its federated credentials
//! role       who has a role over a managed identity
//! managed_cluster  who a managed cluster is in Azure
//! operation  poll until it has ended
//! error      ARM's error shape ─▶ ArmError
//! ```

pub mod error;
pub mod host;
pub mod identity;
pub mod managed_cluster;
mod operation;
pub mod role;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::{CONTENT_TYPE, HeaderMap, IF_MATCH};
use ::http::{Method, StatusCode};
use bytes::Bytes;
use parking_lot::Mutex;
use podid_core::{AccessToken, SourceError};
use reqwest::Url;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

pub use self::error::ArmError;
pub use self::host::{Host, HostIdentities, HostKind, IdentityChange};
pub use self::identity::{FederatedCredential, ManagedIdentity};
pub use self::managed_cluster::ManagedCluster;
pub use self::role::{Role, RoleAssignment};
use crate::http::{ClientError, TlsRoots, TransportError, WallClock, Wire, body, client, retry_after};

const CONNECT: Duration = Duration::from_secs(5);
/// For a whole answer. ARM answers reads of a scale set in seconds at worst; writes answer at once and go on by themselves.
const TOTAL: Duration = Duration::from_mins(1);
/// Seconds that must be left of a kept token.
const MARGIN_SECS: u64 = 300;

/// A token being fetched.
pub type Fetching = Pin<Box<dyn Future<Output = Result<AccessToken, SourceError>> + Send>>;

/// Gets a token for ARM: from the node's metadata service, or from Entra. It is kept here until five minutes before its end.
pub type FetchToken = Arc<dyn Fn() -> Fetching + Send + Sync>;

/// Azure Resource Manager. Cloning shares connections, token and throttling.
#[derive(Clone)]
pub struct Arm(Arc<Inner>);

struct Inner {
    client: reqwest::Client,
    endpoint: Url,
    fetch: FetchToken,
    clock: WallClock,
    token: Mutex<Option<Arc<AccessToken>>>,
    /// Until when calls of a kind are not made, because ARM said so. Bounded: there are few kinds.
    gates: Mutex<HashMap<Gate, Instant>>,
}

/// ARM counts reads and writes of each kind of resource by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Gate {
    pub(crate) kind: &'static str,
    pub(crate) write: bool,
}

/// A request for one resource.
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    /// Resource id.
    pub(crate) id: &'a str,
    pub(crate) api_version: &'static str,
    pub(crate) kind: &'static str,
    /// Version of the resource that is meant.
    pub(crate) if_match: Option<&'a str>,
}

/// A 2xx.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl fmt::Debug for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arm")
            .field("endpoint", &self.0.endpoint.as_str())
            .finish_non_exhaustive()
    }
}

impl Arm {
    /// ARM at `endpoint`, of which only scheme and authority count; `roots` are trusted beside the system's.
    pub fn new(
        endpoint: &Url,
        roots: &TlsRoots,
        fetch: FetchToken,
        clock: WallClock,
    ) -> Result<Self, ClientError> {
        if !endpoint.has_host() || !matches!(endpoint.scheme(), "https" | "http") {
            return Err(ClientError::Endpoint(format!(
                "{endpoint} cannot be ARM: expected something like https://management.azure.com/"
            )));
        }
        let wire = Wire {
            connect: CONNECT,
            total: TOTAL,
            proxies: true,
        };
        Ok(Self(Arc::new(Inner {
            client: client(&wire, Some(roots))?,
            endpoint: endpoint.clone(),
            fetch,
            clock,
            token: Mutex::default(),
            gates: Mutex::default(),
        })))
    }

    /// Sends a request without a body and reads the answer.
    pub(crate) async fn read<T: DeserializeOwned>(&self, ask: Ask<'_>) -> Result<T, ArmError> {
        let answer = self.send(ask, None::<&()>).await?;
        parsed(&answer.body)
    }

    /// Sends a request.
    pub(crate) async fn send(
        &self,
        ask: Ask<'_>,
        content: Option<&(impl Serialize + Sync)>,
    ) -> Result<Answer, ArmError> {
        self.send_with(ask, &[], content).await
    }

    /// Sends a request with more parameters than the version.
    pub(crate) async fn send_with(
        &self,
        ask: Ask<'_>,
        parameters: &[(&str, &str)],
        content: Option<&(impl Serialize + Sync)>,
    ) -> Result<Answer, ArmError> {
        let gate = Gate {
            kind: ask.kind,
            write: ask.method != Method::GET,
        };
        self.pass(gate)?;
        let mut url = self.0.endpoint.clone();
        url.set_path(ask.id);
        url.query_pairs_mut()
            .clear()
            .append_pair("api-version", ask.api_version)
            .extend_pairs(parameters);
        let mut request = self.0.client.request(ask.method, url);
        if let Some(version) = ask.if_match {
            request = request.header(IF_MATCH, version);
        }
        if let Some(content) = content {
            let text = serde_json::to_vec(content).map_err(ArmError::Content)?;
            request = request.header(CONTENT_TYPE, "application/json").body(text);
        }
        let answer = self.exchange(request).await;
        if let Err(ArmError::Throttled {
            retry_after: Some(after),
            ..
        }) = &answer
        {
            self.0.gates.lock().insert(gate, Instant::now() + *after);
        }
        answer
    }

    /// Reads what an operation has come to. Only at ARM's own address: the token goes along.
    pub(crate) async fn poll(&self, url: &str) -> Result<Answer, ArmError> {
        let url = Url::parse(url).ok().filter(|url| {
            url.scheme() == self.0.endpoint.scheme()
                && url.host() == self.0.endpoint.host()
                && url.port_or_known_default() == self.0.endpoint.port_or_known_default()
        });
        let url = url.ok_or(ArmError::ForeignOperation)?;
        self.exchange(self.0.client.get(url)).await
    }

    async fn exchange(&self, request: reqwest::RequestBuilder) -> Result<Answer, ArmError> {
        let token = self.token().await?;
        let response = request
            .bearer_auth(token.secret.expose())
            .send()
            .await
            .map_err(TransportError::from)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = body(response).await?;
        if status.is_success() {
            return Ok(Answer {
                status,
                headers,
                body,
            });
        }
        if status == StatusCode::UNAUTHORIZED {
            // The next call gets a new one.
            *self.0.token.lock() = None;
        }
        Err(error::of(status, retry_after(&headers, (self.0.clock)()), &body))
    }

    async fn token(&self) -> Result<Arc<AccessToken>, ArmError> {
        let now = (self.0.clock)();
        let kept = self.0.token.lock().clone();
        if let Some(kept) = kept.filter(|kept| kept.expires_in(now) > MARGIN_SECS) {
            return Ok(kept);
        }
        // Several calls may fetch at once when the token ends; the last one is kept, each is good.
        let token = Arc::new((self.0.fetch)().await.map_err(ArmError::Token)?);
        *self.0.token.lock() = Some(Arc::clone(&token));
        Ok(token)
    }

    fn pass(&self, gate: Gate) -> Result<(), ArmError> {
        let now = Instant::now();
        let until = self.0.gates.lock().get(&gate).copied();
        match until.and_then(|until| until.checked_duration_since(now)) {
            Some(left) if !left.is_zero() => Err(ArmError::Throttled {
                retry_after: Some(left),
                held_back: true,
            }),
            _ => Ok(()),
        }
    }

    pub(crate) fn asked_to_wait(&self, headers: &HeaderMap) -> Option<Duration> {
        retry_after(headers, (self.0.clock)())
    }
}

/// Reads a body.
pub(crate) fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, ArmError> {
    serde_json::from_slice(body).map_err(ArmError::Answer)
}
