//! The real clients over real sockets: what exactly they send, and what they make of answers. Bodies are those of the
//! services' documentation and recordings.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod arm;
mod entra;
mod imds;
mod server;

use std::sync::Arc;

use podid_azure::WallClock;
use podid_core::Guid;

const NOW: u64 = 1_700_000_000;
const CLIENT: Guid = Guid::from_u128(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100);

fn clock() -> WallClock {
    Arc::new(|| NOW)
}

fn pairs(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect()
}
