//! The flags, and which command does what. Hidden commands are the programs of a world, run by this same program.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use podid_cli::printer::{self, Printer};
use podid_rt::logging::LogArgs;

use crate::layout::NodeCount;
use crate::programs::Programs;
use crate::state::WorldName;
use crate::story::DemoArgs;
use crate::story::ask::AskArgs;
use crate::{down, env, managed_identity, run, up};

/// The name of a world that is given none.
pub const DEFAULT_WORLD: &str = "default";

/// `podid-sandbox`.
#[derive(Debug, Parser)]
#[command(
    name = "podid-sandbox",
    version,
    about = "One machine as a cluster with pod identity"
)]
pub struct Sandbox {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What it can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tell the tutorial's whole story, and check every step of it
    Demo(DemoArgs),
    /// Make a world and keep it until told to stop; a JSON line says how to reach it
    Up(UpArgs),
    /// Run a program of this machine as a pod
    Run(RunArgs),
    /// Make a managed identity in a running world's Azure, on all its nodes; its ids are printed as shell exports
    Identity(IdentityArgs),
    /// Print the shell exports for a running world
    Env(WorldArgs),
    /// End a running world, and remove what killed ones left
    Down(WorldArgs),

    /// The node agent
    #[command(name = "__nmi", hide = true)]
    Nmi(Box<podid_nmi::NmiArgs>),
    /// The controller
    #[command(name = "__controller", hide = true)]
    Controller(Box<podid_controller::ControllerArgs>),
    /// ARM, Entra and IMDS
    #[command(name = "__azure-emulator", hide = true)]
    AzureEmulator(Box<podid_azure_emulator::EmulatorArgs>),
    /// The Kubernetes API
    #[command(name = "__kube-emulator", hide = true)]
    KubeEmulator(Box<podid_kube_emulator::EmulatorArgs>),
    /// The sample workload
    #[command(name = "__demo", hide = true)]
    DemoWorkload(Box<podid_demo::DemoArgs>),
    /// What the story's pods run
    #[command(name = "__ask", hide = true)]
    Ask(Box<AskArgs>),
}

/// Flags of `up`.
#[derive(Args, Clone, Debug)]
pub struct UpArgs {
    /// Name of the world; several can run side by side
    #[arg(long, env = "PODID_WORLD", value_name = "NAME", default_value = DEFAULT_WORLD)]
    pub name: WorldName,

    /// How many nodes; their pods are wired point-to-point and by a bridge in turn
    #[arg(long, value_name = "N", default_value = "2")]
    pub nodes: NodeCount,

    /// Port of the Kubernetes API on 127.0.0.1; a free one when 0
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub kubernetes_port: u16,

    /// Port of ARM and Entra on 127.0.0.1; a free one when 0
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub azure_port: u16,

    /// Port of the metadata service on 127.0.0.1; a free one when 0
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub metadata_port: u16,

    /// How long the agents let a request wait for its pod or binding, seconds
    #[arg(long = "wait-timeout", value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub wait_timeout_secs: u32,

    /// Return when the world is ready, and leave it running until `down`; its messages are in its folder then
    #[arg(long, conflicts_with = "while_stdin")]
    pub detach: bool,

    /// Be the world that was left so
    #[arg(long, hide = true)]
    pub detached: bool,

    /// End the world when standard input is closed
    #[arg(long, hide = true)]
    pub while_stdin: bool,

    /// Other programs
    #[command(flatten)]
    pub programs: Programs,

    /// Logging
    #[command(flatten)]
    pub log: LogArgs,
}

/// Flags of `run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Name of the world; one is made for this run if it is not running
    #[arg(long, env = "PODID_WORLD", value_name = "NAME", default_value = DEFAULT_WORLD)]
    pub name: WorldName,

    /// Namespace of the pod, made if missing
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub namespace: String,

    /// Label of the pod; may be given several times
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<Label>,

    /// Managed identity that the program may use, made if missing, with its pod identity; may be given several times
    #[arg(long = "identity", value_name = "NAME", value_parser = identity)]
    pub identities: Vec<String>,

    /// Program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<String>,

    /// Other programs, for a world that is made for this run
    #[command(flatten)]
    pub programs: Programs,
}

