//! Wires a pod to a node in the two ways of CNI plugins: a bridge (kubenet, flannel, bridge), or a pair of interfaces
//! for each pod without an address on the node's end (Azure CNI, Calico, Cilium). For the sandbox, tests and the
//! agent's self-test; on a real node the CNI plugin does this.

use std::net::Ipv4Addr;

use crate::netns::{Namespace, NamespaceError};

/// A pod's interface, as pods expect it.
pub const POD_LINK: &str = "eth0";
/// The gateway of point-to-point pods: an address that nobody has, answered for by a static neighbour (Azure CNI and
/// Calico use the same one).
pub const POINT_TO_POINT_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// Lets a namespace forward packets between its interfaces, as nodes do.
pub fn forward(node: &Namespace) -> Result<(), NamespaceError> {
    node.sysctl("net.ipv4.ip_forward", "1")
}

/// A bridge on the node with the address of the pods' gateway.
pub fn bridge(node: &Namespace, name: &str, gateway: Ipv4Addr, prefix: u8) -> Result<(), NamespaceError> {
    let links = node.links()?;
    links.bridge(name)?;
    links.address(name, gateway, prefix)?;
    links.up(name)
}

/// A pod on a bridge: `link` is the name of its interface's other end on the node.
pub fn join_bridge(
    node: &Namespace,
    bridge: &str,
    link: &str,
    pod: &Namespace,
    address: Ipv4Addr,
    prefix: u8,
    gateway: Ipv4Addr,
) -> Result<(), NamespaceError> {
    let (on_node, in_pod) = (node.links()?, pod.links()?);
    on_node.veth(link, POD_LINK, pod)?;
    on_node.enslave(link, bridge)?;
    on_node.up(link)?;
    in_pod.address(POD_LINK, address, prefix)?;
    in_pod.up(POD_LINK)?;
    in_pod.route_via(Ipv4Addr::UNSPECIFIED, 0, gateway, POD_LINK)
}

/// A pod on a pair of interfaces of its own: `link` is the name of the other end on the node, which has no address.
pub fn join_point_to_point(
    node: &Namespace,
    link: &str,
    pod: &Namespace,
    address: Ipv4Addr,
) -> Result<(), NamespaceError> {
    let (on_node, in_pod) = (node.links()?, pod.links()?);
    on_node.veth(link, POD_LINK, pod)?;
    on_node.up(link)?;
    on_node.route_direct(address, 32, link)?;
    in_pod.address(POD_LINK, address, 32)?;
    in_pod.up(POD_LINK)?;
    in_pod.route_direct(POINT_TO_POINT_GATEWAY, 32, POD_LINK)?;
    in_pod.neighbour(POD_LINK, POINT_TO_POINT_GATEWAY, on_node.mac(link)?)?;
    in_pod.route_via(Ipv4Addr::UNSPECIFIED, 0, POINT_TO_POINT_GATEWAY, POD_LINK)?;
    // The way back needs no question either: what a static neighbour answers, nobody can answer falsely.
    on_node.neighbour(link, address, in_pod.mac(POD_LINK)?)
}

/// A cable between two namespaces, e.g. a node and what lies outside: each end gets its address.
pub fn cable(
    here: (&Namespace, &str, Ipv4Addr),
    there: (&Namespace, &str, Ipv4Addr),
    prefix: u8,
) -> Result<(), NamespaceError> {
    let (a, a_link, a_address) = here;
    let (b, b_link, b_address) = there;
    let (at_a, at_b) = (a.links()?, b.links()?);
    at_a.veth(a_link, b_link, b)?;
    at_a.address(a_link, a_address, prefix)?;
    at_b.address(b_link, b_address, prefix)?;
    at_a.up(a_link)?;
    at_b.up(b_link)
}
