//! ARM, Entra and IMDS on loopback, good enough for the real `az` and the real SDKs. It shares no type with podid's own
//! clients, so that a wrong field name shows.
//!
//! ```no_run
//! # async fn embed() -> Result<(), podid_azure_emulator::EmulatorError> {
//! let app = podid_azure_emulator::App::bind(podid_azure_emulator::Config::default()).await?;
//! let emulator = app.handle();
//! let mut tasks = podid_rt::tasks::Tasks::new(podid_rt::stop::Stop::new());
//! app.spawn(&mut tasks);
//! let _arm = emulator.endpoints().arm.first(); // trust emulator.ca_pem(), sign in with client_id() and client_secret()
//! # Ok(())
//! # }
//! ```

mod answer;
mod app;
mod args;
mod arm;
mod certificate;
mod cloud;
mod control;
mod entra;
mod error;
mod fault;
mod front;
mod graph;
mod imds;
mod jwt;
mod keys;
mod kubernetes;
mod log;
mod mirror;
mod operation;
mod path;
mod persist;
mod printer;
mod query;
mod seed;
mod tls;
mod world;

pub use app::{
    App, CLIENT_ID, Config, Endpoints, Listen, NodeConfig, SUBSCRIPTION_ID, SharedEmulator, TENANT_ID,
};
pub use args::{ClusterFlag, EmulatorArgs, Given, IssuerFlag, NodeFlag, Quota};
pub use cloud::Authorization;
pub use error::EmulatorError;
pub use fault::{Fault, FaultError, Throttle};
pub use log::Entry;
