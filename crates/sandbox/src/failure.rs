//! Why a step of the story, or a command of `az`, did not come out as it should.

use crate::arm::ArmError;

/// What was expected and what came instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// Somebody refused, in these words.
    #[error("{0}")]
    Said(String),
    /// Something else came.
    #[error("expected {expected}; got {got}")]
    Mismatch {
        /// What should have come.
        expected: String,
        /// What came.
        got: String,
    },
}

impl Failure {
    /// Somebody refused.
    pub(crate) fn said(text: impl Into<String>) -> Self {
        Self::Said(text.into())
    }

    /// Something else came.
    pub(crate) fn mismatch(expected: impl Into<String>, got: impl Into<String>) -> Self {
        Self::Mismatch {
            expected: expected.into(),
            got: got.into(),
        }
    }
}

/// An error with all its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some errors say their cause's text as their own.
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

impl From<ArmError> for Failure {
    fn from(error: ArmError) -> Self {
        Self::Said(chain(&error))
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        Self::Said(match &error {
            kube::Error::Api(status) => status.message.clone(),
            other => chain(other),
        })
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Said(format!("{error:#}"))
    }
}
