//! The tutorial on real nodes, and what goes wrong on them: refusals, restarts, upgrades, removal. One list of steps; the
//! invariant behind all is that no pod's request reaches the metadata service by itself.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;

use super::Steps;
use super::azure::{Azure, Identity, SUBSCRIPTION};
use super::workload::{Answered, Ask, Kubectl, container, curl, pod, template};
use crate::kube::cluster::{Cluster, NodePlan, eventually};
use crate::kube::config::{Cni, Proxy};

/// Where podid is installed.
pub(super) const SYSTEM: &str = "podid-system";
pub(super) const APP: &str = "my-app";
/// The nodes and their addresses.
pub(super) const NODES: [(&str, [u8; 4]); 2] = [("n1", [10, 89, 0, 11]), ("n2", [10, 89, 0, 12])];

/// Nodes that are added later.
pub(super) const FRESH: [(&str, [u8; 4]); 2] = [("n3", [10, 89, 0, 13]), ("n4", [10, 89, 0, 14])];

/// Everything that a step needs.
pub(super) struct World<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) kubectl: Kubectl<'a>,
    pub(super) azure: Azure<'a>,
    pub(super) folder: PathBuf,
}

/// Tells it.
pub(super) fn tell(cluster: &Cluster, steps: &Steps) -> anyhow::Result<()> {
    let world = World::raise(cluster, steps)?;
    let before = world.routing()?;

    steps.step(
        "an aad-pod-identity that is there already is found, and the chart refuses",
        || world.refuses_other(),
    )?;
    steps.step(
        "without podid a pod does reach the metadata service, and it is seen",
        || world.control(),
    )?;
    super::ways::tell(&world, steps, &before)?;
    steps.step(
        "helm install of the chart before, helm upgrade: no object of the user's is lost",
        || world.upgraded(),
    )?;
    steps.step("the agents may read their watches and nothing else", || {
        world.rights()
    })?;
    let identity = steps.step(
        "a managed cluster with pod identity, an identity, pod-identity add",
        || {
            world.azure.create_cluster(NODES.len())?;
            world.azure.create_group("myIdentityResourceGroup")?;
            let identity = world
                .azure
                .create_identity("myIdentityResourceGroup", "application-identity")?;
            world
                .azure
                .add_pod_identity(APP, "my-pod-identity", &identity, None)?;
            Ok(identity)
        },
    )?;
    let start = world.azure.last_request()?;
    steps.step(
        "demo.yaml as written: its four lines by kubectl logs --follow",
        || world.demo(&identity),
    )?;
    steps.step(
        "two identities under one selector, each by its client id, on both nodes",
        || world.two_identities(),
    )?;
    steps.step(
        "no label, and another namespace with the same label: refused",
        || world.refusals(),
    )?;
    steps.step("an excepted pod reaches the real metadata service", || {
        world.exception()
    })?;
    steps.step(
        "Job, CronJob and init container: the first request is answered",
        || world.first_requests(&identity),
    )?;
    steps.step(
        "a pod on the host's network has the node's own way, and no identity of the pods'",
        || world.host_network(&identity),
    )?;
    steps.step(
        "an address that the next pod has at once: never the identity of the one before",
        || world.reused_addresses(&identity),
    )?;
    steps.step(
        "agents that are upgraded, deleted, killed, their node drained: no pod reaches the metadata service",
        || world.restarts(&identity),
    )?;
    steps.step(
        "the controller may change the start-up taint of a node, and nothing else of it",
        || world.node_rights(),
    )?;
    steps.step(
        "a node is added while Jobs wait, its agent late and the controller away: they wait, then get their tokens",
        || world.new_node_by_policy(&identity),
    )?;
    steps.step("the same where only the controller closes the node", || {
        world.new_node_by_controller(&identity)
    })?;
    steps.step("pod-identity delete: refused", || world.deletion())?;
    steps.step("pods that keep NET_RAW are refused by policy", || world.net_raw())?;
    steps.step(
        "no request of a pod's own has reached the metadata service",
        || world.no_leak(start),
    )?;
    steps.step(
        "uninstall leaves no rule, no route, no object of ours, and every object of the user's",
        || world.uninstall(&before),
    )
}

impl<'a> World<'a> {
    /// Two nodes, Azure, and the images that podid is installed from.
    pub(super) fn raise(cluster: &'a Cluster, steps: &Steps) -> anyhow::Result<Self> {
        let folder = cluster
            .kubeconfig("admin")
            .parent()
            .context("a kubeconfig lies in a folder")?
            .to_owned();
        steps.step(
            "two nodes: point-to-point without kube-proxy, bridge with nftables",
            || {
                for ((name, _), (cni, proxy)) in NODES
                    .into_iter()
                    .zip([(Cni::Ptp, Proxy::None), (Cni::Bridge, Proxy::Nftables)])
                {
                    let name = name.to_owned();
                    cluster.add_node(NodePlan {
                        name,
                        cni,
                        proxy,
                        labels: BTreeMap::new(),
                        provider_id: None,
                        images: Vec::new(),
                    })?;
                }
                Ok(())
            },
        )?;
        let azure = steps.step(
            "Azure in the cluster's network, its metadata service on the nodes' way",
            || {
                let nodes: Vec<_> = NODES
                    .iter()
                    .chain(&FRESH)
                    .map(|&(name, address)| (name, IpAddr::from(address)))
                    .collect();
                Azure::start(cluster, &nodes, &folder)
            },
        )?;
        let world = World {
            cluster,
            kubectl: Kubectl(cluster),
            azure,
            folder,
        };
        steps.step("images of agent, controller and demo on every node", || {
            world.load_images()
        })?;
        Ok(world)
    }
}

