//! What stands in the way of one entry of the profile. The codes themselves are `podid_api::entry_code`.

use podid_api::profile::EntryError;

pub(crate) use podid_api::entry_code::{
    ASSIGNMENT_PENDING, ASSIGNMENT_REFUSED, DUPLICATE, EntryCode, KUBENET, NAMESPACE, NOT_OURS, REFUSED,
    RESERVED, SELECTOR, UNAVAILABLE,
};

/// What stands in the way of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Obstacle {
    /// Which reason.
    pub(crate) code: EntryCode,
    /// One sentence about this entry.
    pub(crate) message: String,
}

impl Obstacle {
    /// `code`, with what it means for one entry.
    pub(crate) fn new(code: EntryCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl From<&Obstacle> for EntryError {
    fn from(obstacle: &Obstacle) -> Self {
        Self {
            code: obstacle.code.code.to_owned(),
            message: obstacle.message.clone(),
        }
    }
}
