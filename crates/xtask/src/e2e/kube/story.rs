//! The tutorial on real nodes, and what goes wrong on them: refusals, restarts, upgrades, removal. One list of steps; the
//! invariant behind all is that no pod's request reaches the metadata service by itself.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::json;

use super::Steps;
use super::azure::{Azure, ENDPOINT, Identity, SUBSCRIPTION};
use super::workload::{Answered, Ask, Kubectl, container, curl, pod, template};
use crate::image::{self, AUTHORITIES_INSIDE, IMAGES};
use crate::kube::cluster::{Cluster, NodePlan, eventually};
use crate::kube::config::{Cni, Proxy};
use crate::kube::tools::run;

/// The image that the tutorial's `demo.yaml` names.
const DEMO_IMAGE: &str = "mcr.microsoft.com/oss/azure/aad-pod-identity/demo:v1.6.3";
/// Where podid is installed.
const SYSTEM: &str = "podid-system";
const APP: &str = "my-app";
/// The nodes and their addresses.
const NODES: [(&str, [u8; 4]); 2] = [("n1", [10, 89, 0, 11]), ("n2", [10, 89, 0, 12])];

/// Everything that a step needs.
struct World<'a> {
    cluster: &'a Cluster,
    kubectl: Kubectl<'a>,
    azure: Azure<'a>,
    folder: PathBuf,
}

