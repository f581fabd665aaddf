//! The cluster side: PodIdentityProfile → AzureIdentity, AzureIdentityBinding, AzurePodIdentityException, and the
//! profile's identities on the nodes' scale sets. It owns only what it made.

mod app;
mod args;
mod assign;
mod code;
mod desired;
mod metrics;
mod plan;
mod printer;
mod reconcile;
mod report;
mod scale_set;
mod world;
mod write;

pub use app::{App, AppConfig};
pub use args::{Assignment, ControllerArgs};
pub use podid_api::entry_code::{ENTRY_CODES, EntryCode};
