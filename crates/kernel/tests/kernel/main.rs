//! What the kernel really does, in namespaces of this process's own: needs no root where the kernel allows user
//! namespaces, and fails where it does not.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test says by a panic what did not hold, and runs programs"
)]

mod attestation;
mod handmade;
mod interception;
mod namespaces;
mod original;
mod somebody;
mod topology;
mod ways;
mod worlds;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed};

type Outcome = Result<(), Failed>;

fn main() -> ExitCode {
    // This binary also plays the program in the worlds that its tests make.
    if let Some(part) = std::env::args().nth(1).as_deref().and_then(worlds::part) {
        return part();
    }
    podid_kernel::world::run((), |_, ()| {
        let mut trials = Vec::new();
        trials.extend(worlds::trials());
        trials.extend(namespaces::trials());
        trials.extend(interception::trials());
        trials.extend(ways::trials());
        trials.extend(original::trials());
        trials.extend(attestation::trials());
        let mut arguments = Arguments::from_args();
        // Most of them wait for nothing to come, which takes no processor.
        arguments.test_threads.get_or_insert(12);
        libtest_mimic::run(&arguments, trials).exit_code()
    })
}

/// Names a test by its function.
macro_rules! trials {
    ($($name:ident),* $(,)?) => {
        vec![$(libtest_mimic::Trial::test(concat!(module_path!(), "::", stringify!($name)), $name)),*]
    };
}
use trials;
