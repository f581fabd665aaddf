//! Worlds as users make them, by the binary itself.

fn main() {}
