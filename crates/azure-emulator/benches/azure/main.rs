//! What the emulator takes: the real program on one core, a load generator of ours on another, over keep-alive TLS, with
//! 10,000 identities. It measures and judges; it never is a test.
//!
//! `cargo bench --profile dist -p podid-azure-emulator --bench azure`, or `cargo xtask bench azure`.

#![expect(
    clippy::disallowed_methods,
    reason = "a bench starts the program that it measures"
)]

mod calls;
mod load;
mod printer;
mod process;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use podid_testkit::bench::cores::{self, Side};
use podid_testkit::bench::{self, Report, Row, time};
use tokio::runtime::Runtime;

use crate::calls::Calls;
use crate::load::{Load, Seen};
use crate::process::Azure;

/// How many there are.
const IDENTITIES: usize = 10_000;
/// Requests a second, of one core.
const RATE: f64 = 1_000.0;
const CONNECTIONS: usize = 16;

/// Measures the emulator as a process
#[derive(Debug, Parser)]
struct Cli {
    /// Write JSON instead of a table
    #[arg(long)]
    json: bool,
    /// How long each load lasts, in seconds
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Given by `cargo bench`; means nothing
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            printer::note(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let machine = bench::machine(cores::all()?.len());
    // A second installation changes nothing.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    cores::move_to(Side::Ours)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let report = Report {
        machine,
        rows: rows(&runtime, Duration::from_secs(cli.seconds))?,
    };
    if cli.json {
        printer::line(&serde_json::to_string_pretty(&report)?);
    } else {
        printer::line(&report.table());
    }
    Ok(())
}

fn rows(runtime: &Runtime, lasts: Duration) -> anyhow::Result<Vec<Row>> {
    // The first one also brings the program from the disk.
    drop(Azure::start(None)?);
    let azure = Azure::start(None)?;
    let mut rows = vec![
        Row::noted("start → ready, nothing there", time(azure.started_in)),
        memory("memory, nothing there", &azure)?,
    ];
    let calls = runtime.block_on(Calls::sign_in(&azure))?;
    let bench = Bench {
        runtime,
        azure: &azure,
        lasts,
    };
    runtime.block_on(calls.group())?;
    printer::note("10,000 identities");
    rows.push(bench.made(&calls)?);
    rows.push(memory("memory with 10,000 identities", &azure)?);
    runtime.block_on(calls.assign())?;
    for (what, next) in [
        ("ARM: read one of 10,000 identities", Calls::read as calls::Next),
        ("ARM: write one of 10,000 identities", Calls::write),
        (
            "ARM: make and take away a federated credential",
            Calls::credential,
        ),
        (
            "ARM: the first page (200) of 10,000 identities",
            Calls::first_page,
        ),
        ("ARM: the last page (200) of 10,000 identities", Calls::last_page),
        ("Entra: a token by a secret (RS256, 2048 bits)", Calls::entra),
        ("IMDS: a token of a managed identity", Calls::imds),
    ] {
        printer::note(what);
        let pages = what.contains("page");
        rows.push(bench.closed(what, &calls, next, !pages)?);
    }
    printer::note("a mix at 1,000 requests a second");
    rows.push(bench.mixed(&calls)?);
    rows.push(memory("memory after those loads, request log full", &azure)?);
    drop(azure);
    printer::note("with a state folder");
    rows.extend(kept(runtime, lasts)?);
    Ok(rows)
}

/// The same with a state folder: writing while it is kept, and starting with all of it.
fn kept(runtime: &Runtime, lasts: Duration) -> anyhow::Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let azure = Azure::start(Some(folder.path()))?;
    let calls = runtime.block_on(Calls::sign_in(&azure))?;
    let bench = Bench {
        runtime,
        azure: &azure,
        lasts,
    };
    runtime.block_on(calls.group())?;
    let mut rows = vec![
        bench
            .made(&calls)?
            .renamed("ARM: 10,000 identities made with `--state`"),
    ];
    rows.push(bench.closed(
        "ARM: write one of 10,000 identities with `--state`",
        &calls,
        Calls::write,
        true,
    )?);
    azure.stop()?;
    let size = std::fs::metadata(folder.path().join("state.json"))
        .context("look at the state")?
        .len();
    let azure = Azure::start(Some(folder.path()))?;
    rows.push(Row::noted(
        "start → ready with 10,000 identities in the state folder",
        format!("{}; {:.1} MB", time(azure.started_in), mega(size)),
    ));
    Ok(rows)
}

