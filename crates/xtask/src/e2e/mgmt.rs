//! `cargo xtask e2e mgmt`: the management SDKs of four languages against azure-emulator, each in a process of its own over TLS.
//! Each walks the same way (programs in `e2e/mgmt`) and reports what it saw; that and the emulator's request log are checked.
//!
//! clients ─▶ prepare ─▶ emulator (enforce, scenario, issuer's keys) ─▶ walk ─▶ facts + log ─▶ steps ─▶ table, docs/reference/management-sdks.md

mod clients;
mod emulator;
mod issuer;
mod page;
mod steps;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::Value;

use crate::printer;
use clients::Client;
use emulator::Emulator;
use issuer::Issuer;
use steps::{STEPS, Seen};

/// The longest that one client may walk.
const DEADLINE: Duration = Duration::from_mins(5);
/// The page in the documents.
const PAGE: &str = "docs/reference/management-sdks.md";

/// Flags of `cargo xtask e2e mgmt`.
#[derive(Args, Debug)]
pub(crate) struct MgmtArgs {
    /// Only these clients; all when not given
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Write docs/reference/management-sdks.md
    #[arg(long, conflicts_with = "only")]
    write: bool,
}

/// A client with what came of each step.
#[derive(Debug)]
pub(crate) struct Tried {
    client: Client,
    /// Package to version, as the client reports them.
    packages: BTreeMap<String, String>,
    /// In the order of `STEPS`.
    verdicts: Vec<Verdict>,
}

/// What came of a step.
#[derive(Debug)]
pub(crate) enum Verdict {
    Passed,
    /// The client has no such step.
    Left,
    Failed(String),
}

/// Runs the suite.
pub(crate) fn run(args: &MgmtArgs) -> anyhow::Result<()> {
    let clients = chosen(args)?;
    let root = crate::root()?;
    let work = root.join("target/e2e/mgmt");
    std::fs::create_dir_all(&work).with_context(|| format!("make the folder {}", work.display()))?;
    for client in &clients {
        printer::note(&format!("making {} ready", client.name));
        client
            .prepare(&root, &work)
            .with_context(|| format!("make the client {} ready", client.name))?;
    }
    let program = Emulator::build(&root)?;
    let issuer = Issuer::new()?;
    let mut tried = Vec::new();
    for client in clients {
        printer::note(&format!("{} walks", client.name));
        let walked = walk(&client, &program, &issuer, &root, &work);
        let one = walked.with_context(|| format!("the walk of {}", client.name))?;
        for (step, verdict) in STEPS.iter().zip(&one.verdicts) {
            if let Verdict::Failed(why) = verdict {
                printer::note(&format!("{}: {}: FAILED: {why}", one.client.name, step.name));
            }
        }
        tried.push(one);
    }
    printer::line(&page::tables(&tried));
    let count = |wanted: fn(&Verdict) -> bool| {
        let all = tried.iter().flat_map(|tried| &tried.verdicts);
        all.filter(|verdict| wanted(verdict)).count()
    };
    let (passed, failed) = (
        count(|verdict| matches!(verdict, Verdict::Passed)),
        count(|verdict| matches!(verdict, Verdict::Failed(_))),
    );
    printer::line(&format!("{passed} passed, {failed} failed"));
    ensure!(failed == 0, "{failed} steps of management SDKs failed");
    if args.write {
        let path = root.join(PAGE);
        std::fs::write(&path, page::page(&tried)).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn chosen(args: &MgmtArgs) -> anyhow::Result<Vec<Client>> {
    let all = clients::all();
    let known = |name: &String| all.iter().any(|client| client.name == *name);
    if let Some(unknown) = args.only.iter().find(|name| !known(name)) {
        let names: Vec<_> = all.iter().map(|client| client.name).collect();
        bail!("there is no client `{unknown}`; there are {}", names.join(", "));
    }
    Ok(all
        .into_iter()
        .filter(|client| args.only.is_empty() || args.only.iter().any(|name| name == client.name))
        .collect())
}

/// One client against an emulator of its own.
fn walk(client: &Client, program: &Path, issuer: &Issuer, root: &Path, work: &Path) -> anyhow::Result<Tried> {
    let out = work.join(client.name);
    let emulator = Emulator::start(program, issuer, &out)?;
    let assertion = out.join("assertion.jwt");
    std::fs::write(&assertion, issuer.token()?).with_context(|| format!("write {}", assertion.display()))?;
    client.trust(&emulator, &out)?;
    let mut command = client.command(&emulator, root, work);
    command
        .env("ARM", &emulator.ready.arm)
        .env("AZURE_TENANT_ID", &emulator.ready.tenant_id)
        .env("AZURE_SUBSCRIPTION_ID", &emulator.ready.subscription_id)
        .env("AZURE_CLIENT_ID", &emulator.ready.client_id)
        .env("AZURE_CLIENT_SECRET", &emulator.ready.client_secret)
        .env("ISSUER", issuer::NAME)
        .env("SUBJECT", issuer::SUBJECT)
        .env("ASSERTION_FILE", &assertion);
    let output = emulator.wait_for(command, DEADLINE)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "it ended with {}:\n{}",
        output.status,
        said.chars().take(4000).collect::<String>()
    );
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().last().unwrap_or_default();
    let facts: Value = serde_json::from_str(line).with_context(|| format!("it reported {line:?}"))?;
    let seen = Seen {
        facts: &facts,
        asked: &emulator.requests()?,
        unsupported: &emulator.unsupported()?,
        ready: &emulator.ready,
    };
    let verdicts = STEPS.iter().map(|step| step.judge(client, &seen)).collect();
    emulator.stop()?;
    let packages = facts.get("sdk").cloned().unwrap_or_default();
    Ok(Tried {
        client: client.clone(),
        packages: serde_json::from_value(packages).context("it did not report its versions")?,
        verdicts,
    })
}
