//! The command line for people: installs podid, shows what a cluster has of pod identity and edits its
//! PodIdentityProfile. In Azure it does one thing, and only when told who: a role assignment.

mod add;
mod agent;
mod azure;
mod cluster;
mod command;
mod delete;
mod edit;
mod enable;
mod error;
mod exception;
mod explain;
mod flags;
mod get;
mod install;
mod list;
mod output;
pub mod printer;
mod shell;
mod token;
mod wait;
mod world;
mod write;

pub use cluster::{Cluster, ConnectArgs};
pub use command::{Args, Command, Podid};
pub use error::CliError;
