//! The node agent: takes pods' requests to the metadata address, finds out whose they are, and answers with a token
//! of the identity bound to that pod. It assigns nothing in Azure and writes nothing to the cluster.
//!
//! ```text
//! args ─▶ run ─▶ app ─┬─ watches (seen) ─▶ world ─────────────┐
//!                     ├─ server ─▶ handler ─▶ caller, decide ─┴─▶ broker ─▶ sources
//!                     │                 └─▶ forward
//!                     └─ redirect, probes
//! ```

mod admin;
mod answer;
pub mod app;
pub mod args;
mod body;
mod caller;
pub mod codes;
mod events;
mod forward;
mod handler;
mod hosts;
mod kubenet;
mod log;
mod metrics;
mod pace;
mod patience;
pub mod privileges;
mod rate;
mod redirect;
mod run;
mod seats;
mod secrets;
mod seen;
mod server;
mod sources;
mod world;

pub use admin::{AdminArgs, AdminSocket, AdminSocketError, DEFAULT_ADMIN_SOCKET};
pub use answer::Errors;
pub use app::{App, AppConfig, Door, Entrance};
pub use args::{Nmi, NmiArgs, UninstallArgs};
pub use hosts::{HostCaller, HostTokens};
pub use rate::RateLimit;
pub use server::Limits;
