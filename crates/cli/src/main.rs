//! `podid`: parse, run, say what went wrong. Exit code 0 done, 1 refused or failed, 2 wrong usage.

use std::process::ExitCode;

use clap::Parser;

/// Gives pods of a cluster their managed identities.
#[derive(Parser)]
#[command(name = "podid", version)]
struct Cli {
    #[command(flatten)]
    args: podid_cli::Args,
}

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().args.run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            podid_cli::printer::report(&error);
            ExitCode::FAILURE
        }
    }
}
