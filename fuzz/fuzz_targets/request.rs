//! `cargo +nightly fuzz run request`: whatever a pod sends as request target, nothing panics, no spelling of the token
//! path is passed on, and no pod gets another's identity.

#![no_main]

#[path = "../request.rs"]
mod request;

libfuzzer_sys::fuzz_target!(|target: &[u8]| request::check(target));
