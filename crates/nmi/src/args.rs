//! The agent's flags. Names and defaults are the original's where a flag still means something; each is also read
//! from `PODID_<FLAG>`.

mod choices;
mod config;
mod legacy;
mod paths;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use podid_azure::{Authority, Cloud};
use podid_rt::logging::LogArgs;
use reqwest::Url;

pub use self::choices::{
    AmbiguousIdentity, Attestation, ErrorStyle, ExceptionMatch, Interception, MsiSource, OperationMode,
};
pub(crate) use self::config::placed;
use self::config::{endpoint, path, seconds, switch, visible_text};
pub use self::legacy::{Form, LEGACY, Legacy, LegacyArgs};
pub use self::paths::PathPolicy;
use crate::admin::AdminArgs;
use crate::hosts::{HOST_TOKEN_LISTEN, HostCaller, loopback};
use crate::rate::RateLimit;
use crate::server::Limits;

/// The address at which every Azure SDK looks for the metadata service.
pub const METADATA_IP: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// Port of the agent where it is not that of the metadata service. Source: aad-pod-identity v1.8.17, `--nmi-port`.
pub const NMI_PORT: u16 = 2579;

/// `podid-nmi`: the node agent.
#[derive(Debug, Parser)]
#[command(
    name = "podid-nmi",
    version,
    about = "Gives each pod of this node its own Azure identity",
    args_conflicts_with_subcommands = true
)]
pub struct Nmi {
    /// What to do; `run` when not given
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The flags of `run`
    #[command(flatten)]
    pub run: NmiArgs,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the pods of this node until told to stop; interception stays when it stops
    Run(Box<NmiArgs>),
    /// Remove the interception from this node: pods then reach the real metadata service
    Uninstall(UninstallArgs),
    /// Ask the running agent of this node, as root: its world, its configuration, why a pod gets what it gets
    Admin(AdminArgs),
}

/// Flags of `podid-nmi run`.
#[derive(Args, Clone, Debug)]
pub struct NmiArgs {
    /// Name of this node; its pods are the ones served
    #[arg(long, env = "PODID_NODE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub node: Option<String>,

    /// Path of a kubeconfig; without it the cluster this process runs in
    #[arg(long, env = "KUBECONFIG", value_name = "PATH", value_parser = path)]
    pub kubeconfig: Option<PathBuf>,

    /// Text that the User-Agent towards the API server ends with
    #[arg(long, env = "PODID_CUSTOM_USER_AGENT", value_name = "TEXT", value_parser = visible_text)]
    pub custom_user_agent: Option<String>,

    /// How pods' requests to the metadata address get here
    #[arg(long, env = "PODID_INTERCEPTION", value_enum, default_value_t = Interception::LocalRoute)]
    pub interception: Interception,

