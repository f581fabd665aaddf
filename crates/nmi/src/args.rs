//! The agent's flags. Names and defaults are the original's where a flag still means something; each is also read
//! from `PODID_<FLAG>`.

mod legacy;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use podid_azure::{Authorities, Authority, Cloud, TlsRoots};
use podid_core::Policy;
use podid_core::decide::{Access, Ambiguous, ExceptionMatch as Match, Mode};
use podid_kernel::attest::Places;
use podid_kernel::redirect::Interception as Way;
use podid_rt::clock::Clock;
use podid_rt::logging::LogArgs;
use reqwest::Url;

pub use self::legacy::LegacyArgs;
use crate::app::{AppConfig, Entrance};
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
}

/// Flags of `podid-nmi run`.
#[derive(Args, Clone, Debug)]
pub struct NmiArgs {
    /// Name of this node; its pods are the ones served
    #[arg(long, env = "PODID_NODE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub node: Option<String>,

    /// Path of a kubeconfig; without it the cluster this process runs in
    #[arg(long, env = "KUBECONFIG", value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,

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
    #[arg(long, env = "SSL_CERT_FILE", value_name = "PATH")]
    pub ca_file: Option<PathBuf>,

    /// Where the identities of a pod come from: bindings of its namespace, or AzureAssignedIdentity
    #[arg(long, env = "PODID_OPERATION_MODE", value_enum, ignore_case = true, default_value_t = OperationMode::Managed)]
    pub operation_mode: OperationMode,

    /// In standard mode, leave out identities of other namespaces than the pod's
    #[arg(long = "forceNamespaced", env = "FORCENAMESPACED", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub force_namespaced: bool,

    /// Port of /healthz, /readyz and /metrics on all addresses
    #[arg(long, env = "PODID_HTTP_PROBE_PORT", default_value_t = 8085)]
    pub http_probe_port: u16,

    /// Address of /healthz, /readyz and /metrics, instead of --http-probe-port
    #[arg(long, env = "PODID_PROBE_LISTEN", value_name = "ADDR")]
    pub probe_listen: Option<SocketAddr>,

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

    /// Answer 403 on /metadata/instance
    #[arg(long, env = "PODID_BLOCK_INSTANCE_METADATA", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub block_instance_metadata: bool,

    /// Whether refusals are told as Kubernetes Events on the pod
    #[arg(long, env = "PODID_POD_EVENTS", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub pod_events: bool,

    /// How long open requests may take to finish after the first signal, in seconds
    #[arg(long, env = "PODID_DRAIN_DEADLINE", value_name = "SECONDS", default_value = "25", value_parser = seconds)]
    pub drain_deadline: Duration,

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

/// How pods' requests get here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Interception {
    /// The first of local-route+nft and local-route that passes the self-test
    Auto,
    /// Policy rules and a local route; takes port 80 of the node from programs on 0.0.0.0:80
    LocalRoute,
    /// The same, and nf_tables rewrites the port, so that port 80 stays free
    #[value(name = "local-route+nft")]
    LocalRouteNft,
    /// Policy rules, and nf_tables leads to an address of the node's own, which --listen names
    Nft,
    /// Not at all; --listen names the address
    None,
}

/// What happens with connections that the kernel does not confirm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Attestation {
    /// Refuse them
    Enforce,
    /// Let them through and count them
    Audit,
    /// Trust the source address
    Off,
}

/// Where tokens of managed identities come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MsiSource {
    /// The node's metadata service
    Imds,
    /// An exchange of the pod's service-account token at Entra
    Federation,
}

/// Where the identities of a pod come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OperationMode {
    /// AzureIdentity and AzureIdentityBinding of the pod's namespace
    Managed,
    /// AzureAssignedIdentity, which a controller writes
    Standard,
}

/// Which of several identities a request without selector gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AmbiguousIdentity {
    /// The first by namespace and name
    First,
    /// None; the real service's 400
    Refuse,
}

