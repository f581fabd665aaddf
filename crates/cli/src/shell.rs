//! What surrounds a program: completion scripts, manual pages, the version. All from the one clap definition.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use serde::Serialize;

use crate::command::Podid;
use crate::error::CliError;
use crate::output::{self, Format};
use crate::printer::Printer;

/// Flags of `podid completion`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Examples:
  podid completion bash > /etc/bash_completion.d/podid
  podid completion zsh > \"${fpath[1]}/_podid\"
  podid completion fish > ~/.config/fish/completions/podid.fish
  podid completion powershell >> $PROFILE")]
pub struct CompletionArgs {
    /// Which shell
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

/// Flags of `podid man`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Examples:
  podid man | man -l -                              # read podid(1)
  podid man --directory /usr/local/share/man/man1   # podid(1), podid-add(1), …")]
pub struct ManArgs {
    /// Write one page for each command into this folder; else podid(1) goes to stdout
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

/// Flags of `podid version`.
#[derive(Args, Clone, Debug)]
pub struct VersionArgs {
    /// Format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Format,
}

/// What this is.
#[derive(Serialize)]
struct Version {
    version: &'static str,
}

impl CompletionArgs {
    pub(crate) fn run(self, printer: &mut Printer) {
        let Self { shell } = self;
        let mut script = Vec::new();
        let mut program = Podid::command();
        let name = program.get_name().to_owned();
        clap_complete::generate(shell, &mut program, name, &mut script);
        printer.raw(&script);
    }
}

impl ManArgs {
    pub(crate) fn run(self, printer: &mut Printer) -> anyhow::Result<()> {
        let Self { directory } = self;
        let program = Podid::command().disable_help_subcommand(true);
        let Some(directory) = directory else {
            let mut page = Vec::new();
            clap_mangen::Man::new(program)
                .render(&mut page)
                .context("write podid(1)")?;
            printer.raw(&page);
            return Ok(());
        };
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("make the folder {}", directory.display()))?;
        clap_mangen::generate_to(program, &directory)
            .with_context(|| format!("write the pages into {}", directory.display()))?;
        printer.say(&format!("the pages are in {}", directory.display()));
        Ok(())
    }
}

impl VersionArgs {
    pub(crate) fn run(self, printer: &mut Printer) -> Result<(), CliError> {
        let Self { output } = self;
        let version = env!("CARGO_PKG_VERSION");
        output::object(&Version { version }, &format!("podid {version}"), output, printer)
    }
}
