//! From flags to what an agent is made of. It opens nothing but the file of certificates.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use http::HeaderValue;
use podid_azure::{Authorities, Authority, Cloud, TlsRoots};
use podid_core::Policy;
use podid_core::decide::{Ambiguous, ExceptionMatch as Match, Mode};
use podid_kernel::attest::Places;
use podid_kernel::redirect::Interception as Way;
use podid_rt::clock::Clock;
use podid_rt::logging::{DEFAULT_LOG, LogArgs};
use reqwest::Url;

use super::paths::applied;
use super::{AmbiguousIdentity, Attestation, ExceptionMatch, Interception, NmiArgs, OperationMode};
use crate::answer::Errors;
use crate::app::{AppConfig, Entrance};
use crate::hosts::{HostCaller, HostTokens};
use crate::rate::RateLimit;
use crate::server::Limits;

/// What `-v 4` means: ours alone, not what libraries have to say.
const DEBUG: &str =
    "podid_nmi=debug,podid_broker=debug,podid_kernel=debug,podid_azure=debug,podid_rt=debug,info";
/// What `-v 6` means.
const TRACE: &str =
    "podid_nmi=trace,podid_broker=trace,podid_kernel=trace,podid_azure=trace,podid_rt=trace,info";

impl NmiArgs {
    /// How to log. The original's verbosity counts only where `--log` says nothing.
    pub(crate) fn logging(&self) -> LogArgs {
        let mut log = self.log.clone();
        if let (DEFAULT_LOG, Some(verbosity)) = (log.log.as_str(), self.verbosity) {
            // Source: aad-pod-identity v1.8.17: retries are told at 4, rules and connections at 5.
            let level = match verbosity {
                ..4 => DEFAULT_LOG,
                4..=5 => DEBUG,
                6.. => TRACE,
            };
            level.clone_into(&mut log.log);
        }
        log
    }

    /// What the flags mean. Flags that only `run` itself needs are `_` here.
    pub fn config(self, client: kube::Client, node: String) -> anyhow::Result<AppConfig> {
        let Self {
            node: _,
            kubeconfig: _,
            custom_user_agent: _,
            kubelet_config: _,
            admin_socket: _,
            allow_network_plugin_kubenet: _,
            verbosity: _,
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
            prometheus_port,
            wait_timeout,
            check_interval,
            route_table,
            rule_preference,
            pod_rate,
            pod_burst,
            pod_connections,
            ambiguous_identity,
            exception_match,
            path_policy,
            block_instance_metadata,
            host_token_callers,
            host_token_listen,
            error_style,
            pod_events,
            drain_deadline: _,
            legacy,
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
            metrics_listen: prometheus_port.map(|port| (Ipv4Addr::UNSPECIFIED, port).into()),
            policy: applied(
                Policy {
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
                    ..Policy::default()
                },
                &path_policy,
                block_instance_metadata,
            ),
            wait: wait_timeout,
            rate: RateLimit {
                per_second: pod_rate,
                burst: pod_burst,
            },
            limits: Limits {
                per_peer: pod_connections,
                ..Limits::default()
            },
            host_tokens: host_tokens(host_token_callers, host_token_listen, attestation)?,
            errors: Errors {
                style: error_style,
                retry_after: legacy.retry_after(),
            },
            pod_events,
            clock: Clock::system(),
        })
    }
}

/// None when nobody may ask.
fn host_tokens(
    callers: Vec<HostCaller>,
    listen: SocketAddr,
    attestation: Attestation,
) -> anyhow::Result<Option<HostTokens>> {
    if callers.is_empty() {
        return Ok(None);
    }
    anyhow::ensure!(
        attestation == Attestation::Enforce,
        "--host-token-callers needs --attestation enforce: only what the kernel confirms shows who asks"
    );
    Ok(Some(HostTokens { callers, listen }))
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
    // An empty variable is one that is not set.
    let Some(path) = file.filter(|path| !path.as_os_str().is_empty()) else {
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

/// A boolean as Go's and people's flags are written; an empty variable is one that is not set.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "1" | "yes" | "on" => Ok(true),
        "false" | "f" | "0" | "no" | "off" | "" => Ok(false),
        _ => Err(format!("`{text}` is neither true nor false")),
    }
}

/// A path, which may be empty.
#[expect(clippy::unnecessary_wraps, reason = "clap wants a parser that may fail")]
pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    Ok(text.into())
}

/// Text that a header can have.
pub(super) fn visible_text(text: &str) -> Result<String, String> {
    match HeaderValue::from_str(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!(
            "`{}` has characters that no header can have",
            text.escape_debug()
        )),
    }
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(0) | Err(_) => Err(format!("`{text}` is not a whole number of seconds of at least 1")),
        Ok(secs) => Ok(Duration::from_secs(secs.into())),
    }
}

pub(super) fn endpoint(text: &str) -> Result<Url, String> {
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