/// How an exception's labels are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExceptionMatch {
    /// All labels, exactly
    All,
    /// Any one label, its value without case
    Any,
}

impl NmiArgs {
    /// What the flags mean. Flags that only `run` itself needs are `_` here.
    pub fn config(self, client: kube::Client, node: String) -> anyhow::Result<AppConfig> {
        let Self {
            node: _,
            kubeconfig: _,
            interception,
            listen,
            nmi_port,
            attestation,
            pod_netns_dir,
            metadata_ip,
            metadata_port,
            imds_endpoint,
            msi_source,
            cloud,
            authority_host,
            allow_authority,
            ca_file,
            operation_mode,
            force_namespaced,
            http_probe_port,
            probe_listen,
            wait_timeout,
            check_interval,
            route_table,
            rule_preference,
            pod_rate,
            pod_burst,
            pod_connections,
            ambiguous_identity,
            exception_match,
            block_instance_metadata,
            pod_events,
            drain_deadline: _,
            legacy: _,
            log: _,
        } = self;
        let target = SocketAddrV4::new(metadata_ip, metadata_port);
        Ok(AppConfig {
            client,
            node,
            entrance: match ways(interception, target, nmi_port, listen)? {
                Ways::Nowhere(address) => Entrance::Address(address),
                Ways::Of(ways) => Entrance::Intercepted {
                    ways: ways
                        .into_iter()
                        .map(|way| placed(way, route_table, rule_preference))
                        .collect(),
                    interval: check_interval,
                },
            },
            attestation,
            places: pod_netns_dir.map_or_else(Places::proc, Places::Folder),
            imds_endpoint,
            authorities: authorities(cloud, authority_host, allow_authority)?,
            roots: roots(ca_file.as_deref())?,
            msi_source,
            probe_listen: probe_listen.unwrap_or_else(|| (Ipv4Addr::UNSPECIFIED, http_probe_port).into()),
            policy: Policy {
                mode: match operation_mode {
                    OperationMode::Managed => Mode::Managed,
                    OperationMode::Standard => Mode::Standard {
                        namespaced: force_namespaced,
                    },
                },
                ambiguous: match ambiguous_identity {
                    AmbiguousIdentity::First => Ambiguous::First,
                    AmbiguousIdentity::Refuse => Ambiguous::Refuse,
                },
                exception_match: match exception_match {
                    ExceptionMatch::All => Match::All,
                    ExceptionMatch::Any => Match::Any,
                },
                instance: if block_instance_metadata {
                    Access::Blocked
                } else {
                    Access::Open
                },
                ..Policy::default()
            },
            wait: wait_timeout,
            rate: RateLimit {
                per_second: pod_rate,
                burst: pod_burst,
            },
            limits: Limits {
                per_peer: pod_connections,
                ..Limits::default()
            },
            pod_events,
            clock: Clock::system(),
        })
    }
}

fn authorities(
    cloud: Cloud,
    host: Option<Authority>,
    allowed: Vec<Authority>,
) -> anyhow::Result<Authorities> {
    let default = match host {
        Some(host) => host,
        None => cloud.authority().parse()?,
    };
    Ok(allowed
        .into_iter()
        .fold(Authorities::new(default), Authorities::allow))
}

fn roots(file: Option<&Path>) -> anyhow::Result<TlsRoots> {
    let Some(path) = file else {
        return Ok(TlsRoots::default());
    };
    let read = || anyhow::Ok(TlsRoots::from_pem(&std::fs::read(path)?)?);
    read().with_context(|| format!("read the certificates in {} (--ca-file)", path.display()))
}

/// What `--interception` comes to.
enum Ways {
    /// The ways to try, best first.
    Of(Vec<Way>),
    /// Nothing is intercepted; this is where to listen.
    Nowhere(SocketAddr),
}

