//! Real Kubernetes: podid on real nodes through its chart, and the contract of the embedded API against a real API
//! server. Needs root, Go, a C compiler, curl and Debian's apt-get; see `cargo xtask kube`.

mod azure;
mod churn;
mod fresh;
mod install;
pub(crate) mod stand_in;
mod story;
mod ways;
mod workload;

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::kube::cluster::Cluster;
use crate::kube::state::State;
use crate::printer;

/// What newcomers follow.
const GUIDE: &str = "docs/guides/kubernetes.md";

/// Flags of the run on real nodes.
#[derive(Args, Clone, Debug)]
pub(crate) struct KubeArgs {
    /// Leave the cluster up at the end, for a look (`cargo xtask kube env --state target/kube/e2e`)
    #[arg(long)]
    keep: bool,
}

/// Runs podid on two real nodes, from `helm install` to `helm uninstall`.
pub(crate) fn run(args: &KubeArgs) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("real nodes need root: a kubelet makes control groups and mounts");
    }
    if Command::new("curl").arg("--version").output().is_err() {
        bail!("`curl` is not in the PATH, and the run asks with it from inside the cluster's network");
    }
    let steps = Steps::default();
    with_cluster("target/kube/e2e", args.keep, |cluster| {
        story::tell(cluster, &steps)
    })?;
    printer::line(&format!("{} steps held", steps.count.get()));
    Ok(())
}

/// Where another suite works: beside the API server of a real Kubernetes, with Azure in reach.
pub(crate) struct Inside<'a>(story::World<'a>);

impl Inside<'_> {
    /// A program in the cluster's network, with what leads az, kubectl and SDKs there in its environment.
    pub(crate) fn bash(&self, program: &[&str]) -> anyhow::Result<Command> {
        let mut bash = Command::new("nsenter");
        bash.arg(format!("--net={}", self.0.cluster.network()?.display()))
            .args(program)
            .env("KUBECONFIG", self.0.cluster.inner_kubeconfig("admin"))
            .envs(self.0.azure.environment());
        Ok(bash)
    }

    /// The folder of kubectl and helm.
    pub(crate) fn programs(&self) -> PathBuf {
        self.0.cluster.tools().bin()
    }
}

/// Makes such a cluster for `work`, in `folder`, with podid on it or only with its images.
pub(crate) fn beside_azure(
    folder: &str,
    keep: bool,
    install: bool,
    work: impl FnOnce(&Inside<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("real nodes need root: a kubelet makes control groups and mounts");
    }
    let steps = Steps::default();
    with_cluster(folder, keep, |cluster| {
        let world = story::World::raise(cluster, &steps)?;
        if install {
            steps.step("helm install", || world.helm("install", &[]))?;
        }
        work(&Inside(world))
    })
}

/// Runs the guide to podid on Kubernetes (`docs/guides/kubernetes.md`), every command of it, on the cluster that it makes.
pub(crate) fn guide() -> anyhow::Result<()> {
    if Cluster::find(State::new(None)?).is_ok() {
        bail!("the guide makes its own cluster, and one runs already; `cargo xtask kube down` ends it");
    }
    let root = crate::root()?;
    let mut bash = Command::new("bash");
    bash.args(["--noprofile", "--norc"]).current_dir(&root);
    let folder = root.join("target/e2e/kube-guide");
    std::fs::create_dir_all(&folder).with_context(|| format!("make the folder {}", folder.display()))?;
    let done = super::guide::run(&root.join(GUIDE), bash, &folder, &[]);
    // The guide's last command, for when it did not come to it.
    State::new(None)?.clear()?;
    let done = done?;
    printer::line(&format!(
        "{} commands of {GUIDE} in {} s: all did what they should",
        done.commands, done.seconds
    ));
    Ok(())
}

/// Runs kube-emulator's contract tests against a real API server.
pub(crate) fn contract() -> anyhow::Result<()> {
    with_cluster("target/kube/contract", false, |cluster| {
        let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["test", "--package", "podid-kube-emulator", "--test", "contract"])
            .env("PODID_CONTRACT_KUBECONFIG", cluster.kubeconfig("admin"))
            .current_dir(crate::root()?)
            .status()
            .context("run cargo test")?;
        if !status.success() {
            bail!(
                "the real API server does not do what the tests say; the embedded one is wrong, or the test is"
            );
        }
        Ok(())
    })
}

/// A fresh cluster for `work`; gone afterwards, whatever happened, unless it is to be kept.
pub(crate) fn with_cluster<T>(
    folder: &str,
    keep: bool,
    work: impl FnOnce(&Cluster) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let state = State::new(Some(&crate::root()?.join(folder)))?;
    state.clear()?;
    let cluster = Cluster::up(state)?;
    let done = work(&cluster);
    if keep {
        printer::note(&format!(
            "the cluster is left up: {}",
            cluster.kubeconfig("admin").display()
        ));
        return done;
    }
    // In any case.
    let ended = cluster.down();
    let done = done?;
    ended?;
    Ok(done)
}

/// Says what is being done, and how long it took.
#[derive(Debug, Default)]
pub(super) struct Steps {
    count: std::cell::Cell<usize>,
}

impl Steps {
    fn step<T>(&self, what: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let start = Instant::now();
        let done = work().with_context(|| what.to_owned())?;
        self.count.set(self.count.get() + 1);
        printer::line(&format!("ok {:>6.1} s  {what}", start.elapsed().as_secs_f32()));
        Ok(done)
    }
}
