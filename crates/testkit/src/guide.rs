//! Guides that are run: the commands and files of a Markdown page, and whether what a command printed is what the page
//! shows. Knows nothing of what the commands are about; [`Shell`](crate::shell::Shell) runs them.
//!
//! - A block `console`: lines that begin with `$ ` are commands (going on with `> ` or after a backslash), the others are
//!   what the command prints. Nothing shown means that nothing is printed.
//! - A block `sh` or `azurecli`: every line is a command; what it prints is not looked at.
//! - A block `output`: what the command before it prints.
//! - A block with the name of a file after its language: that file.
//!
//! In what is printed, a line `...` is any lines, `[..]` any text, and `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` any id. A
//! last line `^C` means that the command goes on until it is interrupted.

/// Any lines.
const LINES: &str = "...";
/// Any text in a line.
const TEXT: &str = "[..]";
/// Any id.
const ID: &str = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
/// The command is interrupted.
const INTERRUPT: &str = "^C";

/// What a page has its reader do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Type a command.
    Command(Command),
    /// Make a file.
    File {
        /// Its name.
        name: String,
        /// What is in it.
        content: String,
    },
}

/// A command of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// Line of the page, from 1.
    pub line: usize,
    /// The last heading before it.
    pub heading: String,
    /// As it is typed; several lines when it goes on.
    pub text: String,
    /// What it prints; none when the page does not show it.
    pub prints: Option<Vec<String>>,
    /// Words of the block's first line after its language.
    pub words: Vec<String>,
}

/// The steps of a page, in order.
pub fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut heading = String::new();
    let mut lines = page.lines().enumerate();
    while let Some((_, line)) = lines.next() {
        if let Some(text) = line.strip_prefix('#') {
            text.trim_start_matches('#').trim().clone_into(&mut heading);
        }
        let Some(info) = line.trim_start().strip_prefix("```") else {
            continue;
        };
        let mut info = info.split_whitespace().map(str::to_owned);
        let language = info.next().unwrap_or_default();
        let words: Vec<String> = info.collect();
        let block: Vec<(usize, &str)> = lines
            .by_ref()
            .take_while(|(_, line)| !line.trim_start().starts_with("```"))
            .map(|(number, line)| (number + 1, line))
            .collect();
        match language.as_str() {
            "console" => steps.extend(console(&block, &heading, &words)),
            "sh" | "azurecli" => steps.extend(plain(&block, &heading, &words)),
            "output" => {
                if let Some(Step::Command(command)) = steps.last_mut() {
                    command.prints = Some(block.iter().map(|(_, line)| (*line).to_owned()).collect());
                }
            }
            _ => {
                if let Some(name) = words.first() {
                    let content = block.iter().flat_map(|(_, line)| [*line, "\n"]).collect();
                    let name = name.clone();
                    steps.push(Step::File { name, content });
                }
            }
        }
    }
    steps
}

fn console(block: &[(usize, &str)], heading: &str, words: &[String]) -> Vec<Step> {
    let mut commands: Vec<Command> = Vec::new();
    for (number, line) in block {
        if let Some(text) = line.strip_prefix("$ ") {
            commands.push(Command {
                line: *number,
                heading: heading.to_owned(),
                text: text.to_owned(),
                prints: Some(Vec::new()),
                words: words.to_vec(),
            });
            continue;
        }
        let Some(command) = commands.last_mut() else {
            continue;
        };
        let prints = command.prints.get_or_insert_default();
        let goes_on = prints.is_empty() && command.text.ends_with('\\');
        match line.strip_prefix("> ") {
            Some(more) if prints.is_empty() => command.text = format!("{}\n{more}", command.text),
            None if goes_on => command.text = format!("{}\n{line}", command.text),
            _ => prints.push((*line).to_owned()),
        }
    }
    commands.into_iter().map(Step::Command).collect()
}

fn plain(block: &[(usize, &str)], heading: &str, words: &[String]) -> Vec<Step> {
    let mut commands: Vec<Command> = Vec::new();
    for (number, line) in block {
        if let Some(command) = commands.last_mut()
            && command.text.ends_with('\\')
        {
            command.text = format!("{}\n{line}", command.text);
        } else if !line.trim().is_empty() && !line.starts_with('#') {
            commands.push(Command {
                line: *number,
                heading: heading.to_owned(),
                text: (*line).to_owned(),
                prints: None,
                words: words.to_vec(),
            });
        }
    }
    commands.into_iter().map(Step::Command).collect()
}

impl Command {
    /// Whether it goes on until it is interrupted.
    pub fn is_interrupted(&self) -> bool {
        let last = self.prints.iter().flatten().next_back();
        last.is_some_and(|line| line == INTERRUPT)
            || (self.prints.is_some() && self.text.contains(" --follow"))
    }

