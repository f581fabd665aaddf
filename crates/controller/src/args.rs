//! The controller's flags, and the one place where its parts are put together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use podid_rt::logging::{self, LogArgs};
use podid_rt::stop::Stop;
use podid_rt::tasks::Tasks;

use crate::app::{App, AppConfig};

/// How long the tasks may take to stop.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// Who puts the profile's identities on the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Assignment {
    /// Somebody else does, or nothing needs to.
    None,
    /// The controller, on the scale sets of the nodes, through ARM.
    Vmss,
}

/// Flags of `podid-controller`.
#[derive(Args, Clone, Debug)]
pub struct ControllerArgs {
    /// How to reach the cluster; the pod's service account when not given
    #[arg(long, env = "KUBECONFIG", value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,

    /// Who puts the profile's identities on the nodes' scale sets
    #[arg(long, env = "PODID_ASSIGNMENT", value_enum, default_value = "none")]
    pub assignment: Assignment,

    /// Where health, readiness and metrics are served; the port of the original
    #[arg(
        long,
        env = "PODID_PROBE_LISTEN",
        value_name = "ADDR",
        default_value = "0.0.0.0:8080"
    )]
    pub probe_listen: SocketAddr,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would become the help's heading")]
    pub log: LogArgs,
}

impl ControllerArgs {
    /// Runs until told to stop.
    pub async fn run(self) -> anyhow::Result<()> {
        let Self {
            kubeconfig,
            assignment,
            probe_listen,
            log,
        } = self;
        logging::init(&log)?;
        // A second installation changes nothing.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let stop = Stop::on_signals().context("listen to signals")?;
        let client = client(kubeconfig).await?;
        let app = App::bind(AppConfig {
            client,
            assignment,
            probe_listen,
        })
        .await?;
        let mut tasks = Tasks::new(stop);
        app.spawn(&mut tasks);
        tasks.run(DRAIN_DEADLINE).await?;
        Ok(())
    }
}

async fn client(kubeconfig: Option<PathBuf>) -> anyhow::Result<kube::Client> {
    let config = match kubeconfig {
        Some(path) => {
            let file = kube::config::Kubeconfig::read_from(&path)
                .with_context(|| format!("read the kubeconfig {}", path.display()))?;
            kube::Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default())
                .await
                .with_context(|| format!("use the kubeconfig {}", path.display()))?
        }
        None => kube::Config::incluster()
            .context("not in a cluster, and no --kubeconfig (or KUBECONFIG) was given")?,
    };
    kube::Client::try_from(config).context("make a client of the cluster")
}
