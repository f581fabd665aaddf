//! `podid`: parse, run, say what went wrong. Exit codes are in the help, and `CliError::exit_code`.

use std::process::ExitCode;

use clap::Parser;
use podid_cli::{CliError, Podid};

#[tokio::main]
async fn main() -> ExitCode {
    match Podid::parse().args.run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            podid_cli::printer::report(&error);
            error
                .downcast_ref()
                .map_or(ExitCode::FAILURE, CliError::exit_code)
        }
    }
}
