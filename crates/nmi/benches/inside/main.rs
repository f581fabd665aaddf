//! What one request costs inside the agent, without a socket: the whole way of a cached token, a decision in a large
//! world, and a new snapshot of it; with the allocations of each. It measures; it never is a test.
//!
//! `cargo bench --profile dist -p podid-nmi --bench inside`

#[path = "../agent/cluster.rs"]
#[expect(dead_code, reason = "the other bench uses more of it")]
mod cluster;
mod counting;
#[path = "../agent/printer.rs"]
mod printer;
#[path = "../agent/standin.rs"]
#[expect(dead_code, reason = "the other bench uses more of it")]
mod standin;
mod worlds;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use podid_nmi::{App, Nmi};
use podid_rt::stop::Stop;
use podid_rt::tasks::Tasks;
use podid_testkit::bench::{self, Report, Row, micros, time};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::Instant;

use crate::cluster::{Cluster, NODE, Size, address};
use crate::counting::counted;
use crate::standin::Standin;

/// How long each thing is repeated.
const LASTS: Duration = Duration::from_secs(2);
/// What the clock is looked at for: so many repetitions at a time.
const BATCH: u32 = 64;

/// Measures the agent's inside
#[derive(Debug, Parser)]
struct Cli {
    /// Write JSON instead of a table
    #[arg(long)]
    json: bool,
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
    // A second installation changes nothing.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    // One thread: what is counted is what the loop does.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut rows = runtime.block_on(cached())?;
    rows.extend(worlds::rows()?);
    let report = Report {
        machine: bench::machine(std::thread::available_parallelism()?.get()),
        rows,
    };
    printer::line(&if cli.json {
        serde_json::to_string_pretty(&report)?
    } else {
        report.table()
    });
    Ok(())
}

/// From the bytes of a request to the bytes of its answer, for a token that is there and for a probe.
async fn cached() -> anyhow::Result<Vec<Row>> {
    let size = Size {
        namespaces: 10,
        nodes: 1,
        pods: 110,
        bindings: 110,
    };
    let (cluster, upstream) = (Cluster::start(size).await?, Standin::start().await?);
    let endpoint = format!("--imds-endpoint=http://{}", upstream.address);
    let nmi = Nmi::try_parse_from([
        "podid-nmi",
        "--interception=none",
        "--listen=127.0.0.1:0",
        "--probe-listen=127.0.0.1:0",
        "--attestation=off",
        "--pod-rate=0",
        &endpoint,
    ])?;
    let app = App::bind(nmi.run.config(cluster.client.clone(), NODE.to_owned())?).await?;
    let readiness = app.readiness();
    let mut tasks = Tasks::new(Stop::new());
    let door = app.spawn(&mut tasks);
    readiness.wait().await;

    let (near, far) = tokio::io::duplex(64 * 1024);
    let (peer, asked) = (
        SocketAddr::from((address(0), 40_000)),
        "169.254.169.254:80".parse()?,
    );
    tasks
        .group()
        .spawn(async move { door.serve(far, peer, asked).await });
    let mut wire = Wire {
        near,
        room: vec![0; 16 * 1024],
    };
    let token = "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net HTTP/1.1\r\n\
                 Host: 169.254.169.254\r\nAccept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\nMetadata: true\r\n\
                 User-Agent: azsdk-python-identity/1.19.0 Python/3.12.3 (Linux-6.8.0-x86_64)\r\n\r\n";
    let probe = "GET /metadata/identity/oauth2/token HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n";
    let mut rows = Vec::new();
    for (what, request, status) in [
        ("cached token: bytes in → bytes out, HTTP included", token, "200"),
        ("probe without `Metadata`: bytes in → bytes out", probe, "400"),
    ] {
        // Fetched before it is measured; from here on every answer is as long.
        wire.first(request, status).await?;
        let length = wire.first(request, status).await?;
        let before = (Instant::now(), counted());
        let mut times = 0_u32;
        while before.0.elapsed() < LASTS {
            for _ in 0..BATCH {
                wire.again(request, length).await?;
            }
            times += BATCH;
        }
        rows.push(row(what, before, times));
    }
    Ok(rows)
}

/// What one of `times` repetitions took since `before`.
pub(crate) fn row(what: &str, before: (Instant, (u64, u64)), times: u32) -> Row {
    let took = before.0.elapsed() / times;
    let (allocations, bytes) = counted();
    let each = |now: u64, then: u64| (now - then).div_ceil(u64::from(times));
    let (allocations, bytes) = (each(allocations, before.1.0), each(bytes, before.1.1));
    Row::noted(
        what,
        format!(
            "{}, {allocations} allocations of {bytes} bytes in all",
            time_fine(took)
        ),
    )
    .with("us", micros(took))
    .with("allocations", allocations)
    .with("allocated_bytes", bytes)
}

fn time_fine(took: Duration) -> String {
    if took < Duration::from_micros(10) {
        format!("{} ns", took.as_nanos())
    } else {
        time(took)
    }
}

/// One connection that is memory.
struct Wire {
    near: DuplexStream,
    room: Vec<u8>,
}

impl Wire {
    /// Asks, checks the answer, and says how long it was.
    async fn first(&mut self, request: &str, status: &str) -> anyhow::Result<usize> {
        self.near.write_all(request.as_bytes()).await?;
        let mut have = 0;
        loop {
            have += self
                .near
                .read(self.room.get_mut(have..).unwrap_or_default())
                .await?;
            let got = std::str::from_utf8(self.room.get(..have).unwrap_or_default())?;
            ensure!(
                got.get(9..12).is_none_or(|found| found == status),
                "instead of {status}: {got}"
            );
            let Some((head, body)) = got.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .context("an answer has a length")?;
            if body.len() >= length.parse()? {
                return Ok(have);
            }
        }
    }

    /// Asks once more; the answer has `length` bytes, as before.
    async fn again(&mut self, request: &str, length: usize) -> anyhow::Result<()> {
        self.near.write_all(request.as_bytes()).await?;
        let room = self.room.get_mut(..length).context("room for an answer")?;
        self.near.read_exact(room).await?;
        Ok(())
    }
}
