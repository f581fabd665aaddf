//! The real emulator, as a process on a core of its own: started, asked what it uses, ended.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use podid_testkit::bench::cores::{self, Side};
use serde_json::Value;
use tokio::time::Instant;

/// A running emulator. Dropped, it is killed.
pub(crate) struct Azure {
    pub(crate) https: SocketAddr,
    pub(crate) imds: SocketAddr,
    pub(crate) ready: Value,
    /// From starting the program to its ready line.
    pub(crate) started_in: Duration,
    child: Child,
}

impl Azure {
    /// Starts one and waits until it is ready.
    pub(crate) fn start(state: Option<&Path>) -> anyhow::Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_azure-emulator"));
        command
            .env_clear()
            .args([
                "--listen",
                "127.0.0.1:0",
                "--imds",
                "127.0.0.1:0",
                "--imds-quota",
                "off",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(state) = state {
            command.arg("--state").arg(state);
        }
        let before = Instant::now();
        // A program stays on the cores of the thread that started it.
        let started = thread::scope(|scope| {
            scope
                .spawn(|| {
                    cores::move_to(Side::Measured).context("move to a core")?;
                    command.spawn().context("start azure-emulator")
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let mut child = started?;
        let stdout = child.stdout.take().context("standard output is ours")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let started_in = before.elapsed();
        let ready: Value =
            serde_json::from_str(&line).with_context(|| format!("read the ready line {line:?}"))?;
        let address = |member: &str| -> anyhow::Result<SocketAddr> {
            let url = ready.get(member).and_then(Value::as_str).unwrap_or_default();
            let (_, address) = url
                .split_once("://")
                .with_context(|| format!("the ready line has no {member}"))?;
            Ok(address.parse()?)
        };
        Ok(Self {
            https: address("arm")?,
            imds: address("imds")?,
            started_in,
            child,
            ready,
        })
    }

    /// A member of its ready line.
    pub(crate) fn said(&self, member: &str) -> anyhow::Result<&str> {
        let found = self.ready.get(member).and_then(Value::as_str);
        found.with_context(|| format!("the ready line has no {member}"))
    }

    /// The certificate authority to trust, PEM.
    pub(crate) fn authority(&self) -> anyhow::Result<Vec<u8>> {
        match self.said("caPem") {
            Ok(pem) => Ok(pem.as_bytes().to_vec()),
            Err(_) => std::fs::read(PathBuf::from(self.said("caFile")?)).context("read the authority"),
        }
    }

    /// Processor time used so far, by all its threads.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let mut nanoseconds = 0;
        for task in std::fs::read_dir(self.proc("task"))? {
            // A thread may have ended since; then its time is lost, which is little.
            let Ok(seen) = std::fs::read_to_string(task?.path().join("schedstat")) else {
                continue;
            };
            nanoseconds += seen.split(' ').next().unwrap_or_default().parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Resident memory, KiB.
    pub(crate) fn memory(&self) -> anyhow::Result<f64> {
        let text = std::fs::read_to_string(self.proc("smaps_rollup"))?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("Rss:")?.trim().strip_suffix(" kB"));
        Ok(line.context("Rss in smaps_rollup")?.trim().parse()?)
    }

    /// Stops it politely, so that it keeps its state.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the emulator ended with {status}");
        Ok(())
    }

    fn proc(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(self.child.id().to_string()).join(file)
    }
}

impl Drop for Azure {
    fn drop(&mut self) {
        // After `stop` there is nothing left to end.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}
