//! Why an entry of the profile is not in force: stable codes, and one sentence each.

use podid_api::profile::EntryError;

/// What stands in the way of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Obstacle {
    /// Stable code.
    pub(crate) code: &'static str,
    /// One sentence.
    pub(crate) message: String,
    /// Whether it may go away by itself.
    pub(crate) passing: bool,
}

/// An object of the same name was made by somebody else.
pub(crate) const NOT_OURS: &str = "object_not_ours";
/// Kubenet without consent.
pub(crate) const KUBENET: &str = "kubenet_not_allowed";
/// The name is used by the controller itself.
pub(crate) const RESERVED: &str = "name_reserved";
/// No pod can carry the selector as a label.
pub(crate) const SELECTOR: &str = "selector_invalid";
/// The same entry stands in the profile twice.
pub(crate) const DUPLICATE: &str = "duplicate_entry";
/// The namespace is being deleted.
pub(crate) const NAMESPACE: &str = "namespace_terminating";
/// The API server refused the object.
pub(crate) const REFUSED: &str = "write_refused";
/// The API server could not be reached, or asked to come back.
pub(crate) const UNAVAILABLE: &str = "api_unavailable";

impl Obstacle {
    /// Stays until somebody changes something.
    pub(crate) fn lasting(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            passing: false,
        }
    }

    /// May go away by itself.
    pub(crate) fn passing(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            passing: true,
        }
    }
}

impl From<&Obstacle> for EntryError {
    fn from(obstacle: &Obstacle) -> Self {
        Self {
            code: obstacle.code.to_owned(),
            message: obstacle.message.clone(),
        }
    }
}
