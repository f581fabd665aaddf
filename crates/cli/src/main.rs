//! `podid`.

fn main() {}
