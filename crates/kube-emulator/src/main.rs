//! `kube-emulator`: parse, run.

use clap::Parser;
use podid_kube_emulator::EmulatorArgs;

/// The part of the Kubernetes API that podid and kubectl use, in memory
#[derive(Parser)]
#[command(name = "kube-emulator", version)]
struct Cli {
    #[command(flatten)]
    args: EmulatorArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    Cli::parse().args.run().await
}
