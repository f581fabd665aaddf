//! An access token, and why an upstream gave none: what the clients of Azure, the broker and the agent say to each
//! other. Holds no decision and no wire format.

use std::fmt;
use std::time::Duration;

use crate::ids::Guid;
use crate::secret::Secret;

/// An access token as an upstream issued it.
#[derive(Clone, Debug)]
pub struct AccessToken {
    /// The token itself.
    pub secret: Secret,
    /// When it ends, in seconds since 1970-01-01T00:00:00Z.
    pub expires_on: u64,
    /// From when on it is valid, in seconds since 1970-01-01T00:00:00Z, where the upstream says so.
    pub not_before: Option<u64>,
    /// `Bearer`, as the upstream spells it.
    pub token_type: Box<str>,
    /// The audience, as the upstream echoes it; the one that was asked for where it echoes none.
    pub resource: Box<str>,
    /// Whose token it is, where the upstream says so.
    pub client_id: Option<Guid>,
}

impl AccessToken {
    /// Whole seconds that are left at `now` (seconds since 1970-01-01T00:00:00Z); 0 when it has ended.
    pub fn expires_in(&self, now: u64) -> u64 {
        self.expires_on.saturating_sub(now)
    }
}

/// Whether, and when, asking again may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same question gets the same answer.
    Never,
    /// Not before this has passed; the other side said so.
    After(Duration),
    /// After a pause that grows with each try.
    Backoff,
}

/// What kind of trouble an upstream reports; decides the shape of the answer to the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TroubleKind {
    /// The identity is not there, or not on this VM.
    IdentityNotFound,
    /// There is no such audience, or the identity may not ask for it.
    InvalidResource,
    /// The identity's own secret, certificate or federation is not accepted.
    InvalidCredential,
    /// The upstream refuses the request for another reason that no retry changes.
    Refused,
    /// Too many requests.
    Throttled,
    /// The upstream does not answer, or not with an answer.
    Unavailable,
}

impl TroubleKind {
    /// The `error` member of the body that a pod gets. Source: recorded answers of the metadata service; RFC 6749,
    /// section 5.2.
    pub fn error(self) -> &'static str {
        match self {
            Self::IdentityNotFound | Self::Refused | Self::Throttled => "invalid_request",
            Self::InvalidResource => "invalid_resource",
            Self::InvalidCredential => "invalid_client",
            Self::Unavailable => "temporarily_unavailable",
        }
    }
}

/// Why an upstream gave no token. Its text may be shown to a pod: it has no secret, no trace id and no address of the
/// upstream; what only an operator should see is the source.
#[derive(Debug)]
pub struct SourceError {
    /// Stable code.
    pub code: &'static str,
    /// What kind of trouble.
    pub kind: TroubleKind,
    /// What happened, in one sentence without end stop.
    pub text: String,
    /// Whether asking again may help.
    pub retry: Retry,
    /// The whole story, for the log.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl SourceError {
    /// An error without a source.
    pub fn new(code: &'static str, kind: TroubleKind, retry: Retry, text: impl Into<String>) -> Self {
        Self {
            code,
            kind,
            text: text.into(),
            retry,
            source: None,
        }
    }

    /// Stable code.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// Whether asking again may help.
    pub fn retry(&self) -> Retry {
        self.retry
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for SourceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_ref()
            .map(|source| &**source as &(dyn std::error::Error + 'static))
    }
}
