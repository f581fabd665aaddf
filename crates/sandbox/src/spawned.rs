//! A world made for one run or for the story: a child that ends, and cleans up, when its standard input is closed,
//! which also happens when this process is killed.

use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::control::Info;
use crate::control::client::Control;
use crate::state::{Home, WorldName};

/// How long a world may take to end.
const END_DEADLINE: Duration = Duration::from_secs(20);

/// A world that ends with this.
#[derive(Debug)]
pub(crate) struct Spawned {
    child: Child,
    pub(crate) info: Info,
    pub(crate) control: Control,
}

impl Spawned {
    /// Makes one; `prefix` begins its name. Gives the exit code in place of it when it could not be made, after it
    /// has said why, or when `stop` came first (with its code), after all of it has ended.
    pub(crate) async fn start(
        prefix: &str,
        flags: Vec<OsString>,
        stop: impl Future<Output = u8> + Send,
    ) -> anyhow::Result<Result<Self, u8>> {
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let name: WorldName = format!("{prefix}-{}", unique.split_at(8).0).parse()?;
        let mut child = Command::new("/proc/self/exe")
            .arg0("podid-sandbox")
            .args(["up", "--while-stdin", "--log", "warn", "--name"])
            .arg(name.to_string())
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a world")?;
        let stdout = child.stdout.take().context("a world without output")?;
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        let stopped = tokio::select! {
            read = stdout.read_line(&mut line) => {
                read.context("the world cannot be heard")?;
                None
            }
            code = stop => Some(code),
        };
        if let Some(code) = stopped {
            drop(child.stdin.take());
            let ended = timeout(END_DEADLINE, child.wait()).await;
            ended.with_context(|| format!("the world has not ended within {END_DEADLINE:?}"))??;
            return Ok(Err(code));
        }
        if line.is_empty() {
            let status = child.wait().await.context("the world cannot be waited for")?;
            return Ok(Err(code(status)));
        }
        let info: Info = serde_json::from_str(&line).context("the world's ready line is not understood")?;
        let control = Control::find(&Home::locate(), &name)?;
        Ok(Ok(Self { child, info, control }))
    }

    /// Ends it, and waits until nothing is left of it.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        drop(self.child.stdin.take());
        match timeout(END_DEADLINE, self.child.wait()).await {
            Ok(status) => {
                let status = status.context("the world cannot be waited for")?;
                anyhow::ensure!(status.success(), "the world ended with {status}");
                Ok(())
            }
            Err(_late) => anyhow::bail!("the world has not ended within {END_DEADLINE:?}"),
        }
    }
}

fn code(status: ExitStatus) -> u8 {
    status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1)
        .max(1)
}
