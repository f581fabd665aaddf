//! The ways onto a cluster and off it again: `podid install` and `uninstall`, kustomize, every setting of the chart, an
//! upgrade from the chart before. And who is there already: none of them goes beside aad-pod-identity.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::Steps;
use super::azure::SUBSCRIPTION;
use super::story::{NODES, SYSTEM, World};
use crate::image;
use crate::kube::tools::run;

/// The chart before this one, as it was packaged.
const BEFORE: &str = "fixtures/helm/podid-0.1.0.tgz";
/// The chain of aad-pod-identity v1.8.17's NMI, and what makes and removes it by both kinds of iptables.
const CHAIN: &str = "aad-metadata";
const IPTABLES: [&[&str]; 2] = [&["iptables"], &["xtables-legacy-multi", "iptables"]];
/// A namespace with objects of a user's.
const MINE: &str = "mine";

/// Settings of the chart that render every object it has, each set of them together.
const SETTINGS: [&[&str]; 4] = [
    &[],
    &["uninstall=true"],
    &[
        "operationMode=standard",
        "forceNamespaced=true",
        "msiSource=federation",
        "controller.assignment=vmss",
        "controller.replicas=2",
        "controller.podDisruptionBudget.minAvailable=1",
        "rbac.allowAccessToSecrets=true",
        "rbac.createUserFacingClusterRoles=true",
        "rbac.secrets[0].namespace=default",
        "rbac.secrets[0].names={one,two}",
        "networkPolicy.enabled=true",
        "netRaw.policy=validatingAdmissionPolicy",
        "monitoring.serviceMonitor.enabled=true",
        "nmi.blockInstanceMetadata=true",
        "startupTaint.admissionPolicy=always",
    ],
    &["netRaw.policy=gatekeeper", "startupTaint.enabled=false"],
];

/// Runs all of them on a cluster without podid, and leaves it without.
pub(super) fn tell(world: &World<'_>, steps: &Steps, before: &[String]) -> anyhow::Result<()> {
    let podid = image::build_for_this_machine()?.path("podid-cli")?;
    let ways = Ways { world, podid };
    steps.step("podid install beside an aad-pod-identity: refused", || {
        ways.refuses_other()
    })?;
    steps.step(
        "the API server takes every object of the chart, with every setting",
        || ways.takes_all(),
    )?;
    steps.step(
        "beside the chain of aad-pod-identity, of either iptables, an agent does not start and says what to remove",
        || ways.refuses_chain(before),
    )?;
    steps.step(
        "podid install again changes nothing; helm and kustomize know the same objects",
        || ways.knows_the_same(),
    )?;
    steps.step("podid uninstall leaves no rule, no route, no object", || {
        ways.uninstalls(before)
    })
}

struct Ways<'a> {
    world: &'a World<'a>,
    podid: PathBuf,
}

