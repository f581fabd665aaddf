//! Agents and pods that come and go on real nodes: askers that ask all the time on every node, and addresses that are used
//! again at once. After each event the agents serve from the moment they say so, and no pod's request goes past them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::azure::Identity;
use super::story::{APP, NODES, SYSTEM, World, is_token_of};
use super::workload::{Answered, Ask, container, curl, pod};
use crate::kube::cluster::eventually;

/// How many answers must be right in a row before an agent counts as serving.
const IN_A_ROW: usize = 8;
/// Rounds of one address going from pod to pod.
const REUSES: usize = 6;

/// An agent's container, for each node that has a Ready one.
type Agents = BTreeMap<String, String>;

impl World<'_> {
    /// Pods ask all the time while agents are upgraded, deleted, killed, and a node is drained.
    pub(super) fn restarts(&self, identity: &Identity) -> anyhow::Result<()> {
        let since = self.azure.last_request()?;
        self.start_askers()?;
        let all: Vec<&str> = NODES.iter().map(|(node, _)| *node).collect();
        self.serve(&all).context("before anything happens")?;

        let before = self.agents()?;
        self.kubectl
            .run(&["-n", SYSTEM, "rollout", "restart", "daemonset/podid-nmi"])?;
        self.replaced(&before, &all).context("by a rollout")?;
        self.serve(&all).context("after a rollout")?;

        let before = self.agents()?;
        let component = "app.kubernetes.io/component=nmi";
        self.kubectl
            .run(&["-n", SYSTEM, "delete", "pods", "-l", component])?;
        self.replaced(&before, &all)
            .context("after their pods were deleted")?;
        self.serve(&all).context("after their pods were deleted")?;

        let before = self.agents()?;
        for node in &all {
            self.cluster
                .run_inside(Some(node), &["sh", "-c", "kill -KILL $(pidof podid-nmi)"])?
                .ok()?;
        }
        self.replaced(&before, &all).context("after they were killed")?;
        self.serve(&all).context("after they were killed")?;

        for node in &all {
            self.drain(node).with_context(|| format!("{node} is drained"))?;
        }
        self.kubectl.delete(APP, "daemonset", "asker")?;
        let answered = self.kubectl.ask(&Ask {
            name: "after",
            namespace: APP,
            labels: vec![("aadpodidbinding", "my-pod-identity")],
            ..Ask::default()
        })?;
        is_token_of(&answered, identity)?;
        self.no_leak(since)
    }

    /// Everything that can leave leaves; agents and askers are DaemonSets and stay. Then the agent is deleted while the
    /// node is closed to others.
    fn drain(&self, node: &str) -> anyhow::Result<()> {
        self.kubectl.run(&[
            "drain",
            node,
            "--ignore-daemonsets",
            "--force",
            "--delete-emptydir-data",
            "--timeout=60s",
        ])?;
        self.serve(&[node])?;
        let before = self.agents()?;
        let on_node = format!("--field-selector=spec.nodeName={node}");
        let component = "app.kubernetes.io/component=nmi";
        self.kubectl
            .run(&["-n", SYSTEM, "delete", "pods", "-l", component, &on_node])?;
        self.replaced(&before, &[node])?;
        self.serve(&[node])?;
        self.kubectl.run(&["uncordon", node])?;
        // It was on the first node, or is on the second one now.
        self.kubectl
            .run(&[
                "-n",
                SYSTEM,
                "rollout",
                "status",
                "deployment/podid-controller",
                "--timeout=60s",
            ])
            .map(drop)
    }

    /// A pod on every node that asks ten times a second and writes each status on a line.
    fn start_askers(&self) -> anyhow::Result<()> {
        let command = curl("").replace("--max-time 40", "--max-time 3 --output /dev/null");
        let command = format!("while :; do {command}; sleep 0.1; done");
        let labels = json!({ "app": "asker", "aadpodidbinding": "my-pod-identity" });
        self.kubectl.create(&json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": "asker", "namespace": APP },
            "spec": {
                "selector": { "matchLabels": { "app": "asker" } },
                "template": {
                    "metadata": { "labels": labels },
                    "spec": { "terminationGracePeriodSeconds": 1, "containers": [container(&command)] },
                },
            },
        }))?;
        self.kubectl
            .run(&["-n", APP, "rollout", "status", "daemonset/asker", "--timeout=60s"])
            .map(drop)
    }

    /// From now on, every request on these nodes gets a token. The one that is on its way may have begun before.
    fn serve(&self, nodes: &[&str]) -> anyhow::Result<()> {
        for node in nodes {
            let name = self.kubectl.run(&[
                "-n",
                APP,
                "get",
                "pods",
                "-l",
                "app=asker",
                &format!("--field-selector=spec.nodeName={node}"),
                "--output=jsonpath={.items[0].metadata.name}",
            ])?;
            let answers = || {
                let log = self.kubectl.run(&["-n", APP, "logs", &name])?;
                let lines = log.lines().filter(|line| !line.is_empty());
                anyhow::Ok(lines.map(str::to_owned).collect::<Vec<_>>())
            };
            let begun_before = answers()?.len() + 1;
            let mut seen = Vec::new();
            eventually("enough answers", Duration::from_mins(1), || {
                seen = answers().unwrap_or_default();
                seen.len() >= begun_before + IN_A_ROW
            })?;
            let after: Vec<&String> = seen.iter().skip(begun_before).collect();
            ensure!(
                after.iter().all(|&answer| answer == "200"),
                "{node} was answered {after:?}"
            );
        }
        Ok(())
    }

    /// The agents that are Ready.
    pub(super) fn agents(&self) -> anyhow::Result<Agents> {
        let component = "app.kubernetes.io/component=nmi";
        let said = self
            .kubectl
            .run(&["-n", SYSTEM, "get", "pods", "-l", component, "--output=json"])?;
        let said: Value = serde_json::from_str(&said)?;
        let pods = said.get("items").and_then(Value::as_array).cloned();
        let ready = pods.unwrap_or_default().into_iter().filter_map(|pod| {
            let status = pod.pointer("/status/containerStatuses/0")?;
            let serves =
                status.get("ready")? == &json!(true) && pod.pointer("/metadata/deletionTimestamp").is_none();
            let text = |value: Option<&Value>| Some(value?.as_str()?.to_owned());
            let found = (
                text(pod.pointer("/spec/nodeName"))?,
                text(status.get("containerID"))?,
            );
            serves.then_some(found)
        });
        Ok(ready.collect())
    }

    /// Waits until these nodes have agents that are Ready and not those that were there `before`.
    fn replaced(&self, before: &Agents, nodes: &[&str]) -> anyhow::Result<()> {
        let mut now = Agents::new();
        let done = eventually("new agents are ready", Duration::from_mins(2), || {
            now = self.agents().unwrap_or_default();
            nodes
                .iter()
                .all(|&node| now.get(node).is_some_and(|agent| before.get(node) != Some(agent)))
        });
        done.with_context(|| format!("{before:?} → {now:?}"))
    }

    /// The address of a pod with an identity goes to the next pod at once, which gets what is its own or nothing.
    pub(super) fn reused_addresses(&self, identity: &Identity) -> anyhow::Result<()> {
        let since = self.azure.last_request()?;
        let other = self.azure.create_identity("myIdentityResourceGroup", "other")?;
        self.azure.add_pod_identity(APP, "other", &other, Some("other"))?;
        let [(node, _), ..] = NODES;
        for round in 0..REUSES {
            let own = [Some("other"), None, Some("missing")]
                .into_iter()
                .cycle()
                .nth(round)
                .flatten();
            let first = Ask {
                name: "first",
                namespace: APP,
                labels: vec![("aadpodidbinding", "my-pod-identity")],
                node: Some(node),
                ..Ask::default()
            };
            let stays = format!("{}; sleep 600", curl(""));
            self.lowest_address_next(node)?;
            self.kubectl
                .create(&pod(&first, json!([container(&stays)]), json!([])))?;
            let log = || {
                self.kubectl
                    .run(&["-n", APP, "logs", "first"])
                    .unwrap_or_default()
            };
            eventually("the first pod has its token", Duration::from_mins(1), || {
                log().trim_end().ends_with("200")
            })
            .with_context(log)?;
            let address = self.address("first")?;

            let next = Ask {
                name: "next",
                labels: own.map(|own| ("aadpodidbinding", own)).into_iter().collect(),
                ..first.clone()
            };
            self.kubectl.delete(APP, "pod", "first")?;
            self.lowest_address_next(node)?;
            self.kubectl
                .create(&pod(&next, json!([container(&curl(""))]), json!([])))?;
            self.kubectl.finished(APP, "pod/next")?;
            let now = self.address("next")?;
            let answered = Answered::read(&self.kubectl.run(&["-n", APP, "logs", "next"])?)?;
            self.kubectl.delete(APP, "pod", "next")?;
            ensure!(now == address, "the address was {address} and is {now}");
            ensure!(
                answered.client_id().as_deref() != Some(&identity.client_id),
                "{now} got a token of the pod that had it before"
            );
            if own == Some("other") {
                is_token_of(&answered, &other)?;
            } else {
                ensure!((400..500).contains(&answered.status), "{own:?}: {answered:?}");
            }
        }
        self.no_leak(since)
    }

    /// Makes the node give the lowest free address to its next pod, not the one after the last.
    fn lowest_address_next(&self, node: &str) -> anyhow::Result<()> {
        let last = "/var/lib/cni/networks/pods/last_reserved_ip.0";
        self.cluster
            .run_inside(Some(node), &["rm", "-f", last])?
            .ok()
            .map(drop)
    }

    fn address(&self, pod: &str) -> anyhow::Result<String> {
        self.kubectl
            .run(&["-n", APP, "get", "pod", pod, "--output=jsonpath={.status.podIP}"])
    }

    /// A pod on the host's network has the node's own way to the metadata service, as on AKS; it gets no identity of the
    /// pods'.
    pub(super) fn host_network(&self, identity: &Identity) -> anyhow::Result<()> {
        for (node, address) in NODES {
            let since = self.azure.last_request()?;
            let ask = Ask {
                name: "host",
                namespace: APP,
                labels: vec![("aadpodidbinding", "my-pod-identity")],
                node: Some(node),
                ..Ask::default()
            };
            let mut pod = pod(&ask, json!([container(&curl(""))]), json!([]));
            if let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) {
                spec.insert("hostNetwork".to_owned(), json!(true));
            }
            self.kubectl.create(&pod)?;
            self.kubectl.finished(APP, "pod/host")?;
            let answered = Answered::read(&self.kubectl.run(&["-n", APP, "logs", "host"])?)?;
            self.kubectl.delete(APP, "pod", "host")?;
            let seen = self.azure.metadata_requests(since)?;
            let node_address = std::net::IpAddr::from(address);
            ensure!(
                seen.iter().any(|(from, _)| *from == node_address),
                "{node}: the metadata service saw {seen:?}, the pod {answered:?}"
            );
            ensure!(
                answered.client_id().as_deref() != Some(&identity.client_id),
                "{node}: a pod on the host's network got {answered:?}"
            );
        }
        Ok(())
    }
}
