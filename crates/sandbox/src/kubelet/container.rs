//! One run of a container: the process in its pod's namespaces, its log, its end. It decides nothing about restarts.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Container, Pod};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use podid_kernel::{Namespace, Room};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::Kubelet;
use super::attach::Given;
use super::environment::{Invocation, Place};
use super::image::Image;
use super::logs::Log;

/// How long the last output of an ended container is waited for; somebody else may hold its pipes open.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// A container that was started.
pub(super) struct Started {
    /// Its process group.
    pub(super) group: Group,
    /// Gives its exit code when it has ended and its output is in the log.
    pub(super) end: BoxFuture<'static, i32>,
}

/// A container's process group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group(Pid);

/// What a container needs of its pod to start.
pub(super) struct Surroundings<'a> {
    pub(super) kubelet: &'a Kubelet,
    pub(super) pod: &'a Pod,
    pub(super) namespace: &'a Namespace,
    pub(super) room: &'a Room,
    pub(super) place: Place,
    /// Variables beside those of the sandbox: the pod's identity.
    pub(super) environment: &'a BTreeMap<String, OsString>,
}

impl Group {
    /// Sends it a signal. One that is gone already needs none.
    pub(super) fn signal(self, signal: Signal) {
        let _gone = killpg(self.0, signal);
    }
}

impl Surroundings<'_> {
    /// Starts it; what it was to get is used up also when that fails.
    pub(super) async fn start(
        &self,
        container: &Container,
        log: PathBuf,
        attached: Option<Given>,
    ) -> anyhow::Result<Started> {
        let image = container.image.as_deref().unwrap_or_default();
        let mut given = self.kubelet.environment.clone();
        given.extend(self.environment.clone());
        let mut log_streams = None;
        let mut folder = None;
        let mut streams = None;
        let mut signals = None;
        if let Some(attached) = attached {
            // The world's own variables are stronger: they say where the world is.
            let mut theirs = attached.environment;
            theirs.extend(given);
            given = theirs;
            folder = Some(attached.folder);
            streams = Some(attached.streams);
            signals = Some(attached.signals);
        } else {
            log_streams =
                Some(Log::create(&log, self.kubelet.clock.clone()).context("its log cannot be made")?);
        }
        let invocation = Invocation::of(container, self.pod, self.place, &given)?;
        let mut command = command(self.kubelet, Image::find(image)?, &invocation);
        command
            .args(&invocation.arguments)
            .env_clear()
            .envs(&invocation.environment);
        if let Some(folder) = container.working_dir.clone().map(PathBuf::from).or(folder) {
            command.current_dir(folder);
        } else {
            command.current_dir("/");
        }
        match streams {
            Some([stdin, stdout, stderr]) => {
                command.stdin(stdin).stdout(stdout).stderr(stderr);
            }
            None => {
                command
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped());
            }
        }
        command.kill_on_drop(true);
        let (namespace, room) = (self.namespace.clone(), self.room.clone());
        let started = tokio::task::spawn_blocking(move || namespace.spawn(&room, &mut command)).await;
        let child = started.context("the thread that starts it has ended")??;
        let id = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .context("it has ended already")?;
        let group = Group(Pid::from_raw(id));
        Ok(Started {
            group,
            end: Box::pin(watch(child, group, log_streams, signals)),
        })
    }
}

fn command(kubelet: &Kubelet, image: Image, invocation: &Invocation) -> Command {
    let mut command = match (invocation.command.split_first(), image) {
        (Some((program, rest)), _) => {
            let mut command = Command::new(program);
            command.args(rest);
            command
        }
        (None, Image::Ours(program)) => kubelet.programs.command(program),
        (None, Image::Machine) => Command::new("sh"),
    };
    command.kill_on_drop(true);
    command
}

async fn watch(
    mut child: Child,
    group: Group,
    log: Option<Log>,
    signals: Option<mpsc::Receiver<i32>>,
) -> i32 {
    let output = match (log, child.stdout.take(), child.stderr.take()) {
        (Some(log), Some(stdout), Some(stderr)) => Some(futures::future::join(
            log.clone().follow("stdout", stdout),
            log.follow("stderr", stderr),
        )),
        _ => None,
    };
    let mut output = std::pin::pin!(async {
        if let Some(output) = output {
            output.await;
        }
    });
    let mut written = false;
    let mut signals = signals;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            () = output.as_mut(), if !written => written = true,
            Some(number) = next(&mut signals) => {
                if let Ok(signal) = Signal::try_from(number) {
                    group.signal(signal);
                }
            }
        }
    };
    // As the first process of a container takes all others with it.
    group.signal(Signal::SIGKILL);
    if !written && tokio::time::timeout(LAST_OUTPUT, output).await.is_err() {
        tracing::debug!(?group, "a container's output is still open after its end");
    }
    status.map_or(-1, exit_code)
}

async fn next(signals: &mut Option<mpsc::Receiver<i32>>) -> Option<i32> {
    match signals {
        Some(receiver) => receiver.recv().await,
        None => None,
    }
}

/// 128 + signal for a program that was killed, as shells and container runtimes say it.
fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(-1)
}