/// Flags of `identity`.
#[derive(Args, Clone, Debug)]
pub struct IdentityArgs {
    /// Name of the managed identity; one that is there already stays as it is
    #[arg(id = "identity", value_name = "NAME", value_parser = identity)]
    pub name: String,

    /// Its resource group, made if missing
    #[arg(short, long, value_name = "GROUP", default_value = "myIdentityResourceGroup", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub group: String,

    /// Take it away again
    #[arg(long)]
    pub delete: bool,

    /// Which world
    #[command(flatten)]
    pub world: WorldArgs,
}

/// Flags of what only needs to know which world.
#[derive(Args, Clone, Debug)]
pub struct WorldArgs {
    /// Name of the world
    #[arg(long, env = "PODID_WORLD", value_name = "NAME", default_value = DEFAULT_WORLD)]
    pub name: WorldName,
}

/// A label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label(pub String, pub String);

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Self(key.to_owned(), value.to_owned())),
            _ => Err(format!("`{text}` is not a label; write KEY=VALUE")),
        }
    }
}

impl RunArgs {
    /// The labels; the last of several with one key.
    pub fn labels(&self) -> BTreeMap<String, String> {
        self.labels
            .iter()
            .map(|Label(key, value)| (key.clone(), value.clone()))
            .collect()
    }
}

/// Source: Azure naming rules, `Microsoft.ManagedIdentity/userAssignedIdentities`.
fn identity(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if (3..=128).contains(&text.len())
        && text.chars().all(fits)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
    {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "`{text}` is not a managed identity's name: 3 to 128 letters, digits, `-` and `_`, beginning with a letter or digit"
        ))
    }
}

impl Sandbox {
    /// Does it; the exit code: 0 done, 1 failed, 2 wrong usage or a kernel that forbids it.
    pub fn run(self) -> ExitCode {
        match self.command {
            Command::Up(args) => up::run(args),
            Command::Demo(args) => in_runtime(args.run()),
            Command::Run(args) => in_runtime(run::run(args)),
            Command::Identity(args) => done(managed_identity::run(args, &mut Printer::to_terminal())),
            Command::Env(args) => done(env::run(&args, &mut Printer::to_terminal())),
            Command::Down(args) => done(down::run(&args, &mut Printer::to_terminal())),
            Command::Nmi(args) => done(args.start()),
            Command::Controller(args) => in_runtime(success(args.run())),
            Command::AzureEmulator(args) => in_runtime(success(args.run())),
            Command::KubeEmulator(args) => in_runtime(success(args.run())),
            Command::DemoWorkload(args) => in_runtime(success(args.run())),
            Command::Ask(args) => in_runtime(success(args.run())),
        }
    }
}

async fn success(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    work.await.map(|()| ExitCode::SUCCESS)
}

/// Says why something failed.
pub(crate) fn done(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            printer::report(&error);
            ExitCode::FAILURE
        }
    }
}

pub(crate) fn in_runtime(work: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    // Err means that a provider is there already.
    let _already_there = rustls::crypto::ring::default_provider().install_default();
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")
        .and_then(|runtime| {
            let result = runtime.block_on(work);
            // Threads that still read or wait must not hold the end up.
            runtime.shutdown_background();
            result
        });
    match result {
        Ok(code) => code,
        Err(error) => {
            printer::report(&error);
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        use clap::CommandFactory as _;
        Sandbox::command().debug_assert();
    }

    #[test]
    fn run_takes_what_follows_the_dashes_as_it_is() {
        let parsed = Sandbox::try_parse_from([
            "podid-sandbox",
            "run",
            "-n",
            "my-app",
            "-l",
            "aadpodidbinding=foo",
            "--",
            "curl",
            "-s",
            "--",
            "-n",
        ]);
        let Command::Run(args) = parsed.unwrap().command else {
            panic!("not run")
        };
        assert_eq!(args.command, ["curl", "-s", "--", "-n"]);
        assert_eq!(args.labels()["aadpodidbinding"], "foo");
    }

    #[test]
    fn a_bad_value_is_named_with_its_flag() {
        for (flag, value) in [("-l", "x"), ("--identity", "a/b"), ("--name", "../x")] {
            let text = Sandbox::try_parse_from(["podid-sandbox", "run", flag, value, "--", "true"])
                .unwrap_err()
                .to_string();
            assert!(text.contains(flag) && text.contains(value), "{text}");
        }
    }
}
