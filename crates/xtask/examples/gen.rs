//! tmp
#[path = "../src/generate.rs"]
mod generate;
fn main() {
    generate::run(false).unwrap()
}
