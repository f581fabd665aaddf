//! `podid-nmi`: parse, run.

use clap::Parser as _;
use podid_nmi::args::Nmi;

fn main() -> anyhow::Result<()> {
    let nmi = Nmi::parse();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(nmi.run())
}
