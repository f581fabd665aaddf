//! `kube-emulator`.

fn main() {}
