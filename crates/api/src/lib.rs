//! Custom resource types, labels and annotations, their conversion to core, and the CRDs made from them.
//! It never talks to an API server.

pub mod assigned;
pub mod binding;
pub mod convert;
pub mod crd;
pub mod entry_code;
pub mod exception;
pub mod identity;
pub mod names;
pub mod pod;
pub mod profile;
mod spelling;

pub use assigned::{
    AssignedState, AzureAssignedIdentity, AzureAssignedIdentitySpec, AzureAssignedIdentityStatus,
};
pub use binding::{AzureIdentityBinding, AzureIdentityBindingSpec, AzureIdentityBindingStatus};
pub use exception::{
    AzurePodIdentityException, AzurePodIdentityExceptionSpec, AzurePodIdentityExceptionStatus,
};
pub use identity::{AzureIdentity, AzureIdentitySpec, AzureIdentityStatus, SecretReference};
pub use profile::{PodIdentityProfile, PodIdentityProfileSpec, PodIdentityProfileStatus};
pub use spelling::{ResourceError, Untyped};
