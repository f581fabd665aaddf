//! Which names and addresses the parts of a world have. All worlds have the same ones: each has networks of its own.
//!
//! ```text
//! pods 10.244.N.0/24 ── node 10.240.N.4 ── 10.240.N.1 azure: 169.254.169.254 metadata service
//!                                                            10.96.0.1       Kubernetes API
//!                                                            10.96.0.10      ARM and Entra
//! ```

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// The metadata service.
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The Kubernetes API, as pods reach it.
pub const KUBERNETES: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// ARM and Entra, as pods reach them.
pub const AZURE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Port of the Kubernetes API, ARM and Entra in the world.
pub const TLS_PORT: u16 = 443;
/// Name of ARM in the world.
pub const ARM_HOST: &str = "management.podid.test";
/// Name of Entra in the world.
pub const LOGIN_HOST: &str = "login.podid.test";
/// Names of the Kubernetes API in the world.
pub const KUBERNETES_HOSTS: [&str; 4] = [
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];
/// The agent's port for probes, on each node.
pub const PROBE_PORT: u16 = 8085;
/// The most nodes that a world can have.
pub const MAX_NODES: u8 = 16;

/// How many nodes a world has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeCount(u8);

impl FromStr for NodeCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<u8>() {
            Ok(count) if (1..=MAX_NODES).contains(&count) => Ok(Self(count)),
            _ => Err(format!("`{text}` is not a number of nodes from 1 to {MAX_NODES}")),
        }
    }
}

impl std::fmt::Display for NodeCount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl NodeCount {
    /// The nodes.
    pub fn plans(self) -> impl Iterator<Item = NodePlan> {
        (0..self.0).map(|number| NodePlan { number })
    }
}

/// How a node's pods are wired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wiring {
    /// Each pod has a pair of interfaces, as with Azure CNI.
    PointToPoint,
    /// All pods are on a bridge, as with kubenet.
    Bridge,
}

/// One node, by its number from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodePlan {
    number: u8,
}

impl NodePlan {
    /// Its name.
    pub fn name(self) -> String {
        format!("node-{}", self.number + 1)
    }

    /// Its own address.
    pub fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 240, self.number, 4)
    }

    /// The other end of its cable to Azure.
    pub fn uplink(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 240, self.number, 1)
    }

    /// Its end's name in Azure.
    pub fn uplink_name(self) -> String {
        format!("node{}", self.number + 1)
    }

    /// The network of its pods, /24.
    pub fn pods(self) -> Ipv4Addr {
        self.pod(0)
    }

    /// The gateway of its pods on a bridge.
    pub fn gateway(self) -> Ipv4Addr {
        self.pod(1)
    }

    /// The address of one of its pods.
    pub fn pod(self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, self.number, host)
    }

    /// The last bytes of the addresses that its pods get.
    pub fn pod_hosts(self) -> std::ops::RangeInclusive<u8> {
        10..=250
    }

    /// How its pods are wired: both ways occur as soon as there are two nodes.
    pub fn wiring(self) -> Wiring {
        if self.number.is_multiple_of(2) {
            Wiring::PointToPoint
        } else {
            Wiring::Bridge
        }
    }
}

/// `/etc/hosts` of a pod, or of a node when there is no pod.
pub fn hosts(pod: Option<(&str, Ipv4Addr)>) -> String {
    let mut text = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
    // Writing to a string cannot fail.
    let _written = write!(
        text,
        "{AZURE} {ARM_HOST} {LOGIN_HOST}\n{KUBERNETES} {}\n",
        KUBERNETES_HOSTS.join(" ")
    );
    if let Some((name, address)) = pod {
        let _written = writeln!(text, "{address} {name}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_share_no_address_and_are_wired_in_both_ways() {
        let plans: Vec<_> = "16".parse::<NodeCount>().unwrap().plans().collect();
        let mut addresses: Vec<_> = plans
            .iter()
            .flat_map(|plan| [plan.address(), plan.uplink(), plan.gateway(), plan.pod(10)])
            .collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 64);
        assert_ne!(plans[0].wiring(), plans[1].wiring());
        for text in ["0", "17", "-1", "x"] {
            assert!(text.parse::<NodeCount>().unwrap_err().contains(text));
        }
    }
}
