//! All that talks to Linux: namespaces, interception, attestation.
//!
//! ```text
//! main ─▶ world::enter ─▶ (rootless: a user namespace) ─▶ Namespace::create ─┬─▶ cni: node, pods, cables
//!                                                                             └─▶ Namespace::spawn: programs in them
//! ```

#![expect(
    unsafe_code,
    reason = "fork, signal dispositions and closing of descriptors have no safe door"
)]

pub mod cni;
mod netlink;
pub mod netns;
pub mod redirect;
pub mod world;

pub use netns::{Links, Namespace, NamespaceError, Room};
