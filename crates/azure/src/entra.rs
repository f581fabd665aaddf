//! Entra's token endpoint: client secret, client certificate, federated assertion. Asks once, and only authorities that
//! the operator knows: who writes an AzureIdentity must not choose where a secret is sent.
//! Source: <https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow>.

mod authority;
mod certificate;
mod pkcs12;

use std::fmt;
use std::time::Duration;

use ::http::StatusCode;
use podid_core::{AccessToken, Guid, Retry, Secret, SourceError, TroubleKind};
use reqwest::Url;
use thiserror::Error;

pub use self::authority::{Authorities, Authority, AuthorityError};
pub use self::certificate::{CertificateError, ClientCertificate};
pub use self::pkcs12::Pkcs12Error;
use crate::aadsts;
use crate::http::{ClientError, TlsRoots, TransportError, WallClock, Wire, body, client, retry_after};
use crate::wire::{self, AnswerError};

const CONNECT: Duration = Duration::from_secs(3);
/// For a whole answer. Half of what a pod waits, so that a try that hangs leaves time for another.
const TOTAL: Duration = Duration::from_secs(10);
/// Source: RFC 7523, section 2.2.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct TokenAsk<'a> {
    /// Base URL of the authority, where the identity names one; it must be an allowed one.
    pub authority: Option<&'a str>,
    /// Tenant: a GUID or a domain.
    pub tenant: &'a str,
    /// The application, or the managed identity.
    pub client_id: Guid,
    /// The audience, as asked; never normalised.
    pub resource: &'a str,
    /// Which of the two endpoints.
    pub endpoint: Endpoint,
    /// How the application proves itself.
    pub proof: Proof<'a>,
}

/// The two token endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Endpoint {
    /// `oauth2/token`, with `resource`: what the original used for service principals.
    V1,
    /// `oauth2/v2.0/token`, with `scope`; federation needs it.
    #[default]
    V2,
}

/// How an application proves itself.
#[derive(Clone, Copy, Debug)]
pub enum Proof<'a> {
    /// By a secret.
    Secret(&'a Secret),
    /// By a certificate.
    Certificate(&'a ClientCertificate),
    /// By a token of another issuer that the application trusts.
    Assertion(&'a Secret),
}

/// Why Entra gave no token.
#[derive(Debug, Error)]
pub enum EntraError {
    /// Not a tenant; nothing was sent.
    #[error("{tenant:?} is not a tenant: expected a GUID or a domain name")]
    Tenant {
        /// As it was given.
        tenant: String,
    },
    /// Not an authority that may be asked; nothing was sent.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The assertion could not be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Refused.
    #[error("{text}")]
    Refused {
        /// What kind of refusal.
        kind: TroubleKind,
        /// HTTP status.
        status: u16,
        /// Member `error` of the answer.
        error: String,
        /// Entra's sentence, without trace ids.
        text: String,
        /// The whole description, for the log.
        description: String,
    },
    /// Too many requests.
    #[error("Entra is throttling this application")]
    Throttled {
        /// How long it asked to wait, if it did.
        retry_after: Option<Duration>,
    },
    /// It does not work now.
    #[error("Entra does not work at the moment ({status}): {text}")]
    Unavailable {
        /// HTTP status.
        status: u16,
        /// How long it asked to wait, if it did.
        retry_after: Option<Duration>,
        /// Entra's sentence; may be empty.
        text: String,
    },
    /// No answer.
    #[error("Entra gave no answer: {0}")]
    Transport(#[from] TransportError),
    /// A 200 that is not a token.
    #[error("Entra gave an answer that cannot be read")]
    Answer(#[from] AnswerError),
}

impl EntraError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Tenant { .. } => "entra_tenant_invalid",
            Self::Authority(_) => "entra_authority_refused",
            Self::Certificate(_) => "entra_certificate_invalid",
            Self::Refused { kind, .. } => match kind {
                TroubleKind::IdentityNotFound => "entra_identity_not_found",
                TroubleKind::InvalidResource => "entra_invalid_resource",
                TroubleKind::InvalidCredential => "entra_invalid_credential",
                TroubleKind::Refused | TroubleKind::Throttled | TroubleKind::Unavailable => "entra_refused",
            },
            Self::Throttled { .. } => "entra_throttled",
            Self::Unavailable { .. } => "entra_unavailable",
            Self::Transport(TransportError::Timeout(_)) => "entra_timeout",
            Self::Transport(TransportError::Connect(_)) => "entra_connect",
            Self::Transport(TransportError::Broken(_) | TransportError::TooLong) => "entra_broken",
            Self::Answer(_) => "entra_answer_invalid",
        }
    }

    /// Whether asking again may help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Tenant { .. } | Self::Authority(_) | Self::Certificate(_) | Self::Refused { .. } => {
                Retry::Never
            }
            Self::Throttled { retry_after } | Self::Unavailable { retry_after, .. } => {
                retry_after.map_or(Retry::Backoff, Retry::After)
            }
            Self::Transport(_) | Self::Answer(_) => Retry::Backoff,
        }
    }

    fn kind(&self) -> TroubleKind {
        match self {
            Self::Tenant { .. } | Self::Authority(_) => TroubleKind::Refused,
            Self::Certificate(_) => TroubleKind::InvalidCredential,
            Self::Refused { kind, .. } => *kind,
            Self::Throttled { .. } => TroubleKind::Throttled,
            Self::Unavailable { .. } | Self::Transport(_) | Self::Answer(_) => TroubleKind::Unavailable,
        }
    }
}

