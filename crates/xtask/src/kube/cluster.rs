//! A cluster as its users see it: up, more nodes, images, commands inside, down. Used by the command line and by the
//! end-to-end runs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::addresses::MOST_NODES;
use super::cgroups;
use super::config::{Cni, Proxy};
use super::control::{Program, Reply, Request, ask};
use super::node::{NodeSpec, ctr, key, socket};
use super::process::{Process, tail, wait_until};
use super::state::{Node, Started, State};
use super::tools::{Tools, run};

/// A cluster that runs.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    state: State,
    tools: Tools,
}

/// What a node shall be like.
#[derive(Clone, Debug)]
pub(crate) struct NodePlan {
    /// Its name, a DNS label
    pub(crate) name: String,
    /// How pods are wired
    pub(crate) cni: Cni,
    /// Who makes Services work
    pub(crate) proxy: Proxy,
    /// Labels of the Node object
    pub(crate) labels: BTreeMap<String, String>,
    /// As a cloud's controller would write it
    pub(crate) provider_id: Option<String>,
    /// Image archives that it has before its kubelet starts
    pub(crate) images: Vec<PathBuf>,
}

/// What the holder says when the control plane is ready.
#[derive(Debug, Deserialize)]
struct Ready {
    supervisor: u32,
}

impl Cluster {
    /// Starts a control plane, or finds the one that runs here.
    pub(crate) fn up(state: State) -> anyhow::Result<Self> {
        if let Some(started) = state.started()? {
            if started.supervisor.alive() {
                let tools = Tools::at(started.tools);
                return Ok(Self { state, tools });
            }
            state.clear()?;
        }
        let tools = Tools::control()?;
        fs::create_dir_all(state.logs()).with_context(|| format!("make {}", state.logs().display()))?;
        let log = state.logs().join("holder.log");
        let mut holder = Command::new(std::env::current_exe()?)
            .args(["kube", "hold", "--tools"])
            .arg(tools.root())
            .arg("--state")
            .arg(state.folder())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .process_group(0)
            .spawn()
            .context("start the cluster's holder")?;
        let mut line = String::new();
        let stdout = holder.stdout.take().context("the holder's output is a pipe")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let Ok(ready) = serde_json::from_str::<Ready>(&line) else {
            let status = holder.wait()?;
            bail!("the cluster did not start ({status}): {}", tail(&log, 20));
        };
        let supervisor = Process::of(ready.supervisor).context("the cluster ended at once")?;
        state.save(&Started {
            supervisor,
            tools: tools.root().to_owned(),
            nodes: Vec::new(),
        })?;
        Ok(Self { state, tools })
    }

    /// The cluster that runs in this folder.
    pub(crate) fn find(state: State) -> anyhow::Result<Self> {
        let started = state.running()?;
        Ok(Self {
            state,
            tools: Tools::at(started.tools),
        })
    }

    /// The cluster's programs.
    pub(crate) fn tools(&self) -> &Tools {
        &self.tools
    }

    /// For programs of this machine.
    pub(crate) fn kubeconfig(&self, user: &str) -> PathBuf {
        self.state.kubeconfig(user)
    }

    /// For programs in the cluster's network.
    pub(crate) fn inner_kubeconfig(&self, user: &str) -> PathBuf {
        self.state.inner_kubeconfig(user)
    }

    /// `kubectl` of the same version, as the administrator, with a cache of its own.
    pub(crate) fn kubectl(&self) -> Command {
        let mut command = Command::new(self.tools.program("kubectl"));
        command
            .arg(format!("--kubeconfig={}", self.kubeconfig("admin").display()))
            .arg(format!(
                "--cache-dir={}",
                self.state.folder().join("kubectl").display()
            ))
            .env("KUBECTL_KUBERC", "false");
        command
    }

    /// Adds a node and waits until it is Ready.
    pub(crate) fn add_node(&self, plan: NodePlan) -> anyhow::Result<()> {
        if !nix::unistd::geteuid().is_root() {
            bail!("a node needs root: its kubelet makes control groups and mounts");
        }
        let tools = Tools::node()?;
        if tools.root() != self.tools.root() {
            bail!(
                "the cluster runs other programs than those of this checkout; `cargo xtask kube down` it first"
            );
        }
        let NodePlan {
            name,
            cni,
            proxy,
            labels,
            provider_id,
            images,
        } = plan;
        check_name(&name)?;
        let mut started = self.state.running()?;
        if started.nodes.iter().any(|node| node.name == name) {
            bail!("there is a node {name} already");
        }
        let number = (1..=MOST_NODES)
            .find(|number| started.nodes.iter().all(|node| node.number != *number))
            .with_context(|| format!("{MOST_NODES} nodes are as many as this network has room for"))?;
        let folder = self.state.node(&name);
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let spec = NodeSpec {
            cgroup: format!("podid-kube-{}-{name}", started.supervisor.pid),
            pki: self.state.pki(),
            kubeconfig: folder.join("kubelet.kubeconfig"),
            proxy_kubeconfig: self.state.inner_kubeconfig("admin"),
            folder,
            name,
            number,
            cni,
            proxy,
            labels,
            provider_id,
            images,
        };
        // Noted first: `down` then finds the groups whatever happens next.
        started.nodes.push(Node {
            name: spec.name.clone(),
            number,
            cgroup: spec.cgroup.clone(),
        });
        self.state.save(&started)?;
        cgroups::create(&spec.cgroup)?;
        let name = spec.name.clone();
        ask(&self.state.socket(), &Request::AddNode(spec))?.ok()?;
        self.wait_for_node(&name)
    }

