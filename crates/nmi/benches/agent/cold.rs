//! A token that is not there yet: what the agent adds to its upstream's time, many callers at once, the upstream's
//! quota, and bindings that come and go.

use std::time::Duration;

use anyhow::ensure;
use futures::future::try_join_all;
use podid_testkit::bench::{Row, micros, time};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::cluster::{Cluster, Size, address, client_id, namespace};
use crate::load::{answer, at_share, connect, request, target};
use crate::process::Agent;
use crate::standin::Standin;

/// Time between two cold tokens: within the upstream's quota.
const APART: Duration = Duration::from_millis(70);
/// Pods that ask at the same time.
pub(crate) const CALLERS: usize = 250;
/// How often a binding comes and goes.
const ROUNDS: usize = 30;

/// The world of the rows with many callers: 250 pods, each with an identity of its own, all of one namespace.
pub(crate) const CALLERS_SIZE: Size = Size {
    namespaces: 1,
    nodes: 1,
    pods: CALLERS,
    bindings: CALLERS,
};

/// What a token takes beside what its upstream took, for tokens that nobody asked for before.
pub(crate) async fn overhead(agent: &Agent, upstream: &Standin) -> anyhow::Result<Row> {
    upstream.set(Duration::from_millis(20), false);
    let mut over = Vec::new();
    for n in 0..100 {
        // Few resources each of many identities: no pod reaches a limit of its own.
        let mut wire = Wire::open(agent, n).await?;
        let (status, took) = wire.ask("https%3A%2F%2Fcold.example").await?;
        ensure!(
            status == 200,
            "a cold token was answered {status}: {}",
            agent.log()
        );
        let (upstreams, _) = upstream.seen();
        over.push(took.saturating_sub(upstreams.last().copied().unwrap_or_default()));
        tokio::time::sleep(APART).await;
    }
    over.sort_unstable();
    let (p50, p99) = (at_share(&over, 0.5), at_share(&over, 0.99));
    Ok(Row::noted(
        "cold token, over the upstream's own time",
        format!("p50 {}, p99 {}", time(p50), time(p99)),
    )
    .with("p50_us", micros(p50))
    .with("p99_us", micros(p99))
    .against("≤ 1.00 ms (p99)", p99 <= Duration::from_millis(1)))
}

/// 250 pods of one identity ask for the same cold token at once.
pub(crate) async fn many_callers(
    cluster: &Cluster,
    agent: &Agent,
    upstream: &Standin,
) -> anyhow::Result<Row> {
    let namespace = namespace(CALLERS_SIZE, 0);
    for n in 0..CALLERS {
        cluster
            .bind(&namespace, &format!("shared-{n}"), &format!("app-{n}"), "id-0")
            .await?;
    }
    upstream.set(Duration::from_millis(100), false);
    // Named, because each pod has an identity of its own too.
    let resource = format!("https%3A%2F%2Fcold.example&client_id={}", client_id(0));
    let mut wires = try_join_all((0..CALLERS).map(|n| Wire::open(agent, n))).await?;
    // The watch has seen all bindings once the last pod may use the identity.
    let (status, _) = wires_last(&mut wires)?
        .ask(&format!("https%3A%2F%2Fother.example&client_id={}", client_id(0)))
        .await?;
    ensure!(status == 200, "the shared identity was answered {status}");
    upstream.set(Duration::from_millis(100), false);
    let answers = try_join_all(wires.iter_mut().map(|wire| wire.ask(&resource))).await?;
    let (calls, _) = upstream.seen();
    let refused = answers.iter().filter(|(status, _)| *status != 200).count();
    let mut took: Vec<Duration> = answers.into_iter().map(|(_, took)| took).collect();
    took.sort_unstable();
    let spread = took
        .last()
        .copied()
        .unwrap_or_default()
        .saturating_sub(took.first().copied().unwrap_or_default());
    Ok(Row::noted(
        format!("{CALLERS} callers at once for one cold token"),
        format!(
            "{} upstream calls, {refused} refused, the last {} after the first",
            calls.len(),
            time(spread)
        ),
    )
    .with("upstream_calls", calls.len())
    .with("refused", refused)
    .with("spread_us", micros(spread))
    .against(
        "1 upstream call, all within 2 ms of the first",
        calls.len() == 1 && refused == 0 && spread <= Duration::from_millis(2),
    ))
}

