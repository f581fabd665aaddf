//! `podid-controller`.

use clap::Parser;
use podid_controller::ControllerArgs;

/// Turns the PodIdentityProfile of a cluster into identities, bindings and exceptions
#[derive(Parser)]
#[command(name = "podid-controller", version)]
struct Cli {
    #[command(flatten)]
    args: ControllerArgs,
}

fn main() -> anyhow::Result<()> {
    let Cli { args } = Cli::parse();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(args.run())
}
