//! Why the broker gave no token.

use std::sync::Arc;
use std::time::Duration;

use podid_core::{Retry, SourceError, TroubleKind};
use thiserror::Error;

/// Why the broker gave no token. Cheap to clone: every waiter of a flight gets the same one.
#[derive(Clone, Debug, Error)]
pub enum TokenError {
    /// The upstream refuses, and will refuse again.
    #[error("{0}")]
    Refused(#[source] Arc<SourceError>),
    /// The upstream did not give a token in time.
    #[error("{}", last.as_ref().map_or("the token did not come in time", |last| last.text.as_str()))]
    Unavailable {
        /// When asking again may help.
        retry_after: Duration,
        /// The trouble seen last; none when no try has ended.
        #[source]
        last: Option<Arc<SourceError>>,
    },
    /// The identity has too many different audiences asked for at once.
    #[error("too many different resources are asked for with this identity at once")]
    TooMany,
    /// The identity was changed or taken away while its token was fetched: decide anew.
    #[error("the identity was changed or removed while its token was fetched")]
    Forgotten,
}

impl TokenError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(error) => error.code,
            Self::Unavailable { last, .. } => last.as_ref().map_or("upstream_slow", |last| last.code),
            Self::TooMany => "too_many_resources",
            Self::Forgotten => "identity_changed",
        }
    }

    /// What kind of trouble, for the shape of the answer.
    pub fn kind(&self) -> TroubleKind {
        match self {
            Self::Refused(error) => error.kind,
            Self::Unavailable { .. } | Self::Forgotten => TroubleKind::Unavailable,
            Self::TooMany => TroubleKind::Throttled,
        }
    }

    /// Whether asking again may help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Refused(_) => Retry::Never,
            Self::Unavailable { retry_after, .. } => Retry::After(*retry_after),
            Self::TooMany | Self::Forgotten => Retry::After(Duration::from_secs(1)),
        }
    }
}
