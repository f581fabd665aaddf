//! Worlds as users make them: the binary itself, from outside. Needs no root where the kernel allows user namespaces,
//! and fails where it does not.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says by a panic what did not hold"
)]

mod life;
mod pods;
mod world;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed};

type Outcome = Result<(), Failed>;

fn main() -> ExitCode {
    let mut trials = Vec::new();
    trials.extend(life::trials());
    trials.extend(pods::trials());
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Names a test by its function.
macro_rules! trials {
    ($($name:ident),* $(,)?) => {
        vec![$(libtest_mimic::Trial::test(concat!(module_path!(), "::", stringify!($name)), $name)),*]
    };
}
use trials;
