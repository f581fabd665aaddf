//! Nodes that are added while Jobs wait for them: pods wait until the agent serves there, whoever closes the node and
//! whatever is late, and the first request of each gets its token.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::azure::Identity;
use super::story::{APP, FRESH, SYSTEM, World, is_token_of};
use super::workload::{Answered, Ask, container, curl, pod, template};
use crate::image::IMAGES;
use crate::kube::cluster::{NodePlan, eventually};
use crate::kube::config::{Cni, Proxy};

const TAINT: &str = "podid.dev/agent-not-ready";
const NOTE: &str = "podid.dev/agent-ready";
/// Jobs that wait for each node.
const JOBS: usize = 4;

impl World<'_> {
    /// The API server closes the node. Its agent is late, and then the controller is.
    pub(super) fn new_node_by_policy(&self, identity: &Identity) -> anyhow::Result<()> {
        let [(node, _), _] = FRESH;
        let since = self.azure.last_request()?;
        self.kubectl.run(&[
            "get",
            "mutatingadmissionpolicies.admissionregistration.k8s.io",
            "podid-startup-taint",
        ])?;
        self.scale_controller(0)?;
        self.create_jobs(node)?;
        // Without the agent's image.
        self.add(node, Cni::Ptp, false)?;
        self.tolerant_pods_come(node)?;
        ensure!(self.closed(node)?, "{node} is Ready and open, without an agent");
        self.nothing_ran(node)?;
        for image in self.archives() {
            self.cluster.load(&image)?;
        }
        // The kubelet waits longer and longer before it looks for a missing image again.
        let on_node = format!("--field-selector=spec.nodeName={node}");
        let component = "app.kubernetes.io/component=nmi";
        self.kubectl
            .run(&["-n", SYSTEM, "delete", "pods", "-l", component, &on_node])?;
        eventually("the agent is ready", Duration::from_mins(1), || {
            self.agent_is_ready(node)
        })?;
        self.tolerant_pods_come(node)?;
        ensure!(
            self.closed(node)?,
            "{node} is open although no controller is there to open it"
        );
        self.nothing_ran(node)?;
        self.scale_controller(1)?;
        self.jobs_have_tokens(node, identity)?;
        ensure!(!self.closed(node)?, "{node} is still closed");
        self.no_leak(since)
    }

    /// Where the API server has no such policies, the controller closes the node before pods can come.
    pub(super) fn new_node_by_controller(&self, identity: &Identity) -> anyhow::Result<()> {
        let [_, (node, _)] = FRESH;
        self.helm("upgrade", &["startupTaint.admissionPolicy=never"])?;
        let since = self.azure.last_request()?;
        self.create_jobs(node)?;
        self.add(node, Cni::Bridge, true)?;
        self.jobs_have_tokens(node, identity)?;
        let log = self
            .kubectl
            .run(&["-n", SYSTEM, "logs", "deployment/podid-controller"])?;
        let closed = log
            .lines()
            .any(|line| line.contains(node) && line.contains("\"close\""));
        ensure!(closed, "the controller never closed {node}: {log}");
        self.no_leak(since)?;
        self.helm("upgrade", &["startupTaint.admissionPolicy=auto"])
    }

    /// The controller's right to patch nodes is held to the taint.
    pub(super) fn node_rights(&self) -> anyhow::Result<()> {
        let who = format!("--as=system:serviceaccount:{SYSTEM}:podid-controller");
        // kubectl reads what it patches, which the controller may not.
        let reader = "e2e-reader";
        self.kubectl
            .run(&["create", "clusterrole", reader, "--verb=get", "--resource=nodes"])?;
        self.kubectl.run(&[
            "create",
            "clusterrolebinding",
            reader,
            "--clusterrole=e2e-reader",
            "--group=e2e-reader",
        ])?;
        for patch in [
            json!({ "metadata": { "labels": { "podid-e2e": "x" } } }),
            json!({ "metadata": { "annotations": { "podid-e2e": "x" } } }),
            json!({ "spec": { "taints": [{ "key": "podid-e2e", "effect": "NoSchedule" }] } }),
            json!({ "spec": { "unschedulable": true } }),
        ] {
            let refused = self.patch_as(&who, &patch);
            let said = match refused {
                Ok(()) => bail!("the controller may {patch}"),
                Err(error) => format!("{error:#}"),
            };
            ensure!(
                said.contains("may change the taint podid.dev/agent-not-ready"),
                "{patch}: {said}"
            );
        }
        self.patch_as(
            &who,
            &json!({ "metadata": { "annotations": { NOTE: "boot container" } } }),
        )?;
        self.kubectl
            .run(&["delete", "clusterrole,clusterrolebinding", reader])
            .map(drop)
    }

    fn patch_as(&self, who: &str, patch: &Value) -> anyhow::Result<()> {
        let patch = format!("--patch={patch}");
        self.kubectl
            .run(&[
                "patch",
                "node",
                "n1",
                "--type=merge",
                "--dry-run=server",
                &patch,
                who,
                "--as-group=e2e-reader",
            ])
            .map(drop)
    }

    /// Nodes with the taint or the note.
    pub(super) fn marked_nodes(&self) -> anyhow::Result<Vec<String>> {
        let nodes: Value = serde_json::from_str(&self.kubectl.run(&["get", "nodes", "--output=json"])?)?;
        let nodes = nodes.get("items").and_then(Value::as_array).cloned();
        let text: Vec<String> = nodes
            .unwrap_or_default()
            .iter()
            .filter(|node| {
                has_taint(node)
                    || node
                        .pointer("/metadata/annotations")
                        .is_some_and(|all| all.get(NOTE).is_some())
            })
            .filter_map(|node| Some(node.pointer("/metadata/name")?.as_str()?.to_owned()))
            .collect();
        Ok(text)
    }

    fn add(&self, name: &str, cni: Cni, with_images: bool) -> anyhow::Result<()> {
        self.cluster.add_node(NodePlan {
            name: name.to_owned(),
            cni,
            proxy: Proxy::None,
            labels: std::collections::BTreeMap::new(),
            provider_id: None,
            images: if with_images { self.archives() } else { Vec::new() },
        })
    }

    /// The archives that `load_images` wrote.
    fn archives(&self) -> Vec<std::path::PathBuf> {
        let file = |name: &str| self.folder.join(format!("{name}.tar"));
        IMAGES.iter().map(|one| file(one.name)).collect()
    }

    fn scale_controller(&self, replicas: usize) -> anyhow::Result<()> {
        let replicas_flag = format!("--replicas={replicas}");
        self.kubectl.run(&[
            "-n",
            SYSTEM,
            "scale",
            "deployment/podid-controller",
            &replicas_flag,
        ])?;
        if replicas > 0 {
            return Ok(());
        }
        let component = "app.kubernetes.io/component=controller";
        self.kubectl
            .run(&[
                "-n",
                SYSTEM,
                "wait",
                "--for=delete",
                "pods",
                "-l",
                component,
                "--timeout=60s",
            ])
            .map(drop)
    }

    fn create_jobs(&self, node: &str) -> anyhow::Result<()> {
        for number in 0..JOBS {
            let name = format!("{node}-{number}");
            let ask = Ask {
                name: &name,
                namespace: APP,
                labels: vec![("aadpodidbinding", "my-pod-identity"), ("waits-for", node)],
                node: Some(node),
                ..Ask::default()
            };
            let template = template(&ask, json!([container(&curl(""))]), json!([]));
            self.kubectl.create(&json!({
                "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": name, "namespace": APP },
                "spec": { "template": template, "backoffLimit": 0 },
            }))?;
        }
        Ok(())
    }

    fn pods_of(&self, node: &str, path: &str) -> anyhow::Result<String> {
        let selector = format!("waits-for={node}");
        let output = format!("--output=jsonpath={path}");
        self.kubectl
            .run(&["-n", APP, "get", "pods", "-l", &selector, &output])
    }

    /// A pod that tolerates everything is scheduled to the node and runs there, after the others were made: so the
    /// scheduler has looked at the node, and it is the taint that keeps them off. It does not ask for anything.
    fn tolerant_pods_come(&self, node: &str) -> anyhow::Result<()> {
        let ask = Ask {
            name: "tolerant",
            namespace: APP,
            node: Some(node),
            ..Ask::default()
        };
        let mut pod = pod(&ask, json!([container("true")]), json!([]));
        if let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) {
            spec.insert("tolerations".to_owned(), json!([{ "operator": "Exists" }]));
        }
        self.kubectl.create(&pod)?;
        self.kubectl.finished(APP, "pod/tolerant")?;
        self.kubectl.delete(APP, "pod", "tolerant")
    }

    fn nothing_ran(&self, node: &str) -> anyhow::Result<()> {
        let on = self.pods_of(node, "{.items[*].spec.nodeName}")?;
        ensure!(on.is_empty(), "pods came to {node}");
        Ok(())
    }

    fn closed(&self, node: &str) -> anyhow::Result<bool> {
        let node = self.kubectl.run(&["get", "node", node, "--output=json"])?;
        Ok(has_taint(&serde_json::from_str(&node)?))
    }

    fn agent_is_ready(&self, node: &str) -> bool {
        self.agents().is_ok_and(|agents| agents.contains_key(node))
    }

    fn jobs_have_tokens(&self, node: &str, identity: &Identity) -> anyhow::Result<()> {
        for number in 0..JOBS {
            let job = format!("job/{node}-{number}");
            self.kubectl
                .run(&[
                    "-n",
                    APP,
                    "wait",
                    "--for=condition=complete",
                    "--timeout=90s",
                    &job,
                ])
                .with_context(|| self.kubectl.run(&["describe", "node", node]).unwrap_or_default())?;
            let answered = Answered::read(&self.kubectl.run(&["-n", APP, "logs", &job])?)?;
            is_token_of(&answered, identity)?;
            self.kubectl.delete(APP, "job", &format!("{node}-{number}"))?;
        }
        Ok(())
    }
}

fn has_taint(node: &Value) -> bool {
    let taints = node.pointer("/spec/taints").and_then(Value::as_array);
    taints.is_some_and(|taints| taints.iter().any(|taint| taint.get("key") == Some(&json!(TAINT))))
}
