//! The agent as it is shipped: the program itself, started in the node's network, heard, signalled and waited for.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use libtest_mimic::Failed;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use podid_testkit::{PATIENCE, eventually};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::between::Between;
use crate::place::{Answer, Place, exchange};

/// Where its probes are. The network is the place's own.
const PROBES: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8085);

/// A running program. Dropped, it is killed.
pub(crate) struct Program {
    child: Child,
    /// The lines of its standard output.
    said: watch::Receiver<Vec<String>>,
    log: PathBuf,
    _folder: TempDir,
}

impl Program {
    /// Starts it; it is not ready yet.
    pub(crate) fn start(place: &Place, between: &Between, flags: &[&str]) -> Result<Self, Failed> {
        let folder = TempDir::new()?;
        let kubeconfig = folder.path().join("kubeconfig");
        fs::write(&kubeconfig, between.kubeconfig())?;
        let log = folder.path().join("log");
        // Threads here are in the node's network, and so is what they start.
        let mut child = Command::new(env!("CARGO_BIN_EXE_podid-nmi"))
            .env_clear()
            .args([
                "--node=n1",
                "--admin-socket=",
                &format!("--probe-listen={PROBES}"),
            ])
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .arg(format!("--pod-netns-dir={}", place.folder().display()))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .kill_on_drop(true)
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let (tell, said) = watch::channel(Vec::new());
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                tell.send_modify(|said| said.push(line));
            }
        });
        Ok(Self {
            child,
            said,
            log,
            _folder: folder,
        })
    }

    /// Starts it and waits for its ready line.
    pub(crate) async fn ready(place: &Place, between: &Between, flags: &[&str]) -> Result<Self, Failed> {
        let program = Self::start(place, between, flags)?;
        program.is_ready().await?;
        Ok(program)
    }

    /// Waits for its ready line.
    pub(crate) async fn is_ready(&self) -> Result<(), Failed> {
        let mut said = self.said.clone();
        let first = tokio::time::timeout(PATIENCE, said.wait_for(|said| !said.is_empty())).await;
        let Ok(Ok(lines)) = first else {
            return Err(format!("it never was ready; its log:\n{}", self.log()).into());
        };
        let line: Value = serde_json::from_str(&lines[0])?;
        assert_eq!(line["event"], "ready", "{line}");
        Ok(())
    }

    /// What it has said on standard output.
    pub(crate) fn said(&self) -> Vec<String> {
        self.said.borrow().clone()
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What the probes' listener says.
    pub(crate) async fn probe(&self, path: &str) -> Result<Answer, Failed> {
        let path = path.to_owned();
        let asked = tokio::task::spawn_blocking(move || exchange(TcpStream::connect(PROBES)?, &path)).await?;
        Ok(asked?)
    }

    /// Waits until `path` of the probes has this status and this text in its body.
    pub(crate) async fn probe_says(&self, path: &str, status: u16, text: &str) -> Result<(), Failed> {
        eventually(&format!("{path} says {text:?}"), async || {
            match self.probe(path).await {
                Ok(got) if got.status == status && got.body.contains(text) => Ok(()),
                Ok(got) => Err(format!("{} {}", got.status, got.body)),
                Err(failed) => Err(failed.message().unwrap_or_default().to_owned()),
            }
        })
        .await?;
        Ok(())
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Failed> {
        let pid = self.child.id().ok_or("it has ended")?;
        kill(Pid::from_raw(i32::try_from(pid)?), signal)?;
        Ok(())
    }

    /// Waits for its end.
    pub(crate) async fn ended(mut self) -> Result<ExitStatus, Failed> {
        match tokio::time::timeout(PATIENCE, self.child.wait()).await {
            Ok(ended) => Ok(ended?),
            Err(_) => Err(format!("it did not end; its log:\n{}", self.log()).into()),
        }
    }

    /// Tells it to stop and waits until it has, without an error.
    pub(crate) async fn end(self) -> Result<(), Failed> {
        self.signal(Signal::SIGTERM)?;
        let ended = self.ended().await?;
        assert!(ended.success(), "{ended}");
        Ok(())
    }
}

/// `podid-nmi uninstall`, on the node: what it logged.
pub(crate) async fn uninstall() -> Result<String, Failed> {
    let output = Command::new(env!("CARGO_BIN_EXE_podid-nmi"))
        .env_clear()
        .arg("uninstall")
        .output()
        .await?;
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{log}");
    Ok(log)
}
