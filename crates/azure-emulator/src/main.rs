//! `azure-emulator`.

use clap::Parser;
use podid_azure_emulator::EmulatorArgs;

/// Azure Resource Manager, Entra and the instance metadata service on loopback
#[derive(Parser)]
#[command(name = "azure-emulator", version)]
struct Cli {
    #[command(flatten)]
    args: EmulatorArgs,
}

fn main() -> anyhow::Result<()> {
    let Cli { args } = Cli::parse();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(args.run())
}
