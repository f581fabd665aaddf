//! Old and new spellings of one field folded into one value. Releases before 1.6.0 wrote `ClientID` where later
//! ones write `clientID`; both given and different is refused, because no choice between them is safe.

use kube::core::ObjectMeta;
use serde_json::{Map, Value};
use thiserror::Error;

/// Object metadata that the original's Go types embed in every spec and status; read, kept and never used.
/// MIC writes it as `{"creationTimestamp": null}`.
pub type Untyped = Map<String, Value>;

/// Why an object cannot be used. The text names the object and the field.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ResourceError {
    /// An old and a new spelling of one field say different things.
    #[error("{kind} {object}: spec.{new} and its old spelling spec.{old} are both given and differ")]
    Contradiction {
        /// Kind of the object.
        kind: &'static str,
        /// `namespace/name`.
        object: String,
        /// The new spelling.
        new: &'static str,
        /// The old spelling.
        old: &'static str,
    },
    /// A field is absent or empty and must not be.
    #[error("{kind} {object}: spec.{field} is missing, {because}")]
    Missing {
        /// Kind of the object.
        kind: &'static str,
        /// `namespace/name`.
        object: String,
        /// The field below `spec`.
        field: &'static str,
        /// What it is needed for.
        because: &'static str,
    },
    /// A field has a value that cannot be used.
    #[error("{kind} {object}: spec.{field} {value:?} is not valid: {reason}")]
    Invalid {
        /// Kind of the object.
        kind: &'static str,
        /// `namespace/name`.
        object: String,
        /// The field below `spec`.
        field: &'static str,
        /// The value given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An annotation has a value that cannot be used.
    #[error("{kind} {object}: annotation {annotation}: {value:?} is not valid: {reason}")]
    Annotation {
        /// Kind of the object.
        kind: &'static str,
        /// `namespace/name`.
        object: String,
        /// The annotation's key.
        annotation: &'static str,
        /// The value given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl ResourceError {
    /// Stable code for logs, metric labels and answers.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Contradiction { .. } => "resource_contradiction",
            Self::Missing { .. } => "resource_field_missing",
            Self::Invalid { .. } => "resource_field_invalid",
            Self::Annotation { .. } => "resource_annotation_invalid",
        }
    }
}

/// The object in whose name fields are folded and errors are written.
pub(crate) struct Of<'a> {
    pub(crate) kind: &'static str,
    pub(crate) meta: &'a ObjectMeta,
}

impl Of<'_> {
    /// `namespace/name`.
    pub(crate) fn object(&self) -> String {
        let name = self.meta.name.as_deref().unwrap_or("(without name)");
        match &self.meta.namespace {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name.to_owned(),
        }
    }

    /// The one text of a field that may be written in two ways. An empty text counts as not given, as in Go.
    pub(crate) fn fold<'v>(
        &self,
        (new, value): (&'static str, Option<&'v str>),
        (old, old_value): (&'static str, Option<&'v str>),
    ) -> Result<Option<&'v str>, ResourceError> {
        match (given(value), given(old_value)) {
            (Some(a), Some(b)) if a != b => Err(self.contradiction(new, old)),
            (a, b) => Ok(a.or(b)),
        }
    }

    pub(crate) fn contradiction(&self, new: &'static str, old: &'static str) -> ResourceError {
        ResourceError::Contradiction {
            kind: self.kind,
            object: self.object(),
            new,
            old,
        }
    }

    pub(crate) fn missing(&self, field: &'static str, because: &'static str) -> ResourceError {
        ResourceError::Missing {
            kind: self.kind,
            object: self.object(),
            field,
            because,
        }
    }

    pub(crate) fn invalid(&self, field: &'static str, value: &str, reason: impl ToString) -> ResourceError {
        ResourceError::Invalid {
            kind: self.kind,
            object: self.object(),
            field,
            value: value.to_owned(),
            reason: reason.to_string(),
        }
    }
}

/// A text that says something.
pub(crate) fn given(value: Option<&str>) -> Option<&str> {
    value.filter(|text| !text.is_empty())
}