impl World<'_> {
    /// What the checks for leaks would see.
    fn control(&self) -> anyhow::Result<()> {
        let since = self.azure.last_request()?;
        for (node, _) in NODES {
            let ask = Ask {
                name: "control",
                namespace: "default",
                node: Some(node),
                ..Ask::default()
            };
            self.kubectl.ask(&ask)?;
        }
        let leaks = self.leaks(since)?;
        ensure!(leaks.len() == NODES.len(), "seen: {leaks:?}");
        Ok(())
    }

    fn demo(&self, identity: &Identity) -> anyhow::Result<()> {
        let text = std::fs::read_to_string(crate::root()?.join("docs/guides/demo.yaml"))
            .context("read demo.yaml")?;
        let text = text
            .replace("POD_IDENTITY_NAME", "my-pod-identity")
            .replace("SUBSCRIPTION_ID", SUBSCRIPTION)
            .replace("IDENTITY_CLIENT_ID", &identity.client_id)
            .replace("IDENTITY_RESOURCE_GROUP", "myIdentityResourceGroup");
        self.kubectl
            .feed(&["apply", "--namespace", APP, "-f", "-"], &text)?;
        self.kubectl.run(&[
            "-n",
            APP,
            "wait",
            "--for=condition=Ready",
            "--timeout=60s",
            "pod/demo",
        ])?;
        let log = self.folder.join("demo.log");
        let mut follow = self
            .cluster
            .kubectl()
            .args(["logs", "demo", "--follow", "--namespace", APP])
            .stdout(std::fs::File::create(&log)?)
            .stderr(Stdio::null())
            .spawn()
            .context("start kubectl logs")?;
        let endpoint = "msiEndpoint(http://169.254.169.254/metadata/identity/oauth2/token)";
        let lines = [
            "successfully doARMOperations vm count 0".to_owned(),
            format!("successfully acquired a token using the MSI, {endpoint}"),
            format!(
                "successfully acquired a token, userAssignedID MSI, {endpoint} clientID({})",
                identity.client_id
            ),
            "successfully made GET on instance metadata".to_owned(),
        ];
        let seen = || std::fs::read_to_string(&log).unwrap_or_default();
        let done = eventually("the four lines", Duration::from_secs(40), || {
            let seen = seen();
            lines.iter().all(|line| seen.contains(line.as_str()))
        });
        follow.kill()?;
        follow.wait()?;
        done.with_context(seen)?;
        self.kubectl.delete(APP, "pod", "demo")
    }

    fn two_identities(&self) -> anyhow::Result<()> {
        let mut identities = Vec::new();
        for name in ["application-identity_1", "application-identity_2"] {
            let identity = self.azure.create_identity("myIdentityResourceGroup", name)?;
            self.azure
                .add_pod_identity(APP, &name.replace('_', "-"), &identity, Some("foo"))?;
            identities.push(identity);
        }
        for (node, _) in NODES {
            for identity in &identities {
                let answered = self.kubectl.ask(&Ask {
                    name: "two",
                    namespace: APP,
                    labels: vec![("aadpodidbinding", "foo")],
                    node: Some(node),
                    url: format!("&client_id={}", identity.client_id),
                })?;
                is_token_of(&answered, identity)?;
            }
        }
        Ok(())
    }

    fn refusals(&self) -> anyhow::Result<()> {
        self.kubectl.namespace("other")?;
        for (namespace, labels) in [
            (APP, vec![]),
            ("other", vec![("aadpodidbinding", "my-pod-identity")]),
        ] {
            let answered = self.kubectl.ask(&Ask {
                name: "refused",
                namespace,
                labels,
                ..Ask::default()
            })?;
            ensure!((400..500).contains(&answered.status), "{namespace}: {answered:?}");
        }
        Ok(())
    }

    fn exception(&self) -> anyhow::Result<()> {
        self.azure
            .add_exception(APP, "excepted", &json!({ "app": "excepted" }))?;
        self.kubectl.run(&[
            "-n",
            APP,
            "wait",
            "--for=create",
            "--timeout=20s",
            "azurepodidentityexceptions.aadpodidentity.k8s.io/excepted",
        ])?;
        let since = self.azure.last_request()?;
        let answered = self.kubectl.ask(&Ask {
            name: "excepted",
            namespace: APP,
            labels: vec![("app", "excepted")],
            url: "http://169.254.169.254/metadata/attested/document?api-version=2020-09-01".to_owned(),
            ..Ask::default()
        })?;
        let seen = self.azure.metadata_requests(since)?;
        ensure!(
            seen.iter()
                .any(|(_, path)| path.contains("/metadata/attested/document")),
            "the metadata service saw {seen:?}, the pod {answered:?}"
        );
        Ok(())
    }

    fn first_requests(&self, identity: &Identity) -> anyhow::Result<()> {
        let ask = Ask {
            name: "first",
            namespace: APP,
            labels: vec![("aadpodidbinding", "my-pod-identity")],
            ..Ask::default()
        };
        let containers = json!([container(&curl(""))]);
        let job = json!({
            "template": template(&ask, containers, json!([])), "backoffLimit": 0,
        });
        self.kubectl.create(&json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "first", "namespace": APP }, "spec": job,
        }))?;
        self.kubectl.create(&json!({
            "apiVersion": "batch/v1", "kind": "CronJob", "metadata": { "name": "first", "namespace": APP },
            "spec": { "schedule": "0 0 1 1 *", "jobTemplate": { "spec": job } },
        }))?;
        self.kubectl
            .run(&["-n", APP, "create", "job", "cron", "--from=cronjob/first"])?;
        for name in ["first", "cron"] {
            let job = format!("job/{name}");
            self.kubectl.run(&[
                "-n",
                APP,
                "wait",
                "--for=condition=complete",
                "--timeout=60s",
                &job,
            ])?;
            is_token_of(
                &Answered::read(&self.kubectl.run(&["-n", APP, "logs", &job])?)?,
                identity,
            )?;
            self.kubectl.delete(APP, "job", name)?;
        }
        self.kubectl.delete(APP, "cronjob", "first")?;

        let ask = Ask { name: "init", ..ask };
        let mut init = container(&curl(""));
        if let Some(init) = init.as_object_mut() {
            init.insert("name".to_owned(), json!("init"));
        }
        self.kubectl
            .create(&pod(&ask, json!([container("true")]), json!([init])))?;
        self.kubectl.finished(APP, "pod/init")?;
        let log = self
            .kubectl
            .run(&["-n", APP, "logs", "init", "--container=init"])?;
        self.kubectl.delete(APP, "pod", "init")?;
        is_token_of(&Answered::read(&log)?, identity)
    }

    fn deletion(&self) -> anyhow::Result<()> {
        self.azure.delete_pod_identity(APP, "my-pod-identity")?;
        let there = [
            "-n",
            APP,
            "get",
            "azureidentities.aadpodidentity.k8s.io",
            "my-pod-identity",
        ];
        eventually("the identity is gone", Duration::from_secs(20), || {
            self.kubectl.run(&there).is_err()
        })?;
        let answered = self.kubectl.ask(&Ask {
            name: "deleted",
            namespace: APP,
            labels: vec![("aadpodidbinding", "my-pod-identity")],
            ..Ask::default()
        })?;
        ensure!((400..500).contains(&answered.status), "{answered:?}");
        Ok(())
    }

    fn net_raw(&self) -> anyhow::Result<()> {
        self.helm("upgrade", &["netRaw.policy=validatingAdmissionPolicy"])?;
        let ask = Ask {
            name: "raw",
            namespace: APP,
            ..Ask::default()
        };
        let mut careless = container("true");
        if let Some(careless) = careless.as_object_mut() {
            careless.remove("securityContext");
        }
        let careless = pod(&ask, json!([careless]), json!([]));
        let mut said = String::new();
        // A new policy takes a moment to be in force.
        let refused = eventually("the pod is refused", Duration::from_secs(20), || {
            match self.kubectl.create(&careless) {
                Ok(()) => {
                    let _ = self.kubectl.delete(APP, "pod", "raw");
                    false
                }
                Err(error) => {
                    said = format!("{error:#}");
                    true
                }
            }
        });
        refused?;
        ensure!(
            said.contains("must drop NET_RAW") && said.contains(": ask"),
            "{said}"
        );
        self.kubectl
            .create(&pod(&ask, json!([container("true")]), json!([])))?;
        self.kubectl.finished(APP, "pod/raw")?;
        self.kubectl.delete(APP, "pod", "raw")
    }

    pub(super) fn no_leak(&self, since: u64) -> anyhow::Result<()> {
        let leaks = self.leaks(since)?;
        ensure!(leaks.is_empty(), "requests came from pods: {leaks:?}");
        Ok(())
    }

    /// Pods are in 10.244.0.0/16; what passes through the agents comes from the nodes.
    fn leaks(&self, since: u64) -> anyhow::Result<Vec<(IpAddr, String)>> {
        let mut seen = self.azure.metadata_requests(since)?;
        seen.retain(|(from, _)| matches!(from, IpAddr::V4(v4) if v4.octets().starts_with(&[10, 244])));
        Ok(seen)
    }
}

pub(super) fn is_token_of(answered: &Answered, identity: &Identity) -> anyhow::Result<()> {
    ensure!(
        answered.status == 200 && answered.client_id().as_deref() == Some(&identity.client_id),
        "expected a token of {}, got {answered:?}",
        identity.client_id
    );
    Ok(())
}
