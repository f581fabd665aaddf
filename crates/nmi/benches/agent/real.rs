//! A real API server with 100 nodes and 5,000 pods, and one agent that follows its own node: what that takes of either,
//! and how soon a change is felt.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use podid_testkit::bench::{Row, micros, time};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::time::Instant;

use crate::cluster::{Cluster, Size, namespace};
use crate::cold::{self, Wire};
use crate::process::Agent;
use crate::standin::Standin;
use crate::{memory, printer, started};

const SIZE: Size = Size {
    namespaces: 10,
    nodes: 100,
    pods: 5_000,
    bindings: 500,
};
/// Starts of the agent.
const STARTS: usize = 5;
/// Changes of pods of our node, as fast as the API server takes them.
const CHANGES: usize = 4_000;
/// Changes that are on their way at once.
const AT_A_TIME: usize = 32;

pub(crate) fn rows(runtime: &Runtime, kubeconfig: String) -> anyhow::Result<Vec<Row>> {
    let upstream = runtime.block_on(Standin::start())?;
    printer::note("filling the real cluster: 100 nodes, 5,000 pods, 500 bindings");
    let cluster = runtime.block_on(Cluster::real(kubeconfig, SIZE))?;
    let open: &[&[&str]] = &[Agent::LOOPBACK, Agent::UNLIMITED];
    // The first one also brings the program from the disk.
    let mut agent = Agent::start(&cluster, &upstream, open)?;
    let mut starts = Vec::new();
    let before = runtime.block_on(Served::read(&cluster))?;
    for _ in 0..STARTS {
        drop(agent);
        agent = Agent::start(&cluster, &upstream, open)?;
        starts.push(agent.started_in);
    }
    let after = runtime.block_on(Served::read(&cluster))?;
    let mut rows = vec![
        started(
            "start → ready, 5,000 pods of 100 nodes, watches included",
            starts,
            false,
        ),
        after.since(&before, STARTS),
        memory("memory, 5,000 pods of 100 nodes, 500 bindings", &agent, 15)?,
    ];
    printer::note("changes of the node's pods");
    rows.extend(runtime.block_on(changes(&cluster, &agent))?);
    rows.push(memory("memory after these changes", &agent, 15)?);
    printer::note("bindings that come and go");
    rows.extend(runtime.block_on(cold::bindings(&cluster, &agent, SIZE))?);
    Ok(rows)
}

/// Many changes, then one that a pod feels: by then the agent has followed them all.
async fn changes(cluster: &Cluster, agent: &Agent) -> anyhow::Result<[Row; 2]> {
    let here = SIZE.pods / SIZE.nodes;
    let patch = |n: usize, patch: serde_json::Value| async move {
        Api::<Pod>::namespaced(cluster.client.clone(), &namespace(SIZE, n))
            .patch(
                &format!("pod-{n}"),
                &PatchParams::default(),
                &Patch::Merge(&patch),
            )
            .await
            .map(drop)
            .context("change a pod")
    };
    let mut wire = Wire::open(agent, 0).await?;
    let resource = "https%3A%2F%2Fchanges.example";
    wire.ask(resource).await?;
    let used = agent.cpu()?;
    let begun = Instant::now();
    futures::stream::iter(0..CHANGES)
        .map(|change| {
            // Pod 0 is changed last.
            let pod = 1 + change % (here - 1);
            patch(
                pod,
                json!({ "metadata": { "annotations": { "change": change.to_string() } } }),
            )
        })
        .buffer_unordered(AT_A_TIME)
        .try_collect::<()>()
        .await?;
    let took = begun.elapsed();
    let last = Instant::now();
    patch(
        0,
        json!({ "metadata": { "labels": { "aadpodidbinding": null } } }),
    )
    .await?;
    while wire.ask(resource).await?.0 == 200 {}
    let behind = last.elapsed();
    let used = agent.cpu()?.saturating_sub(used);
    patch(
        0,
        json!({ "metadata": { "labels": { "aadpodidbinding": "app-0" } } }),
    )
    .await?;
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    let rate = CHANGES as f64 / took.as_secs_f64();
    let each_thousand = used * 1_000 / u32::try_from(CHANGES).unwrap_or(u32::MAX);
    Ok([
        Row::noted(
            "changes of the node's pods that were followed",
            format!(
                "{rate:.0}/s, as many as the API server took; the agent's CPU per 1,000: {}",
                time(each_thousand)
            ),
        )
        .with("per_second", rate)
        .with("cpu_us_per_thousand", micros(each_thousand)),
        Row::noted("a pod's label removed → refused, right after them", time(behind))
            .with("us", micros(behind))
            .against("< 50 ms", behind < Duration::from_millis(50)),
    ])
}

/// What the API server counts about itself.
struct Served {
    /// `LIST pods` → how many requests
    requests: BTreeMap<String, f64>,
    cpu: f64,
}

impl Served {
    async fn read(cluster: &Cluster) -> anyhow::Result<Self> {
        let request = http::Request::get("/metrics").body(Vec::new())?;
        let text = cluster
            .client
            .request_text(request)
            .await
            .context("read the API server's metrics")?;
        let mut served = Self {
            requests: BTreeMap::new(),
            cpu: 0.0,
        };
        for line in text.lines() {
            let Some((name, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let value: f64 = value.parse().unwrap_or_default();
            if name == "process_cpu_seconds_total" {
                served.cpu = value;
            } else if name.starts_with("apiserver_request_total{") {
                let label = |key: &str| {
                    let (_, rest) = name.split_once(&format!("{key}=\""))?;
                    rest.split_once('"').map(|(value, _)| value)
                };
                let (Some(verb), Some(resource)) = (label("verb"), label("resource")) else {
                    continue;
                };
                if matches!(verb, "LIST" | "WATCH") && !resource.is_empty() {
                    *served.requests.entry(format!("{verb} {resource}")).or_default() += value;
                }
            }
        }
        Ok(served)
    }

    /// What `agents` starts took.
    fn since(&self, before: &Self, agents: usize) -> Row {
        #[expect(clippy::cast_precision_loss, reason = "a handful")]
        let agents = agents as f64;
        let ours = [
            "pods",
            "azureidentities",
            "azureidentitybindings",
            "azurepodidentityexceptions",
        ];
        let more: f64 = self
            .requests
            .iter()
            .filter(|(name, _)| ours.iter().any(|kind| name.ends_with(&format!(" {kind}"))))
            .map(|(name, now)| now - before.requests.get(name).copied().unwrap_or_default())
            .sum();
        let cpu = Duration::from_secs_f64((self.cpu - before.cpu).max(0.0) / agents);
        Row::noted(
            "what one agent's start takes of the API server",
            format!(
                "{:.1} requests (lists, and watches that ended), {} CPU",
                more / agents,
                time(cpu)
            ),
        )
        .with("requests", more / agents)
        .with("cpu_us", micros(cpu))
    }
}
