//! One source for all ways to install: the chart. Its CRDs are copies of `deploy/crds`; `deploy/kustomize/base` is what
//! the real helm renders from it by default.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use super::tools::Tools;

/// The namespace of the rendered objects.
const NAMESPACE: &str = "podid-system";

/// Writes the files, or says which are stale.
fn write(files: Vec<(PathBuf, String)>, check: bool) -> anyhow::Result<()> {
    let mut stale = Vec::new();
    for (path, text) in files {
        if fs::read_to_string(&path).is_ok_and(|now| now == text) {
            continue;
        }
        if check {
            stale.push(path.display().to_string());
            continue;
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    if stale.is_empty() {
        return Ok(());
    }
    bail!("stale, run `cargo xtask kube render`: {}", stale.join(", "))
}

/// `cargo xtask kube render`.
pub(super) fn run(tools: &Tools, check: bool) -> anyhow::Result<()> {
    let root = crate::root()?;
    write(crds(&root)?, check)?;
    let rendered = helm(tools, &root)?;
    let text = format!(
        "# Rendered by `cargo xtask kube render` from deploy/helm/podid. Do not edit.\napiVersion: v1\nkind: Namespace\n\
         metadata:\n  name: {NAMESPACE}\n  labels:\n    pod-security.kubernetes.io/enforce: privileged\n{rendered}"
    );
    write(vec![(root.join("deploy/kustomize/base/podid.yaml"), text)], check)
}

fn helm(tools: &Tools, root: &Path) -> anyhow::Result<String> {
    let chart = root.join("deploy/helm/podid");
    super::tools::run(
        Command::new(tools.program("helm"))
            .args(["template", "podid", "--namespace", NAMESPACE])
            .arg(chart),
    )
}

/// The chart's copies of the CRDs.
fn crds(root: &Path) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root.join("deploy/crds")).context("read deploy/crds")? {
        let path = entry?.path();
        let name = path.file_name().context("a file has a name")?;
        files.push((
            root.join("deploy/helm/podid/files/crds").join(name),
            fs::read_to_string(&path)?,
        ));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_has_the_crds_as_they_are() {
        write(crds(&crate::root().unwrap()).unwrap(), true).unwrap();
    }
}
