//! Chores of the workspace: generated files and house rules. `cargo xtask help` lists them; CI runs the same ones.

mod bench;
mod e2e;
mod generate;
mod image;
mod kube;
mod printer;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

/// Chores of the podid workspace
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Write the generated files: CRDs and reference pages
    Generate {
        /// Write nothing; fail when a file is not what would be written
        #[arg(long)]
        check: bool,
    },
    /// Check the house rules: arrows between crates, file headers, words that do not belong here; report file sizes
    Tidy,
    /// Measure against the budgets
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Run real programs against the sandbox
    #[command(subcommand)]
    E2e(e2e::Suite),
    /// OCI images of the agent, the controller, the demo and the command line, without a container engine
    Image(image::ImageArgs),
    /// A real Kubernetes on this machine, in namespaces of its own: control plane and nodes
    #[command(subcommand)]
    Kube(kube::Command),
}

fn main() -> ExitCode {
    run(Cli::parse().chore).unwrap_or_else(|error| {
        printer::note(&format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}

fn run(chore: Chore) -> anyhow::Result<ExitCode> {
    match chore {
        Chore::Generate { check } => generate::run(check)?,
        Chore::Tidy => tidy::run()?,
        Chore::Bench(bench) => bench.run()?,
        Chore::E2e(suite) => suite.run()?,
        Chore::Image(args) => image::run(&args)?,
        Chore::Kube(command) => return kube::run(command),
    }
    Ok(ExitCode::SUCCESS)
}

/// The workspace's folder.
fn root() -> anyhow::Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = manifest
        .ancestors()
        .nth(2)
        .context("xtask is two folders below the workspace")?;
    Ok(root.to_owned())
}
