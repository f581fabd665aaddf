//! One source for all ways to install: the chart. Its CRDs are copies of `deploy/crds`; `deploy/kustomize` is what the
//! real helm renders from it by default, and is built into `podid install`. What not every API server takes is a
//! component of its own.

mod rights;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use sha2::{Digest as _, Sha256};

use super::tools::Tools;

/// The namespace of the rendered objects.
const NAMESPACE: &str = "podid-system";
const CHART: &str = "deploy/helm/podid";
/// All objects, by default.
const BASE: &str = "deploy/kustomize/base/podid.yaml";
/// What closes new nodes in the API server itself, where that is possible.
const POLICY: &str = "deploy/kustomize/components/startup-taint/policy.yaml";
/// The agents' DaemonSet with `uninstall=true`: it takes the interception off the nodes.
const AGENT: &str = "deploy/kustomize/uninstall/agent.yaml";

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
    let header = header(&root)?;
    let base = format!(
        "{header}apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {NAMESPACE}\n  labels:\n    app.kubernetes.io/name: podid\n    \
         pod-security.kubernetes.io/enforce: privileged\n{}",
        helm(tools, &root, &["--set=startupTaint.admissionPolicy=never"])?
    );
    let only = |template: &str, setting: &str| -> anyhow::Result<String> {
        let template = format!("--show-only=templates/{template}");
        Ok(format!(
            "{header}{}",
            helm(tools, &root, &["--set", setting, &template])?
        ))
    };
    let policy = |kind: &str| only("net-raw.yaml", &format!("netRaw.policy={kind}"));
    let closing = only("startup-taint.yaml", "startupTaint.admissionPolicy=always")?;
    let closing: Vec<&str> = closing
        .split("---\n")
        .filter(|object| object.contains("kind: MutatingAdmissionPolicy"))
        .collect();
    let files = vec![
        (root.join(BASE), base),
        (
            root.join(POLICY),
            format!("{header}---\n{}", closing.join("---\n")),
        ),
        (root.join(AGENT), only("nmi/daemonset.yaml", "uninstall=true")?),
        (
            root.join("deploy/policies/drop-net-raw.yaml"),
            policy("validatingAdmissionPolicy")?,
        ),
        (
            root.join("deploy/policies/drop-net-raw.gatekeeper.yaml"),
            policy("gatekeeper")?,
        ),
        (root.join("docs/reference/rights.md"), rights_page(tools, &root)?),
    ];
    write(files, check)
}

fn rights_page(tools: &Tools, root: &Path) -> anyhow::Result<String> {
    let with = |settings: &[&str]| -> anyhow::Result<BTreeSet<rights::Right>> {
        let more: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        rights::of(&template(tools, root, &more)?)
    };
    let by_setting: anyhow::Result<Vec<_>> =
        rights::SETTINGS.iter().map(|setting| with(&[setting])).collect();
    rights::page(&with(&[])?, &by_setting?)
}

/// What the chart renders, without what only means something to helm: its labels and hooks.
fn helm(tools: &Tools, root: &Path, more: &[&str]) -> anyhow::Result<String> {
    let rendered = template(tools, root, &[&["--no-hooks"], more].concat())?;
    let kept: Vec<&str> = rendered.lines().filter(|line| !helms(line)).collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut text = String::new();
    for (at, line) in kept.iter().enumerate() {
        let deeper = kept.get(at + 1).is_some_and(|next| indent(next) > indent(line));
        // Nothing but helm's was in it.
        if line.trim() != "annotations:" || deeper {
            text.push_str(line);
            text.push('\n');
        }
    }
    Ok(text)
}

fn template(tools: &Tools, root: &Path, more: &[&str]) -> anyhow::Result<String> {
    super::tools::run(
        Command::new(tools.program("helm"))
            .args(["template", "podid", "--namespace", NAMESPACE])
            .args(more)
            .arg(root.join(CHART)),
    )
}

/// Whether a line is a label or annotation of helm's.
fn helms(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("helm.sh/") || line == "app.kubernetes.io/managed-by: Helm"
}

/// The first lines of what is rendered: of which chart. With them a checkout is known to be stale without helm.
fn header(root: &Path) -> anyhow::Result<String> {
    let mut files = vec![];
    list(&root.join(CHART), &mut files)?;
    files.sort();
    let mut hash = Sha256::new();
    for path in files {
        hash.update(path.strip_prefix(root)?.as_os_str().as_encoded_bytes());
        hash.update(fs::read(&path).with_context(|| format!("read {}", path.display()))?);
    }
    Ok(format!(
        "# Rendered by `cargo xtask kube render` from {CHART}. Do not edit.\n# SHA-256 of the chart: {:x}\n",
        hash.finalize()
    ))
}

/// All files below a folder.
fn list(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
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

    #[test]
    fn what_was_rendered_is_of_this_chart() {
        let root = crate::root().unwrap();
        let header = header(&root).unwrap();
        for path in [BASE, POLICY, AGENT] {
            let text = fs::read_to_string(root.join(path)).unwrap();
            assert!(text.starts_with(&header), "{path}: run `cargo xtask kube render`");
        }
    }
}
