//! The command line for people: installs podid, shows what a cluster has of pod identity and edits its
//! PodIdentityProfile.
//! It talks to the cluster only; Azure is the controller's business.

mod command;
mod connect;
mod edit;
mod error;
mod flags;
mod get;
mod install;
mod output;
pub mod printer;

pub use command::{Args, Command};
pub use error::CliError;
