//! The node agent: takes pods' requests to the metadata address, finds out whose they are, and answers with a token
//! of the identity bound to that pod. It assigns nothing in Azure and writes nothing to the cluster.

mod answer;
pub mod args;
mod forward;
mod metrics;
mod seats;
