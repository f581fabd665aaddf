//! Benchmarks: builds what is shipped, measures it beside the budgets, and writes the page about it when asked to.

mod azure;
mod kube;
mod section;

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use serde_json::Value;

use self::section::Section;
use crate::{printer, root};

/// What is measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// The node agent as a process on a core of its own: latency, throughput, memory, neighbours, start
    Agent(AgentArgs),
    /// The emulated Azure as a process on one core: 10,000 identities, requests a second, memory
    Azure(azure::AzureArgs),
    /// The agent on a real API server with 100 nodes and 5,000 pods (needs what `cargo xtask kube build` needs)
    Kube(kube::KubeArgs),
}

/// How.
#[derive(Args, Debug)]
pub(crate) struct AgentArgs {
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Write the section about it in docs/reference/performance.md
    #[arg(long)]
    write: bool,
    /// How long each load lasts, in seconds
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

impl Bench {
    /// Measures. What is over its budget is said, and is no error.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let AgentArgs { json, write, seconds } = match self {
            Self::Agent(args) => args,
            Self::Azure(args) => return args.run(),
            Self::Kube(args) => return args.run(),
        };
        let root = root()?;
        let agent = measure(&root, AGENT, "dist", &["--seconds", &seconds.to_string()])?;
        let inside = measure(&root, INSIDE, "dist", &[])?;
        if json {
            let both = serde_json::json!({ "agent": agent, "inside": inside });
            printer::line(&serde_json::to_string_pretty(&both)?);
        } else {
            printer::text(&format!("{}\n{}", table(&agent)?, table(&inside)?));
        }
        if write {
            Section("agent").write(&root, &told(&agent, &inside)?)?;
        }
        Ok(())
    }
}

/// A bench: its package and its name.
type Target = (&'static str, &'static str);
const AGENT: Target = ("podid-nmi", "agent");
const INSIDE: Target = ("podid-nmi", "inside");

/// Runs a bench, built by that profile; what it found.
fn measure(
    root: &Path,
    (package, bench): Target,
    profile: &str,
    arguments: &[&str],
) -> anyhow::Result<Value> {
    let output = Command::new(env!("CARGO"))
        .args([
            "bench",
            "--quiet",
            "--locked",
            "--profile",
            profile,
            "--package",
            package,
            "--bench",
            bench,
            "--",
            "--json",
        ])
        .args(arguments)
        .current_dir(root)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("start cargo")?;
    ensure!(
        output.status.success(),
        "the bench `{bench}` failed; its messages are above"
    );
    serde_json::from_slice(&output.stdout).with_context(|| format!("read what the bench `{bench}` found"))
}

/// What was found, for a terminal and for the page.
fn table(found: &Value) -> anyhow::Result<String> {
    let Some(rows) = found.get("rows").and_then(Value::as_array) else {
        bail!("a bench's result has rows");
    };
    let mut text = "| what | measured | budget | |\n| --- | --- | --- | --- |\n".to_owned();
    for row in rows {
        let member = |name| row.get(name).and_then(Value::as_str).unwrap_or_default();
        let verdict = match member("verdict") {
            "pass" => "pass",
            "fail" => "**over**",
            "not_run" => "not run",
            _ => "",
        };
        let line = [member("what"), member("measured"), member("budget"), verdict].join(" | ");
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "| {line} |");
    }
    Ok(text)
}

/// The machine of a result, as a part of a sentence.
fn machine(found: &Value) -> anyhow::Result<String> {
    let member = |name: &str| match found.pointer(&format!("/machine/{name}")) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Ok(other.to_string()),
        None => bail!("a bench's result has the machine's {name}"),
    };
    let (cores, processor, kernel) = (member("cores")?, member("processor")?, member("kernel")?);
    Ok(format!(
        "a machine with {cores} cores ({processor}, Linux {kernel})"
    ))
}

fn told(agent: &Value, inside: &Value) -> anyhow::Result<String> {
    Ok(format!(
        "## The agent as a process\n\n\
         Measured with `cargo xtask bench agent --write` on {}.\n\
         The program as it is shipped (profile `dist`), on a core of its own. A closed-loop load generator, the emulated cluster and\n\
         a stand-in for the metadata service share the other cores, so where the agent is not busy all the time, throughput is the\n\
         generator's. The first rows are asked over the loopback interface with the limits of one pod lifted; \"attested pod\" rows from a pod's\n\
         network namespace through the local route, each connection confirmed by the kernel.\n\n{}\n\
         That nobody reaches the node's real service while the agent stops, is killed or is replaced is no number but a promise, held by\n\
         tests: `crates/nmi/tests/interception/life.rs`.\n\n\
         ## Inside the agent\n\n\
         One thread, no socket: `cargo bench --profile dist -p podid-nmi --bench inside`.\n\n{}",
        machine(agent)?,
        table(agent)?,
        table(inside)?
    ))
}
