//! Processes by number and start time: a number alone is used again after its process is gone.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::bail;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// One process of this machine, never another with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    /// Its number, as the machine sees it
    pub(super) pid: i32,
    /// Clock ticks after boot (proc(5), field 22 of `stat`)
    pub(super) start: u64,
}

impl Process {
    /// The running process with this number.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        let (_, start) = stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        Some(Self { pid, start })
    }

    /// Whether it still runs. What has died and was not yet waited for does not.
    pub(super) fn alive(self) -> bool {
        let Ok(text) = fs::read_to_string(format!("/proc/{}/stat", self.pid)) else {
            return false;
        };
        stat(&text).is_some_and(|(state, start)| start == self.start && !matches!(state, 'Z' | 'X'))
    }

    /// Kills it and waits until it is gone.
    pub(super) fn end(self) -> anyhow::Result<()> {
        if self.alive() {
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
        if !wait_until(Duration::from_secs(10), || !self.alive()) {
            bail!("process {} does not end", self.pid);
        }
        Ok(())
    }
}

/// State and start time in a line of `/proc/<pid>/stat`. The name, in parentheses, may hold anything.
fn stat(line: &str) -> Option<(char, u64)> {
    let (_, rest) = line.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// Looks at something again and again until it holds; false after `limit`.
pub(super) fn wait_until(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// The last lines of a log file, for an error's text.
pub(super) fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    all.get(from..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_blanks_is_skipped() {
        let line = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 9 9";
        assert_eq!(stat(line), Some(('S', 4242)));
    }

    #[test]
    fn another_start_time_is_another_process() {
        let me = Process::of(std::process::id()).unwrap();
        assert!(me.alive());
        let other = Process {
            start: me.start + 1,
            ..me
        };
        assert!(!other.alive());
    }
}