    /// Address to listen on with --interception none or nft (there one of the node's own that pods can reach)
    #[arg(
        long,
        env = "PODID_LISTEN",
        value_name = "ADDR",
        required_if_eq_any([("interception", "none"), ("interception", "nft")])
    )]
    pub listen: Option<SocketAddr>,

    /// Port that the agent listens on when the port is rewritten
    #[arg(long, env = "PODID_NMI_PORT", default_value_t = NMI_PORT)]
    pub nmi_port: u16,

    /// What happens when the kernel does not confirm that a connection is the pod's own
    #[arg(long, env = "PODID_ATTESTATION", value_enum, default_value_t = Attestation::Enforce)]
    pub attestation: Attestation,

    /// Folder with one link `<pod uid>` to each pod's network namespace; without it pods are found in /proc
    #[arg(long, env = "PODID_POD_NETNS_DIR", value_name = "DIR")]
    pub pod_netns_dir: Option<PathBuf>,

    /// File that says whether the kubelet uses kubenet; /etc/default/kubelet, if it is there, when not given
    #[arg(long, env = "PODID_KUBELET_CONFIG", value_name = "PATH")]
    pub kubelet_config: Option<PathBuf>,

    /// Start on kubenet too, where pods share a bridge and one with NET_RAW can send from another's address
    #[arg(long, env = "PODID_ALLOW_NETWORK_PLUGIN_KUBENET", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set, value_parser = switch)]
    pub allow_network_plugin_kubenet: bool,

    /// Address of the metadata service that pods ask
    #[arg(long, env = "PODID_METADATA_IP", default_value_t = METADATA_IP)]
    pub metadata_ip: Ipv4Addr,

    /// Port of the metadata service that pods ask
    #[arg(long, env = "PODID_METADATA_PORT", default_value_t = 80)]
    pub metadata_port: u16,

    /// Where the node's real metadata service is
    #[arg(long, env = "PODID_IMDS_ENDPOINT", value_name = "URL", default_value = "http://169.254.169.254", value_parser = endpoint)]
    pub imds_endpoint: Url,

    /// Where tokens of managed identities come from that do not say so themselves
    #[arg(long, env = "PODID_MSI_SOURCE", value_enum, default_value_t = MsiSource::Imds)]
    pub msi_source: MsiSource,

    /// Cloud, for the authority that service principals are known to
    #[arg(long, env = "PODID_CLOUD", value_name = "NAME", default_value = Cloud::Public.name())]
    pub cloud: Cloud,

    /// Authority that is asked for tokens of service principals; the cloud's when not given
    #[arg(long, env = "AZURE_AUTHORITY_HOST", value_name = "URL")]
    pub authority_host: Option<Authority>,

    /// Another authority that identities may name; may be given more than once
    #[arg(
        long = "allow-authority",
        env = "PODID_ALLOW_AUTHORITY",
        value_name = "URL",
        value_delimiter = ','
    )]
    pub allow_authority: Vec<Authority>,

    /// Certificates (PEM) to trust beside the system's when asking an authority
    #[arg(long, env = "SSL_CERT_FILE", value_name = "PATH", value_parser = path)]
    pub ca_file: Option<PathBuf>,

    /// Where the identities of a pod come from: bindings of its namespace, or AzureAssignedIdentity
    #[arg(long, env = "PODID_OPERATION_MODE", value_enum, ignore_case = true, default_value_t = OperationMode::Managed)]
    pub operation_mode: OperationMode,

    /// In standard mode, leave out identities of other namespaces than the pod's
    #[arg(long = "forceNamespaced", env = "FORCENAMESPACED", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set, value_parser = switch)]
    pub force_namespaced: bool,

    /// Port of /healthz, /readyz and /metrics on all addresses
    #[arg(long, env = "PODID_HTTP_PROBE_PORT", default_value_t = 8085)]
    pub http_probe_port: u16,

    /// Address of /healthz, /readyz and /metrics, instead of --http-probe-port
    #[arg(long, env = "PODID_PROBE_LISTEN", value_name = "ADDR")]
    pub probe_listen: Option<SocketAddr>,

    /// One more port of /metrics, on all addresses, for who scrapes it there
    #[arg(long, env = "PODID_PROMETHEUS_PORT", value_name = "PORT")]
    pub prometheus_port: Option<u16>,

    /// How long a request waits for its pod or binding to be seen, in seconds
    #[arg(long, env = "PODID_WAIT_TIMEOUT", value_name = "SECONDS", default_value = "20", value_parser = seconds)]
    pub wait_timeout: Duration,

    /// Seconds between two checks of the interception
    #[arg(long = "ipt-update-interval-sec", env = "PODID_IPT_UPDATE_INTERVAL_SEC", value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub check_interval: Duration,

    /// Routing table of the interception, when its own is taken by somebody else
    #[arg(
        long,
        env = "PODID_ROUTE_TABLE",
        value_name = "NUMBER",
        requires = "rule_preference"
    )]
    pub route_table: Option<u32>,

    /// First of four preferences of the interception's rules, when its own are taken by somebody else
    #[arg(
        long,
        env = "PODID_RULE_PREFERENCE",
        value_name = "NUMBER",
        requires = "route_table"
    )]
    pub rule_preference: Option<u32>,

    /// Requests a second that one pod may make in the long run; 0 for no limit
    #[arg(long, env = "PODID_POD_RATE", value_name = "NUMBER", default_value_t = RateLimit::default().per_second)]
    pub pod_rate: u32,

    /// Requests that one pod may make at once
    #[arg(long, env = "PODID_POD_BURST", value_name = "NUMBER", default_value_t = RateLimit::default().burst)]
    pub pod_burst: u32,

    /// Connections that one pod may have open; more are answered 429
    #[arg(long, env = "PODID_POD_CONNECTIONS", value_name = "NUMBER", default_value_t = Limits::default().per_peer)]
    pub pod_connections: usize,

    /// Which identity a request without selector gets when the pod has several and none is marked default
    #[arg(long, env = "PODID_AMBIGUOUS_IDENTITY", value_enum, default_value_t = AmbiguousIdentity::First)]
    pub ambiguous_identity: AmbiguousIdentity,

    /// Whether a pod needs all labels of an exception or, as in the original, any one
    #[arg(long, env = "PODID_EXCEPTION_MATCH", value_enum, default_value_t = ExceptionMatch::All)]
    pub exception_match: ExceptionMatch,

    /// Who may reach a group of paths of the real metadata service: everybody, pods with an exception, or nobody
    ///
    /// Groups are token, instance, attested, scheduledevents and other; access is open, excepted or blocked. When not given,
    /// instance is open and everything else for pods with an exception. Tokens of the node are never open; blocked, pods with an
    /// exception need a binding like all others.
    #[arg(
        long,
        env = "PODID_PATH_POLICY",
        value_name = "GROUP=ACCESS",
        value_delimiter = ','
    )]
    pub path_policy: Vec<PathPolicy>,

    /// Answer 403 on /metadata/instance, to pods with an exception too
    #[arg(long, env = "PODID_BLOCK_INSTANCE_METADATA", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set, value_parser = switch)]
    pub block_instance_metadata: bool,

    /// Node agents that may ask for other pods' tokens at /host/token, as NAMESPACE/SERVICEACCOUNT or NAMESPACE/*; nobody when not given
    #[arg(
        long,
        env = "PODID_HOST_TOKEN_CALLERS",
        value_name = "CALLER",
        value_delimiter = ','
    )]
    pub host_token_callers: Vec<HostCaller>,

    /// Where those on the node's network ask, on the loopback interface
    #[arg(long, env = "PODID_HOST_TOKEN_LISTEN", value_name = "ADDR", default_value = HOST_TOKEN_LISTEN, value_parser = loopback)]
    pub host_token_listen: SocketAddr,

    /// How refusals are written: in the real service's shape, or with the original's status codes and texts
    #[arg(long, env = "PODID_ERROR_STYLE", value_enum, default_value_t = ErrorStyle::Podid)]
    pub error_style: ErrorStyle,

    /// Whether refusals are told as Kubernetes Events on the pod
    #[arg(long, env = "PODID_POD_EVENTS", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set, value_parser = switch)]
    pub pod_events: bool,

    /// How long open requests may take to finish after the first signal, in seconds
    #[arg(long, env = "PODID_DRAIN_DEADLINE", value_name = "SECONDS", default_value = "25", value_parser = seconds)]
    pub drain_deadline: Duration,

    /// Unix socket on which root is shown the agent's world and configuration; empty for none, /run/podid/admin.sock when not
    /// given, if that can be had
    #[arg(long, env = "PODID_ADMIN_SOCKET", value_name = "PATH", value_parser = path)]
    pub admin_socket: Option<PathBuf>,

    /// Verbosity as the original counts it: from 4 on the agent's own debug lines, from 6 on its traces, if --log says nothing else
    #[arg(long = "v", short = 'v', value_name = "N")]
    pub verbosity: Option<i32>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would become the help's heading")]
    pub legacy: LegacyArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would become the help's heading")]
    pub log: LogArgs,
}

/// Flags of `podid-nmi uninstall`.
#[derive(Args, Clone, Debug)]
pub struct UninstallArgs {
    /// Address of the metadata service that pods ask
    #[arg(long, env = "PODID_METADATA_IP", default_value_t = METADATA_IP)]
    pub metadata_ip: Ipv4Addr,

    /// Routing table that the agent was given
    #[arg(
        long,
        env = "PODID_ROUTE_TABLE",
        value_name = "NUMBER",
        requires = "rule_preference"
    )]
    pub route_table: Option<u32>,

    /// First preference that the agent was given
    #[arg(
        long,
        env = "PODID_RULE_PREFERENCE",
        value_name = "NUMBER",
        requires = "route_table"
    )]
    pub rule_preference: Option<u32>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would become the help's heading")]
    pub log: LogArgs,
}

#[cfg(test)]
mod tests;
