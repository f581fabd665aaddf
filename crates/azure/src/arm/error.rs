//! ARM's errors, in both shapes that it writes, and what would help.

use std::time::Duration;

use ::http::StatusCode;
use podid_core::{IdentityResourceId, Retry, SourceError};
use serde::Deserialize;
use thiserror::Error;

use crate::http::TransportError;

/// Longest message that is handed on, in characters.
const MAX_MESSAGE: usize = 2_000;
/// What is waited when another operation is under way on the resource. Source: such operations take some ten seconds.
const CONFLICT: Duration = Duration::from_secs(10);

/// Why a call at ARM failed.
#[derive(Debug, Error)]
pub enum ArmError {
    /// ARM says no, or that an operation failed.
    #[error("ARM: {message} ({code}, {status})")]
    Refused {
        /// HTTP status; 200 for an operation that was accepted and failed later.
        status: u16,
        /// ARM's code, as `AuthorizationFailed`.
        code: String,
        /// ARM's sentence.
        message: String,
        /// How long it asked to wait, if it did.
        retry_after: Option<Duration>,
    },
    /// Too many requests.
    #[error("ARM is throttling these requests")]
    Throttled {
        /// How long it asked to wait, if it did.
        retry_after: Option<Duration>,
        /// Whether this call was held back here, because of an earlier answer.
        held_back: bool,
    },
    /// The resource changed between reading and writing.
    #[error("the resource was changed by somebody else meanwhile")]
    Changed,
    /// The VM or scale set is being deleted.
    #[error("{0} is being deleted")]
    Deleting(String),
    /// The operation did not end in time.
    #[error("the operation has not ended within {} min", .0.as_secs() / 60)]
    Unfinished(Duration),
    /// The operation is said to be at another address, to which the token must not go.
    #[error("ARM names an address for the operation that is not ARM's own")]
    ForeignOperation,
    /// No token for ARM.
    #[error("no token for ARM: {0}")]
    Token(#[source] SourceError),
    /// No answer.
    #[error("ARM gave no answer: {0}")]
    Transport(#[from] TransportError),
    /// An answer that cannot be read.
    #[error("ARM gave an answer that cannot be read")]
    Answer(#[source] serde_json::Error),
    /// Not the name of a federated credential; nothing was sent.
    #[error("{0:?} is not the name of a federated credential (3 to 120 letters, digits, - and _)")]
    Name(String),
    /// Not the name of a resource or a group; nothing was sent.
    #[error("{0:?} cannot be the name of a resource or of a group")]
    Segment(String),
    /// What was to be sent is not JSON.
    #[error("the request cannot be written as JSON")]
    Content(#[source] serde_json::Error),
}

impl ArmError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused { status: 401, .. } => "arm_unauthenticated",
            Self::Refused { status: 403, .. } => "arm_forbidden",
            Self::Refused { status: 404, .. } => "arm_not_found",
            Self::Refused { status: 409, .. } => "arm_conflict",
            Self::Refused { status: 200, .. } => "arm_operation_failed",
            Self::Refused { status, .. } if *status >= 500 => "arm_unavailable",
            Self::Refused { .. } => "arm_refused",
            Self::Throttled { .. } => "arm_throttled",
            Self::Changed => "arm_changed",
            Self::Deleting(_) => "arm_deleting",
            Self::Unfinished(_) => "arm_unfinished",
            Self::ForeignOperation => "arm_foreign_operation",
            Self::Token(error) => error.code,
            Self::Transport(TransportError::Timeout(_)) => "arm_timeout",
            Self::Transport(TransportError::Connect(_)) => "arm_connect",
            Self::Transport(TransportError::Broken(_) | TransportError::TooLong) => "arm_broken",
            Self::Answer(_) => "arm_answer_invalid",
            Self::Name(_) | Self::Segment(_) => "arm_name_invalid",
            Self::Content(_) => "arm_content_invalid",
        }
    }

    /// Whether asking again may help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Refused {
                status, retry_after, ..
            } => match (*status, *retry_after) {
                // A role that was just given is seen late, so 403 is not for ever; nor is a missing resource or a failed operation.
                (408 | 500.., Some(after)) => Retry::After(after),
                (409, after) => Retry::After(after.unwrap_or(CONFLICT)),
                (200 | 401 | 403 | 404 | 408 | 500.., _) => Retry::Backoff,
                _ => Retry::Never,
            },
            Self::Throttled { retry_after, .. } => retry_after.map_or(Retry::Backoff, Retry::After),
            Self::Changed => Retry::After(Duration::ZERO),
            Self::Deleting(_)
            | Self::ForeignOperation
            | Self::Name(_)
            | Self::Segment(_)
            | Self::Content(_) => Retry::Never,
            Self::Token(error) => match error.retry {
                // The controller's own credential may be repaired at any time.
                Retry::Never => Retry::Backoff,
                other => other,
            },
            Self::Unfinished(_) | Self::Transport(_) | Self::Answer(_) => Retry::Backoff,
        }
    }

    /// ARM's own code, where it gave one.
    pub fn arm_code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Whether the resource is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// The managed identities that ARM blames, where the error is about single ones of a batch: without them the rest
    /// may succeed. Source: aad-pod-identity v1.8.17, `pkg/cloudprovider`: codes `LinkedAuthorizationFailed` and
    /// `FailedIdentityOperation`, ids in single quotes.
    pub fn blamed_identities(&self) -> Vec<IdentityResourceId> {
        let Self::Refused { code, message, .. } = self else {
            return Vec::new();
        };
        let about_single_ones = ["LinkedAuthorizationFailed", "FailedIdentityOperation"]
            .iter()
            .any(|known| code.eq_ignore_ascii_case(known) || message.contains(known));
        if !about_single_ones {
            return Vec::new();
        }
        let mut blamed: Vec<IdentityResourceId> = Vec::new();
        // Every other piece between quotes is quoted; one that is not an id does no harm.
        for piece in message.split('\'') {
            for id in piece.split(',').filter_map(|id| id.trim().parse().ok()) {
                if !blamed.contains(&id) {
                    blamed.push(id);
                }
            }
        }
        blamed
    }
}

/// `{"error":{"code","message"}}`, or the flat `{"code","message"}`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct ErrorBody {
    error: Option<Inner>,
    code: Option<String>,
    message: Option<String>,
}

/// Code and sentence.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Inner {
    code: Option<String>,
    message: Option<String>,
}

/// What an answer other than 2xx means.
pub(crate) fn of(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> ArmError {
    match status {
        StatusCode::TOO_MANY_REQUESTS => ArmError::Throttled {
            retry_after,
            held_back: false,
        },
        StatusCode::PRECONDITION_FAILED => ArmError::Changed,
        _ => {
            let read: ErrorBody = serde_json::from_slice(body).unwrap_or_default();
            let inner = read.error.unwrap_or(Inner {
                code: read.code,
                message: read.message,
            });
            refused(status.as_u16(), retry_after, inner)
        }
    }
}

/// An error from its parts.
pub(crate) fn refused(status: u16, retry_after: Option<Duration>, inner: Inner) -> ArmError {
    let known = |text: Option<String>, otherwise: &str| {
        let text = text.unwrap_or_else(|| otherwise.to_owned());
        text.chars().take(MAX_MESSAGE).collect()
    };
    ArmError::Refused {
        status,
        code: known(inner.code, "Unknown"),
        message: known(inner.message, "no message was given"),
        retry_after,
    }
}
