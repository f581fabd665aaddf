//! Where a cluster keeps its files, and what was started, so that it can be stopped: exactly that.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::process::Process;
use super::{cgroups, tools};

/// A cluster's folder.
#[derive(Clone, Debug)]
pub(crate) struct State {
    folder: PathBuf,
}

/// What `down` needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Started {
    /// The process whose death ends the cluster
    pub(super) supervisor: Process,
    /// Folder of the programs
    pub(super) tools: PathBuf,
    /// Nodes that were added, with their control groups
    pub(super) nodes: Vec<Node>,
}

/// A node that was added.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) number: u8,
    pub(super) cgroup: String,
}

impl State {
    /// The folder that was asked for, or `target/kube/cluster`.
    pub(crate) fn new(folder: Option<&Path>) -> anyhow::Result<Self> {
        let folder = match folder {
            Some(folder) => std::path::absolute(folder)?,
            None => tools::target_folder()?.join("kube/cluster"),
        };
        // A node sees folders of its own there.
        for hidden in ["/run", "/var/lib", "/var/log", "/etc", "/proc", "/sys"] {
            if folder.starts_with(hidden) {
                bail!(
                    "{} cannot hold a cluster: its nodes have a {hidden} of their own",
                    folder.display()
                );
            }
        }
        if folder.as_os_str().len() > 80 {
            bail!("{} is too long a path for the sockets in it", folder.display());
        }
        Ok(Self { folder })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn pki(&self) -> PathBuf {
        self.folder.join("pki")
    }

    pub(super) fn logs(&self) -> PathBuf {
        self.folder.join("log")
    }

    pub(super) fn etcd(&self) -> PathBuf {
        self.folder.join("etcd")
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.join("control.sock")
    }

    /// For people and programs of this machine.
    pub(crate) fn kubeconfig(&self, user: &str) -> PathBuf {
        self.folder.join(format!("{user}.kubeconfig"))
    }

    /// For what runs in the cluster's network.
    pub(crate) fn inner_kubeconfig(&self, user: &str) -> PathBuf {
        self.folder.join(format!("{user}.inner.kubeconfig"))
    }

    /// A node's folder.
    pub(super) fn node(&self, name: &str) -> PathBuf {
        self.folder.join("nodes").join(name)
    }

    fn file(&self) -> PathBuf {
        self.folder.join("started.json")
    }

    /// What was started here, if anything was.
    pub(super) fn started(&self) -> anyhow::Result<Option<Started>> {
        let text = match fs::read_to_string(self.file()) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", self.file().display())),
        };
        serde_json::from_str(&text)
            .map(Some)
            .with_context(|| format!("{} is not what `up` wrote", self.file().display()))
    }

    /// The cluster that runs here.
    pub(super) fn running(&self) -> anyhow::Result<Started> {
        match self.started()? {
            Some(started) if started.supervisor.alive() => Ok(started),
            Some(_) => bail!(
                "the cluster in {} has ended (see {}); `cargo xtask kube down` clears it away",
                self.folder.display(),
                self.logs().display()
            ),
            None => bail!(
                "no cluster runs in {}; start one with `cargo xtask kube up`",
                self.folder.display()
            ),
        }
    }

    pub(super) fn save(&self, started: &Started) -> anyhow::Result<()> {
        // Renamed into place: a reader sees the old one or the new one.
        let unfinished = self.folder.join(".started.json");
        fs::write(&unfinished, serde_json::to_string_pretty(started)?)?;
        fs::rename(&unfinished, self.file()).with_context(|| format!("write {}", self.file().display()))
    }

    /// Ends what was started and removes the folder. Nothing to do is fine.
    pub(crate) fn clear(&self) -> anyhow::Result<()> {
        if let Some(started) = self.started()? {
            started.supervisor.end()?;
            for node in &started.nodes {
                cgroups::remove(&node.cgroup)?;
            }
        } else if self.folder.exists()
            && fs::read_dir(&self.folder)?.next().is_some()
            && !self.logs().exists()
        {
            bail!("{} is not empty and no cluster's folder", self.folder.display());
        }
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", self.folder.display()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_nodes_do_not_see_is_refused() {
        let refused = State::new(Some(Path::new("/run/x"))).unwrap_err().to_string();
        assert!(refused.contains("a /run of their own"), "{refused}");
        State::new(Some(Path::new("/tmp/x"))).unwrap();
    }

    #[test]
    fn a_folder_with_something_else_in_it_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("kept");
        fs::write(&kept, "").unwrap();
        let refused = State::new(Some(folder.path())).unwrap().clear().unwrap_err();
        assert!(refused.to_string().contains("no cluster's folder"), "{refused}");
        assert!(kept.exists());
    }
}
