//! `podid-nmi`: parse, run.

use clap::Parser as _;
use podid_nmi::args::Nmi;

fn main() -> anyhow::Result<()> {
    Nmi::parse().start()
}
