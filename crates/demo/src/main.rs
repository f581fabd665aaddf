//! `podid-demo`.

fn main() {}
