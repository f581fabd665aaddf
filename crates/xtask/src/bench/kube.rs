//! One agent on a real API server with 100 nodes and 5,000 pods: the cluster is ours, the measuring is the agent's bench.
//! Its section of the page stands between two lines of its own.

use anyhow::Context as _;
use clap::Args;

use super::{PAGE, measure, table};
use crate::{printer, root};

/// First and last line of the section.
const BEGIN: &str = "<!-- kube: written by `cargo xtask bench kube --write`. Do not edit. -->";
const END: &str = "<!-- kube: end -->";

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
            measure(&root, "agent", &profile, &["--json", "--kubeconfig", &kubeconfig])
        })?;
        if json {
            printer::line(&serde_json::to_string_pretty(&found)?);
        } else {
            printer::text(&table(&found)?);
        }
        if write {
            let path = root.join(PAGE);
            let page = std::fs::read_to_string(&path)
                .with_context(|| format!("read {PAGE}; `cargo xtask bench agent --write` makes it"))?;
            let section = format!(
                "\n## On a real API server\n\nMeasured with `cargo xtask bench kube --write`: kube-apiserver and etcd beside the agent on one machine, one\n\
                 agent of 100 nodes. Latencies are from the call to the API server to the answer that a pod gets.\n\n{}",
                table(&found)?
            );
            std::fs::write(&path, with(&page, &section)).with_context(|| format!("write {PAGE}"))?;
        }
        Ok(())
    }
}

/// What stands before, in and after the section.
fn parts(page: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (section, after) = rest.split_once(END)?;
    Some((before, section, after))
}

fn with(page: &str, section: &str) -> String {
    match parts(page) {
        Some((before, _, after)) => format!("{before}{BEGIN}{section}{END}{after}"),
        None => format!("{}\n\n{BEGIN}{section}{END}\n", page.trim_end()),
    }
}

/// A new page with the section that the old one had.
pub(super) fn keep(old: &str, new: String) -> String {
    match parts(old) {
        Some((_, section, _)) => with(&new, section),
        None => new,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_replaces_the_one_before_and_survives_a_new_page() {
        let one = with("# Page\n\ntext\n", "\none\n");
        let two = with(&one, "\ntwo\n");
        assert_eq!(two, format!("# Page\n\ntext\n\n{BEGIN}\ntwo\n{END}\n"));
        assert_eq!(
            keep(&two, "# New\n".to_owned()),
            format!("# New\n\n{BEGIN}\ntwo\n{END}\n")
        );
        assert_eq!(keep("# Old\n", "# New\n".to_owned()), "# New\n");
    }
}
