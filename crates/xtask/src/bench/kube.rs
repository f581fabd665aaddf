//! One agent on a real API server with 100 nodes and 5,000 pods: the cluster is ours, the measuring is the agent's bench.

use clap::Args;

use super::section::Section;
use super::{AGENT, machine, measure, table};
use crate::{printer, root};

/// How.
#[derive(Args, Debug)]
pub(crate) struct KubeArgs {
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Write the section about it in docs/reference/performance.md
    #[arg(long)]
    write: bool,
    /// Cargo profile of the agent
    #[arg(long, default_value = "dist")]
    profile: String,
}

impl KubeArgs {
    /// Measures.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let Self { json, write, profile } = self;
        let root = root()?;
        let found = crate::e2e::kube::with_cluster("target/kube/bench", false, |cluster| {
            // Nodes and pods are made up: who looks after real ones would clear them away.
            for controller in ["kube-controller-manager", "kube-scheduler"] {
                cluster.stop_inside(None, controller)?;
            }
            let kubeconfig = cluster.kubeconfig("admin").display().to_string();
            measure(&root, AGENT, &profile, &["--kubeconfig", &kubeconfig])
        })?;
        if json {
            printer::line(&serde_json::to_string_pretty(&found)?);
        } else {
            printer::text(&table(&found)?);
        }
        if write {
            let told = format!(
                "## On a real API server\n\nMeasured with `cargo xtask bench kube --write` on {}: kube-apiserver and etcd\n\
                 beside the agent, one agent of 100 nodes. Latencies are from the call to the API server to the answer that a pod gets.\n\n{}",
                machine(&found)?,
                table(&found)?
            );
            Section("kube").write(&root, &told)?;
        }
        Ok(())
    }
}