    /// Whether this is what it should print. Of a command that is interrupted: whether all of it has come.
    pub fn is_printed(&self, printed: &[String]) -> bool {
        let Some(expected) = &self.prints else {
            return true;
        };
        let mut expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        if self.is_interrupted() {
            if expected.last() == Some(&INTERRUPT) {
                expected.pop();
            }
            expected.push(LINES);
        }
        let printed: Vec<&str> = printed.iter().map(|line| line.trim_end()).collect();
        lines_match(&expected, &printed)
    }
}

fn lines_match(expected: &[&str], printed: &[&str]) -> bool {
    match (expected.split_first(), printed.split_first()) {
        (None, None) => true,
        (Some((&LINES, rest)), None) => lines_match(rest, printed),
        (Some((&LINES, rest)), Some((_, later))) => {
            lines_match(rest, printed) || lines_match(expected, later)
        }
        (Some((pattern, rest)), Some((line, later))) => {
            line_matches(pattern.trim_end(), line) && lines_match(rest, later)
        }
        _ => false,
    }
}

fn line_matches(pattern: &str, line: &str) -> bool {
    let (text, id) = (pattern.find(TEXT), pattern.find(ID));
    match (text, id) {
        (None, None) => pattern == line,
        (Some(at), id) if id.is_none_or(|id| at < id) => {
            let (before, after) = halves(pattern, at, TEXT.len());
            line.strip_prefix(before).is_some_and(|rest| {
                (0..=rest.len()).any(|skip| rest.get(skip..).is_some_and(|rest| line_matches(after, rest)))
            })
        }
        (_, at) => {
            let (before, after) = halves(pattern, at.unwrap_or_default(), ID.len());
            line.strip_prefix(before)
                .and_then(|rest| rest.split_at_checked(ID.len()))
                .is_some_and(|(id, rest)| is_id(id) && line_matches(after, rest))
        }
    }
}

fn halves(pattern: &str, at: usize, length: usize) -> (&str, &str) {
    (
        pattern.get(..at).unwrap_or_default(),
        pattern.get(at + length..).unwrap_or_default(),
    )
}

fn is_id(text: &str) -> bool {
    text.bytes().zip(ID.bytes()).all(|(found, pattern)| {
        if pattern == b'-' {
            found == b'-'
        } else {
            found.is_ascii_hexdigit()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(page: &str) -> Vec<Command> {
        let commands = steps(page).into_iter().filter_map(|step| match step {
            Step::Command(command) => Some(command),
            Step::File { .. } => None,
        });
        commands.collect()
    }

    fn printed(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|&line| line.to_owned()).collect()
    }

    #[test]
    fn a_page_is_its_commands_with_what_they_print_and_its_files() {
        let page = "# A\n```console kubectl\n$ one \\\n  more\nsaid\n$ two\n```\ntext\n```yaml pod.yaml\na: b\n```\n\
                    ## B\n```sh\n# a remark\nthree\n\nfour\n```\n```output\nfour's\n```\n```json\n{}\n```\n";
        let found = commands(page);
        let texts: Vec<&str> = found.iter().map(|command| command.text.as_str()).collect();
        assert_eq!(texts, ["one \\\n  more", "two", "three", "four"]);
        let shown: Vec<_> = found.iter().map(|command| command.prints.clone()).collect();
        assert_eq!(
            shown,
            [
                Some(printed(&["said"])),
                Some(vec![]),
                None,
                Some(printed(&["four's"]))
            ]
        );
        assert_eq!((found[0].line, found[2].line), (3, 15));
        assert_eq!((found[0].heading.as_str(), found[2].heading.as_str()), ("A", "B"));
        assert_eq!(found[0].words, ["kubectl"]);
        let file = Step::File {
            name: "pod.yaml".to_owned(),
            content: "a: b\n".to_owned(),
        };
        assert!(steps(page).contains(&file));
    }

    #[test]
    fn what_is_printed_is_held_to_the_page() {
        let id = "0a2e0000-50b5-4000-8000-000000000001";
        for (page, lines, fits) in [
            ("said", &["said"][..], true),
            ("said", &["said", "more"], false),
            ("", &["more"], false),
            ("...\nsaid\n...", &["a", "said"], true),
            ("...\nsaid\n...", &["a", "b"], false),
            ("a [..] b [..]", &["a x b y"], true),
            ("a [..] b", &["a x c"], false),
            (
                "id(xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx)",
                &[&*format!("id({id})")],
                true,
            ),
            ("id(xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx)", &["id(none)"], false),
        ] {
            let newline = if page.is_empty() { "" } else { "\n" };
            let found = commands(&format!("```console\n$ command\n{page}{newline}```\n"));
            assert_eq!(found[0].is_printed(&printed(lines)), fits, "{page:?} {lines:?}");
        }
    }

    #[test]
    fn what_goes_on_is_enough_when_all_has_come() {
        let found = commands("```console\n$ follow\n...\nlast\n^C\n```\n");
        assert!(found[0].is_interrupted());
        assert!(!found[0].is_printed(&printed(&["first"])));
        assert!(found[0].is_printed(&printed(&["first", "last", "first"])));
    }
}
