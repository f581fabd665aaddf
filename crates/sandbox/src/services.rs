//! The processes of a world beside its pods: started, watched until ready, started again when they die, held down when
//! somebody wants to see what happens without them.
//!
//! Run ─▶ start ─▶ starting ─(ready line, or /readyz)─▶ ready ─▶ dies ─▶ a pause ─▶ start …
//! Hold ─▶ SIGKILL ─▶ down ─▶ Run …

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use podid_kernel::{Namespace, Room};
use podid_rt::stop::Stop;
use podid_rt::tasks::Tasks;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;

/// How long a process may take until it is ready. Much more than it takes, for machines that are busy.
const READY_DEADLINE: Duration = Duration::from_mins(1);
/// Pause between two looks at a probe.
const LOOK_AGAIN: Duration = Duration::from_millis(15);
/// Pause before a process that died is started again.
const START_AGAIN: Duration = Duration::from_millis(500);
/// How much of a log is shown when its process does not get ready, lines.
const TAIL: usize = 5;

/// How it is known that a process serves.
#[derive(Clone, Debug)]
pub enum Ready {
    /// It says so by a line of JSON with `"event":"ready"` on stdout.
    Line,
    /// This URL answers with success.
    Probe(String),
}

/// A process to keep running.
pub struct Spec {
    /// Its name, of which it is also the log's.
    pub name: String,
    /// Where it runs.
    pub namespace: Namespace,
    /// What it sees that its host does not.
    pub room: Room,
    /// What to run, made anew for each start.
    pub command: Box<dyn Fn() -> Command + Send + Sync>,
    /// How it is known that it serves.
    pub ready: Ready,
    /// Whether the world goes on without it.
    pub essential: bool,
    /// The folder of logs.
    pub logs: PathBuf,
}

/// A running service; clones are the same.
#[derive(Clone, Debug)]
pub struct Service {
    name: Arc<str>,
    log: Arc<Path>,
    wanted: watch::Sender<bool>,
    state: watch::Receiver<State>,
}

#[derive(Clone, Debug)]
enum State {
    Down,
    Starting,
    /// With its ready line; null for one that is probed.
    Ready(Arc<Value>),
    /// It could not be started at all.
    Failed(Arc<str>),
}

impl Service {
    /// Starts to keep it running.
    pub fn spawn(spec: Spec, tasks: &mut Tasks, task: &'static str) -> Self {
        let (wanted, wants) = watch::channel(true);
        let (tell, state) = watch::channel(State::Down);
        let service = Self {
            name: spec.name.as_str().into(),
            log: spec.log().into(),
            wanted,
            state,
        };
        tasks.spawn(task, keep(spec, wants, tell, tasks.stop().clone()));
        service
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until it serves; its ready line.
    pub async fn ready(&self) -> anyhow::Result<Arc<Value>> {
        let mut state = self.state.clone();
        let seen = timeout(
            READY_DEADLINE,
            state.wait_for(|state| matches!(state, State::Ready(_) | State::Failed(_))),
        )
        .await;
        match seen {
            Ok(Ok(seen)) => match &*seen {
                State::Ready(line) => return Ok(Arc::clone(line)),
                State::Failed(why) => anyhow::bail!("{} cannot be started: {why}", self.name),
                State::Down | State::Starting => {}
            },
            Ok(Err(_ended)) => {}
            Err(_late) => {
                anyhow::bail!(
                    "{} was not ready within {READY_DEADLINE:?}; {}",
                    self.name,
                    self.last_words()
                )
            }
        }
        anyhow::bail!("{} ended before it was ready; {}", self.name, self.last_words())
    }

    /// Kills it at once, without warning, and leaves it down.
    pub async fn hold(&self) {
        self.wanted.send_replace(false);
        let mut state = self.state.clone();
        // An error means that its task has ended, and it with it.
        let _down = state
            .wait_for(|state| matches!(state, State::Down | State::Failed(_)))
            .await;
    }

    /// Lets it run again; returns when it serves.
    pub async fn release(&self) -> anyhow::Result<()> {
        self.wanted.send_replace(true);
        self.ready().await.map(drop)
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default();
        if tail.is_empty() {
            "it said nothing".to_owned()
        } else {
            format!("its last words: {}", tail.join(" | "))
        }
    }
}

impl Spec {
    fn log(&self) -> PathBuf {
        self.logs.join(format!("{}.log", self.name))
    }

