//! A section of the page of figures: each belongs to one command, which leaves the others as they are.

use std::path::Path;

use anyhow::Context as _;

/// The page in the documents.
const PAGE: &str = "docs/reference/performance.md";
/// What a page begins with.
const HEAD: &str =
    "# Performance\n\nNumbers depend on the machine, and on what else it does; run the commands on yours.\n";

/// The section that `cargo xtask bench NAME --write` writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section(pub(super) &'static str);

impl Section {
    /// Puts `text` into the page, in place of what the section had, or at the end.
    pub(super) fn write(self, root: &Path, text: &str) -> anyhow::Result<()> {
        let path = root.join(PAGE);
        let page = std::fs::read_to_string(&path).unwrap_or_else(|_none_yet| HEAD.to_owned());
        std::fs::write(&path, self.put(&page, text)).with_context(|| format!("write {PAGE}"))
    }

    fn put(self, page: &str, text: &str) -> String {
        let Self(name) = self;
        let begin = format!("<!-- {name}: written by `cargo xtask bench {name} --write`. Do not edit. -->");
        let end = format!("<!-- {name}: end -->");
        let (before, after) = page
            .split_once(&begin)
            .and_then(|(before, rest)| Some((before.to_owned(), rest.split_once(&end)?.1)))
            .unwrap_or_else(|| (format!("{}\n\n", page.trim_end()), "\n"));
        format!("{before}{begin}\n{}\n{end}{after}", text.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_replaces_its_own_and_leaves_the_others() {
        let one = Section("one").put("# Page\n\ntext\n", "1\n");
        let both = Section("two").put(&one, "2\n");
        let again = Section("one").put(&both, "1, again\n");
        assert_eq!(again, both.replace("\n1\n", "\n1, again\n"));
        assert!(
            again.starts_with("# Page\n\ntext\n\n<!-- one:") && again.ends_with("\n2\n<!-- two: end -->\n"),
            "{again}"
        );
    }
}
