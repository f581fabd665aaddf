//! The node's metadata service, of which only tokens are asked. Asks once; never without saying for whom, because the
//! service would then answer with an identity of the node.
//! Source: <https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token>.

use std::fmt;
use std::time::Duration;

use ::http::StatusCode;
use podid_core::{AccessToken, Guid, Identity, IdentityResourceId, Retry, SourceError, TroubleKind};
use reqwest::Url;
use thiserror::Error;

use crate::aadsts;
use crate::http::{ClientError, TransportError, WallClock, Wire, body, client, retry_after};
use crate::wire::{self, AnswerError};

/// Where the metadata service is on every VM.
pub const DEFAULT_ENDPOINT: &str = "http://169.254.169.254/";
/// Sent as `api-version`: the one that every version of the service has.
const API_VERSION: &str = "2018-02-01";
/// It is one hop away.
const CONNECT: Duration = Duration::from_secs(2);
/// For a whole answer. Half of what a pod waits, so that a try that hangs leaves time for another.
const TOTAL: Duration = Duration::from_secs(10);

/// Whose token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who<'a> {
    /// The identity with this client id.
    ClientId(Guid),
    /// The identity with this ARM id.
    ResourceId(&'a IdentityResourceId),
    /// Whatever the VM itself is. Only for programs that run as the node; never for a pod.
    Node,
}

impl<'a> Who<'a> {
    /// How `identity` is named to the service: by client id, else by resource id. Never as the node.
    pub fn of(identity: &'a Identity) -> Result<Self, ImdsError> {
        match (identity.client_id, &identity.resource_id) {
            (Some(id), _) => Ok(Self::ClientId(id)),
            (None, Some(id)) => Ok(Self::ResourceId(id)),
            (None, None) => Err(ImdsError::NoIdentity {
                object: identity.object.to_string(),
            }),
        }
    }
}

/// Why the metadata service gave no token.
#[derive(Debug, Error)]
pub enum ImdsError {
    /// Nobody was named, and the node's own identity is not for pods.
    #[error("AzureIdentity {object} has neither client id nor resource id, so nobody can be asked for")]
    NoIdentity {
        /// Namespace and name.
        object: String,
    },
    /// The identity is not on this VM.
    #[error("Identity not found: it is not assigned to this node's VM, or does not exist any more")]
    IdentityNotFound,
    /// There is no such audience.
    #[error("{text}")]
    InvalidResource {
        /// Entra's sentence.
        text: String,
    },
    /// Refused for another reason.
    #[error("the metadata service refuses the request ({status}, {error}): {text}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Member `error` of the answer.
        error: String,
        /// The service's sentence.
        text: String,
    },
    /// Too many requests from this VM.
    #[error("the metadata service is throttling this node")]
    Throttled {
        /// How long it asked to wait, if it did.
        retry_after: Option<Duration>,
    },
    /// It does not work now; 404 and 410 mean that it is being updated.
    #[error("the metadata service does not work at the moment ({status}): {text}")]
    Unavailable {
        /// HTTP status.
        status: u16,
        /// How long it asked to wait, if it did.
        retry_after: Option<Duration>,
        /// The service's sentence; may be empty.
        text: String,
    },
    /// No answer.
    #[error("the metadata service gave no answer: {0}")]
    Transport(#[from] TransportError),
    /// A 200 that is not a token.
    #[error("the metadata service gave an answer that cannot be read")]
    Answer(#[from] AnswerError),
}

impl ImdsError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoIdentity { .. } => "imds_no_identity",
            Self::IdentityNotFound => "imds_identity_not_found",
            Self::InvalidResource { .. } => "imds_invalid_resource",
            Self::Refused { .. } => "imds_refused",
            Self::Throttled { .. } => "imds_throttled",
            Self::Unavailable { .. } => "imds_unavailable",
            Self::Transport(TransportError::Timeout(_)) => "imds_timeout",
            Self::Transport(TransportError::Connect(_)) => "imds_connect",
            Self::Transport(TransportError::Broken(_) | TransportError::TooLong) => "imds_broken",
            Self::Answer(_) => "imds_answer_invalid",
        }
    }

    /// Whether asking again may help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::NoIdentity { .. }
            | Self::IdentityNotFound
            | Self::InvalidResource { .. }
            | Self::Refused { .. } => Retry::Never,
            Self::Throttled { retry_after } | Self::Unavailable { retry_after, .. } => {
                retry_after.map_or(Retry::Backoff, Retry::After)
            }
            Self::Transport(_) | Self::Answer(_) => Retry::Backoff,
        }
    }

    fn kind(&self) -> TroubleKind {
        match self {
            Self::NoIdentity { .. } | Self::IdentityNotFound => TroubleKind::IdentityNotFound,
            Self::InvalidResource { .. } => TroubleKind::InvalidResource,
            Self::Refused { .. } => TroubleKind::Refused,
            Self::Throttled { .. } => TroubleKind::Throttled,
            Self::Unavailable { .. } | Self::Transport(_) | Self::Answer(_) => TroubleKind::Unavailable,
        }
    }
}

impl From<ImdsError> for SourceError {
    fn from(error: ImdsError) -> Self {
        Self {
            code: error.code(),
            kind: error.kind(),
            text: error.to_string(),
            retry: error.retry(),
            source: Some(Box::new(error)),
        }
    }
}

/// The node's metadata service. Cloning shares its connections.
#[derive(Clone)]
pub struct Imds {
    client: reqwest::Client,
    endpoint: Url,
    clock: WallClock,
}

impl fmt::Debug for Imds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imds")
            .field("endpoint", &self.endpoint.as_str())
            .finish_non_exhaustive()
    }
}

