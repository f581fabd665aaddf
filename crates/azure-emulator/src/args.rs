//! The emulator's flags, and the one place where its parts are put together.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use podid_rt::logging::{self, LogArgs};
use podid_rt::stop::Stop;
use podid_rt::tasks::Tasks;
use uuid::Uuid;

use crate::app::{App, CLIENT_ID, Config, Listen, NodeConfig, SUBSCRIPTION_ID, TENANT_ID};
use crate::cloud::Authorization;
use crate::fault::Fault;

/// How long open requests may take when the emulator is told to stop.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// Flags of `azure-emulator`. Each is also an environment variable, `AZURE_EMULATOR_…`.
#[derive(Args, Clone, Debug)]
pub struct EmulatorArgs {
    /// Where ARM and Entra listen, over TLS; may be given several times, port 0 takes a free one
    #[arg(
        long,
        env = "AZURE_EMULATOR_LISTEN",
        value_name = "ADDR",
        value_delimiter = ',',
        default_value = "127.0.0.1:8443"
    )]
    pub listen: Vec<SocketAddr>,

    /// Where the metadata service listens; may be given several times
    #[arg(
        long,
        env = "AZURE_EMULATOR_IMDS",
        value_name = "ADDR",
        value_delimiter = ',',
        default_value = "127.0.0.1:8169"
    )]
    pub imds: Vec<SocketAddr>,

    /// One more name or address for the certificate
    #[arg(
        long = "name",
        env = "AZURE_EMULATOR_NAME",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub names: Vec<String>,

    /// Folder that keeps certificate authority, signing key and everything that was made; in memory when not given
    #[arg(long, env = "AZURE_EMULATOR_STATE", value_name = "DIR")]
    pub state: Option<PathBuf>,

    /// File to write the certificate authority to
    #[arg(long, env = "AZURE_EMULATOR_CA_OUT", value_name = "FILE")]
    pub ca_out: Option<PathBuf>,

    /// Tenant id
    #[arg(long, env = "AZURE_EMULATOR_TENANT", value_name = "GUID", default_value = TENANT_ID)]
    pub tenant: Uuid,

    /// Subscription id
    #[arg(long, env = "AZURE_EMULATOR_SUBSCRIPTION", value_name = "GUID", default_value = SUBSCRIPTION_ID)]
    pub subscription: Uuid,

    /// Client id of the built-in service principal, which owns the subscription
    #[arg(long, env = "AZURE_EMULATOR_CLIENT_ID", value_name = "GUID", default_value = CLIENT_ID)]
    pub client_id: Uuid,

    /// Its secret, and the key of the control API; made up when not given
    #[arg(
        long,
        env = "AZURE_EMULATOR_CLIENT_SECRET",
        value_name = "SECRET",
        hide_env_values = true
    )]
    pub client_secret: Option<String>,

    /// Whether callers without the right are let through and noted, or refused
    #[arg(
        long,
        env = "AZURE_EMULATOR_AUTHORIZATION",
        value_enum,
        default_value = "audit"
    )]
    pub authorization: Authorization,

    /// Life of managed identities' tokens, seconds
    #[arg(
        long,
        env = "AZURE_EMULATOR_IDENTITY_TOKEN_LIFETIME_SECS",
        value_name = "SECS",
        default_value_t = 86_400
    )]
    pub identity_token_lifetime_secs: u64,

    /// Life of other tokens, seconds
    #[arg(
        long,
        env = "AZURE_EMULATOR_TOKEN_LIFETIME_SECS",
        value_name = "SECS",
        default_value_t = 3_599
    )]
    pub token_lifetime_secs: u64,

    /// How long ARM's long-running operations run, milliseconds
    #[arg(
        long,
        env = "AZURE_EMULATOR_OPERATION_DELAY_MS",
        value_name = "MS",
        default_value_t = 0
    )]
    pub operation_delay_ms: u64,

    /// What to add to each token request of the metadata service, milliseconds
    #[arg(
        long,
        env = "AZURE_EMULATOR_IMDS_LATENCY_MS",
        value_name = "MS",
        default_value_t = 0
    )]
    pub imds_latency_ms: u64,

    /// Token requests of a machine, per second and at a time, or `off`
    #[arg(
        long,
        env = "AZURE_EMULATOR_IMDS_QUOTA",
        value_name = "N/N",
        default_value = "20/5"
    )]
    pub imds_quota: Quota,

    /// Refuse pod identity until its preview feature is registered
    #[arg(long, env = "AZURE_EMULATOR_REQUIRE_FEATURES")]
    pub require_features: bool,

    /// A caller of the metadata service, by its addresses; may be given several times
    #[arg(
        long = "node",
        env = "AZURE_EMULATOR_NODE",
        value_name = "NAME=IP[,IP…]",
        value_delimiter = ';'
    )]
    pub nodes: Vec<NodeFlag>,

    /// Do not make the virtual machine that all callers are when there are no nodes
    #[arg(long, env = "AZURE_EMULATOR_NO_MACHINE")]
    pub no_machine: bool,

    /// Kubernetes of the first managed cluster
    #[arg(long, env = "AZURE_EMULATOR_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// What `get-credentials` gives of that Kubernetes, where people reach it by another address than this program
    #[arg(
        long,
        env = "AZURE_EMULATOR_USER_KUBECONFIG",
        value_name = "FILE",
        requires = "kubeconfig"
    )]
    pub user_kubeconfig: Option<PathBuf>,

    /// Kubernetes of a certain managed cluster; may be given several times
    #[arg(
        long = "cluster",
        env = "AZURE_EMULATOR_CLUSTER",
        value_name = "GROUP/NAME=FILE",
        value_delimiter = ';'
    )]
    pub clusters: Vec<ClusterFlag>,

    /// Certificate authority of issuers of federated assertions; may be given several times
    #[arg(
        long = "issuer-ca",
        env = "AZURE_EMULATOR_ISSUER_CA",
        value_name = "FILE",
        value_delimiter = ','
    )]
    pub issuer_cas: Vec<PathBuf>,

    /// Published keys (JWKS) of an issuer that is then not asked for them; may be given several times
    #[arg(
        long = "issuer-keys",
        env = "AZURE_EMULATOR_ISSUER_KEYS",
        value_name = "ISSUER=FILE",
        value_delimiter = ';'
    )]
    pub issuer_keys: Vec<IssuerFlag>,

    /// File with a list of faults that are set from the start, JSON
    #[arg(long, env = "AZURE_EMULATOR_SCENARIO", value_name = "FILE")]
    pub scenario: Option<PathBuf>,

    /// List the operations that were asked for and are unknown, when stopping
    #[arg(long, env = "AZURE_EMULATOR_UNSUPPORTED")]
    pub unsupported: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would become the help's heading")]
    pub log: LogArgs,
}