    fn wait_for_node(&self, name: &str) -> anyhow::Result<()> {
        let node = format!("node/{name}");
        let wait = |condition: &str| {
            run(self
                .kubectl()
                .args(["wait", &format!("--for={condition}"), "--timeout=60s", &node]))
            .with_context(|| {
                let log = self.state.node(name).join("log/kubelet.log");
                format!("node {name} did not become ready; {}", tail(&log, 5))
            })
        };
        wait("create")?;
        wait("condition=Ready")?;
        // Until the node has it, pods without a token of their own are refused.
        run(self
            .kubectl()
            .args(["wait", "--for=create", "--timeout=60s", "serviceaccount/default"]))
        .map(drop)
    }

    /// Ends a node at once, as a power cut would, and removes its Node object.
    pub(crate) fn remove_node(&self, name: &str) -> anyhow::Result<()> {
        let mut started = self.state.running()?;
        let at = started
            .nodes
            .iter()
            .position(|node| node.name == name)
            .with_context(|| format!("there is no node {name}"))?;
        let node = started.nodes.remove(at);
        ask(&self.state.socket(), &Request::Stop { name: key(name) })?.ok()?;
        cgroups::remove(&node.cgroup)?;
        let (network, prefix) = super::addresses::pods(node.number);
        self.run_inside(None, &["ip", "route", "del", &format!("{network}/{prefix}")])?
            .ok()?;
        fs::remove_dir_all(self.state.node(name))?;
        self.state.save(&started)?;
        run(self
            .kubectl()
            .args(["delete", "--ignore-not-found", &format!("node/{name}")]))
        .map(drop)
    }

    /// The nodes' names.
    pub(crate) fn nodes(&self) -> anyhow::Result<Vec<String>> {
        Ok(self
            .state
            .running()?
            .nodes
            .into_iter()
            .map(|node| node.name)
            .collect())
    }

    /// The nodes' names and addresses.
    pub(crate) fn addresses(&self) -> anyhow::Result<Vec<(String, IpAddr)>> {
        let nodes = self.state.running()?.nodes.into_iter();
        Ok(nodes
            .map(|node| (node.name, super::addresses::node(node.number).into()))
            .collect())
    }

    /// Imports an image archive into every node.
    pub(crate) fn load(&self, image: &Path) -> anyhow::Result<()> {
        let image = std::path::absolute(image)?;
        if !image.is_file() {
            bail!("there is no image archive {}", image.display());
        }
        let argv = ctr(&["images", "import", &image.display().to_string()]);
        for node in self.nodes()? {
            ask(
                &socket(&self.state.node(&node)),
                &Request::Run { argv: argv.clone() },
            )?
            .ok()
            .with_context(|| format!("import {} into {node}", image.display()))?;
        }
        Ok(())
    }

    /// Runs a program to its end in a node's namespaces, or in the control plane's.
    pub(crate) fn run_inside(&self, node: Option<&str>, argv: &[&str]) -> anyhow::Result<Reply> {
        let argv = argv.iter().map(|&word| word.to_owned()).collect();
        ask(&self.door(node)?, &Request::Run { argv })
    }

    /// Starts a program that stays in the control plane's network, or a node's; it ends with them. Its output is at
    /// [`Self::log`].
    pub(crate) fn start_inside(&self, node: Option<&str>, program: Program) -> anyhow::Result<()> {
        ask(&self.door(node)?, &Request::Start(program))?.ok().map(drop)
    }

    /// Stops a program of the control plane's, or of a node's.
    pub(crate) fn stop_inside(&self, node: Option<&str>, name: &str) -> anyhow::Result<()> {
        let name = name.to_owned();
        ask(&self.door(node)?, &Request::Stop { name })?.ok().map(drop)
    }

    /// The log of a program of the control plane's, or of a node's.
    pub(crate) fn log(&self, node: Option<&str>, program: &str) -> PathBuf {
        let folder = node.map_or_else(|| self.state.logs(), |node| self.state.node(node).join("log"));
        folder.join(format!("{program}.log"))
    }

    /// The network of the control plane, for `nsenter --net=`.
    pub(crate) fn network(&self) -> anyhow::Result<PathBuf> {
        let supervisor = self.state.running()?.supervisor.pid;
        Ok(PathBuf::from(format!("/proc/{supervisor}/ns/net")))
    }

    fn door(&self, node: Option<&str>) -> anyhow::Result<PathBuf> {
        let Some(node) = node else {
            return Ok(self.state.socket());
        };
        if !self.nodes()?.iter().any(|known| known == node) {
            bail!("there is no node {node}");
        }
        Ok(socket(&self.state.node(node)))
    }

    /// Ends everything that was started.
    pub(crate) fn down(self) -> anyhow::Result<()> {
        self.state.clear()
    }
}

/// Waits until something holds; what was awaited is the error's text.
pub(crate) fn eventually(what: &str, limit: Duration, holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    if wait_until(limit, holds) {
        return Ok(());
    }
    bail!("{what}: not within {} s", limit.as_secs())
}

fn check_name(name: &str) -> anyhow::Result<()> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty()
        || name.len() > 30
        || !name.chars().all(legal)
        || name.starts_with('-')
        || name.ends_with('-')
    {
        bail!("{name:?} is no name for a node: up to 30 lower-case letters, digits and dashes");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_name_is_a_dns_label() {
        assert!(check_name("n1").is_ok() && check_name("pool-a-2").is_ok());
        for bad in ["", "N1", "a/b", "../x", "-a", "a-", "a.b"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
