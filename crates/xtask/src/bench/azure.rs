//! `cargo xtask bench azure`: the emulator as a process, measured by its own bench; its section of the page.

use clap::Args;
use serde_json::Value;

use super::section::Section;
use super::{Target, machine, measure, table};
use crate::{printer, root};

const BENCH: Target = ("podid-azure-emulator", "azure");

/// How.
#[derive(Args, Debug)]
pub(crate) struct AzureArgs {
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Write the section about it in docs/reference/performance.md
    #[arg(long)]
    write: bool,
    /// How long each load lasts, in seconds
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Cargo profile of the emulator
    #[arg(long, default_value = "dist")]
    profile: String,
}

impl AzureArgs {
    /// Measures. What is over its budget is said, and is no error.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let Self {
            json,
            write,
            seconds,
            profile,
        } = self;
        let root = root()?;
        let found = measure(&root, BENCH, &profile, &["--seconds", &seconds.to_string()])?;
        if json {
            printer::line(&serde_json::to_string_pretty(&found)?);
        } else {
            printer::text(&table(&found)?);
        }
        if write {
            Section("azure").write(&root, &told(&found, &profile)?)?;
        }
        Ok(())
    }
}

fn told(found: &Value, profile: &str) -> anyhow::Result<String> {
    let program = if profile == "dist" {
        "as it is shipped (profile `dist`)".to_owned()
    } else {
        format!("by profile `{profile}`, slower than what is shipped")
    };
    Ok(format!(
        "## The emulated Azure\n\nMeasured with `cargo xtask bench azure --write` on {}. The program is built\n\
         {program}, and has one core. A load generator on the other cores asks over 16 keep-alive connections with TLS 1.3 (IMDS: plain\n\
         HTTP), each with a bearer token that is verified; every answer must be a success. \"CPU each\" is the emulator's own time for a request:\n\
         what else the machine does changes requests/s, p50 and p99, but not that, so that is what is judged.\n\n{}",
        machine(found)?,
        table(found)?
    ))
}
