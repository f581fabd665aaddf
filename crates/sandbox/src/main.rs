//! `podid-sandbox`: parse, run. There is no runtime here: `up` enters its world before one exists.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    podid_sandbox::Sandbox::parse().run()
}