    fn start(&self) -> anyhow::Result<Child> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .context("its log cannot be opened")?;
        let stdout = match self.ready {
            Ready::Line => Stdio::piped(),
            Ready::Probe(_) => log.try_clone().context("its log cannot be shared")?.into(),
        };
        let mut command = (self.command)();
        command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(log)
            .kill_on_drop(true);
        Ok(self.namespace.spawn(&self.room, &mut command)?)
    }
}

async fn keep(spec: Spec, mut wants: watch::Receiver<bool>, tell: watch::Sender<State>, stop: Stop) {
    let spec = Arc::new(spec);
    loop {
        tokio::select! {
            () = stop.requested() => return,
            () = wish(&mut wants, true) => {}
        }
        tell.send_replace(State::Starting);
        let starting = Arc::clone(&spec);
        let started = tokio::task::spawn_blocking(move || starting.start()).await;
        let mut child = match started.map_err(anyhow::Error::from).and_then(|started| started) {
            Ok(child) => child,
            Err(error) => {
                let why = format!("{error:#}");
                tracing::error!(service = spec.name, why, "cannot be started");
                tell.send_replace(State::Failed(why.into()));
                if spec.essential {
                    return;
                }
                pause(&stop).await;
                continue;
            }
        };
        tracing::info!(service = spec.name, pid = child.id(), "started");
        let stdout = child.stdout.take();
        let serve = async {
            let line = match (&spec.ready, stdout) {
                (Ready::Line, Some(stdout)) => ready_line(BufReader::new(stdout)).await,
                (Ready::Probe(url), _) => probe(url).await,
                (Ready::Line, None) => Arc::new(Value::Null),
            };
            tell.send_replace(State::Ready(line));
            std::future::pending::<()>().await;
        };
        tokio::select! {
            status = child.wait() => {
                if stop.is_requested() {
                    return;
                }
                let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                tracing::warn!(service = spec.name, status, "ended by itself");
            }
            () = wish(&mut wants, false) => {
                if let Err(error) = child.kill().await {
                    tracing::warn!(service = spec.name, %error, "cannot be killed");
                }
                tracing::info!(service = spec.name, "killed, as somebody wished");
                tell.send_replace(State::Down);
                continue;
            }
            () = stop.requested() => {
                // What it leaves behind is in namespaces that end with the world.
                let _ended_already = child.kill().await;
                return;
            }
            () = serve => {}
        }
        tell.send_replace(State::Down);
        if spec.essential {
            return;
        }
        pause(&stop).await;
    }
}

/// Returns when it shall run, or shall not.
async fn wish(wants: &mut watch::Receiver<bool>, run: bool) {
    if wants.wait_for(|wanted| *wanted == run).await.is_err() {
        // Nobody can wish for anything any more.
        std::future::pending::<()>().await;
    }
}

async fn pause(stop: &Stop) {
    tokio::select! {
        () = stop.requested() => {}
        () = tokio::time::sleep(START_AGAIN) => {}
    }
}

/// Reads stdout until the ready line and goes on reading, so that the process never waits for its reader.
async fn ready_line(mut stdout: BufReader<tokio::process::ChildStdout>) -> Arc<Value> {
    let mut line = String::new();
    loop {
        line.clear();
        match stdout.read_line(&mut line).await {
            Ok(0) | Err(_) => std::future::pending::<()>().await,
            Ok(_) => {}
        }
        if let Ok(value) = serde_json::from_str::<Value>(&line)
            && value.get("event").and_then(Value::as_str) == Some("ready")
        {
            return Arc::new(value);
        }
    }
}

async fn probe(url: &str) -> Arc<Value> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .timeout(Duration::from_secs(1))
        .tls_certs_only([])
        .build();
    let Ok(client) = client else {
        tracing::error!(url, "there is no HTTP client to look at a probe with");
        return std::future::pending().await;
    };
    loop {
        if client
            .get(url)
            .send()
            .await
            .is_ok_and(|response| response.status().is_success())
        {
            return Arc::new(Value::Null);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
