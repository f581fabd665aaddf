//! House rules that a machine can check, run as tests and by `cargo xtask tidy`.

mod arrows;
mod files;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::printer;

/// Checks every rule, reports file sizes, fails with all findings at once.
pub(crate) fn run() -> anyhow::Result<()> {
    let root = root()?;
    let sources = files::sources(&root)?;
    let mut findings = arrows::findings(&root)?;
    findings.extend(files::findings(&sources));
    for (path, lines) in files::long(&sources) {
        printer::line(&format!("{path}: {lines} lines"));
    }
    if findings.is_empty() {
        return Ok(());
    }
    bail!("{}", findings.join("\n"))
}

/// The workspace's folder.
fn root() -> anyhow::Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(manifest
        .ancestors()
        .nth(2)
        .context("xtask is two folders below the workspace")?
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_depend_only_along_the_arrows_of_the_architecture() {
        assert_eq!(arrows::findings(&root().unwrap()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn every_file_keeps_the_house_rules() {
        let sources = files::sources(&root().unwrap()).unwrap();
        assert!(sources.len() > 20, "the sources were found");
        assert_eq!(files::findings(&sources), Vec::<String>::new());
    }
}