/// Tells it.
pub(super) fn tell(cluster: &Cluster, steps: &Steps) -> anyhow::Result<()> {
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
                })?;
            }
            Ok(())
        },
    )?;
    let azure = steps.step(
        "Azure in the cluster's network, its metadata service on the nodes' way",
        || {
            let nodes = NODES.map(|(name, address)| (name, IpAddr::from(address)));
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
    let before = world.routing()?;

    steps.step(
        "an aad-pod-identity that is there already is found, and the chart refuses",
        || world.refuses_other(),
    )?;
    steps.step(
        "without podid a pod does reach the metadata service, and it is seen",
        || world.control(),
    )?;
    steps.step("helm install", || world.helm("install", &[]))?;
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
        "an agent that is upgraded, deleted or killed: no pod reaches the metadata service",
        || world.restarts(&identity),
    )?;
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

impl World<'_> {
    fn load_images(&self) -> anyhow::Result<()> {
        let programs = image::build_for_this_machine(&IMAGES)?;
        for one in IMAGES {
            let (mut config, mut layer) = image::contents(&programs, one)?;
            config.name = format!("localhost/{}:{}", one.name, env!("CARGO_PKG_VERSION"));
            if one.name == "podid-demo" {
                // The tutorial's image, which here finds ARM at the emulator and trusts it.
                DEMO_IMAGE.clone_into(&mut config.name);
                config
                    .env
                    .push(format!("AZURE_RESOURCE_MANAGER_ENDPOINT={ENDPOINT}"));
                layer.file(AUTHORITIES_INSIDE, 0o644, std::fs::read(self.azure.authority())?);
            }
            let path = self.folder.join(format!("{}.tar", one.name));
            image::write(&path, &config, &layer)?;
            self.cluster.load(&path)?;
        }
        Ok(())
    }

    fn helm_command(&self) -> Command {
        let mut helm = Command::new(self.cluster.tools().program("helm"));
        helm.env("KUBECONFIG", self.cluster.kubeconfig("admin"))
            .env("HELM_CACHE_HOME", self.folder.join("helm/cache"))
            .env("HELM_CONFIG_HOME", self.folder.join("helm/config"))
            .env("HELM_DATA_HOME", self.folder.join("helm/data"))
            .args(["--namespace", SYSTEM]);
        helm
    }

    /// `helm install` or `helm upgrade` of our chart.
    fn helm(&self, verb: &str, values: &[&str]) -> anyhow::Result<()> {
        let chart = crate::root()?.join("deploy/helm/podid");
        let mut helm = self.helm_command();
        helm.args([verb, "podid"])
            .arg(chart)
            .args(["--wait", "--timeout=90s"]);
        if verb == "install" {
            helm.arg("--create-namespace");
        } else {
            helm.arg("--reuse-values");
        }
        for value in values {
            helm.args(["--set", value]);
        }
        let done = run(&mut helm).map(drop);
        done.with_context(|| {
            self.kubectl
                .run(&["-n", SYSTEM, "describe", "pods"])
                .unwrap_or_default()
        })
    }

    fn refuses_other(&self) -> anyhow::Result<()> {
        let other = json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": "nmi", "namespace": "kube-system" },
            "spec": {
                "selector": { "matchLabels": { "component": "nmi" } },
                "template": {
                    "metadata": { "labels": { "component": "nmi" } },
                    "spec": {
                        "nodeSelector": { "no": "node" },
                        "containers": [{ "name": "nmi", "image": "mcr.microsoft.com/oss/azure/aad-pod-identity/nmi:v1.8.17" }],
                    },
                },
            },
        });
        self.kubectl.create(&other)?;
        let refused = self.helm("install", &[]);
        self.kubectl.delete("kube-system", "daemonset", "nmi")?;
        let Err(error) = refused else {
            bail!("the chart was installed beside it")
        };
        let said = format!("{error:#}");
        ensure!(
            said.contains("its NMI is DaemonSet kube-system/nmi; remove it first"),
            "{said}"
        );
        Ok(())
    }

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

    fn rights(&self) -> anyhow::Result<()> {
        let may = |account: &str, verb: &str, what: &str| {
            let user = format!("--as=system:serviceaccount:{SYSTEM}:{account}");
            let groups = "--as-group=system:serviceaccounts";
            let said = self
                .cluster
                .kubectl()
                .args(["auth", "can-i", "-A", verb, what, &user, groups])
                .output();
            said.map(|output| output.stdout.starts_with(b"yes"))
        };
        for (account, verb, what, expected) in [
            ("podid-nmi", "list", "pods", true),
            (
                "podid-nmi",
                "watch",
                "azureidentities.aadpodidentity.k8s.io",
                true,
            ),
            ("podid-nmi", "get", "pods", false),
            ("podid-nmi", "list", "secrets", false),
            ("podid-nmi", "get", "secrets", false),
            ("podid-nmi", "create", "pods", false),
            (
                "podid-nmi",
                "patch",
                "azureidentities.aadpodidentity.k8s.io",
                false,
            ),
            (
                "podid-controller",
                "patch",
                "azureidentities.aadpodidentity.k8s.io",
                true,
            ),
            ("podid-controller", "list", "pods", false),
            ("podid-controller", "get", "secrets", false),
            ("podid-controller", "delete", "namespaces", false),
        ] {
            ensure!(
                may(account, verb, what)? == expected,
                "{account}: {verb} {what} is not {expected}"
            );
        }
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

    /// Pods ask all the time while agents come and go.
    fn restarts(&self, identity: &Identity) -> anyhow::Result<()> {
        let since = self.azure.last_request()?;
        for (node, _) in NODES {
            let name = format!("hammer-{node}");
            let ask = Ask {
                name: &name,
                namespace: APP,
                labels: vec![("aadpodidbinding", "my-pod-identity")],
                node: Some(node),
                ..Ask::default()
            };
            let command = curl("").replace("--max-time 40", "--max-time 1 --output /dev/null");
            let command = format!("while :; do {command}; sleep 0.1; done");
            self.kubectl
                .create(&pod(&ask, json!([container(&command)]), json!([])))?;
        }
        for (node, _) in NODES {
            let pod = format!("pod/hammer-{node}");
            self.kubectl
                .run(&["-n", APP, "wait", "--for=condition=Ready", "--timeout=60s", &pod])?;
        }
        let rolled_out = || {
            self.kubectl
                .run(&[
                    "-n",
                    SYSTEM,
                    "rollout",
                    "status",
                    "daemonset/podid-nmi",
                    "--timeout=60s",
                ])
                .map(drop)
        };
        self.kubectl
            .run(&["-n", SYSTEM, "rollout", "restart", "daemonset/podid-nmi"])?;
        rolled_out()?;
        self.kubectl.run(&[
            "-n",
            SYSTEM,
            "delete",
            "pods",
            "-l",
            "app.kubernetes.io/component=nmi",
        ])?;
        rolled_out()?;
        for (node, _) in NODES {
            self.cluster
                .run_inside(Some(node), &["sh", "-c", "kill -KILL $(pidof podid-nmi)"])?
                .ok()?;
        }
        eventually("the agents are back", Duration::from_mins(1), || {
            self.kubectl
                .run(&["-n", SYSTEM, "get", "pods", "-l", "app.kubernetes.io/component=nmi", "-o", "jsonpath={range .items[*]}{.status.containerStatuses[0].restartCount}{.status.containerStatuses[0].ready} {end}"])
                .is_ok_and(|seen| seen.trim() == "1true 1true")
        })?;
        for (node, _) in NODES {
            let name = format!("hammer-{node}");
            let log = self.kubectl.run(&["-n", APP, "logs", &name])?;
            let answers = log.lines().filter(|line| !line.is_empty());
            let (well, all) = answers.fold((0, 0), |(well, all), line| {
                (well + usize::from(line == "200"), all + 1)
            });
            ensure!(
                well > 0 && log.trim_end().ends_with("200"),
                "{node}: {well} of {all} answered: {log}"
            );
            self.kubectl.delete(APP, "pod", &name)?;
        }
        let answered = self.kubectl.ask(&Ask {
            name: "after",
            namespace: APP,
            labels: vec![("aadpodidbinding", "my-pod-identity")],
            ..Ask::default()
        })?;
        is_token_of(&answered, identity)?;
        self.no_leak(since)
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

    fn no_leak(&self, since: u64) -> anyhow::Result<()> {
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

    /// Rules, routes and rule sets of every node, without what comes and goes.
    fn routing(&self) -> anyhow::Result<Vec<String>> {
        let mut all = Vec::new();
        for (node, _) in NODES {
            for argv in [
                &["ip", "rule"][..],
                &["ip", "route", "show", "table", "all"],
                &["nft", "list", "tables"],
            ] {
                let said = self.cluster.run_inside(Some(node), argv)?.ok()?;
                // A pod's own routes and interfaces are the CNI plugin's.
                let lines = said.lines().filter(|line| {
                    !line.contains("10.244.") && !line.contains("fe80") && !line.contains("ff00")
                });
                all.extend(lines.map(|line| format!("{node}: {}", line.trim_end())));
            }
        }
        all.sort();
        Ok(all)
    }

    fn uninstall(&self, before: &[String]) -> anyhow::Result<()> {
        let mine = json!({
            "apiVersion": "aadpodidentity.k8s.io/v1", "kind": "AzureIdentity",
            "metadata": { "name": "mine", "namespace": APP },
            "spec": { "type": 0, "clientID": "00000000-0000-0000-0000-000000000001", "resourceID": format!(
                "/subscriptions/{SUBSCRIPTION}/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/mine"
            ) },
        });
        self.kubectl.create(&mine)?;
        self.helm("upgrade", &["uninstall=true", "netRaw.policy=none"])?;
        self.kubectl.run(&[
            "-n",
            SYSTEM,
            "rollout",
            "status",
            "daemonset/podid-nmi",
            "--timeout=60s",
        ])?;
        run(self
            .helm_command()
            .args(["uninstall", "podid", "--wait", "--timeout=60s"]))?;
        let after = self.routing()?;
        let left: Vec<&String> = after.iter().filter(|line| !before.contains(line)).collect();
        ensure!(left.is_empty(), "left on the nodes: {left:#?}");
        self.kubectl.run(&["-n", APP, "get", "azureidentity", "mine"])?;
        let ours = self.kubectl.run(&[
            "get",
            "clusterroles,clusterrolebindings,validatingadmissionpolicies",
            "-l",
            "app.kubernetes.io/name=podid",
            "-o",
            "name",
        ])?;
        ensure!(ours.is_empty(), "left in the cluster: {ours}");
        Ok(())
    }
}

fn is_token_of(answered: &Answered, identity: &Identity) -> anyhow::Result<()> {
    ensure!(
        answered.status == 200 && answered.client_id().as_deref() == Some(&identity.client_id),
        "expected a token of {}, got {answered:?}",
        identity.client_id
    );
    Ok(())
}
