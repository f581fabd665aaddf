//! `demo`: the tutorial's story, told from outside to a world of its own through its public doors: ARM and the
//! Kubernetes API over loopback, and the control socket. Every step checks what it claims.

pub(crate) mod ask;
mod cast;
mod chapters;
mod left;
mod look;
mod pods;
mod transcript;
mod verify;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use podid_cli::printer::Printer;
use podid_rt::stop::Stop;

use crate::programs::Programs;
use crate::spawned::Spawned;
use cast::Cast;
use left::{Belongings, machine_routes};
use transcript::{Seen, Stopped, Transcript};

use crate::failure::Failure;

/// How long the story's agents let a request wait for a binding. Less than in real life, where nobody looks on.
const AGENT_PATIENCE_SECS: &str = "2";
/// Nodes of the story: one for each kind of pod network.
const NODES: &str = "2";

/// Exit code of a story that was told to stop, as shells have it for SIGINT.
const INTERRUPTED: u8 = 130;

/// Flags of `demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// Print everything as JSON at the end, in place of the transcript
    #[arg(long)]
    pub json: bool,

    /// Other programs
    #[command(flatten)]
    pub programs: Programs,
}

impl DemoArgs {
    /// Tells the story; the exit code is 0 only if every check held.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let Self { json, programs } = self;
        let stop = Stop::on_signals().context("signals cannot be listened to")?;
        let mut transcript = Transcript::new(json, Printer::to_terminal());
        let routes = machine_routes();
        let mut flags = programs.flags();
        flags.extend([
            "--nodes".into(),
            NODES.into(),
            "--wait-timeout".into(),
            AGENT_PATIENCE_SECS.into(),
        ]);
        let mut exit = None;
        let up = transcript.step(
            "A world: Azure, Kubernetes, two nodes with an agent each",
            &["podid-sandbox up --nodes 2"],
            async {
                let told = async {
                    stop.requested().await;
                    INTERRUPTED
                };
                let started = Spawned::start("demo", flags, told).await?;
                match started {
                    Ok(world) => {
                        let line = format!(
                            "Kubernetes API {}, ARM and Entra {}, metadata service {}",
                            world.info.endpoints.kubernetes,
                            world.info.endpoints.resource_manager,
                            world.info.endpoints.metadata
                        );
                        Ok(Seen::new(world, line)
                            .and("pods are wired point-to-point on node-1, by a bridge on node-2"))
                    }
                    Err(code) => {
                        exit = Some(code);
                        Err(Failure::said(if code == INTERRUPTED {
                            "told to stop"
                        } else {
                            "the world could not be made; its own words are above"
                        }))
                    }
                }
            },
        );
        let Ok(world) = up.await else {
            transcript.abandon();
            return Ok(ExitCode::from(exit.unwrap_or(1)));
        };
        let told = tokio::select! {
            told = tell(&world, &mut transcript) => told,
            () = stop.requested() => Err(Stopped),
        };
        let belongings = Belongings::of(&world.info);
        let gone = transcript.step(
            "The world ends, and nothing of it is left",
            &["podid-sandbox down"],
            async {
                let belongings = belongings.context("the world's processes cannot be listed")?;
                world.end().await?;
                let mut left = belongings.left();
                if machine_routes() != routes {
                    left.push("a change in the machine's own interfaces or routes".to_owned());
                }
                if left.is_empty() {
                    Ok(
                        Seen::new((), format!("{}; all gone, with the folder", belongings.summary()))
                            .and("the machine's own interfaces and routes are as they were"),
                    )
                } else {
                    Err(Failure::mismatch("nothing", left.join("; ")))
                }
            },
        );
        let gone = gone.await;
        let interrupted = stop.is_requested();
        let held = transcript.finish(told.is_ok() && gone.is_ok());
        Ok(if interrupted {
            ExitCode::from(INTERRUPTED)
        } else if held {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

/// The chapters in their order. One that fails and that others need ends the story.
async fn tell(world: &Spawned, transcript: &mut Transcript) -> Result<(), Stopped> {
    let cast = transcript
        .step(
            "Sign in, and fetch the keys that tokens are signed with",
            &["az login --service-principal"],
            Cast::meet(world),
        )
        .await?;
    chapters::cluster(&cast, transcript).await?;
    let first = chapters::identity(&cast, transcript).await?;
    chapters::sample(&cast, transcript, &first).await?;
    chapters::several(&cast, transcript).await?;
    chapters::strangers(&cast, transcript).await?;
    chapters::exceptions(&cast, transcript).await?;
    chapters::agent_killed(&cast, transcript, &first).await?;
    chapters::unbound(&cast, transcript).await?;
    chapters::clean_up(&cast, transcript).await
}
