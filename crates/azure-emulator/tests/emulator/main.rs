//! The whole emulator over real sockets, by a client that shares nothing with it: TLS with its CA, tokens, ARM, IMDS.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::string_slice,
    reason = "helpers of tests may panic too"
)]

mod bound;
mod checklist;
mod compute;
mod entra;
mod faults;
mod golden;
mod imds;
mod issuers;
mod program;
mod rights;
mod state;
mod story;
mod support;