/// 250 pods, each of an identity of its own, ask at once; the upstream allows 20 a second.
pub(crate) async fn quota(agent: &Agent, upstream: &Standin) -> anyhow::Result<Row> {
    // The pods asked for other tokens just now.
    tokio::time::sleep(Duration::from_secs(2)).await;
    upstream.set(Duration::from_millis(50), true);
    let mut wires = try_join_all((0..CALLERS).map(|n| Wire::open(agent, n))).await?;
    let resource = |n: usize| format!("https%3A%2F%2Frestart.example&client_id={}", client_id(n));
    let asked = wires
        .iter_mut()
        .enumerate()
        .map(|(n, wire)| async move { wire.ask(&resource(n)).await });
    let answers = try_join_all(asked).await?;
    let count = |wanted: u16| answers.iter().filter(|(status, _)| *status == wanted).count();
    let (issued, throttled) = (count(200), count(429));
    let last = answers.iter().map(|(_, took)| *took).max().unwrap_or_default();
    let (_, upstream_throttled) = upstream.seen();
    Ok(Row::noted(
        format!("{CALLERS} pods restarting under the upstream's quota"),
        format!(
            "{issued} tokens, {throttled} × 429, the last after {}; {upstream_throttled} × 429 from the upstream",
            time(last)
        ),
    )
    .with("tokens", issued)
    .with("throttled", throttled)
    .with("upstream_throttled", upstream_throttled)
    .with("last_us", micros(last))
    .against("no 429 reaches a pod", throttled == 0 && issued == CALLERS))
}

/// How soon a new binding is usable, and a removed one not any more; by the time at which the API server was asked.
pub(crate) async fn bindings(cluster: &Cluster, agent: &Agent, size: Size) -> anyhow::Result<[Row; 2]> {
    let (team, pod) = (namespace(size, 0), address(0));
    // The token is there: what is measured is the way of the binding.
    let resource = format!(
        "https%3A%2F%2Fbinding.example&client_id={}",
        client_id(size.namespaces)
    );
    let (mut usable, mut refused) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let name = format!("round-{round}");
        let mut wire = Wire(connect(pod, agent.address).await?);
        let before = Instant::now();
        cluster
            .bind(&team, &name, "app-0", &format!("id-{}", size.namespaces))
            .await?;
        // A request waits for the event; one that came before the removal's memory was gone asks again.
        while wire.ask(&resource).await?.0 != 200 {
            tokio::task::yield_now().await;
        }
        if round > 0 {
            // The first one also fetched the token.
            usable.push(before.elapsed());
        }
        let before = Instant::now();
        cluster.unbind(&team, &name).await?;
        while wire.ask(&resource).await?.0 == 200 {}
        refused.push(before.elapsed());
    }
    let row = |what: &str, mut took: Vec<Duration>| {
        took.sort_unstable();
        let (p50, max) = (at_share(&took, 0.5), at_share(&took, 1.0));
        let budget = Duration::from_millis(50);
        Row::noted(what, format!("p50 {}, max {}", time(p50), time(max)))
            .with("p50_us", micros(p50))
            .with("max_us", micros(max))
            .against("< 50 ms", max < budget)
    };
    Ok([
        row("binding created → usable", usable),
        row("binding deleted → refused", refused),
    ])
}

/// One pod's connection.
pub(crate) struct Wire(TcpStream);

impl Wire {
    /// A connection of pod `n` that has asked before, so that whose it is is known.
    pub(crate) async fn open(agent: &Agent, n: usize) -> anyhow::Result<Self> {
        let mut wire = Self(connect(address(n), agent.address).await?);
        // A probe: answered at once, without a token.
        wire.0
            .write_all(b"GET /metadata/identity/oauth2/token HTTP/1.1\r\nHost: h\r\n\r\n")
            .await?;
        let status = answer(&mut wire.0, &mut vec![0; 4096]).await?;
        ensure!(status == 400, "a probe was answered {status}");
        Ok(wire)
    }

    /// Asks for a token; the status, and how long it took.
    pub(crate) async fn ask(&mut self, resource: &str) -> anyhow::Result<(u16, Duration)> {
        let request = request(&target(resource), false);
        let mut room = vec![0; 8192];
        let before = Instant::now();
        self.0.write_all(request.as_bytes()).await?;
        let status = answer(&mut self.0, &mut room).await?;
        Ok((status, before.elapsed()))
    }
}

fn wires_last(wires: &mut [Wire]) -> anyhow::Result<&mut Wire> {
    wires
        .last_mut()
        .ok_or_else(|| anyhow::anyhow!("there are callers"))
}
