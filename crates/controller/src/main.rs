//! `podid-controller`.

fn main() {}
