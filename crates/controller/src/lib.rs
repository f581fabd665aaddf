//! The cluster side: PodIdentityProfile → AzureIdentity, AzureIdentityBinding, AzurePodIdentityException, and the
//! profile's identities on the nodes' scale sets; and nodes are kept closed until their agent serves. It owns only what it
//! made.

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
mod startup;
mod world;
mod write;

pub use app::{App, AppConfig};
pub use args::{Assignment, ControllerArgs, StartupTaintMode};
pub use podid_api::entry_code::{ENTRY_CODES, EntryCode};
pub use startup::{DEFAULT_KEY, Labels, LabelsError, StartupTaint};