impl Imds {
    /// The service at `endpoint`, of which only scheme and authority count.
    pub fn new(endpoint: &Url, clock: WallClock) -> Result<Self, ClientError> {
        let wire = Wire {
            connect: CONNECT,
            total: TOTAL,
            proxies: false,
        };
        let mut endpoint = endpoint.clone();
        if endpoint.cannot_be_a_base() || endpoint.scheme() != "http" {
            return Err(ClientError::Endpoint(format!(
                "{endpoint} cannot be the metadata service: expected something like {DEFAULT_ENDPOINT}"
            )));
        }
        endpoint.set_path("/metadata/identity/oauth2/token");
        endpoint.set_query(None);
        endpoint.set_fragment(None);
        Ok(Self {
            client: client(&wire, None)?,
            endpoint,
            clock,
        })
    }

    /// Asks once for a token of `who` for `resource`.
    pub async fn token(&self, who: Who<'_>, resource: &str) -> Result<AccessToken, ImdsError> {
        let mut url = self.endpoint.clone();
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("api-version", API_VERSION);
            query.append_pair("resource", resource);
            match who {
                Who::ClientId(id) => query.append_pair("client_id", &id.to_string()),
                Who::ResourceId(id) => query.append_pair("msi_res_id", id.as_str()),
                Who::Node => &mut query,
            };
        }
        let request = self.client.get(url).header("Metadata", "true");
        let response = request.send().await.map_err(TransportError::from)?;
        let status = response.status();
        let now = (self.clock)();
        let asked_to_wait = retry_after(response.headers(), now);
        let body = body(response).await?;
        if status == StatusCode::OK {
            return Ok(wire::token(&body, resource, now)?);
        }
        Err(refusal(status, asked_to_wait, &body))
    }
}

/// What an answer other than 200 means.
fn refusal(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> ImdsError {
    let wire::ErrorBody {
        error,
        error_description,
    } = wire::error(body);
    let text = aadsts::text(&error_description);
    let unavailable = |text| ImdsError::Unavailable {
        status: status.as_u16(),
        retry_after,
        text,
    };
    match status {
        StatusCode::TOO_MANY_REQUESTS => ImdsError::Throttled { retry_after },
        StatusCode::NOT_FOUND | StatusCode::REQUEST_TIMEOUT | StatusCode::GONE => unavailable(text),
        _ if status.is_client_error() => {
            match aadsts::code(&error_description).and_then(aadsts::kind) {
                Some(TroubleKind::Throttled) => return ImdsError::Throttled { retry_after },
                Some(TroubleKind::Unavailable) => return unavailable(text),
                Some(TroubleKind::InvalidResource) => return ImdsError::InvalidResource { text },
                _ => {}
            }
            if error == "invalid_resource" {
                ImdsError::InvalidResource { text }
            } else if error_description.starts_with("Identity not found") {
                ImdsError::IdentityNotFound
            } else {
                ImdsError::Refused {
                    status: status.as_u16(),
                    error: error.chars().take(64).collect(),
                    text,
                }
            }
        }
        _ => unavailable(text),
    }
}

#[cfg(test)]
mod tests {
    use podid_core::{Credential, ObjectName, TokenSource};

    use super::*;

    fn refused(status: u16, retry_after: Option<u64>, body: &str) -> ImdsError {
        let status = StatusCode::from_u16(status).unwrap();
        refusal(status, retry_after.map(Duration::from_secs), body.as_bytes())
    }

    #[test]
    fn answers_are_told_apart_by_whether_asking_again_helps() {
        let seven = Retry::After(Duration::from_secs(7));
        for (status, retry_after, body, code, retry) in [
            (
                400,
                None,
                r#"{"error":"invalid_request","error_description":"Identity not found"}"#,
                "imds_identity_not_found",
                Retry::Never,
            ),
            (
                400,
                None,
                r#"{"error":"invalid_resource","error_description":"AADSTS50001: The application named x was not found in the tenant"}"#,
                "imds_invalid_resource",
                Retry::Never,
            ),
            (
                400,
                None,
                r#"{"error":"invalid_request","error_description":"Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in the token request"}"#,
                "imds_refused",
                Retry::Never,
            ),
            (400, None, "", "imds_refused", Retry::Never),
            (403, None, "<html>", "imds_refused", Retry::Never),
            (404, None, "", "imds_unavailable", Retry::Backoff),
            (410, Some(7), "", "imds_unavailable", seven),
            (
                429,
                None,
                r#"{"error":"invalid_request","error_description":"Temporarily throttled, too many requests"}"#,
                "imds_throttled",
                Retry::Backoff,
            ),
            (429, Some(7), "", "imds_throttled", seven),
            (
                500,
                None,
                r#"{"error":"unknown","error_description":"Failed to retrieve token"}"#,
                "imds_unavailable",
                Retry::Backoff,
            ),
            (503, Some(7), "not json", "imds_unavailable", seven),
            (302, None, "", "imds_unavailable", Retry::Backoff),
        ] {
            let error = refused(status, retry_after, body);
            assert_eq!((error.code(), error.retry()), (code, retry), "{status} {body}");
        }
    }

    #[test]
    fn an_identity_without_ids_is_never_asked_for_as_the_node() {
        let mut identity = Identity {
            object: ObjectName::new("ns", "nobody"),
            client_id: None,
            object_id: Some(Guid::from_u128(9)),
            resource_id: None,
            credential: Credential::Managed(TokenSource::Imds),
            namespaced: false,
        };
        assert_eq!(Who::of(&identity).unwrap_err().code(), "imds_no_identity");
        identity.client_id = Some(Guid::from_u128(7));
        assert_eq!(Who::of(&identity).unwrap(), Who::ClientId(Guid::from_u128(7)));
    }
}
