//! An emulator as a process: started with what the walk needs, asked for its request log, stopped by SIGTERM.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::issuer::{self, Issuer};

/// How long its long-running operations run, milliseconds: long enough that each is asked about more than once.
const OPERATION_DELAY_MS: &str = "1500";
/// `Retry-After` of the one answer 429, seconds.
pub(crate) const RETRY_AFTER_SECS: u64 = 2;

/// A running emulator. Dropped, it is ended.
pub(crate) struct Emulator {
    pub(crate) ready: Ready,
    child: Child,
    runtime: Runtime,
    http: reqwest::Client,
}

/// Its ready line.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ready {
    pub(crate) arm: String,
    pub(crate) ca_file: PathBuf,
    pub(crate) tenant_id: String,
    pub(crate) subscription_id: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
}

impl Emulator {
    /// Builds the program.
    pub(crate) fn build(root: &Path) -> anyhow::Result<PathBuf> {
        let built = Command::new(env!("CARGO"))
            .args([
                "build",
                "--quiet",
                "--locked",
                "--package",
                "podid-azure-emulator",
            ])
            .current_dir(root)
            .status()
            .context("start cargo")?;
        ensure!(built.success(), "podid-azure-emulator does not build");
        Ok(root.join("target/debug/azure-emulator"))
    }

    /// Starts it: rights are enforced, one list is throttled once, one identity cannot be written.
    pub(crate) fn start(program: &Path, issuer: &Issuer, folder: &Path) -> anyhow::Result<Self> {
        let write = |name: &str, value: &Value| {
            let path = folder.join(name);
            std::fs::write(&path, value.to_string()).with_context(|| format!("write {}", path.display()))?;
            anyhow::Ok(path)
        };
        let scenario = write("scenario.json", &scenario())?;
        let keys = write("issuer-keys.json", &issuer.keys())?;
        let mut child = Command::new(program)
            .args([
                "--listen",
                "127.0.0.1:0",
                "--imds",
                "127.0.0.1:0",
                "--authorization",
                "enforce",
            ])
            .args(["--operation-delay-ms", OPERATION_DELAY_MS])
            .arg("--ca-out")
            .arg(folder.join("ca.pem"))
            .arg("--scenario")
            .arg(scenario)
            .arg("--issuer-keys")
            .arg(format!("{}={}", issuer::NAME, keys.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let started = Self::meet(&mut child);
        match started {
            Ok((ready, runtime, http)) => Ok(Self {
                ready,
                child,
                runtime,
                http,
            }),
            Err(error) => {
                // It must not be left behind.
                let _gone = child.kill();
                let _gone = child.wait();
                Err(error)
            }
        }
    }

    fn meet(child: &mut Child) -> anyhow::Result<(Ready, Runtime, reqwest::Client)> {
        let stdout = child
            .stdout
            .take()
            .context("the emulator's standard output is ours")?;
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .context("read the emulator's ready line")?;
        let ready: Ready = serde_json::from_str(&line)
            .with_context(|| format!("read the emulator's ready line {line:?}"))?;
        // A second installation changes nothing.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let pem = std::fs::read(&ready.ca_file).context("read the emulator's certificate authority")?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only(reqwest::Certificate::from_pem_bundle(&pem)?)
            .build()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start a runtime")?;
        Ok((ready, runtime, http))
    }

    /// Runs a program to its end, which must come within `deadline`.
    pub(crate) fn wait_for(
        &self,
        mut command: tokio::process::Command,
        deadline: Duration,
    ) -> anyhow::Result<Output> {
        command.stdin(Stdio::null()).kill_on_drop(true);
        self.runtime.block_on(async {
            tokio::time::timeout(deadline, command.output())
                .await
                .with_context(|| format!("it did not end within {} s", deadline.as_secs()))?
                .context("start it")
        })
    }

    /// What it was asked, oldest first.
    pub(crate) fn requests(&self) -> anyhow::Result<Vec<Value>> {
        let mut answer = self.control("requests?since=0")?;
        let requests = answer.get_mut("requests").map(Value::take);
        serde_json::from_value(requests.unwrap_or_default()).context("read the request log")
    }

    /// What it was asked and does not know.
    pub(crate) fn unsupported(&self) -> anyhow::Result<Vec<String>> {
        let answer = self.control("unsupported")?;
        let operations = answer
            .get("operations")
            .and_then(Value::as_object)
            .context("read the unknown operations")?;
        Ok(operations.keys().cloned().collect())
    }

    fn control(&self, path: &str) -> anyhow::Result<Value> {
        let url = format!("{}/_emulator/{path}", self.ready.arm);
        let request = self
            .http
            .get(url)
            .header("x-emulator-key", &self.ready.client_secret);
        self.runtime
            .block_on(async { anyhow::Ok(request.send().await?.error_for_status()?.json().await?) })
            .with_context(|| format!("ask the emulator for {path}"))
    }

    /// Stops it as people do.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).context("a process id")?);
        kill(pid, Signal::SIGTERM).context("stop the emulator")?;
        let status = self.child.wait().context("wait for the emulator")?;
        ensure!(status.success(), "the emulator ended with {status}");
        Ok(())
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _gone = self.child.kill();
            let _gone = self.child.wait();
        }
    }
}

fn scenario() -> Value {
    json!([
        {
            "service": "arm", "method": "GET", "path": "*/resourcegroups/mgmt/providers/microsoft.compute/virtualmachines",
            "throttle": { "requests": 0, "perSecs": 1, "retryAfterSecs": RETRY_AFTER_SECS }, "times": 1,
        },
        {
            "service": "arm", "method": "PUT", "path": "*/userassignedidentities/refused", "status": 409,
            "body": { "error": {
                "code": "OperationNotAllowed", "message": "The operation is not allowed now.", "target": "refused",
                "details": [{ "code": "Busy", "message": "Another operation runs." }],
            } },
        },
    ])
}
