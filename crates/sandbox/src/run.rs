//! `run`: a program of this machine as a pod of a running world, or of one made for it. Streams go through as they
//! are, signals are passed on, its exit code is ours.

use std::io::{stderr, stdin, stdout};
use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::Context as _;
use podid_cli::printer;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::RunArgs;
use crate::control::client::{Control, ControlError};
use crate::control::{Reply, Request, RunRequest, SendSignal};
use crate::spawned::Spawned;
use crate::state::{Home, StateError};

/// Exit code for a program that is not there or cannot be started, as shells have it.
/// Source: POSIX.1-2024, Shell & Utilities, 2.8.2 Exit Status for Commands.
const NOT_STARTED: u8 = 127;
/// Signals that are the program's.
const PASSED: [fn() -> SignalKind; 6] = [
    SignalKind::interrupt,
    SignalKind::terminate,
    SignalKind::hangup,
    SignalKind::quit,
    SignalKind::user_defined1,
    SignalKind::user_defined2,
];

pub(crate) async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let RunArgs {
        ref name,
        ref namespace,
        labels: _,
        ref identities,
        ref command,
        ref programs,
    } = args;
    let request = Request::Run(RunRequest {
        namespace: namespace.clone(),
        labels: args.labels(),
        identities: identities.clone(),
        command: command.clone(),
        // What is not text cannot be passed on, and hardly anything is not.
        environment: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        folder: std::env::current_dir().context("the current folder is gone")?,
    });
    // From here on signals are the program's, also while a world is made for it.
    let (told, mut signals) = tokio::sync::mpsc::channel(16);
    for kind in PASSED {
        let mut received = signal(kind()).context("signals cannot be listened to")?;
        let told = told.clone();
        let number = kind().as_raw_value();
        #[expect(
            clippy::disallowed_methods,
            reason = "it lives as long as this command and holds nothing"
        )]
        let _detached = tokio::spawn(async move {
            while received.recv().await.is_some() && told.send(number).await.is_ok() {}
        });
    }
    match Control::find(&Home::locate(), name) {
        Ok(control) => in_world(&control, &request, &mut signals).await,
        Err(ControlError::State(StateError::NotRunning(_))) => {
            let stop = async { ended_by(signals.recv().await) };
            let started = Spawned::start("run", programs.flags(), stop).await?;
            let world = match started {
                Ok(world) => world,
                Err(code) => return Ok(ExitCode::from(code)),
            };
            let code = in_world(&world.control, &request, &mut signals).await;
            world.end().await?;
            code
        }
        Err(error) => Err(error.into()),
    }
}

fn ended_by(signal: Option<i32>) -> u8 {
    signal
        .and_then(|signal| u8::try_from(128 + signal).ok())
        .unwrap_or(1)
}

async fn in_world(
    control: &Control,
    request: &Request,
    signals: &mut tokio::sync::mpsc::Receiver<i32>,
) -> anyhow::Result<ExitCode> {
    let (control, request) = (control.clone(), request.clone());
    let asked = tokio::task::spawn_blocking(move || {
        let (stdin, stdout, stderr) = (stdin(), stdout(), stderr());
        let streams = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
        control.ask(&request, &streams)
    });
    let (_started, stream) = asked.await.context("the asking thread has ended")??;
    stream.set_nonblocking(true)?;
    let (reader, mut writer) = UnixStream::from_std(stream)?.into_split();
    let mut lines = BufReader::new(reader).lines();
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let line = line?.context("the world has ended, and the program with it")?;
                return match serde_json::from_str(&line).map_err(ControlError::Odd)? {
                    Reply::Exited { code } => Ok(ExitCode::from(code)),
                    Reply::NotStarted { why } => {
                        printer::report(&ControlError::Refused(why).into());
                        Ok(ExitCode::from(NOT_STARTED))
                    }
                    Reply::Refused { why } => Err(ControlError::Refused(why).into()),
                    other => Err(ControlError::Refused(format!("the world answered {other:?} to a run")).into()),
                };
            }
            Some(signal) = signals.recv() => {
                let mut line = serde_json::to_string(&SendSignal { signal })?;
                line.push('\n');
                writer.write_all(line.as_bytes()).await.context("the world has gone")?;
            }
        }
    }
}
