//! The controller's flags, and the one place where its parts are put together.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use podid_azure::arm::{Arm, FetchToken};
use podid_azure::imds::{self, Imds, Who};
use podid_azure::{Cloud, TlsRoots, WallClock};
use podid_core::Guid;
use podid_rt::clock::Clock;
use podid_rt::logging::{self, LogArgs};
use podid_rt::stop::Stop;
use podid_rt::tasks::Tasks;
use reqwest::Url;

use crate::app::{App, AppConfig};
use crate::startup::{DEFAULT_KEY, Labels, StartupTaint};

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

/// What is done about the taint that keeps pods off a node until its agent serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StartupTaintMode {
    /// Nothing.
    Off,
    /// It is put on nodes that begin or have rebooted, and taken off when the agent's pod there is Ready.
    Keep,
    /// It is taken off every node, with all that was noted there.
    Remove,
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

    /// Cloud, for the address of ARM and the audience of its tokens
    #[arg(long, env = "PODID_CLOUD", value_name = "NAME", default_value = Cloud::Public.name())]
    pub cloud: Cloud,

    /// Address of ARM, for clouds that are not in the table; the cloud's when not given
    #[arg(long, env = "AZURE_RESOURCE_MANAGER_ENDPOINT", value_name = "URL")]
    pub arm_endpoint: Option<Url>,

    /// Where the node's metadata service is, which gives the controller's own tokens
    #[arg(long, env = "PODID_IMDS_ENDPOINT", value_name = "URL", default_value = imds::DEFAULT_ENDPOINT)]
    pub imds_endpoint: Url,

    /// Client id of the identity with which the controller asks ARM; the node's own when not given
    #[arg(long, env = "PODID_ARM_CLIENT_ID", value_name = "GUID")]
    pub arm_client_id: Option<Guid>,

    /// Whether nodes are kept closed to pods until their agent serves
    #[arg(long, env = "PODID_STARTUP_TAINT", value_enum, default_value = "off")]
    pub startup_taint: StartupTaintMode,

    /// Key of that taint; its effect is NoSchedule
    #[arg(long, env = "PODID_STARTUP_TAINT_KEY", value_name = "KEY", default_value = DEFAULT_KEY)]
    pub startup_taint_key: String,

    /// Namespace of the agents; the controller's own when not given
    #[arg(long, env = "PODID_AGENT_NAMESPACE", value_name = "NAME")]
    pub agent_namespace: Option<String>,

    /// Label selector of the agents' pods in that namespace
    #[arg(
        long,
        env = "PODID_AGENT_SELECTOR",
        value_name = "SELECTOR",
        default_value = "app.kubernetes.io/name=podid,app.kubernetes.io/component=nmi"
    )]
    pub agent_selector: String,

    /// Labels of the nodes that get an agent, as key=value,key=value; the others are left alone
    #[arg(
        long,
        env = "PODID_AGENT_NODE_SELECTOR",
        value_name = "LABELS",
        default_value = "kubernetes.io/os=linux"
    )]
    pub agent_node_selector: Labels,

    /// Certificates (PEM) to trust beside the system's when asking ARM
    #[arg(long, env = "SSL_CERT_FILE", value_name = "PATH")]
    pub ca_file: Option<PathBuf>,

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
            cloud,
            arm_endpoint,
            imds_endpoint,
            arm_client_id,
            startup_taint,
            startup_taint_key,
            agent_namespace,
            agent_selector,
            agent_node_selector,
            ca_file,
            probe_listen,
            log,
        } = self;
        logging::init(&log)?;
        // A second installation changes nothing.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let stop = Stop::on_signals().context("listen to signals")?;
        let client = podid_rt::cluster::client(kubeconfig.as_deref()).await?;
        let arm = match assignment {
            Assignment::None => None,
            Assignment::Vmss => Some(arm(
                cloud,
                arm_endpoint,
                &imds_endpoint,
                arm_client_id,
                ca_file.as_deref(),
            )?),
        };
        let startup = (startup_taint != StartupTaintMode::Off).then(|| StartupTaint {
            key: startup_taint_key,
            remove: startup_taint == StartupTaintMode::Remove,
            agent_namespace: agent_namespace.unwrap_or_else(|| client.default_namespace().to_owned()),
            agent_selector,
            node_selector: agent_node_selector,
        });
        let app = App::bind(AppConfig {
            client,
            arm,
            startup,
            probe_listen,
        })
        .await?;
        let (address, readiness) = (app.address(), app.readiness());
        let mut tasks = Tasks::new(stop.clone());
        app.spawn(&mut tasks);
        tasks.group().spawn(async move {
            tokio::select! {
                () = stop.requested() => {}
                () = readiness.wait() => crate::printer::ready(address),
            }
        });
        tasks.run(DRAIN_DEADLINE).await?;
        Ok(())
    }
}

/// ARM, asked with tokens of the node's metadata service.
fn arm(
    cloud: Cloud,
    endpoint: Option<Url>,
    imds_endpoint: &Url,
    client_id: Option<Guid>,
    ca_file: Option<&Path>,
) -> anyhow::Result<Arm> {
    let endpoint = match endpoint {
        Some(endpoint) => endpoint,
        None => Url::parse(cloud.arm()).context("read the cloud's address of ARM")?,
    };
    let roots = match ca_file {
        Some(path) => {
            let pem = std::fs::read(path).with_context(|| format!("read {} (--ca-file)", path.display()))?;
            TlsRoots::from_pem(&pem).with_context(|| format!("use {} (--ca-file)", path.display()))?
        }
        None => TlsRoots::default(),
    };
    let system = Clock::system();
    let clock: WallClock = Arc::new(move || system.unix_secs());
    let imds =
        Imds::new(imds_endpoint, Arc::clone(&clock)).context("make a client of the metadata service")?;
    let fetch: FetchToken = Arc::new(move || {
        let imds = imds.clone();
        Box::pin(async move {
            let who = client_id.map_or(Who::Node, Who::ClientId);
            Ok(imds.token(who, cloud.arm()).await?)
        })
    });
    Arm::new(&endpoint, &roots, fetch, clock).context("make a client of ARM")
}
