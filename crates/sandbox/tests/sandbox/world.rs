//! A world for a test: started by the binary, with a home of its own, ended with the test.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use libtest_mimic::Failed;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;

/// The program under test.
pub(crate) const SANDBOX: &str = env!("CARGO_BIN_EXE_podid-sandbox");
/// How long anything may take. For machines that are busy.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A home for worlds.
pub(crate) struct Home(TempDir);

/// A running world.
pub(crate) struct World<'a> {
    pub(crate) home: &'a Home,
    child: Child,
    pub(crate) name: String,
    pub(crate) ready: Value,
}

impl Home {
    pub(crate) fn new() -> Result<Self, Failed> {
        Ok(Self(tempfile::Builder::new().prefix("sbx").tempdir()?))
    }

    /// The program with this home.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(SANDBOX);
        command
            .args(arguments)
            .env("XDG_RUNTIME_DIR", self.0.path())
            .env_remove("PODID_WORLD")
            .stdin(Stdio::null())
            .process_group(0);
        command
    }

    /// Runs it to its end.
    pub(crate) fn output(&self, arguments: &[&str]) -> Result<Output, Failed> {
        Ok(self.command(arguments).output()?)
    }

    /// Whether no world, dead or alive, has anything in it.
    pub(crate) fn is_empty(&self) -> bool {
        fs::read_dir(self.0.path()).unwrap().next().is_none()
    }

    /// Starts `up` without waiting for anything.
    pub(crate) fn begin(&self, arguments: &[&str]) -> Result<Child, Failed> {
        let mut command = self.command(&["up", "--log", "warn", "--wait-timeout", "1"]);
        command
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(command.spawn()?)
    }

    /// Starts a world and waits until it is ready.
    pub(crate) fn up(&self, name: &str) -> Result<World<'_>, Failed> {
        let mut child = self.begin(&["--name", name])?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line)?;
        if line.is_empty() {
            let output = child.wait_with_output()?;
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        let ready = serde_json::from_str(&line)?;
        Ok(World {
            home: self,
            child,
            name: name.to_owned(),
            ready,
        })
    }
}

impl World<'_> {
    /// The process that holds it.
    pub(crate) fn supervisor(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// `run` in it, to its end.
    pub(crate) fn run(&self, flags: &[&str], command: &[&str]) -> Result<Output, Failed> {
        let mut arguments = vec!["run", "--name", &self.name];
        arguments.extend(flags);
        arguments.push("--");
        arguments.extend(command);
        self.home.output(&arguments)
    }

    /// Signals its supervisor and waits for the exit code, if it has one.
    pub(crate) fn end(mut self, signal: Signal) -> Result<Option<i32>, Failed> {
        kill(self.supervisor(), signal)?;
        Ok(self.child.wait()?.code())
    }
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        // For a test that failed before it ended its world.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _gone = kill(self.supervisor(), Signal::SIGTERM);
            let _ended = self.child.wait();
        }
    }
}

/// The processes that are in the world of that supervisor.
pub(crate) fn inside(supervisor: Pid) -> Vec<String> {
    let Ok(namespace) = fs::read_link(format!("/proc/{supervisor}/ns/pid_for_children")) else {
        return Vec::new();
    };
    // Until it has one of its own, this is everybody's.
    if fs::read_link("/proc/self/ns/pid").is_ok_and(|everybody| everybody == namespace) {
        return Vec::new();
    }
    in_namespace(&namespace)
}

/// The processes in a PID namespace.
pub(crate) fn in_namespace(namespace: &Path) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter(|entry| fs::read_link(entry.path().join("ns/pid")).is_ok_and(|found| found == namespace))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Waits until something holds.
pub(crate) fn eventually(what: &str, holds: impl Fn() -> bool) -> Result<(), Failed> {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        if Instant::now() > end {
            return Err(format!("not within {PATIENCE:?}: {what}").into());
        }
        thread::park_timeout(Duration::from_millis(10));
    }
    Ok(())
}

/// What a program wrote, both streams.
pub(crate) fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
