//! Which capabilities the agent needs, by its flags. The page in the docs is made from the same function.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use podid_kernel::privileges::Capability;

use crate::args::{Attestation, Interception, NmiArgs};

/// Ports below this one need a capability. Source: ip(7), `ip_unprivileged_port_start`.
const UNPRIVILEGED_PORTS: u16 = 1024;

/// What a part of the agent needs, and why.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// The capability
    pub capability: Capability,
    /// When it is needed
    pub when: &'static str,
    /// For what
    pub why: &'static str,
}

/// All of it, for the docs.
pub const NEEDS: [Need; 6] = [
    Need {
        capability: Capability::NetAdmin,
        when: "`--interception` other than `none`",
        why: "rules, routes and nf_tables, at the start and at every repair; the transparent socket; the self-test's interface",
    },
    Need {
        capability: Capability::NetBindService,
        when: "a port below 1024 is listened on: `local-route` and `auto` with port 80, or a port that was given",
        why: "to bind it",
    },
    Need {
        capability: Capability::SysAdmin,
        when: "`--interception` other than `none`",
        why: "the self-test is a network namespace of its own",
    },
    Need {
        capability: Capability::SysAdmin,
        when: "`--attestation` other than `off`",
        why: "the kernel is asked for a pod's sockets inside the pod's network namespace",
    },
    Need {
        capability: Capability::SysPtrace,
        when: "`--attestation` other than `off`",
        why: "the namespace is found in `/proc`, among processes of other users",
    },
    Need {
        capability: Capability::DacReadSearch,
        when: "`--host-token-callers`",
        why: "whose socket it is on the node's network is found among the open files of processes of other users",
    },
];

/// What the agent needs that intercepts and attests in these ways and listens on these ports.
pub fn needed(
    interception: Interception,
    attestation: Attestation,
    host_tokens: bool,
    ports: impl IntoIterator<Item = u16>,
) -> BTreeSet<Capability> {
    let mut needed = BTreeSet::new();
    if interception != Interception::None {
        needed.extend([Capability::NetAdmin, Capability::SysAdmin]);
    }
    if attestation != Attestation::Off {
        needed.extend([Capability::SysAdmin, Capability::SysPtrace]);
    }
    if host_tokens {
        needed.insert(Capability::DacReadSearch);
    }
    // Port 0 takes a free one, which is never below.
    if ports
        .into_iter()
        .any(|port| port != 0 && port < UNPRIVILEGED_PORTS)
    {
        needed.insert(Capability::NetBindService);
    }
    needed
}

impl NmiArgs {
    /// What these flags need.
    pub fn capabilities(&self) -> BTreeSet<Capability> {
        let pods = match self.interception {
            Interception::Auto | Interception::LocalRoute => Some(self.metadata_port),
            Interception::LocalRouteNft => Some(self.nmi_port),
            Interception::Nft | Interception::None => self.listen.as_ref().map(SocketAddr::port),
        };
        let probes = self
            .probe_listen
            .as_ref()
            .map_or(self.http_probe_port, SocketAddr::port);
        let host_tokens = !self.host_token_callers.is_empty();
        let hosts = host_tokens.then(|| self.host_token_listen.port());
        let ports = [pods, Some(probes), self.prometheus_port, hosts];
        needed(
            self.interception,
            self.attestation,
            host_tokens,
            ports.into_iter().flatten(),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser as _;

    use super::*;
    use crate::args::Nmi;

    fn of(flags: &str) -> Vec<&'static str> {
        let words = format!("podid-nmi {flags}");
        let nmi = Nmi::try_parse_from(words.split_whitespace()).unwrap();
        nmi.run.capabilities().into_iter().map(Capability::name).collect()
    }

    #[test]
    fn each_mode_needs_what_its_parts_do_and_no_more() {
        let all = ["NET_ADMIN", "NET_BIND_SERVICE", "SYS_ADMIN", "SYS_PTRACE"];
        assert_eq!(of(""), all);
        assert_eq!(of("--interception=auto --attestation=audit"), all);
        assert_eq!(
            of("--interception=local-route+nft"),
            ["NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE"]
        );
        assert_eq!(
            of("--interception=nft --listen=10.0.0.4:2579 --attestation=off"),
            ["NET_ADMIN", "SYS_ADMIN"]
        );
        let none = "--interception=none --listen=127.0.0.1:0";
        assert_eq!(of(none), ["SYS_ADMIN", "SYS_PTRACE"]);
        assert_eq!(of(&format!("{none} --attestation=off")), [""; 0]);
        let low = format!("{none} --attestation=off --http-probe-port=81");
        assert_eq!(of(&low), ["NET_BIND_SERVICE"]);
        let hosts = "--interception=local-route+nft --host-token-callers=kube-system/csi";
        assert_eq!(
            of(hosts),
            ["DAC_READ_SEARCH", "NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE"]
        );
    }

    #[test]
    fn every_need_that_is_told_is_one() {
        let most = needed(Interception::Auto, Attestation::Enforce, true, [80]);
        let told: BTreeSet<_> = NEEDS.iter().map(|need| need.capability).collect();
        assert_eq!(told, most);
    }

    #[test]
    fn what_the_chart_adds_is_what_its_flags_need() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/kustomize");
        let added = |path: &str| -> Vec<BTreeSet<String>> {
            let text = std::fs::read_to_string(root.join(path)).unwrap();
            let lists = text.lines().filter_map(|line| line.trim().strip_prefix("add: ["));
            lists
                .map(|list| {
                    let names = list.trim_end_matches(']').split(", ").map(str::to_owned);
                    names.filter(|name| !name.is_empty()).collect()
                })
                .collect()
        };
        let names = |flags: &str| of(flags).into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
        assert_eq!(added("base/podid.yaml"), [names("--interception=local-route")]);
        // With `uninstall`, the first container takes the interception away, and the agent only waits.
        assert_eq!(
            added("uninstall/agent.yaml"),
            [
                BTreeSet::from(["NET_ADMIN".to_owned()]),
                names("--interception=none --listen=127.0.0.1:0")
            ]
        );
    }
}
