//! A token that is there already: how long it takes, how many a second there are, and what a neighbour costs.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use podid_kernel::Namespace;
use podid_testkit::bench::{Row, micros, time};

use crate::cluster::address;
use crate::load::{Load, Seen};
use crate::process::Agent;

/// The pods that ask when connections are new each time: ports of one address would run out.
const ASKING: usize = 100;
/// What a quiet pod leaves between two requests.
const QUIET_PAUSE: Duration = Duration::from_millis(10);

/// Who asks whom.
pub(crate) struct Way<'a> {
    pub(crate) agent: &'a Agent,
    /// Where pods reach it.
    pub(crate) to: SocketAddr,
    pub(crate) from: Vec<IpAddr>,
    pub(crate) within: Option<&'a Namespace>,
    /// In the rows' names.
    pub(crate) name: &'a str,
    pub(crate) lasts: Duration,
}

impl<'a> Way<'a> {
    /// Over the loopback interface, from many pods' addresses.
    pub(crate) fn loopback(agent: &'a Agent, lasts: Duration) -> Self {
        Self {
            agent,
            to: agent.address,
            from: (0..ASKING).map(address).collect(),
            within: None,
            name: "",
            lasts,
        }
    }

    fn load(&self, connections: usize, anew: bool) -> Load {
        Load {
            to: self.to,
            from: self.from.clone(),
            connections,
            anew,
            pause: Duration::ZERO,
            lasts: self.lasts,
        }
    }

    /// Latency at 1 and 16 connections, kept and new each time; throughput and processor time of the agent.
    pub(crate) fn rows(&self, judged: bool) -> anyhow::Result<Vec<Row>> {
        let mut rows = Vec::new();
        for (connections, count, budget) in [(1, "1 connection", 500), (16, "16 connections", 2_000)] {
            let before = self.agent.cpu()?;
            let seen = self.load(connections, false).run(self.within)?;
            let used = self
                .agent
                .cpu()?
                .saturating_sub(before)
                .mul_f64(seen.share_measured());
            let row = latency(format!("cached token{}, keep-alive, {count}", self.name), &seen);
            let p99 = seen.within(0.99);
            let budget = Duration::from_micros(budget);
            rows.push(if judged {
                row.against(format!("p99 < {}", time(budget)), p99 < budget)
            } else {
                row
            });
            if connections == 16 {
                rows.extend(throughput(self.name, &seen, used, judged));
            }
        }
        for connections in [1, 16] {
            let seen = self.load(connections, true).run(self.within)?;
            rows.push(
                latency(
                    format!(
                        "cached token{}, a new connection each, {connections} at a time",
                        self.name
                    ),
                    &seen,
                )
                .with("requests_per_second", seen.a_second().round()),
            );
        }
        Ok(rows)
    }
}

fn latency(what: String, seen: &Seen) -> Row {
    let (p50, p99, max) = (seen.within(0.5), seen.within(0.99), seen.within(1.0));
    Row::noted(
        what,
        format!("p50 {}, p99 {}, max {}", time(p50), time(p99), time(max)),
    )
    .with("p50_us", micros(p50))
    .with("p99_us", micros(p99))
    .with("max_us", micros(max))
    .with("requests", seen.took.len())
}

fn throughput(name: &str, seen: &Seen, used: Duration, judged: bool) -> [Row; 2] {
    let a_second = seen.a_second();
    let per_1000 = used.as_secs_f64() / (a_second * seen.elapsed.as_secs_f64()) * 1_000.0 * 1_000.0;
    let busy = used.as_secs_f64() / seen.elapsed.as_secs_f64() * 100.0;
    let rate = Row::noted(
        format!("throughput{name}, 16 connections"),
        format!(
            "{a_second:.0} requests/s, agent busy {:.0} % of its core",
            busy.min(100.0)
        ),
    )
    .with("requests_per_second", a_second.round())
    .with("agent_busy_percent", busy);
    let cpu = Row::noted(
        format!("processor time{name} for 1,000 requests"),
        format!("{per_1000:.1} ms"),
    )
    .with("cpu_ms_per_1000", per_1000);
    if judged {
        [
            rate.against("≥ 40,000 requests/s on one core", a_second >= 40_000.0),
            cpu.against("≤ 25 ms", per_1000 <= 25.0),
        ]
    } else {
        [rate, cpu]
    }
}

/// The 99th percentile of a quiet pod, alone and beside one that asks as fast as it can on 16 connections.
pub(crate) fn noisy_neighbour(
    unlimited: &Agent,
    limited: &Agent,
    lasts: Duration,
) -> anyhow::Result<Vec<Row>> {
    let quiet = |agent: &Agent| Load {
        to: agent.address,
        from: vec![address(0)],
        connections: 1,
        anew: false,
        pause: QUIET_PAUSE,
        lasts: lasts * 2,
    };
    let beside = |agent: &Agent| -> anyhow::Result<(Seen, Seen)> {
        let noisy = Load {
            from: vec![address(1)],
            connections: 16,
            pause: Duration::ZERO,
            ..quiet(agent)
        };
        thread::scope(|scope| {
            let noisy = scope.spawn(|| noisy.run(None));
            let seen = quiet(agent).run(None)?;
            let noise = noisy
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok((seen, noise))
        })
    };
    let alone = quiet(limited).run(None)?.within(0.99);
    let mut rows = vec![Row::noted("p99 of a quiet pod, alone", time(alone)).with("p99_us", micros(alone))];
    for (what, agent, judged) in [
        ("the limits lifted", unlimited, false),
        ("the limits as shipped", limited, true),
    ] {
        let (seen, noise) = beside(agent)?;
        let p99 = seen.within(0.99);
        let row = Row::noted(
            format!("p99 of a quiet pod beside one at full speed, {what}"),
            format!(
                "{} (the other: {:.0} answers/s, {} refused)",
                time(p99),
                noise.a_second(),
                noise.refused
            ),
        )
        .with("p99_us", micros(p99))
        .with("neighbour_answers_per_second", noise.a_second().round());
        rows.push(if judged {
            row.against(format!("≤ 2 × alone = {}", time(alone * 2)), p99 <= alone * 2)
        } else {
            row
        });
    }
    Ok(rows)
}
