//! `/config`: what the flags came to. A new member of [`AppConfig`] does not compile until somebody has said here whether it
//! is shown.

use std::net::SocketAddr;

use podid_core::Policy;
use podid_core::decide::{Access, Ambiguous, ExceptionMatch, Mode};
use podid_kernel::attest::Places;
use serde_json::{Value, json};

use crate::app::{AppConfig, Entrance};
use crate::args::{Attestation, ErrorStyle, MsiSource};

/// What an agent works by. There is no secret among it.
pub(crate) fn shown(config: &AppConfig, listens_on: SocketAddr) -> Value {
    let AppConfig {
        client: _,
        node,
        entrance,
        attestation,
        places,
        imds_endpoint,
        authorities,
        roots: _,
        msi_source,
        probe_listen,
        metrics_listen,
        policy,
        wait,
        rate,
        limits,
        host_tokens,
        errors,
        pod_events,
        clock: _,
    } = config;
    json!({
        "node": node,
        "listens_on": listens_on,
        "entrance": match entrance {
            Entrance::Address(address) => json!({ "listen": address }),
            Entrance::Intercepted { ways, interval } => json!({
                "ways": ways.iter().map(|way| json!({
                    "asked": way.asked(),
                    "listens_on": way.listens_on(),
                })).collect::<Vec<_>>(),
                "check_interval_secs": interval.as_secs(),
            }),
        },
        "attestation": match attestation {
            Attestation::Enforce => "enforce",
            Attestation::Audit => "audit",
            Attestation::Off => "off",
        },
        "pod_netns": match places {
            Places::Folder(folder) | Places::Proc(folder) => folder,
        },
        "imds_endpoint": imds_endpoint.as_str(),
        "authorities": authorities.names().collect::<Vec<_>>(),
        "msi_source": match msi_source {
            MsiSource::Imds => "imds",
            MsiSource::Federation => "federation",
        },
        "probe_listen": probe_listen,
        "metrics_listen": metrics_listen,
        "policy": shown_policy(*policy),
        "wait_timeout_secs": wait.as_secs_f64(),
        "pod_rate": { "per_second": rate.per_second, "burst": rate.burst },
        "connections": { "in_all": limits.connections, "per_pod": limits.per_peer },
        "host_tokens": host_tokens.as_ref().map(|tokens| json!({
            "listen": tokens.listen,
            "callers": tokens.callers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })),
        "error_style": match errors.style {
            ErrorStyle::Podid => "podid",
            ErrorStyle::AadPodIdentity => "aad-pod-identity",
        },
        "set_retry_after_header": errors.retry_after,
        "pod_events": pod_events,
    })
}

fn shown_policy(policy: Policy) -> Value {
    let Policy {
        mode,
        ambiguous,
        exception_match,
        token,
        instance,
        attested,
        scheduled_events,
        other,
    } = policy;
    let access = |access| match access {
        Access::Open => "open",
        Access::Excepted => "for excepted pods",
        Access::Blocked => "closed",
    };
    json!({
        "operation_mode": match mode {
            Mode::Managed => "managed",
            Mode::Standard { namespaced: false } => "standard",
            Mode::Standard { namespaced: true } => "standard, namespaced",
        },
        "ambiguous_identity": match ambiguous {
            Ambiguous::First => "first",
            Ambiguous::Refuse => "refuse",
        },
        "exception_match": match exception_match {
            ExceptionMatch::All => "all",
            ExceptionMatch::Any => "any",
        },
        "paths": {
            "/metadata/instance": access(instance),
            "/metadata/attested": access(attested),
            "/metadata/scheduledevents": access(scheduled_events),
            "the node's own tokens": match token {
                Access::Open | Access::Excepted => access(Access::Excepted),
                Access::Blocked => access(Access::Blocked),
            },
            "other": access(other),
        },
    })
}