/// A running emulator under measurement.
struct Bench<'a> {
    runtime: &'a Runtime,
    azure: &'a Azure,
    lasts: Duration,
}

impl Bench<'_> {
    /// Makes all identities.
    fn made(&self, calls: &Calls) -> anyhow::Result<Row> {
        let before = self.azure.cpu()?;
        let load = Load {
            connections: CONNECTIONS,
            until: load::Until::Count(IDENTITIES),
            rate: None,
        };
        let seen = self.runtime.block_on(load.run(calls, Calls::write))?;
        seen.all_good()?;
        self.row("ARM: 10,000 identities made", &seen, before, true)
    }

    /// As fast as it goes.
    fn closed(&self, what: &str, calls: &Calls, next: calls::Next, judged: bool) -> anyhow::Result<Row> {
        let before = self.azure.cpu()?;
        let load = Load {
            connections: CONNECTIONS,
            until: load::Until::Time(self.lasts),
            rate: None,
        };
        let seen = self.runtime.block_on(load.run(calls, next))?;
        seen.all_good()?;
        self.row(what, &seen, before, judged)
    }

    /// At a given rate, whatever the answers take.
    fn mixed(&self, calls: &Calls) -> anyhow::Result<Row> {
        let before = self.azure.cpu()?;
        let load = Load {
            connections: CONNECTIONS,
            until: load::Until::Time(self.lasts),
            rate: Some(RATE),
        };
        let seen = self.runtime.block_on(load.run(calls, Calls::mixed))?;
        seen.all_good()?;
        let used = self.azure.cpu()?.saturating_sub(before).as_secs_f64() / seen.elapsed.as_secs_f64();
        let (p50, p99) = (seen.within(0.5), seen.within(0.99));
        let text = format!(
            "{:.0} requests/s; p50 {}, p99 {}; {:.0} % of the core",
            seen.a_second(),
            time(p50),
            time(p99),
            used * 100.0
        );
        // 70 % reads, 10 % writes, 10 % IMDS, 5 % lists of credentials, 5 % Entra.
        Ok(Row::noted(
            "a mix of these at 1,000 requests/s, late answers counted from when they were due",
            text,
        )
        .with("requests_per_s", seen.a_second())
        .with("p50_us", bench::micros(p50))
        .with("p99_us", bench::micros(p99))
        .with("core_share", used)
        .against(
            "1,000 requests/s, p99 ≤ 20 ms",
            seen.a_second() >= RATE * 0.99 && p99 <= Duration::from_millis(20),
        ))
    }

    /// Judged by the emulator's own time, which what else the machine does cannot change: a core has a second a second.
    fn row(&self, what: &str, seen: &Seen, before: Duration, judged: bool) -> anyhow::Result<Row> {
        let used = self.azure.cpu()?.saturating_sub(before);
        let (p50, p99) = (seen.within(0.5), seen.within(0.99));
        let each = used.div_f64(seen.count().max(1.0));
        let text = format!(
            "{:.0} requests/s; p50 {}, p99 {}; {} CPU each",
            seen.a_second(),
            time(p50),
            time(p99),
            time(each)
        );
        let row = Row::noted(what, text)
            .with("requests_per_s", seen.a_second())
            .with("p50_us", bench::micros(p50))
            .with("p99_us", bench::micros(p99))
            .with("cpu_us_each", bench::micros(each));
        let budget = Duration::from_secs_f64(1.0 / RATE);
        Ok(if judged {
            row.against("≤ 1 ms CPU each: 1,000 requests/s of a core", each <= budget)
        } else {
            row
        })
    }
}

fn memory(what: &str, azure: &Azure) -> anyhow::Result<Row> {
    let kib = azure.memory()?;
    Ok(Row::noted(what, format!("{:.1} MiB", kib / 1024.0)).with("rss_kib", kib))
}

/// Bytes in megabytes.
#[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 bytes")]
fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