/// Sockets that were opened elsewhere, for example in another network namespace.
#[derive(Debug, Default)]
pub struct Given {
    /// For ARM and Entra.
    pub https: Vec<TcpListener>,
    /// For the metadata service.
    pub imds: Vec<TcpListener>,
}

impl EmulatorArgs {
    /// Runs until told to stop.
    pub async fn run(self) -> anyhow::Result<()> {
        self.run_on(Given::default()).await
    }

    /// Runs on sockets that are given, in place of the addresses of the flags: a door that is given a socket opens none.
    pub async fn run_on(self, given: Given) -> anyhow::Result<()> {
        let Self {
            listen,
            imds,
            names,
            state,
            ca_out,
            tenant,
            subscription,
            client_id,
            client_secret,
            authorization,
            identity_token_lifetime_secs,
            token_lifetime_secs,
            operation_delay_ms,
            imds_latency_ms,
            imds_quota,
            require_features,
            nodes,
            no_machine,
            kubeconfig,
            user_kubeconfig,
            clusters,
            issuer_cas,
            issuer_keys,
            scenario,
            unsupported,
            log,
        } = self;
        logging::init(&log)?;
        let stop = Stop::on_signals().context("listen to signals")?;
        let config = Config {
            https: door(given.https, listen),
            imds: door(given.imds, imds),
            names,
            state,
            ca_out,
            tenant_id: tenant.to_string(),
            subscription_id: subscription.to_string(),
            client_id: client_id.to_string(),
            client_secret,
            authorization,
            identity_token_lifetime: Duration::from_secs(identity_token_lifetime_secs),
            token_lifetime: Duration::from_secs(token_lifetime_secs),
            operation_delay: Duration::from_millis(operation_delay_ms),
            imds_latency: Duration::from_millis(imds_latency_ms),
            imds_quota: imds_quota.0,
            require_features,
            nodes: nodes.into_iter().map(|flag| flag.0).collect(),
            machine: !no_machine,
            kubeconfig,
            user_kubeconfig,
            kubeconfigs: clusters
                .into_iter()
                .map(|flag| (flag.cluster, flag.kubeconfig))
                .collect(),
            issuer_cas,
            issuer_keys: read_keys(issuer_keys)?,
            faults: read_scenario(scenario)?,
            clock: podid_rt::clock::Clock::system(),
        };
        let app = App::bind(config).await?;
        let emulator = app.handle();
        let mut tasks = Tasks::new(stop);
        app.spawn(&mut tasks);
        crate::printer::ready(&emulator);
        let ended = tasks.run(DRAIN_DEADLINE).await;
        if unsupported {
            for (operation, count) in emulator.unsupported() {
                tracing::warn!(count, "unknown operation: {operation}");
            }
        }
        Ok(ended?)
    }
}

