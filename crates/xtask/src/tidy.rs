//! House rules that a machine can check, run as tests and by `cargo xtask tidy`.

mod arrows;
mod files;
mod words;

use anyhow::bail;

use crate::generate::conformance;
use crate::{printer, root};

/// Checks every rule, reports file sizes, fails with all findings at once.
pub(crate) fn run() -> anyhow::Result<()> {
    let root = root()?;
    let sources = files::sources(&root)?;
    let mut findings = arrows::findings(&root)?;
    findings.extend(files::findings(&sources));
    findings.extend(words::findings(&words::texts(&root)?));
    findings.extend(conformance::findings(&root)?);
    for (path, lines) in files::long(&sources) {
        printer::line(&format!("{path}: {lines} lines, more than {}", files::LONG));
    }
    if findings.is_empty() {
        return Ok(());
    }
    bail!("{}", findings.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_depend_only_along_the_arrows_of_the_architecture() {
        assert_eq!(arrows::findings(&root().unwrap()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn every_rule_of_the_wire_has_its_test() {
        assert_eq!(
            conformance::findings(&root().unwrap()).unwrap(),
            Vec::<String>::new()
        );
    }

    #[test]
    fn every_file_keeps_the_house_rules() {
        let sources = files::sources(&root().unwrap()).unwrap();
        assert!(sources.len() > 20, "the sources were found");
        assert_eq!(files::findings(&sources), Vec::<String>::new());
    }

    #[test]
    fn no_file_has_words_that_do_not_belong_in_it() {
        let texts = words::texts(&root().unwrap()).unwrap();
        assert!(texts.len() > 100, "the files were found");
        assert_eq!(words::findings(&texts), Vec::<String>::new());
    }
}
