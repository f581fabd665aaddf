//! `up --detach`: starts the world as a program of its own, waits until it is ready, and leaves it running.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context as _;
use podid_cli::printer::Printer;

/// The flag, which the world itself does not get.
const DETACH: &str = "--detach";
/// Where the world's own messages go once nobody is at its terminal, in its folder.
pub(crate) const LOG: &str = "world.log";

/// Starts it by this program's own command line. What goes wrong is said by the world, whose exit code is ours.
pub(crate) fn run(printer: &mut Printer) -> anyhow::Result<ExitCode> {
    let flags: Vec<_> = std::env::args_os()
        .skip(1)
        .filter(|flag| flag != DETACH)
        .collect();
    let quiet = !flags
        .iter()
        .any(|flag| flag.to_string_lossy().starts_with("--log"));
    let mut command = Command::new("/proc/self/exe");
    command.args(flags).arg("--detached");
    if quiet {
        command.args(["--log", "warn"]);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start a world")?;
    let stdout = child.stdout.take().context("a world without output")?;
    let mut line = String::new();
    BufReader::new(stdout)
        .read_line(&mut line)
        .context("the world cannot be heard")?;
    if line.is_empty() {
        let status = child.wait().context("the world cannot be waited for")?;
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        return Ok(ExitCode::from(code.unwrap_or(1).max(1)));
    }
    printer.data(&line);
    Ok(ExitCode::SUCCESS)
}
