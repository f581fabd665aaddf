//! The door into a world: a Unix socket on which its holder, which lives inside, runs programs for those outside. One
//! request and one answer a connection, each a line of JSON.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::node::NodeSpec;
use crate::printer;

/// What can be asked of a holder.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Request {
    /// Run a program to its end.
    Run { argv: Vec<String> },
    /// Start a program that stays; it ends with the world.
    Start(Program),
    /// Stop a program or node that was started.
    Stop { name: String },
    /// Start a node (of the control plane's holder only).
    AddNode(NodeSpec),
}

/// A program that stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Program {
    /// For its log and for stopping it
    pub(crate) name: String,
    /// Program and arguments
    pub(crate) argv: Vec<String>,
    /// Added to its environment
    pub(crate) env: BTreeMap<String, String>,
}

/// What a holder answers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// The program's exit code, 128 + signal when it was killed, 0 when nothing was run
    pub(crate) code: i32,
    /// What it wrote
    pub(crate) stdout: String,
    /// What it complained of; why the request failed
    pub(crate) stderr: String,
}

impl Reply {
    /// What a program that ended well wrote.
    pub(crate) fn ok(self) -> anyhow::Result<String> {
        if self.code != 0 {
            bail!("{}", self.stderr.trim_end());
        }
        Ok(self.stdout)
    }
}

/// The programs that a holder started, by name.
#[derive(Debug)]
pub(super) struct Programs {
    logs: PathBuf,
    path: String,
    libraries: Option<PathBuf>,
    running: Mutex<BTreeMap<String, Running>>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    essential: bool,
}

impl Programs {
    /// Programs are looked for in `bin` first; `libraries` are for those of the tools that are not static.
    pub(super) fn new(logs: &Path, bin: &Path, libraries: Option<PathBuf>) -> anyhow::Result<Arc<Self>> {
        fs::create_dir_all(logs).with_context(|| format!("make {}", logs.display()))?;
        Ok(Arc::new(Self {
            logs: logs.to_owned(),
            path: format!(
                "{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                bin.display()
            ),
            libraries,
            running: Mutex::default(),
        }))
    }

    fn prepare(&self, argv: &[String]) -> anyhow::Result<Command> {
        let (program, arguments) = argv.split_first().context("no program was named")?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("PATH", &self.path)
            .stdin(Stdio::null());
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
            command.env("XTABLES_LIBDIR", libraries.join("xtables"));
        }
        Ok(command)
    }

    /// Runs a program to its end.
    pub(super) fn run(&self, argv: &[String]) -> anyhow::Result<Reply> {
        let output = self
            .prepare(argv)?
            .output()
            .with_context(|| format!("start {}", argv.join(" ")))?;
        let killed = std::os::unix::process::ExitStatusExt::signal(&output.status).map(|signal| 128 + signal);
        Ok(Reply {
            code: output.status.code().or(killed).unwrap_or(255),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Starts a program that stays; its output goes to `<name>.log`.
    pub(super) fn start(&self, program: &Program, essential: bool) -> anyhow::Result<()> {
        let log = self.logs.join(format!("{}.log", program.name));
        let log = File::create(&log).with_context(|| format!("make {}", log.display()))?;
        let child = self
            .prepare(&program.argv)?
            .envs(&program.env)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", program.argv.join(" ")))?;
        self.keep(&program.name, child, essential);
        Ok(())
    }

    /// Takes over a program that was started elsewhere.
    pub(super) fn keep(&self, name: &str, child: Child, essential: bool) {
        self.running
            .lock()
            .insert(name.to_owned(), Running { child, essential });
    }

    /// Kills a program and waits for its end.
    pub(super) fn stop(&self, name: &str) -> anyhow::Result<()> {
        let found = self.running.lock().remove(name);
        let mut running = found.with_context(|| format!("nothing called {name} runs here"))?;
        running.child.kill().with_context(|| format!("kill {name}"))?;
        running.child.wait().with_context(|| format!("wait for {name}"))?;
        Ok(())
    }

    /// Waits until a program ends without which the others are of no use.
    pub(super) fn watch(&self) -> anyhow::Result<()> {
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let mut running = self.running.lock();
            let mut ended = Vec::new();
            for (name, program) in running.iter_mut() {
                if let Some(status) = program
                    .child
                    .try_wait()
                    .with_context(|| format!("look at {name}"))?
                {
                    if program.essential {
                        bail!("{name} ended ({status}); see {}", self.logs.display());
                    }
                    printer::note(&format!("{name} ended ({status})"));
                    ended.push(name.clone());
                }
            }
            running.retain(|name, _| !ended.contains(name));
        }
    }
}

/// Answers requests at `socket` until the process ends.
pub(super) fn serve(
    socket: &Path,
    answer: impl Fn(Request) -> anyhow::Result<Reply> + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let listener = UnixListener::bind(socket).with_context(|| format!("listen at {}", socket.display()))?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || {
                if let Err(error) = stream
                    .map_err(Into::into)
                    .and_then(|s| converse(&s, answer.as_ref()))
                {
                    printer::note(&format!("control: {error:#}"));
                }
            });
        }
    });
    Ok(())
}

fn converse(stream: &UnixStream, answer: &dyn Fn(Request) -> anyhow::Result<Reply>) -> anyhow::Result<()> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let request = serde_json::from_str(&line).context("read a request")?;
    let reply = answer(request).unwrap_or_else(|error| Reply {
        code: 1,
        stderr: format!("{error:#}"),
        ..Reply::default()
    });
    let mut stream = stream;
    writeln!(stream, "{}", serde_json::to_string(&reply)?)?;
    Ok(())
}

/// Asks the holder behind `socket`.
pub(super) fn ask(socket: &Path, request: &Request) -> anyhow::Result<Reply> {
    let mut stream = UnixStream::connect(socket)
        .with_context(|| format!("reach {}; is the cluster up?", socket.display()))?;
    writeln!(stream, "{}", serde_json::to_string(request)?)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    serde_json::from_str(&line).with_context(|| format!("{} closed without an answer", socket.display()))
}
