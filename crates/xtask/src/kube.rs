//! `cargo xtask kube`: a real Kubernetes on this machine, from real sources, in namespaces of its own. Nothing of the
//! machine outside is changed, and `down` ends what was started and nothing else.

mod addresses;
mod cgroups;
pub(crate) mod cluster;
pub(crate) mod config;
pub(crate) mod control;
mod forward;
mod images;
mod node;
mod pki;
mod process;
mod render;
pub(crate) mod state;
pub(crate) mod tools;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use self::cluster::{Cluster, NodePlan};
use self::config::{Cni, Proxy};
use self::state::State;
use self::tools::Tools;
use crate::printer;

/// What to do with the real Kubernetes
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build everything and print the folder (ten minutes once; needs Go, a C compiler and Debian's apt-get)
    Build,
    /// Start a control plane and print how to reach it
    Up(Where),
    /// Add or remove a node
    #[command(subcommand)]
    Node(NodeCommand),
    /// Import OCI image archives into every node
    Load {
        /// The archives
        #[arg(required = true)]
        images: Vec<PathBuf>,
        #[command(flatten)]
        at: Where,
    },
    /// Run a program inside a node, or with `control-plane` beside the API server
    In {
        /// The node's name, or `control-plane`
        node: String,
        /// Program and arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        argv: Vec<String>,
        #[command(flatten)]
        at: Where,
    },
    /// Put azure-emulator in Azure's place for the nodes that are there, and print one managed identity of theirs
    Azure(Where),
    /// Print how to reach the cluster that runs
    Env(Where),
    /// Write what the chart renders by default to deploy/kustomize, and the CRDs to the chart
    Render {
        /// Write nothing; fail when a file is not what would be written
        #[arg(long)]
        check: bool,
    },
    /// Stop everything that was started
    Down(Where),
    /// Become the holder of a control plane
    #[command(hide = true)]
    Hold {
        #[arg(long)]
        tools: PathBuf,
        #[arg(long)]
        state: PathBuf,
    },
    /// Become the holder of a node
    #[command(hide = true)]
    HoldNode {
        #[arg(long)]
        tools: PathBuf,
        #[arg(long)]
        spec: String,
    },
}

/// Nodes
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Add a real node: kubelet, containerd, runc and CNI plugins in namespaces of their own
    Add {
        /// Its name
        name: String,
        /// How its pods are wired
        #[arg(long, value_enum, default_value = "ptp")]
        cni: Cni,
        /// Who makes Services work on it
        #[arg(long, value_enum, default_value = "none")]
        proxy: Proxy,
        /// Its provider id, as a cloud would write it
        #[arg(long)]
        provider_id: Option<String>,
        #[command(flatten)]
        at: Where,
    },
    /// End a node at once, as a power cut would
    Remove {
        /// Its name
        name: String,
        #[command(flatten)]
        at: Where,
    },
}

/// Which cluster
#[derive(Debug, Args)]
pub(crate) struct Where {
    /// The cluster's folder [default: target/kube/cluster]
    #[arg(long)]
    state: Option<PathBuf>,
}

impl Where {
    fn state(&self) -> anyhow::Result<State> {
        State::new(self.state.as_deref())
    }

    fn cluster(&self) -> anyhow::Result<Cluster> {
        Cluster::find(self.state()?)
    }
}

/// Runs one of the commands.
pub(crate) fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Build => printer::line(&Tools::node()?.root().display().to_string()),
        Command::Up(at) => print_env(&Cluster::up(at.state()?)?),
        Command::Azure(at) => {
            for (name, value) in crate::e2e::kube::stand_in::start(&at.cluster()?)? {
                printer::line(&format!("export {name}={value}"));
            }
        }
        Command::Env(at) => print_env(&at.cluster()?),
        Command::Node(NodeCommand::Add {
            name,
            cni,
            proxy,
            provider_id,
            at,
        }) => at.cluster()?.add_node(NodePlan {
            name,
            cni,
            proxy,
            provider_id,
            labels: std::collections::BTreeMap::new(),
            images: Vec::new(),
        })?,
        Command::Node(NodeCommand::Remove { name, at }) => at.cluster()?.remove_node(&name)?,
        Command::Load { images, at } => {
            let cluster = at.cluster()?;
            for image in images {
                cluster.load(&image)?;
            }
        }
        Command::In { node, argv, at } => {
            let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
            let node = (node != "control-plane").then_some(node.as_str());
            let reply = at.cluster()?.run_inside(node, &argv)?;
            printer::text(&reply.stdout);
            printer::note(reply.stderr.trim_end());
            return Ok(ExitCode::from(u8::try_from(reply.code).unwrap_or(u8::MAX)));
        }
        Command::Render { check } => render::run(&Tools::control()?, check)?,
        Command::Down(at) => at.state()?.clear()?,
        Command::Hold { tools, state } => return world::hold(&State::new(Some(&state))?, &Tools::at(tools)),
        Command::HoldNode { tools, spec } => {
            let spec = serde_json::from_str(&spec).context("read the node's specification")?;
            return node::hold(&spec, &Tools::at(tools));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// For `eval`.
fn print_env(cluster: &Cluster) {
    printer::line(&format!(
        "export KUBECONFIG={}",
        cluster.kubeconfig("admin").display()
    ));
    printer::line(&format!("export PATH={}:$PATH", cluster.tools().bin().display()));
}
