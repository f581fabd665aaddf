//! The addresses of the real Kubernetes. Fixed, since it has a network of its own: ports that are picked and given back
//! can be taken before their owner binds them (etcd's were, now and then, by a client's outgoing connection).

use std::net::Ipv4Addr;

/// The control plane on the nodes' network; also the nodes' gateway.
pub(crate) const CONTROL_PLANE: Ipv4Addr = Ipv4Addr::new(10, 89, 0, 1);
/// Prefix length of the nodes' network
pub(super) const NODE_PREFIX: u8 = 24;
/// The `kubernetes` service. The control plane answers to it as well, so a node without kube-proxy reaches it by its
/// default route.
pub(super) const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// Services
pub(super) const SERVICES: &str = "10.96.0.0/16";
/// Pods of all nodes
pub(super) const PODS: &str = "10.244.0.0/16";
/// The API server's port
pub(super) const API_PORT: u16 = 443;
/// etcd's client and peer ports, on loopback
pub(super) const ETCD_PORTS: [u16; 2] = [2379, 2380];
/// Nodes are numbered from 1 to here.
pub(super) const MOST_NODES: u8 = 100;

/// Node `number`'s address.
pub(super) fn node(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 89, 0, 10_u8.saturating_add(number))
}

/// The pods of node `number`: network and prefix length.
pub(super) fn pods(number: u8) -> (Ipv4Addr, u8) {
    (Ipv4Addr::new(10, 244, number, 0), 24)
}
