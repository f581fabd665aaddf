//! `cargo xtask e2e sdk`: each client is made ready under `target/e2e/sdk`, then run as a pod of one sandbox, with its
//! default credential and with the identity named, each cold and warm. What came is held against the identity that was
//! bound, and what it cost against the emulated metadata service's log.
//!
//! clients ─▶ prepare ─▶ sandbox up ─▶ run (default, named) × (cold, warm) ─▶ Found ─▶ table, docs/reference/clients.md

mod clients;
mod page;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde::Deserialize;

use crate::e2e::sandbox::Sandbox;
use crate::printer;
use clients::Client;

/// Flags of `cargo xtask e2e sdk`.
#[derive(Args, Debug)]
pub(crate) struct SdkArgs {
    /// Only these clients; all when not given
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Only some clients that are ready soon on an empty cache: curl, Python, Rust
    #[arg(long, conflicts_with = "only")]
    quick: bool,
    /// Write docs/reference/clients.md
    #[arg(long, conflicts_with_all = ["only", "quick"])]
    write: bool,
}

/// How a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As applications mostly do: whatever credential the library finds, no identity named.
    Default,
    /// The identity named by its client id.
    Named,
}

impl Mode {
    const ALL: [Self; 2] = [Self::Default, Self::Named];

    /// The word by which the clients know it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Named => "named",
        }
    }
}

/// What the agent knows when a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cache {
    /// No token of this identity yet.
    Cold,
    /// The token that the cold run left.
    Warm,
}

impl Cache {
    const ALL: [Self; 2] = [Self::Cold, Self::Warm];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
        }
    }
}

/// What a client reports: the token's claims, and how long the first one took, in milliseconds.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) version: String,
    pub(crate) appid: String,
    pub(crate) aud: String,
    pub(crate) first_ms: f64,
}

/// A run that went well.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) outcome: Outcome,
    /// How many tokens the emulated metadata service was asked for meanwhile.
    pub(crate) upstream: usize,
}

/// What most clients ask for.
const AUDIENCE: &str = "https://vault.azure.net";
/// The namespace of the pods.
const NAMESPACE: &str = "e2e-sdk";

/// A client with what came of each mode.
#[derive(Debug)]
pub(crate) struct Tried {
    pub(crate) client: Client,
    pub(crate) outcomes: Vec<(Mode, Cache, Result<Found, String>)>,
}

/// Runs the suite.
pub(crate) fn run(args: &SdkArgs) -> anyhow::Result<()> {
    let clients = chosen(args)?;
    let root = crate::root()?;
    let work = root.join("target/e2e/sdk");
    std::fs::create_dir_all(&work).with_context(|| format!("make the folder {}", work.display()))?;
    for client in &clients {
        printer::note(&format!("making {} ready", client.name));
        client
            .prepare(&root, &work)
            .with_context(|| format!("make the client {} ready", client.name))?;
    }
    let sandbox = Sandbox::up(&root, "e2e-sdk")?;
    let mut tried = Vec::new();
    for client in clients {
        let mut outcomes = Vec::new();
        for mode in Mode::ALL {
            // An identity of the client's own in this mode: nobody has asked for its token yet.
            let identity = format!("{}-{}", client.name.replace('.', "-"), mode.word());
            let command = client.command(mode, &root, &work);
            for cache in Cache::ALL {
                let found = ask(&sandbox, &client, &identity, &command, cache);
                outcomes.push((mode, cache, found.map_err(|error| format!("{error:#}"))));
            }
        }
        let client = Tried { client, outcomes };
        printer::note(&page::line(&client));
        tried.push(client);
    }
    sandbox.down()?;
    printer::line(&page::table(&tried));
    let failed = tried
        .iter()
        .flat_map(|tried| &tried.outcomes)
        .filter(|(.., outcome)| outcome.is_err())
        .count();
    let asked = tried.len() * Mode::ALL.len() * Cache::ALL.len();
    printer::line(&format!("{} passed, {failed} failed", asked - failed));
    ensure!(failed == 0, "{failed} of {asked} runs of real clients failed");
    if args.write {
        let path = root.join("docs/reference/clients.md");
        std::fs::write(&path, page::page(&tried)).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn chosen(args: &SdkArgs) -> anyhow::Result<Vec<Client>> {
    let all = clients::all();
    if let Some(unknown) = args
        .only
        .iter()
        .find(|name| all.iter().all(|client| client.name != **name))
    {
        let names: Vec<_> = all.iter().map(|client| client.name).collect();
        bail!("there is no client `{unknown}`; there are {}", names.join(", "));
    }
    Ok(all
        .into_iter()
        .filter(|client| args.only.is_empty() || args.only.iter().any(|name| name == client.name))
        .filter(|client| !args.quick || client.quick)
        .collect())
}

/// One run of a client as a pod, and what it says, checked.
fn ask(
    sandbox: &Sandbox,
    client: &Client,
    identity: &str,
    command: &[OsString],
    cache: Cache,
) -> anyhow::Result<Found> {
    let client_id = sandbox.client_id(NAMESPACE, identity)?;
    let before = sandbox.tokens_of(&client_id)?;
    let pod = sandbox.run(NAMESPACE, identity, command)?;
    ensure!(
        pod.status.success(),
        "exit {}: {}",
        pod.status.code().unwrap_or(-1),
        last_lines(&String::from_utf8_lossy(&pod.stderr))
    );
    let outcome = client.read(&String::from_utf8_lossy(&pod.stdout))?;
    ensure!(
        outcome.appid == client_id,
        "the token is of {}, not of {client_id}",
        outcome.appid
    );
    let audience = client.audience();
    ensure!(
        outcome.aud.trim_end_matches('/') == audience,
        "the token is for {}, not for {audience}",
        outcome.aud
    );
    let upstream = sandbox.tokens_of(&client_id)? - before;
    ensure!(
        (upstream > 0) == (cache == Cache::Cold),
        "{}, the metadata service was asked {upstream} times",
        cache.word()
    );
    Ok(Found { outcome, upstream })
}

/// The end of what a program said, for an error text.
fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let from = lines.len().saturating_sub(3);
    lines
        .get(from..)
        .unwrap_or_default()
        .join(" / ")
        .chars()
        .take(600)
        .collect()
}

/// Runs a program of the preparation; its output goes to standard error.
pub(crate) fn prepare(program: &str, args: &[&str], folder: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    command
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let status = command
        .status()
        .with_context(|| format!("`{program}` is needed and could not be started"))?;
    ensure!(status.success(), "`{program} {}` failed", args.join(" "));
    Ok(())
}

/// A path as text.
pub(crate) fn text(path: &Path) -> anyhow::Result<String> {
    let text = path
        .to_str()
        .with_context(|| format!("the path {} is not UTF-8", path.display()))?;
    Ok(text.to_owned())
}

/// Where a client's own files are.
pub(crate) fn source(root: &Path, language: &str) -> PathBuf {
    root.join("e2e/sdk").join(language)
}