impl Ways<'_> {
    fn podid(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let kubeconfig = self.world.cluster.kubeconfig("admin");
        run(Command::new(&self.podid)
            .env("KUBECONFIG", kubeconfig)
            .args(arguments))
    }

    fn refuses_other(&self) -> anyhow::Result<()> {
        let kubectl = &self.world.kubectl;
        let mic = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {
                "name": "mic", "namespace": "default", "labels": { "component": "mic", "k8s-app": "aad-pod-id" },
            },
            "spec": {
                "replicas": 0, "selector": { "matchLabels": { "component": "mic" } },
                "template": {
                    "metadata": { "labels": { "component": "mic" } },
                    "spec": { "containers": [{ "name": "mic", "image": "registry.invalid/mirror/mic:v1.8.17" }] },
                },
            },
        });
        kubectl.create(&mic)?;
        let refused = self.podid(&["install"]);
        kubectl.delete("default", "deployment", "mic")?;
        let Err(error) = refused else {
            bail!("it was installed beside it")
        };
        let said = format!("{error:#}");
        ensure!(
            said.contains("its MIC is Deployment default/mic; remove it first"),
            "{said}"
        );
        ensure!(
            kubectl.run(&["get", "namespace", SYSTEM]).is_err(),
            "something was applied"
        );
        Ok(())
    }

    /// The chart rendered for each set of settings, kept by nobody.
    fn takes_all(&self) -> anyhow::Result<()> {
        let kubectl = &self.world.kubectl;
        kubectl.namespace("dry")?;
        let others = [
            foreign(
                "monitoring.coreos.com",
                "v1",
                "servicemonitors",
                "ServiceMonitor",
                "Namespaced",
            ),
            foreign(
                "constraints.gatekeeper.sh",
                "v1beta1",
                "k8spspcapabilities",
                "K8sPSPCapabilities",
                "Cluster",
            ),
        ];
        for definition in &others {
            kubectl.create(definition)?;
            let name = format!(
                "crd/{}",
                definition
                    .pointer("/metadata/name")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
            );
            kubectl.run(&["wait", "--for=condition=Established", "--timeout=30s", &name])?;
        }
        let chart = crate::root()?.join("deploy/helm/podid");
        for settings in SETTINGS {
            let mut helm = Command::new(self.world.cluster.tools().program("helm"));
            helm.args(["template", "podid", "--namespace", "dry"]).arg(&chart);
            for setting in settings {
                helm.args(["--set", setting]);
            }
            let rendered = run(&mut helm)?;
            kubectl
                .feed(&["apply", "--dry-run=server", "-f", "-"], &rendered)
                .with_context(|| format!("the chart with {settings:?}"))?;
        }
        let definitions = crate::root()?.join("deploy/crds");
        kubectl.run(&[
            "apply",
            "--dry-run=server",
            "-f",
            &definitions.display().to_string(),
        ])?;
        for definition in &others {
            kubectl.feed(&["delete", "-f", "-"], &definition.to_string())?;
        }
        kubectl.run(&["delete", "namespace", "dry"]).map(drop)
    }

    fn chain(&self, verbs: &[&str]) -> anyhow::Result<()> {
        for ((node, _), program) in NODES.into_iter().zip(IPTABLES) {
            for verb in verbs {
                let argv = [program, &["-t", "nat", verb, CHAIN]].concat();
                self.world.cluster.run_inside(Some(node), &argv)?.ok()?;
            }
        }
        Ok(())
    }

    fn refuses_chain(&self, before: &[String]) -> anyhow::Result<()> {
        let kubectl = &self.world.kubectl;
        self.chain(&["-N"])?;
        let late = self.podid(&["install", "--timeout-secs", "15"]);
        let logs = |node: &str| {
            let selector = ["-l", "app.kubernetes.io/component=nmi"];
            let node = format!("--field-selector=spec.nodeName={node}");
            let pods = kubectl
                .run(&[&["-n", SYSTEM, "get", "pods", &node, "-o", "name"], &selector[..]].concat())?;
            // Of its last attempt, when it is between two.
            let pod = pods.trim();
            let now = kubectl.run(&["-n", SYSTEM, "logs", pod]).unwrap_or_default();
            let then = kubectl
                .run(&["-n", SYSTEM, "logs", pod, "--previous"])
                .unwrap_or_default();
            anyhow::Ok(now + &then)
        };
        for ((node, _), program) in NODES.into_iter().zip(["iptables", "iptables-legacy"]) {
            let said = logs(node)?;
            let remove = format!("{program} -t nat -X {CHAIN}");
            ensure!(
                said.contains("aad-pod-identity already intercepts the metadata service on this node")
                    && said.contains(&remove),
                "{node}: {said}"
            );
        }
        let said = format!("{:#}", late.err().context("podid runs beside it")?);
        ensure!(
            said.contains("DaemonSet podid-system/podid-nmi was not done within 15 s: podid-nmi-"),
            "{said}"
        );
        self.chain(&["-X"])?;
        // The table came with the chain.
        let (node, _) = NODES[0];
        if !before.contains(&format!("{node}: table ip nat")) {
            let argv = ["nft", "delete", "table", "ip", "nat"];
            self.world.cluster.run_inside(Some(node), &argv)?.ok()?;
        }
        // It starts again by itself.
        self.podid(&["install"]).map(drop)
    }

    fn knows_the_same(&self) -> anyhow::Result<()> {
        let kubectl = &self.world.kubectl;
        let generations = || {
            kubectl.run(&[
                "-n",
                SYSTEM,
                "get",
                "daemonsets,deployments",
                "-o",
                "jsonpath={range .items[*]}{.metadata.uid} {.metadata.generation} {end}",
            ])
        };
        let before = generations()?;
        self.podid(&["install"])?;
        ensure!(
            generations()? == before,
            "a second install changed {before} to {}",
            generations()?
        );
        let printed = self.podid(&["install", "--dry-run", "-o", "yaml"])?;
        kubectl.feed(
            &[
                "apply",
                "--server-side",
                "--dry-run=server",
                "--field-manager=podid-install",
                "-f",
                "-",
            ],
            &printed,
        )?;
        let kustomize = crate::root()?.join("deploy/kustomize");
        for folder in ["base", "uninstall"] {
            let folder = kustomize.join(folder).display().to_string();
            kubectl.run(&[
                "apply",
                "--server-side",
                "--dry-run=server",
                "--force-conflicts",
                "-k",
                &folder,
            ])?;
        }
        let Err(error) = self.world.helm("install", &[]) else {
            bail!("helm took over what podid install made without being told to")
        };
        let said = format!("{error:#}");
        ensure!(said.contains("invalid ownership metadata"), "{said}");
        Ok(())
    }

    fn uninstalls(&self, before: &[String]) -> anyhow::Result<()> {
        self.podid(&["uninstall", "--purge"])?;
        let after = self.world.routing()?;
        let left: Vec<&String> = after.iter().filter(|line| !before.contains(line)).collect();
        ensure!(left.is_empty(), "left on the nodes: {left:#?}");
        let everything = self.world.kubectl.run(&[
            "get",
            "namespaces,crds,clusterroles,clusterrolebindings,validatingadmissionpolicies,mutatingadmissionpolicies",
            "-o",
            "name",
        ])?;
        let marked = self.world.marked_nodes()?;
        ensure!(marked.is_empty(), "left on the nodes: {marked:?}");
        let left: Vec<&str> = everything
            .lines()
            .filter(|name| name.contains("podid") || name.contains("aadpodidentity"))
            .collect();
        ensure!(left.is_empty(), "left in the cluster: {left:?}");
        // Nothing to do is nothing to fail at.
        self.podid(&["uninstall", "--purge"]).map(drop)
    }
}

