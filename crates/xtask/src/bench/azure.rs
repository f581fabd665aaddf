//! `cargo xtask bench azure`: the emulator as a process, measured by its own bench; its section of the page.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use clap::Args;
use serde_json::Value;

use super::{PAGE, table};
use crate::{printer, root};

/// Around its section, so that who writes the other ones leaves it alone.
const BEGIN: &str = "<!-- azure-emulator: written by `cargo xtask bench azure --write`. Do not edit. -->";
const END: &str = "<!-- azure-emulator: end -->";

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
        let found = measure(&root, &profile, seconds)?;
        if json {
            printer::line(&serde_json::to_string_pretty(&found)?);
        } else {
            printer::text(&table(&found)?);
        }
        if write {
            let path = root.join(PAGE);
            let page =
                std::fs::read_to_string(&path).unwrap_or_else(|_none_yet| "# Performance\n".to_owned());
            std::fs::write(&path, with(&page, &section(&found, &profile)?))
                .with_context(|| format!("write {PAGE}"))?;
        }
        Ok(())
    }
}

fn measure(root: &Path, profile: &str, seconds: u64) -> anyhow::Result<Value> {
    let output = Command::new(env!("CARGO"))
        .args([
            "bench",
            "--quiet",
            "--locked",
            "--profile",
            profile,
            "--package=podid-azure-emulator",
            "--bench=azure",
        ])
        .args(["--", "--json", "--seconds", &seconds.to_string()])
        .current_dir(root)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("start cargo")?;
    ensure!(
        output.status.success(),
        "the bench `azure` failed; its messages are above"
    );
    serde_json::from_slice(&output.stdout).context("read what the bench `azure` found")
}

fn section(found: &Value, profile: &str) -> anyhow::Result<String> {
    let machine = |member: &str| match found.pointer(&format!("/machine/{member}")) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "?".to_owned(),
    };
    let program = if profile == "dist" {
        "as it is shipped (profile `dist`)".to_owned()
    } else {
        format!("by profile `{profile}`, slower than what is shipped")
    };
    Ok(format!(
        "{BEGIN}\n## The emulated Azure\n\nMeasured with `cargo xtask bench azure --write` on a machine with {} cores ({}, Linux {}). The program is built\n\
         {program}, and has one core. A load generator on the other cores asks over 16 keep-alive connections with TLS 1.3 (IMDS: plain\n\
         HTTP), each with a bearer token that is verified; every answer must be a success. \"CPU each\" is the emulator's own time for a request:\n\
         what else the machine does changes requests/s, p50 and p99, but not that, so that is what is judged.\n\n{}{END}\n",
        machine("cores"),
        machine("processor"),
        machine("kernel"),
        table(found)?
    ))
}

/// The page with that section in place of the one before, or at its end.
fn with(page: &str, section: &str) -> String {
    match parts(page) {
        Some((before, _, after)) => format!("{before}{section}{after}"),
        None => format!("{}\n\n{section}", page.trim_end()),
    }
}

/// A new page with the section that the old one had.
pub(crate) fn keep(old: &str, new: String) -> String {
    match parts(old) {
        Some((_, section, _)) => with(&new, section),
        None => new,
    }
}

/// What is before the section, the section, what is after it.
fn parts(page: &str) -> Option<(&str, &str, &str)> {
    let begin = page.find(BEGIN)?;
    let length = page.get(begin..)?.find(END)? + END.len();
    let (before, rest) = page.split_at_checked(begin)?;
    let (section, after) = rest.split_at_checked(length)?;
    let after = after.strip_prefix('\n').unwrap_or(after);
    Some((before, section, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_section_is_replaced_and_kept_and_nothing_else_changes() {
        let one = format!("{BEGIN}\none\n{END}\n");
        let two = format!("{BEGIN}\ntwo\n{END}\n");
        let page = with("# P\n\ntext\n", &one) + "\n## Other\n";
        assert_eq!(page, format!("# P\n\ntext\n\n{one}\n## Other\n"));
        assert_eq!(with(&page, &two), format!("# P\n\ntext\n\n{two}\n## Other\n"));
        assert_eq!(
            keep(&page, "# New\n".to_owned()),
            format!("# New\n\n{}", one.trim_end())
        );
        assert_eq!(keep("# Old\n", "# New\n".to_owned()), "# New\n");
    }
}
