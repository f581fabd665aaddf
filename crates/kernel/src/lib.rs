//! All that talks to Linux: namespaces, interception, attestation. It knows nothing of Kubernetes beyond a pod's uid,
//! and nothing of tokens; it runs no program of its own accord.
//!
//! ```text
//! sandbox, tests                                  the agent
//!
//! main ─▶ world::enter                            redirect::LocalRoute::install ─▶ rules outlive the process
//!            │ no root: a user namespace          redirect::listen ─▶ accept (peer, local)
//!            ▼                                             │
//!         Namespace::create ─▶ cni: node, pods             ├─▶ redirect::SelfTest::answer   is it our own test?
//!            │                                             └─▶ attest::Attestor::confirm    is it that pod's socket?
//!            └─▶ Namespace::spawn: programs there          LocalRoute::watch ─▶ check ─▶ install again
//! ```
//!
//! - [`world`]: a private world around the whole program, without root where the kernel allows it.
//! - [`netns`]: network namespaces by descriptor; work and programs inside them; [`Links`] by rtnetlink.
//! - [`cni`]: wires pods to a node in the two ways CNI plugins do.
//! - [`redirect`]: pods' metadata packets come to the agent; why that fails closed stands in `redirect/local_route.rs`.
//! - [`attest`]: whose socket a connection is.
//! - [`open_files`]: how many files this process may have open.
//! - [`privileges`]: capabilities are given up but for those that are needed.
//!
//! Netlink is asked with blocking sockets: the kernel answers within the call, in microseconds. What takes longer is
//! a change of namespace (some milliseconds): [`attest::Attestor::confirm`] moves that off the runtime, the others
//! say so.
//!
//! **Invariant:** the thread that calls into this crate never changes its own namespaces, except in [`world::enter`].
//! **Invariant:** nothing is written to the file system; namespaces live by descriptors and end with them.

#![expect(
    unsafe_code,
    reason = "fork, signal dispositions, closing of descriptors and one socket option have no safe door"
)]

pub mod attest;
pub mod cni;
mod netlink;
pub mod netns;
pub mod open_files;
pub mod privileges;
pub mod redirect;
pub mod world;

pub use netns::{Links, Namespace, NamespaceError, Room};