impl World<'_> {
    /// `helm install` of the chart before, objects of a user's, `helm upgrade`: the objects are what they were.
    pub(super) fn upgraded(&self) -> anyhow::Result<()> {
        let before = crate::root()?.join(BEFORE);
        run(self.helm_command().arg("install").arg("podid").arg(before).args([
            "--create-namespace",
            "--wait",
            "--timeout=90s",
            "--set",
            "nmi.logLevel=debug",
        ]))?;
        self.kubectl.namespace(MINE)?;
        let object = |kind: &str, spec: Value| {
            json!({
                "apiVersion": "aadpodidentity.k8s.io/v1", "kind": kind,
                "metadata": { "name": "mine", "namespace": MINE }, "spec": spec,
            })
        };
        let identity = format!(
            "/subscriptions/{SUBSCRIPTION}/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/mine"
        );
        let client = "00000000-0000-0000-0000-000000000001";
        for object in [
            object(
                "AzureIdentity",
                json!({ "type": 0, "clientID": client, "resourceID": identity }),
            ),
            object(
                "AzureIdentityBinding",
                json!({ "azureIdentity": "mine", "selector": "mine" }),
            ),
            object(
                "AzurePodIdentityException",
                json!({ "podLabels": { "app": "mine" } }),
            ),
        ] {
            self.kubectl.create(&object)?;
        }
        let was = self.users_objects()?;
        // Without the flag, helm would keep the old chart's defaults and not take the new one's.
        self.upgrade("--reset-then-reuse-values")?;
        let said = self.helm_values()?;
        ensure!(
            said.contains("logLevel: debug"),
            "the user's value is lost: {said}"
        );
        let refused = run(self
            .helm_command()
            .args(["rollback", "podid", "1", "--wait", "--timeout=90s"]))
        .and_then(|_| self.upgrade("--reuse-values"));
        let refused = format!(
            "{:#}",
            refused
                .err()
                .context("--reuse-values worked with another chart's values")?
        );
        ensure!(refused.contains("--reset-then-reuse-values"), "{refused}");
        self.upgrade("--reset-values")?;
        ensure!(
            self.users_objects()? == was,
            "{was} became {}",
            self.users_objects()?
        );
        self.kubectl.run(&["delete", "namespace", MINE]).map(drop)
    }

    fn upgrade(&self, values: &str) -> anyhow::Result<()> {
        let chart = crate::root()?.join("deploy/helm/podid");
        let mut helm = self.helm_command();
        helm.args(["upgrade", "podid"]).arg(chart);
        run(helm.args([values, "--wait", "--timeout=90s"])).map(drop)
    }

    fn helm_values(&self) -> anyhow::Result<String> {
        run(self.helm_command().args(["get", "values", "podid"]))
    }

    /// Definitions and the user's objects, by uid and content.
    fn users_objects(&self) -> anyhow::Result<String> {
        let kinds = "azureidentities,azureidentitybindings,azurepodidentityexceptions";
        let what =
            "jsonpath={range .items[*]}{.kind} {.metadata.uid} {.metadata.generation} {.spec}{\"\\n\"}{end}";
        let objects = self.kubectl.run(&["-n", MINE, "get", kinds, "-o", what])?;
        let what = "jsonpath={range .items[*]}{.metadata.name} {.metadata.uid}{\"\\n\"}{end}";
        let mut definitions = self.kubectl.run(&["get", "crds", "-o", what])?;
        ensure!(
            objects.lines().count() == 3 && definitions.lines().count() >= 5,
            "{objects}{definitions}"
        );
        definitions.push_str(&objects);
        Ok(definitions)
    }
}

/// A definition of a kind of somebody else's, which takes everything.
fn foreign(group: &str, version: &str, plural: &str, kind: &str, scope: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.{group}") },
        "spec": {
            "group": group, "scope": scope, "names": { "plural": plural, "kind": kind },
            "versions": [{
                "name": version, "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } },
            }],
        },
    })
}
