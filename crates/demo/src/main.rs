//! `podid-demo`: parse, run.

use clap::Parser;

/// The sample workload of the pod identity tutorial: asks for tokens and uses them, round after round.
#[derive(Parser)]
#[command(name = "podid-demo", version)]
struct Cli {
    #[command(flatten)]
    demo: podid_demo::DemoArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    Cli::parse().demo.run().await
}
