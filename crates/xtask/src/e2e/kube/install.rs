//! Images, chart and rights: how podid gets onto the cluster of the story, and what is left when it is gone.

use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use serde_json::json;

use super::azure::{ENDPOINT, SUBSCRIPTION};
use super::story::{APP, NODES, SYSTEM, World};
use crate::image::{self, AUTHORITIES_INSIDE, IMAGES, Image, Programs};
use crate::kube::tools::run;

/// The image that the tutorial's `demo.yaml` names.
const DEMO_IMAGE: &str = "mcr.microsoft.com/oss/azure/aad-pod-identity/demo:v1.6.3";

impl World<'_> {
    pub(super) fn load_images(&self) -> anyhow::Result<()> {
        let programs = image::build_for_this_machine()?;
        for one in IMAGES {
            self.load_image(&programs, one)?;
        }
        Ok(())
    }

    pub(super) fn load_image(&self, programs: &Programs, one: Image) -> anyhow::Result<()> {
        let (mut config, mut layer) = image::contents(programs, one)?;
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
        self.cluster.load(&path)
    }

    pub(super) fn helm_command(&self) -> Command {
        let mut helm = Command::new(self.cluster.tools().program("helm"));
        helm.env("KUBECONFIG", self.cluster.kubeconfig("admin"))
            .env("HELM_CACHE_HOME", self.folder.join("helm/cache"))
            .env("HELM_CONFIG_HOME", self.folder.join("helm/config"))
            .env("HELM_DATA_HOME", self.folder.join("helm/data"))
            .args(["--namespace", SYSTEM]);
        helm
    }

    /// `helm install` or `helm upgrade` of our chart.
    pub(super) fn helm(&self, verb: &str, values: &[&str]) -> anyhow::Result<()> {
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

    pub(super) fn refuses_other(&self) -> anyhow::Result<()> {
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

    pub(super) fn rights(&self) -> anyhow::Result<()> {
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
            ("podid-controller", "patch", "nodes", true),
            ("podid-controller", "update", "nodes", false),
            ("podid-controller", "delete", "nodes", false),
            ("podid-nmi", "patch", "nodes", false),
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

    /// Rules, routes and rule sets of every node, without what comes and goes.
    pub(super) fn routing(&self) -> anyhow::Result<Vec<String>> {
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

    pub(super) fn uninstall(&self, before: &[String]) -> anyhow::Result<()> {
        let mine = json!({
            "apiVersion": "aadpodidentity.k8s.io/v1", "kind": "AzureIdentity",
            "metadata": { "name": "mine", "namespace": APP },
            "spec": { "type": 0, "clientID": "00000000-0000-0000-0000-000000000001", "resourceID": format!(
                "/subscriptions/{SUBSCRIPTION}/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/mine"
            ) },
        });
        self.kubectl.create(&mine)?;
        run(self
            .helm_command()
            .args(["uninstall", "podid", "--wait", "--timeout=60s"]))?;
        let after = self.routing()?;
        let left: Vec<&String> = after.iter().filter(|line| !before.contains(line)).collect();
        ensure!(left.is_empty(), "left on the nodes: {left:#?}");
        self.kubectl.run(&["-n", APP, "get", "azureidentity", "mine"])?;
        let marked = self.marked_nodes()?;
        ensure!(marked.is_empty(), "left on the nodes: {marked:?}");
        let ours = self.kubectl.run(&[
            "get",
            "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings,\
             mutatingadmissionpolicies,mutatingadmissionpolicybindings",
            "-l",
            "app.kubernetes.io/name=podid",
            "-o",
            "name",
        ])?;
        ensure!(ours.is_empty(), "left in the cluster: {ours}");
        Ok(())
    }
}
