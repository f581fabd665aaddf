//! A sandbox for a suite: built, started, asked to run programs as pods, and taken down again also when the suite fails.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;

/// A running world. Dropped, it is taken down.
#[derive(Debug)]
pub(crate) struct Sandbox {
    program: PathBuf,
    name: String,
    child: Child,
}

impl Sandbox {
    /// Builds the sandbox and starts a world of this suite.
    pub(crate) fn up(root: &Path, suite: &str) -> anyhow::Result<Self> {
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--package", "podid-sandbox"])
            .current_dir(root)
            .status()
            .context("start cargo")?;
        ensure!(built.success(), "podid-sandbox does not build");
        let program = root.join("target/debug/podid-sandbox");
        let name = format!("{suite}-{}", std::process::id());
        let mut child = Command::new(&program)
            .args(["up", "--name", &name])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let stdout = child
            .stdout
            .take()
            .context("the sandbox's standard output is ours")?;
        let mut line = String::new();
        let read = BufReader::new(stdout)
            .read_line(&mut line)
            .context("read the sandbox's ready line")?;
        ensure!(
            read > 0,
            "the sandbox ended before it was ready; its messages are above"
        );
        let _ready: Value =
            serde_json::from_str(&line).with_context(|| format!("read the sandbox's ready line {line:?}"))?;
        Ok(Self { program, name, child })
    }

    /// The program.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// The world's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs a program as a pod that has a managed identity, which is made if it is missing.
    pub(crate) fn run(
        &self,
        namespace: &str,
        identity: &str,
        command: &[OsString],
    ) -> anyhow::Result<Output> {
        Command::new(&self.program)
            .args([
                "run",
                "--name",
                &self.name,
                "-n",
                namespace,
                "--identity",
                identity,
                "--",
            ])
            .args(command)
            .stdin(Stdio::null())
            .output()
            .context("start podid-sandbox run")
    }

    /// The client id of such an identity.
    pub(crate) fn client_id(&self, namespace: &str, identity: &str) -> anyhow::Result<String> {
        let said = self.run(
            namespace,
            identity,
            &["printenv".into(), "PODID_CLIENT_ID".into()],
        )?;
        ensure!(
            said.status.success(),
            "the pod's environment has no PODID_CLIENT_ID"
        );
        Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
    }

    /// How often the emulated metadata service has given a token of this identity.
    pub(crate) fn tokens_of(&self, client_id: &str) -> anyhow::Result<usize> {
        let script = format!(
            "eval \"$('{}' env --name '{}')\"; exec curl -sS --fail-with-body --cacert \"$SSL_CERT_FILE\" \
             -H \"x-emulator-key: $AZURE_CLIENT_SECRET\" \"$AZURE_RESOURCE_MANAGER_ENDPOINT/_emulator/requests\"",
            self.program.display(),
            self.name
        );
        let output = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::null())
            .output()
            .context("start sh")?;
        ensure!(
            output.status.success(),
            "the emulator's request log cannot be read: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let log: Value = serde_json::from_slice(&output.stdout).context("read the emulator's request log")?;
        let entries = log
            .get("requests")
            .and_then(Value::as_array)
            .context("the request log is a list")?;
        let is =
            |entry: &Value, name: &str, wanted: &str| entry.get(name).and_then(Value::as_str) == Some(wanted);
        Ok(entries
            .iter()
            .filter(|entry| is(entry, "service", "imds") && is(entry, "principal", client_id))
            .filter(|entry| entry.get("status").and_then(Value::as_u64) == Some(200))
            .count())
    }

    /// Takes the world down and waits for its end.
    pub(crate) fn down(mut self) -> anyhow::Result<()> {
        self.stop()
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        let down = Command::new(&self.program)
            .args(["down", "--name", &self.name])
            .status();
        let down = down.context("start podid-sandbox down")?;
        ensure!(down.success(), "podid-sandbox down failed");
        self.child.wait().context("wait for the sandbox")?;
        Ok(())
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) && self.stop().is_err() {
            // Whoever fails to stop it politely still must not leave it behind.
            let _gone = self.child.kill();
            let _gone = self.child.wait();
        }
    }
}
