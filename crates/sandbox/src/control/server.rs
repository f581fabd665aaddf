//! The world's side of the control socket. It does what is asked and keeps nothing.

use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use podid_rt::stop::Stop;
use podid_rt::tasks::Tasks;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::{Info, Reply, Request, SendSignal};
use crate::handover;
use crate::kubelet::attach::End;
use crate::runner::Runner;
use crate::services::Service;

/// How long a client may take for its request.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// What the socket can do.
pub struct Server {
    /// What is told of the world.
    pub info: Info,
    /// The agents.
    pub agents: Vec<Service>,
    /// Runs programs as pods.
    pub runner: Runner,
    /// What ends the world.
    pub stop: Stop,
}

impl Server {
    /// Listens at `path`, which only this user can reach.
    pub fn spawn(self, path: &Path, tasks: &mut Tasks) -> anyhow::Result<()> {
        let listener =
            UnixListener::bind(path).with_context(|| format!("cannot listen at {}", path.display()))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
            .with_context(|| format!("cannot protect {}", path.display()))?;
        let (group, stop) = (tasks.group(), tasks.stop().clone());
        let server = Arc::new(self);
        tasks.spawn("control", async move {
            loop {
                let accepted = tokio::select! {
                    () = stop.requested() => return,
                    accepted = listener.accept() => accepted,
                };
                match accepted {
                    Ok((stream, _)) => group.spawn({
                        let server = Arc::clone(&server);
                        async move {
                            if let Err(error) = server.serve(stream).await {
                                tracing::warn!(error = format!("{error:#}"), "a control request failed");
                            }
                        }
                    }),
                    Err(error) => {
                        tracing::warn!(%error, "a control connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
        });
        Ok(())
    }

    async fn serve(&self, stream: UnixStream) -> anyhow::Result<()> {
        // The files come with the first bytes, which only a blocking read can take together.
        let stream = stream.into_std()?;
        let received = tokio::task::spawn_blocking(move || {
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(REQUEST_DEADLINE))?;
            let received = handover::receive(&stream)?;
            stream.set_nonblocking(true)?;
            std::io::Result::Ok(received.map(|(text, files)| (text, files, stream)))
        });
        let Some((text, files, stream)) = received.await.context("the reading thread has ended")?? else {
            return Ok(());
        };
        let mut stream = UnixStream::from_std(stream)?;
        let reply = match serde_json::from_str(&text) {
            Ok(Request::Info) => Reply::Info(Box::new(self.info.clone())),
            Ok(Request::Down) => {
                self.stop.request();
                Reply::Done
            }
            Ok(Request::Identity { group, name }) => match self.runner.identity(group, name).await {
                Ok(identity) => Reply::Identity(identity),
                Err(error) => refused(format!("{error:#}")),
            },
            Ok(Request::DeleteIdentity { group, name }) => {
                match self.runner.delete_identity(&group, &name).await {
                    Ok(()) => Reply::Done,
                    Err(error) => refused(format!("{error:#}")),
                }
            }
            Ok(Request::HoldAgents) => {
                for agent in &self.agents {
                    agent.hold().await;
                }
                Reply::Done
            }
            Ok(Request::ReleaseAgents) => self.release().await,
            Ok(Request::Run(request)) => match <[OwnedFd; 3]>::try_from(files) {
                Ok(streams) => return self.run(request, streams, stream).await,
                Err(files) => refused(format!("three files were expected, and {} came", files.len())),
            },
            Err(error) => refused(format!("the request is not understood: {error}")),
        };
        say(&mut stream, &reply).await
    }

    async fn release(&self) -> Reply {
        for agent in &self.agents {
            if let Err(error) = agent.release().await {
                return refused(format!("{error:#}"));
            }
        }
        Reply::Done
    }

    async fn run(
        &self,
        request: super::RunRequest,
        streams: [OwnedFd; 3],
        mut stream: UnixStream,
    ) -> anyhow::Result<()> {
        let mut running = match self.runner.start(request, streams).await {
            Ok(running) => running,
            Err(error) => return say(&mut stream, &refused(format!("{error:#}"))).await,
        };
        let told = say(
            &mut stream,
            &Reply::Started {
                pod: running.pod.clone(),
            },
        )
        .await;
        let (reader, mut writer) = stream.split();
        let mut lines = BufReader::new(reader).lines();
        let end = loop {
            tokio::select! {
                end = &mut running.waiter.end => break Some(end),
                line = lines.next_line() => match line {
                    Ok(Some(line)) => if let Ok(SendSignal { signal }) = serde_json::from_str(&line) {
                        // A program that has just ended needs no signal.
                        let _ended = running.waiter.signals.send(signal).await;
                    },
                    // Whoever waited has gone, and his program goes with him.
                    Ok(None) | Err(_) => break None,
                },
                () = self.stop.requested() => break None,
            }
        };
        self.runner.remove(&running).await;
        told?;
        let reply = match end {
            Some(Ok(End::Exited(code))) => Reply::Exited { code },
            Some(Ok(End::NotStarted(why))) => Reply::NotStarted { why },
            Some(Err(_)) => refused("the pod was deleted before it was started".to_owned()),
            None => return Ok(()),
        };
        let mut line = serde_json::to_string(&reply)?;
        line.push('\n');
        writer.write_all(line.as_bytes()).await?;
        Ok(())
    }
}

fn refused(why: String) -> Reply {
    Reply::Refused { why }
}

async fn say(stream: &mut UnixStream, reply: &Reply) -> anyhow::Result<()> {
    let mut line = serde_json::to_string(reply)?;
    line.push('\n');
    stream
        .write_all(line.as_bytes())
        .await
        .context("the client has gone")
}
