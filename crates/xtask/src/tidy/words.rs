//! Words that do not belong in the project's files: notes to oneself, tests switched off, paths of somebody's machine.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// A word in two halves, so that this file does not have it, and why it is refused.
const REFUSED: &[(&str, &str, &str)] = &[
    ("TO", "DO", "open an issue, or do it"),
    ("FIX", "ME", "open an issue, or mend it"),
    ("XX", "X:", "say what it is about"),
    (
        "#[ig",
        "nore",
        "a test that does not run says nothing; make it run or remove it",
    ),
    ("/tmp", "/wt", "a path of one machine"),
    ("/wo", "rk/", "a path of one machine"),
    ("/ho", "me/", "a path of one machine"),
    ("../sha", "red", "a path outside the project"),
    ("work", "tree", "how the work was done is not part of it"),
];

/// What counts as a text of ours.
const EXTENSIONS: &[&str] = &["rs", "md", "toml", "yaml", "yml", "json", "sh", "txt"];

/// One text file of the project.
pub(super) struct Text {
    path: String,
    text: String,
}

/// Every text file of the project, apart from what cargo made.
pub(super) fn texts(root: &Path) -> anyhow::Result<Vec<Text>> {
    let mut texts = Vec::new();
    let mut folders: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if path.is_symlink() || ["target", ".git"].contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let extension = path.extension().unwrap_or_default().to_string_lossy();
            if EXTENSIONS.contains(&extension.as_ref()) || path.ends_with(".ci/run") {
                let text =
                    std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
                let path = path
                    .strip_prefix(root)
                    .unwrap_or(&path)
                    .to_string_lossy()
                    .into_owned();
                texts.push(Text { path, text });
            }
        }
    }
    texts.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(texts)
}

/// One sentence for each word found.
pub(super) fn findings(texts: &[Text]) -> Vec<String> {
    let mut findings = Vec::new();
    for Text { path, text } in texts {
        for (number, line) in (1_usize..).zip(text.lines()) {
            for (first, second, why) in REFUSED {
                let word = format!("{first}{second}");
                if line.contains(&word) {
                    findings.push(format!("{path}:{number}: `{word}`: {why}"));
                }
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_found_with_its_place() {
        let text = Text {
            path: "a.md".to_owned(),
            text: format!("fine\nfine {}{}", "TO", "DO later"),
        };
        assert_eq!(
            findings(&[text]),
            [format!("a.md:2: `{}{}`: open an issue, or do it", "TO", "DO")]
        );
    }
}
