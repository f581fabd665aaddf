//! Nodes wait for their agent: the start-up taint on nodes of the embedded API server.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test helpers")]

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams, PostParams};
use podid_controller::{DEFAULT_KEY, StartupTaint};
use podid_testkit::eventually;
use serde_json::{Value, json};

use crate::world::{World, meddle};

const NOTE: &str = "podid.dev/agent-ready";
const NOT_READY: &str = "node.kubernetes.io/not-ready";

fn keep() -> StartupTaint {
    StartupTaint {
        key: DEFAULT_KEY.to_owned(),
        remove: false,
        agent_namespace: "podid-system".to_owned(),
        agent_selector: "app.kubernetes.io/component=nmi".to_owned(),
        node_selector: "kubernetes.io/os=linux".parse().unwrap(),
    }
}

/// Nodes and their agents, as a kubelet would write them.
struct Machines {
    world: World,
    nodes: Api<Node>,
    pods: Api<Pod>,
}

impl Machines {
    async fn new() -> Self {
        let world = World::without_controller().await;
        world.namespace("podid-system").await;
        Self {
            nodes: Api::all(world.client.clone()),
            pods: Api::namespaced(world.client.clone(), "podid-system"),
            world,
        }
    }

    async fn controller(mut self, taint: StartupTaint) -> Self {
        self.world = self.world.start_controller_with(None, Some(taint)).await;
        self
    }

    /// A node registers. As a real API server does, it is made with the taint of a node that is not Ready.
    async fn registers(&self, name: &str, os: &str, taints: &[&str]) {
        let taints: Vec<Value> = taints
            .iter()
            .map(|key| json!({ "key": key, "effect": "NoSchedule" }))
            .collect();
        let node: Node = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { "kubernetes.io/os": os } }, "spec": { "taints": taints },
        }))
        .unwrap();
        self.nodes.create(&PostParams::default(), &node).await.unwrap();
        self.boots(name, "boot-1").await;
    }

    async fn boots(&self, name: &str, boot: &str) {
        let status = json!({ "status": { "nodeInfo": {
            "bootID": boot, "architecture": "", "containerRuntimeVersion": "", "kernelVersion": "", "kubeProxyVersion": "",
            "kubeletVersion": "", "machineID": "", "operatingSystem": "", "osImage": "", "systemUUID": "",
        } } });
        self.nodes
            .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }

    /// The kubelet says that the agent there is Ready, or not, in this container.
    async fn agent(&self, node: &str, container: &str, ready: bool) {
        let name = format!("agent-{node}");
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { "app.kubernetes.io/component": "nmi" } },
            "spec": { "nodeName": node, "containers": [{ "name": "nmi", "image": "agent" }] },
        }))
        .unwrap();
        if self.pods.get_opt(&name).await.unwrap().is_none() {
            self.pods.create(&PostParams::default(), &pod).await.unwrap();
        }
        let status = json!({ "status": {
            "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }],
            "containerStatuses": [{
                "name": "nmi", "containerID": container, "image": "agent", "imageID": "", "ready": ready, "restartCount": 0,
            }],
        } });
        self.pods
            .patch_status(&name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }

    /// The keys of a node's taints and what is noted on it.
    async fn seen(&self, name: &str) -> (Vec<String>, Option<String>) {
        let node = self.nodes.get(name).await.unwrap();
        let note = node.annotations().get(NOTE).cloned();
        let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
        (taints.into_iter().map(|taint| taint.key).collect(), note)
    }

    async fn until(&self, name: &str, taints: &[&str], note: Option<&str>) {
        let what = format!("{name} has the taints {taints:?} and the note {note:?}");
        let same = eventually(&what, || async {
            let (now, noted) = self.seen(name).await;
            if now == taints && noted.as_deref() == note {
                Ok(())
            } else {
                Err((now, noted))
            }
        });
        same.await.unwrap_or_else(|why| panic!("{why}"));
    }
}

#[tokio::test]
async fn a_new_node_is_closed_until_its_agent_is_ready() {
    let nodes = Machines::new().await.controller(keep()).await;
    nodes.registers("one", "linux", &[NOT_READY]).await;
    nodes.until("one", &[NOT_READY, DEFAULT_KEY], None).await;
    nodes.agent("one", "c1", false).await;
    // The node itself becomes Ready; its agent is not yet.
    let ready = json!({ "spec": { "taints": [{ "key": DEFAULT_KEY, "effect": "NoSchedule" }] } });
    meddle(&nodes.nodes, "one", ready).await;
    // A second node goes the whole way meanwhile, so the controller has looked.
    nodes.registers("two", "linux", &[NOT_READY]).await;
    nodes.agent("two", "c2", true).await;
    nodes.until("two", &[NOT_READY], Some("boot-1 c2")).await;
    nodes.until("one", &[DEFAULT_KEY], None).await;
    nodes.agent("one", "c1", true).await;
    nodes.until("one", &[], Some("boot-1 c1")).await;
}

#[tokio::test]
async fn a_cluster_that_runs_already_is_not_closed_when_agents_are_replaced() {
    let nodes = Machines::new().await;
    nodes.registers("old", "linux", &[]).await;
    nodes.registers("windows", "windows", &[NOT_READY]).await;
    nodes.registers("virtual", "linux", &[NOT_READY]).await;
    let virtual_node = json!({ "metadata": { "labels": { "type": "virtual-kubelet" } } });
    meddle(&nodes.nodes, "virtual", virtual_node).await;
    let nodes = nodes.controller(keep()).await;
    nodes.agent("old", "c1", true).await;
    nodes.until("old", &[], Some("boot-1 c1")).await;
    nodes.agent("old", "c1", false).await;
    nodes.agent("old", "c2", false).await;
    nodes.agent("old", "c2", true).await;
    nodes.until("old", &[], Some("boot-1 c2")).await;
    for without_agents in ["windows", "virtual"] {
        nodes.until(without_agents, &[NOT_READY], None).await;
    }
}

#[tokio::test]
async fn a_rebooted_node_is_closed_although_the_kubelet_still_tells_of_the_agent_that_was() {
    let nodes = Machines::new().await.controller(keep()).await;
    nodes.registers("one", "linux", &[NOT_READY]).await;
    nodes.agent("one", "c1", true).await;
    nodes.until("one", &[NOT_READY], Some("boot-1 c1")).await;
    nodes.boots("one", "boot-2").await;
    nodes
        .until("one", &[NOT_READY, DEFAULT_KEY], Some("boot-1 c1"))
        .await;
    nodes.agent("one", "c2", true).await;
    nodes.until("one", &[NOT_READY], Some("boot-2 c2")).await;
}

#[tokio::test]
async fn nothing_stays_on_the_nodes_when_it_is_to_be_removed() {
    let nodes = Machines::new().await;
    nodes
        .registers("waiting", "linux", &[NOT_READY, DEFAULT_KEY])
        .await;
    nodes.registers("noted", "linux", &["theirs"]).await;
    let note = json!({ "metadata": { "annotations": { NOTE: "boot-1 c1" } } });
    meddle(&nodes.nodes, "noted", note).await;
    let remove = StartupTaint {
        remove: true,
        ..keep()
    };
    // Ready means that it is done.
    let nodes = nodes.controller(remove).await;
    assert_eq!(nodes.seen("waiting").await, (vec![NOT_READY.to_owned()], None));
    assert_eq!(nodes.seen("noted").await, (vec!["theirs".to_owned()], None));
}
