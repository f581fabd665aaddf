//! The whole agent in this process, between an emulated Kubernetes and a metadata service that tells what it was
//! asked. Pods are source addresses of the loopback interface, so nothing here needs rights; what the kernel has to
//! say is tested in namespaces.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test says by a panic what did not hold"
)]

mod admin;
mod cluster;
mod conduct;
mod hosts;
mod imds;
mod node;
mod pods;
mod principals;
mod standard;
mod wire;
