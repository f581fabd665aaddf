//! Rules about single files: each opens with `//!`, none is called `mod.rs` or after what it is not, none is endless.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// From here on a file's length is reported.
pub(super) const LONG: usize = 300;
/// A file longer than this is refused: split it by its nouns.
const TOO_LONG: usize = 600;
/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["utils", "util", "helpers", "helper", "common", "manager", "misc"];

/// One Rust file of the workspace.
pub(super) struct Source {
    /// Relative to the workspace, with `/`.
    path: String,
    text: String,
}

/// Every Rust file below `crates`.
pub(super) fn sources(root: &Path) -> anyhow::Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut folders: Vec<PathBuf> = vec![root.join("crates")];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text =
                    std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
                let path = path
                    .strip_prefix(root)
                    .unwrap_or(&path)
                    .to_string_lossy()
                    .into_owned();
                sources.push(Source { path, text });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

/// One sentence for each broken rule.
pub(super) fn findings(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for Source { path, text } in sources {
        let stem = Path::new(path)
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if !text.starts_with("//!") {
            findings.push(format!(
                "{path} does not open with `//!`: say what the file is for"
            ));
        }
        if stem == "mod" {
            findings.push(format!("{path}: use `name.rs` beside `name/`, not mod.rs"));
        }
        if EMPTY_NAMES.contains(&stem.as_str()) {
            findings.push(format!("{path}: `{stem}` does not say what is inside"));
        }
        let lines = text.lines().count();
        if lines > TOO_LONG {
            findings.push(format!(
                "{path} has {lines} lines, more than {TOO_LONG}: split it"
            ));
        }
    }
    findings
}

/// The files that are longer than they should be, longest first.
pub(super) fn long(sources: &[Source]) -> Vec<(&str, usize)> {
    let mut long: Vec<_> = sources
        .iter()
        .map(|source| (source.path.as_str(), source.text.lines().count()))
        .filter(|(_, lines)| *lines > LONG)
        .collect();
    long.sort_by_key(|(_, lines)| std::cmp::Reverse(*lines));
    long
}
