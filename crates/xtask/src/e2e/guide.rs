//! Runs a guide of `docs/guides` in one shell, step by step: what is typed is shown with the seconds since the start, what
//! comes goes to a log, and to the terminal where the guide shows it too.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use podid_testkit::guide::{Step, steps};
use podid_testkit::shell::Shell;

use crate::printer;

/// How long a command of a guide may take, on a machine that does other things besides.
const PATIENCE: Duration = Duration::from_mins(5);
/// Marks blocks that are for reading only.
const NOT_RUN: &str = "not-run";

/// What was run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    pub(crate) commands: usize,
    pub(crate) seconds: u64,
}

/// Runs the guide `page` by `shell`, which starts bash; its files and the log are made in `folder`. Blocks marked with one
/// of `without` are left out.
pub(crate) fn run(page: &Path, shell: Command, folder: &Path, without: &[&str]) -> anyhow::Result<Done> {
    let text = std::fs::read_to_string(page).with_context(|| format!("read {}", page.display()))?;
    let path = folder.join("log.txt");
    let mut log = File::create(&path).with_context(|| format!("make {}", path.display()))?;
    let start = Instant::now();
    let mut shell = Shell::start(shell).context("start bash")?;
    let (mut done, mut heading) = (Done::default(), String::new());
    for step in steps(&text) {
        let command = match step {
            Step::File { name, content } => {
                let at = folder.join(&name);
                std::fs::write(&at, content).with_context(|| format!("write {}", at.display()))?;
                continue;
            }
            Step::Command(command) => command,
        };
        let left_out = |word: &String| word == NOT_RUN || without.contains(&word.as_str());
        if command.words.iter().any(left_out) {
            continue;
        }
        if command.heading != heading {
            heading.clone_from(&command.heading);
            printer::line(&format!("== {heading}"));
        }
        let shown = format!("[{:>3} s] $ {}", start.elapsed().as_secs(), command.text);
        printer::line(&shown);
        writeln!(log, "{shown}")?;
        let ran = shell.run(&command, PATIENCE, |line| {
            // A log that cannot be written to shows in the next command's line.
            let _full = writeln!(log, "{line}");
            if command.prints.is_some() && !line.is_empty() {
                printer::line(line);
            }
        });
        ran.map_err(|what| anyhow!("{}, {what}\n(all of it: {})", page.display(), path.display()))?;
        done.commands += 1;
    }
    done.seconds = start.elapsed().as_secs();
    Ok(done)
}
