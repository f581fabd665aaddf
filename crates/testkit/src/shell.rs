//! One shell that runs the commands of a page one after the other, so that what one sets the next one has.
//!
//! `run` ─▶ command and a mark to bash ─▶ lines until the mark ─▶ held against the page

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command as Program, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

use crate::guide::Command;

/// Begins the line that says that a command has ended. No program prints it.
const MARK: &str = "\u{1}ended:";

/// A running bash. Dropped, it is killed, with the programs that it waits for.
#[derive(Debug)]
pub struct Shell {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Shell {
    /// Starts `program`, which is bash or becomes it, with its folder and environment.
    pub fn start(mut program: Program) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        let mut child = program
            .stdin(Stdio::piped())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .spawn()?;
        let stdin = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(reader).split(b'\n') {
                let Ok(line) = line else { return };
                if tell.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, stdin, lines })
    }

    /// Runs a command and holds what it prints against the page; each line is passed to `heard`. The error says what did
    /// not hold, with all that was printed.
    pub fn run(
        &mut self,
        command: &Command,
        patience: Duration,
        mut heard: impl FnMut(&str),
    ) -> Result<(), String> {
        let said = |what: String, printed: &[String]| {
            let wanted = match &command.prints {
                Some(lines) if !command.is_printed(printed) => {
                    format!("\n--- the page has\n{}", lines.join("\n"))
                }
                _ => String::new(),
            };
            let printed = printed.join("\n");
            format!(
                "line {}: `{}` {what}{wanted}\n--- it printed\n{printed}",
                command.line, command.text
            )
        };
        let before = self.running();
        // The end of input is not the shell's own: what reads it must not take the next commands.
        let typed = format!(
            "{{ {}\n}} </dev/null; printf '\\n{MARK}%d\\n' \"$?\"\n",
            command.text
        );
        let written = self
            .stdin
            .write_all(typed.as_bytes())
            .and_then(|()| self.stdin.flush());
        written.map_err(|error| format!("line {}: the shell has ended: {error}", command.line))?;
        let deadline = Instant::now() + patience;
        let (mut printed, mut interrupted) = (Vec::new(), false);
        let code = loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    if let Some(code) = line.strip_prefix(MARK) {
                        break code.to_owned();
                    }
                    if !interrupted {
                        heard(&line);
                        printed.push(line);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(said(format!("was not done within {patience:?}"), &printed));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(said("ended the shell".to_owned(), &printed));
                }
            }
            if command.is_interrupted() && !interrupted && command.is_printed(&printed) {
                interrupted = true;
                for process in self.running().into_iter().filter(|pid| !before.contains(pid)) {
                    // One that has just ended needs no signal.
                    let _ended = kill(process, interrupt(process));
                }
            }
        };
        // The mark begins a line of its own.
        if printed.last().is_some_and(String::is_empty) {
            printed.pop();
        }
        if interrupted {
            return Ok(());
        }
        if code != "0" {
            return Err(said(format!("ended with exit code {code}"), &printed));
        }
        if !command.is_printed(&printed) {
            return Err(said("printed something else".to_owned(), &printed));
        }
        Ok(())
    }

    /// The shell's children.
    fn running(&self) -> Vec<Pid> {
        let parent = self.child.id().to_string();
        let Ok(entries) = std::fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|entry| {
                let pid = entry.file_name().to_str()?.parse().ok()?;
                let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
                // `pid (name) state parent …`, and the name may have anything in it. Source: proc_pid_stat(5).
                let (_, rest) = stat.rsplit_once(')')?;
                (rest.split_whitespace().nth(1)? == parent).then(|| Pid::from_raw(pid))
            })
            .collect()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let children = self.running();
        // First the shell, so that it starts nothing more.
        let _gone = self.child.kill();
        for process in children {
            let _ended = kill(process, Signal::SIGTERM);
        }
        let _ended = self.child.wait();
    }
}

/// What `^C` sends, or its nearest kin: who is started in the background of a script is born deaf to the former, and so is
/// all that it starts.
fn interrupt(process: Pid) -> Signal {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // Signal n is bit n - 1. Source: proc_pid_status(5).
    if ignored.is_some_and(|mask| mask & (1 << (Signal::SIGINT as i32 - 1)) != 0) {
        Signal::SIGTERM
    } else {
        Signal::SIGINT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guide::{Step, steps};

    const PATIENCE: Duration = Duration::from_secs(30);

    fn bash() -> Shell {
        #[expect(clippy::disallowed_methods, reason = "the test needs a shell")]
        let mut program = Program::new("bash");
        program.args(["--noprofile", "--norc"]);
        Shell::start(program).unwrap()
    }

    fn run(shell: &mut Shell, page: &str) -> Result<(), String> {
        for step in steps(page) {
            if let Step::Command(command) = step {
                shell.run(&command, PATIENCE, |_| {})?;
            }
        }
        Ok(())
    }

    #[test]
    fn what_one_command_sets_the_next_one_has() {
        let page =
            "```console\n$ export WHO=pod\n$ printf 'a %s' $WHO; cat\na pod\n$ cd /; pwd\n/\n$ pwd\n/\n```\n";
        run(&mut bash(), page).unwrap();
    }

    #[test]
    fn another_output_and_another_code_are_told_with_the_line() {
        for (page, words) in [
            (
                "```console\n$ echo this\nthat\n```\n",
                "line 2: `echo this` printed something else",
            ),
            (
                "text\n```sh\n(exit 3)\n```\n",
                "line 3: `(exit 3)` ended with exit code 3",
            ),
            ("```sh\nexit 3\n```\n", "ended the shell"),
        ] {
            let said = run(&mut bash(), page).unwrap_err();
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn what_goes_on_is_interrupted_and_the_shell_lives() {
        let page = "```console\n$ sleep 100 &\n$ echo one; exec 3>&1; sh -c 'echo two; exec sleep 100'\none\ntwo\n^C\n\
                    $ jobs -r\n[..]Running[..]sleep 100[..]\n```\n";
        run(&mut bash(), page).unwrap();
    }
}
