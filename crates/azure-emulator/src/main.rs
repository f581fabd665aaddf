//! `azure-emulator`.

fn main() {}
