//! The real agent, as a process on a core of its own: started, asked what it uses, ended.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use podid_testkit::bench::cores;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use crate::cluster::{Cluster, NODE, address, client_id};
use crate::load;
use crate::standin::Standin;

/// A running agent. Dropped, it is killed.
pub(crate) struct Agent {
    pub(crate) address: SocketAddr,
    /// From starting the program to its ready line.
    pub(crate) started_in: Duration,
    child: Child,
    folder: TempDir,
}

/// An agent's memory, in KiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// All that is resident, shared pages included.
    pub(crate) rss: u64,
    /// Shared pages counted by their share.
    pub(crate) pss: u64,
}

impl Agent {
    /// Flags for pods that are loopback addresses: nothing to intercept, nothing for the kernel to say.
    pub(crate) const LOOPBACK: &[&str] =
        &["--interception=none", "--listen=127.0.0.1:0", "--attestation=off"];
    /// Flags that lift the limits of one pod.
    pub(crate) const UNLIMITED: &[&str] = &["--pod-rate=0", "--pod-connections=4096"];

    /// Starts one and waits until it is ready.
    pub(crate) fn start(cluster: &Cluster, upstream: &Standin, flags: &[&[&str]]) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let kubeconfig = folder.path().join("kubeconfig");
        fs::write(&kubeconfig, &cluster.kubeconfig)?;
        let log = folder.path().join("log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_podid-nmi"));
        command
            .env_clear()
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .arg(format!("--node={NODE}"))
            .arg("--probe-listen=127.0.0.1:0")
            .arg(format!("--imds-endpoint=http://{}", upstream.address))
            .args(flags.iter().copied().flatten())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?);
        let before = Instant::now();
        // A program stays on the cores of the thread that started it.
        let started = thread::scope(|scope| {
            scope
                .spawn(|| {
                    cores::move_to(cores::Side::Measured)?;
                    command.spawn().context("start podid-nmi")
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let mut child = started?;
        let stdout = child.stdout.take().context("standard output is ours")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let started_in = before.elapsed();
        let agent = |address| Self {
            address,
            started_in,
            child,
            folder,
        };
        let ready: Option<serde_json::Value> = serde_json::from_str(&line).ok();
        let address = ready
            .as_ref()
            .and_then(|ready| ready.get("listen")?.as_str()?.parse().ok());
        let Some(address) = address else {
            let said = fs::read_to_string(&log).unwrap_or_default();
            drop(agent(upstream.address));
            anyhow::bail!("the agent was not ready but said {line:?}; its log:\n{said}");
        };
        Ok(agent(address))
    }

    /// Proves that its world is whole: pod `n` gets the token of its own identity, which takes the pod, its binding and
    /// its identity. A ready line alone proves nothing.
    pub(crate) async fn serves(&self, n: usize) -> anyhow::Result<()> {
        let mut stream = load::connect(address(n), self.address).await?;
        let resource = format!("https%3A%2F%2Fproof.example&client_id={}", client_id(n));
        let request = load::request(&load::target(&resource), true);
        stream.write_all(request.as_bytes()).await?;
        let status = load::answer(&mut stream, &mut vec![0; 8192]).await?;
        ensure!(
            status == 200,
            "pod {n} was answered {status}: the agent's world is not whole; its log:\n{}",
            self.log()
        );
        Ok(())
    }

    /// Processor time used so far, by all its threads.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let mut nanoseconds = 0;
        for task in fs::read_dir(self.proc("task"))? {
            let seen = fs::read_to_string(task?.path().join("schedstat")).context("read a thread's times")?;
            nanoseconds += seen.split(' ').next().unwrap_or_default().parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Memory used now.
    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        let text = fs::read_to_string(self.proc("smaps_rollup"))?;
        let kib = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"))
                .and_then(|number| number.trim().parse().ok())
                .with_context(|| format!("{name} in smaps_rollup"))
        };
        Ok(Memory {
            rss: kib("Rss:")?,
            pss: kib("Pss:")?,
        })
    }

    /// What it logged, for who wonders.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn proc(&self, file: &str) -> std::path::PathBuf {
        Path::new("/proc").join(self.child.id().to_string()).join(file)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}