fn ways(
    interception: Interception,
    target: SocketAddrV4,
    port: u16,
    listen: Option<SocketAddr>,
) -> anyhow::Result<Ways> {
    let routed = Way::local_route(target);
    let rewritten = Way::local_route_and_port(target, port);
    Ok(match (interception, listen) {
        (Interception::Auto, _) => Ways::Of(vec![rewritten, routed]),
        (Interception::LocalRoute, _) => Ways::Of(vec![routed]),
        (Interception::LocalRouteNft, _) => Ways::Of(vec![rewritten]),
        (Interception::Nft, Some(SocketAddr::V4(to)))
            if !to.ip().is_loopback() && !to.ip().is_unspecified() =>
        {
            Ways::Of(vec![Way::node_address(target, to)])
        }
        (Interception::Nft, _) => anyhow::bail!(
            "--interception nft needs --listen with an IPv4 address of the node's own that pods can reach"
        ),
        (Interception::None, Some(address)) => Ways::Nowhere(address),
        (Interception::None, None) => anyhow::bail!("--interception none needs --listen"),
    })
}

/// `way` in its own table and preferences or in those given.
pub(crate) fn placed(way: Way, table: Option<u32>, preference: Option<u32>) -> Way {
    match (table, preference) {
        (Some(table), Some(preference)) => way.at(table, preference),
        _ => way,
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(0) | Err(_) => Err(format!("`{text}` is not a whole number of seconds of at least 1")),
        Ok(secs) => Ok(Duration::from_secs(secs.into())),
    }
}

fn endpoint(text: &str) -> Result<Url, String> {
    let url: Url = text
        .parse()
        .map_err(|error| format!("`{text}` is not a URL: {error}"))?;
    if url.scheme() != "http" || !url.has_host() {
        return Err(format!("`{text}` is not of the form http://HOST[:PORT]"));
    }
    if url.path() != "/" || url.query().is_some() {
        return Err(format!("`{text}` has a path; only http://HOST[:PORT] is of use"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_is_the_default_command() {
        let nmi = Nmi::try_parse_from(["podid-nmi", "--node", "n1", "--block-instance-metadata"]).unwrap();
        assert!(
            nmi.command.is_none() && nmi.run.node.as_deref() == Some("n1") && nmi.run.block_instance_metadata
        );
        let nmi = Nmi::try_parse_from(["podid-nmi", "run", "--node=n2", "--wait-timeout=5"]).unwrap();
        let Some(Command::Run(args)) = nmi.command else {
            panic!("{nmi:?}")
        };
        assert_eq!(
            (args.node.as_deref(), args.wait_timeout),
            (Some("n2"), Duration::from_secs(5))
        );
    }

    #[test]
    fn the_originals_manifests_are_taken_and_what_means_nothing_is_said() {
        // The arguments of the original's managed-mode DaemonSet, and some that its chart can add.
        let nmi = Nmi::try_parse_from([
            "nmi",
            "--node=n1",
            "--http-probe-port=8085",
            "--enableScaleFeatures=true",
            "--metadata-header-required=true",
            "--operation-mode=Managed",
            "--forceNamespaced",
            "--block-instance-metadata=true",
            "--find-identity-retry-interval",
            "5",
            "--ipt-update-interval-sec=60",
            "--v=5",
        ])
        .unwrap();
        assert!(nmi.run.force_namespaced && nmi.run.block_instance_metadata);
        let flags: Vec<_> = nmi
            .run
            .legacy
            .notices()
            .into_iter()
            .map(|(flag, _)| flag)
            .collect();
        assert_eq!(flags, ["--find-identity-retry-interval", "-v"]);
    }

    #[test]
    fn a_bad_value_is_named_with_its_flag() {
        for (flag, value) in [
            ("--wait-timeout", "0"),
            ("--imds-endpoint", "https://169.254.169.254"),
            ("--imds-endpoint", "http://h/path"),
            ("--metadata-ip", "::1"),
            ("--attestation", "maybe"),
        ] {
            let text = Nmi::try_parse_from(["podid-nmi", "--node=n", flag, value])
                .unwrap_err()
                .to_string();
            assert!(text.contains(flag) && text.contains(value), "{text}");
        }
    }
}
