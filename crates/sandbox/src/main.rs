//! `podid-sandbox`.

fn main() {}
