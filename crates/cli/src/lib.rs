//! The command line for people: installs podid, shows what a cluster has of pod identity and edits its
//! PodIdentityProfile. It changes nothing on nodes and nothing in Azure by itself.

mod add;
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
mod wait;
mod world;
mod write;

pub use cluster::{Cluster, ConnectArgs};
pub use command::{Args, Command, Podid};
pub use error::CliError;
