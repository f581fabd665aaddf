//! ARM, Entra and IMDS on loopback, good enough for the real `az` and the real SDKs. It shares no type with podid's own
//! clients, so that a wrong field name shows.
//!
//! ```
//! # async fn embed() -> Result<(), Box<dyn std::error::Error>> {
//! let azure = podid_azure_emulator::start(podid_azure_emulator::Config::default()).await?; // dropped, it is gone
//! let roots = reqwest::Certificate::from_pem_bundle(azure.ca_pem().as_bytes())?;
//! let http = reqwest::Client::builder().tls_certs_only(roots).build()?;
//! let answer = http.get(format!("{}/subscriptions?api-version=2022-12-01", azure.arm())).send().await?;
//! assert_eq!(answer.status(), 401); // sign in with azure.client_id() and azure.client_secret()
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(embed()).unwrap();
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
mod running;
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
pub use running::{Running, start};

/// The guide's Rust examples are run as they are printed there.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guides/azure-emulator.md")]
struct Guide;