fn door(given: Vec<TcpListener>, addresses: Vec<SocketAddr>) -> Vec<Listen> {
    if given.is_empty() {
        return addresses.into_iter().map(Listen::from).collect();
    }
    given.into_iter().map(Listen::from).collect()
}

fn read_keys(flags: Vec<IssuerFlag>) -> anyhow::Result<HashMap<String, serde_json::Value>> {
    flags
        .into_iter()
        .map(|IssuerFlag { issuer, file }| {
            let text =
                std::fs::read(&file).with_context(|| format!("read --issuer-keys {}", file.display()))?;
            let keys = serde_json::from_slice(&text)
                .with_context(|| format!("--issuer-keys {} is not JSON", file.display()))?;
            Ok((issuer, keys))
        })
        .collect()
}

fn read_scenario(file: Option<PathBuf>) -> anyhow::Result<Vec<Fault>> {
    let Some(file) = file else { return Ok(Vec::new()) };
    let text = std::fs::read(&file).with_context(|| format!("read --scenario {}", file.display()))?;
    serde_json::from_slice(&text)
        .with_context(|| format!("--scenario {} is not a list of faults", file.display()))
}

/// `20/5`, or none for `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota(Option<(usize, usize)>);

impl FromStr for Quota {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self(None));
        }
        let number = |text: &str| text.parse::<usize>().ok().filter(|number| *number > 0);
        let both = text
            .split_once('/')
            .and_then(|(rate, parallel)| Some((number(rate)?, number(parallel)?)));
        both.map(|both| Self(Some(both)))
            .ok_or("write requests a second and at a time, as `20/5`, or `off`")
    }
}

/// `NAME=IP[,IP…]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFlag(NodeConfig);

impl FromStr for NodeFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, addresses) = text
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or("write NAME=IP")?;
        let addresses: Result<Vec<IpAddr>, _> = addresses.split(',').map(str::parse).collect();
        let addresses = addresses.map_err(|error| format!("`{text}`: {error}"))?;
        Ok(Self(NodeConfig {
            name: name.to_owned(),
            addresses,
        }))
    }
}

/// `GROUP/NAME=FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterFlag {
    cluster: String,
    kubeconfig: PathBuf,
}

impl FromStr for ClusterFlag {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (cluster, file) = text.split_once('=').ok_or("write GROUP/NAME=FILE")?;
        if cluster.split('/').filter(|part| !part.is_empty()).count() != 2 || file.is_empty() {
            return Err("write GROUP/NAME=FILE");
        }
        Ok(Self {
            cluster: cluster.to_owned(),
            kubeconfig: file.into(),
        })
    }
}

/// `ISSUER=FILE`; an issuer may have `=` in it, a file's name may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerFlag {
    issuer: String,
    file: PathBuf,
}

impl FromStr for IssuerFlag {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (issuer, file) = text.rsplit_once('=').ok_or("write ISSUER=FILE")?;
        Ok(Self {
            issuer: issuer.to_owned(),
            file: file.into(),
        })
    }
}
