//! `podid-nmi`.

fn main() {}
