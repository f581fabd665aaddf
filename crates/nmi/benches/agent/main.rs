//! What the agent takes, measured against its budgets: the real program on a core of its own, a load generator of ours
//! on another, an emulated cluster and a stand-in for the metadata service. It measures and judges; it never is a test.
//!
//! `cargo bench --profile dist -p podid-nmi --bench agent`, or `cargo xtask bench agent`.

#![expect(
    clippy::disallowed_methods,
    reason = "a bench starts the program that it measures"
)]

mod cluster;
mod cold;
mod load;
mod namespaces;
mod printer;
mod process;
mod real;
mod standin;
mod warm;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use podid_kernel::world::{self, enter};
use podid_testkit::bench::{self, Report, Row, cores, time};
use tokio::runtime::Runtime;

use crate::cluster::{Cluster, Size};
use crate::process::Agent;
use crate::standin::Standin;
use crate::warm::Way;

/// A usual node: as many pods as a node has at most by default, and a binding for each.
const USUAL: Size = Size {
    namespaces: 10,
    nodes: 1,
    pods: 110,
    bindings: 110,
};
/// A large world: far more than a node ever has.
const LARGE: Size = Size {
    namespaces: 100,
    nodes: 1,
    pods: 5_000,
    bindings: 10_000,
};

/// How often starting is measured.
const STARTS: usize = 5;

/// Measures the agent as a process
#[derive(Debug, Parser)]
struct Cli {
    /// Write JSON instead of a table
    #[arg(long)]
    json: bool,
    /// How long each load lasts, in seconds
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Measure against this real, empty cluster without controllers instead: how the agent follows it
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Only the rows of a cached token
    #[arg(long)]
    quick: bool,
    /// Given by `cargo bench`; means nothing
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // In a world of its own where that is possible: pods with namespaces need one, and nothing touches this machine's.
    if cli.kubeconfig.is_some() {
        // A real cluster is outside.
        return finish(run(&cli, Err(String::new())));
    }
    let world = match enter(()) {
        Ok(world::Side::Outside(code)) => return code,
        Ok(world::Side::Inside(..)) => Ok(()),
        Err(error) => Err(error.to_string()),
    };
    finish(run(&cli, world))
}

fn finish(done: anyhow::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            printer::note(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli, world: Result<(), String>) -> anyhow::Result<()> {
    let machine = bench::machine(cores::all()?.len());
    // A second installation changes nothing.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    cores::move_to(cores::Side::Ours)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let rows = match &cli.kubeconfig {
        Some(path) => real::rows(&runtime, std::fs::read_to_string(path)?)?,
        None => rows(cli, &runtime, world)?,
    };
    let report = Report { machine, rows };
    if cli.json {
        printer::line(&serde_json::to_string_pretty(&report)?);
    } else {
        printer::line(&report.table());
    }
    Ok(())
}

fn rows(cli: &Cli, runtime: &Runtime, world: Result<(), String>) -> anyhow::Result<Vec<Row>> {
    let lasts = Duration::from_secs(cli.seconds);
    let upstream = runtime.block_on(Standin::start())?;
    printer::note("filling an emulated cluster: a usual node");
    let usual = runtime.block_on(Cluster::start(USUAL))?;
    let open: &[&[&str]] = &[Agent::LOOPBACK, Agent::UNLIMITED];

    // The first one also brings the program from the disk.
    let mut agent = Agent::start(&usual, &upstream, open)?;
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        drop(agent);
        agent = Agent::start(&usual, &upstream, open)?;
        starts.push(agent.started_in);
        runtime.block_on(agent.serves(USUAL.pods - 1))?;
    }
    let mut size = vec![memory("memory with 110 pods, 110 bindings", &agent, 10)?];
    let start = started("start → ready, 110 pods, watches included", starts, true);
    printer::note("a cached token");
    let mut rows = Way::loopback(&agent, lasts).rows(true)?;
    size.push(memory("memory with 110 pods, after that load", &agent, 10)?);
    printer::note("a cached token, from a pod's namespace");
    match world {
        Ok(()) => rows.extend(namespaces::rows(runtime, &usual, USUAL, &upstream, lasts)?),
        Err(why) => rows.push(Row::not_run("cached token, attested pod by local route", why)),
    }
    if cli.quick {
        rows.extend(size);
        return Ok(rows);
    }
    printer::note("a noisy neighbour");
    let limited = Agent::start(&usual, &upstream, &[Agent::LOOPBACK])?;
    rows.extend(warm::noisy_neighbour(&agent, &limited, lasts)?);
    drop(limited);
    printer::note("cold tokens");
    rows.push(runtime.block_on(cold::overhead(&agent, &upstream))?);
    rows.extend(runtime.block_on(cold::bindings(&usual, &agent, USUAL))?);
    drop(agent);

    printer::note("many callers");
    let callers = runtime.block_on(Cluster::start(cold::CALLERS_SIZE))?;
    let agent = Agent::start(&callers, &upstream, open)?;
    runtime.block_on(agent.serves(cold::CALLERS - 1))?;
    rows.push(runtime.block_on(cold::many_callers(&callers, &agent, &upstream))?);
    rows.push(runtime.block_on(cold::quota(&agent, &upstream))?);
    drop((agent, callers));

    rows.push(start);
    printer::note("filling an emulated cluster: a large world");
    let large = runtime.block_on(Cluster::start(LARGE))?;
    let agent = Agent::start(&large, &upstream, open)?;
    runtime.block_on(agent.serves(LARGE.pods - 1))?;
    rows.push(started(
        "start → ready, 5,000 pods, 10,000 bindings, watches included",
        vec![agent.started_in],
        false,
    ));
    size.push(memory("memory with 5,000 pods, 10,000 bindings", &agent, 15)?);
    rows.extend(size);
    Ok(rows)
}

fn memory(what: &str, agent: &Agent, budget_mib: u64) -> anyhow::Result<Row> {
    let seen = agent.memory()?;
    let tenths = |kib: u64| format!("{}.{} MiB", kib / 1024, kib % 1024 * 10 / 1024);
    Ok(Row::noted(
        what,
        format!("RSS {}, PSS {}", tenths(seen.rss), tenths(seen.pss)),
    )
    .with("rss_kib", seen.rss)
    .with("pss_kib", seen.pss)
    .against(format!("≤ {budget_mib} MiB (RSS)"), seen.rss <= budget_mib * 1024))
}

fn started(what: &str, mut took: Vec<Duration>, judged: bool) -> Row {
    took.sort_unstable();
    let median = load::at_share(&took, 0.5);
    let row = Row::noted(what, time(median)).with("us", bench::micros(median));
    if judged {
        row.against("< 50 ms after the watches", median < Duration::from_millis(50))
    } else {
        row
    }
}