impl From<EntraError> for SourceError {
    fn from(error: EntraError) -> Self {
        Self {
            code: error.code(),
            kind: error.kind(),
            text: error.to_string(),
            retry: error.retry(),
            source: Some(Box::new(error)),
        }
    }
}

/// Entra. Cloning shares its connections.
#[derive(Clone)]
pub struct Entra {
    client: reqwest::Client,
    authorities: Authorities,
    clock: WallClock,
}

impl fmt::Debug for Entra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entra")
            .field("authorities", &self.authorities)
            .finish_non_exhaustive()
    }
}

impl Entra {
    /// A client for `authorities`, trusting `roots` beside the system's.
    pub fn new(authorities: Authorities, roots: &TlsRoots, clock: WallClock) -> Result<Self, ClientError> {
        let wire = Wire {
            connect: CONNECT,
            total: TOTAL,
            proxies: true,
        };
        Ok(Self {
            client: client(&wire, Some(roots))?,
            authorities,
            clock,
        })
    }

    /// Asks once.
    pub async fn token(&self, ask: TokenAsk<'_>) -> Result<AccessToken, EntraError> {
        let url = self.endpoint(ask)?;
        let now = (self.clock)();
        let client_id = ask.client_id.to_string();
        let mut form = vec![
            ("client_id", client_id.as_str()),
            ("grant_type", "client_credentials"),
        ];
        let scope;
        match ask.endpoint {
            Endpoint::V1 => form.push(("resource", ask.resource)),
            Endpoint::V2 => {
                // As is: an audience that ends in a slash gives two of them, which is what Entra expects.
                scope = format!("{}/.default", ask.resource);
                form.push(("scope", &scope));
            }
        }
        let made;
        match ask.proof {
            Proof::Secret(secret) => form.push(("client_secret", secret.expose())),
            Proof::Certificate(certificate) => {
                made = certificate.assertion(&client_id, url.as_str(), now)?;
                form.push(("client_assertion_type", ASSERTION_TYPE));
                form.push(("client_assertion", made.expose()));
            }
            Proof::Assertion(assertion) => {
                form.push(("client_assertion_type", ASSERTION_TYPE));
                form.push(("client_assertion", assertion.expose()));
            }
        }
        let body_sent = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let request = self
            .client
            .post(url)
            .header(::http::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(::http::header::ACCEPT, "application/json")
            .body(body_sent);
        let response = request.send().await.map_err(TransportError::from)?;
        let status = response.status();
        let now = (self.clock)();
        let asked_to_wait = retry_after(response.headers(), now);
        let body = body(response).await?;
        if status == StatusCode::OK {
            return Ok(wire::token(&body, ask.resource, now)?);
        }
        Err(refusal(status, asked_to_wait, &body))
    }

    fn endpoint(&self, ask: TokenAsk<'_>) -> Result<Url, EntraError> {
        let authority = self.authorities.choose(ask.authority)?;
        let in_tenant = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        // A tenant becomes a segment of the path. One that is a URL would lead elsewhere, and one that begins with a dot up.
        if ask.tenant.is_empty()
            || ask.tenant.len() > 255
            || ask.tenant.starts_with('.')
            || !ask.tenant.bytes().all(in_tenant)
        {
            return Err(EntraError::Tenant {
                tenant: ask.tenant.chars().take(100).collect(),
            });
        }
        let path = match ask.endpoint {
            Endpoint::V1 => "oauth2/token",
            Endpoint::V2 => "oauth2/v2.0/token",
        };
        Ok(authority.url(&format!("/{}/{path}", ask.tenant)))
    }
}

/// What an answer other than 200 means.
fn refusal(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> EntraError {
    let wire::ErrorBody {
        error,
        error_description,
    } = wire::error(body);
    let text = aadsts::text(&error_description);
    let unavailable = |text| EntraError::Unavailable {
        status: status.as_u16(),
        retry_after,
        text,
    };
    if status == StatusCode::TOO_MANY_REQUESTS {
        return EntraError::Throttled { retry_after };
    }
    if !status.is_client_error() || status == StatusCode::REQUEST_TIMEOUT {
        return unavailable(text);
    }
    let kind = aadsts::code(&error_description).and_then(aadsts::kind);
    // Source: RFC 6749, sections 4.1.2.1 and 5.2, and what Entra adds to them.
    let kind = kind.unwrap_or(match error.as_str() {
        "invalid_resource" | "invalid_scope" => TroubleKind::InvalidResource,
        "invalid_client" | "unauthorized_client" | "invalid_grant" => TroubleKind::InvalidCredential,
        "temporarily_unavailable" | "server_error" => TroubleKind::Unavailable,
        _ => TroubleKind::Refused,
    });
    match kind {
        TroubleKind::Throttled => EntraError::Throttled { retry_after },
        TroubleKind::Unavailable => unavailable(text),
        kind => EntraError::Refused {
            kind,
            status: status.as_u16(),
            text: if text.is_empty() {
                format!("Entra refuses the request ({})", status.as_u16())
            } else {
                text
            },
            error: error.chars().take(64).collect(),
            description: error_description,
        },
    }
}

#[cfg(test)]
mod tests;
