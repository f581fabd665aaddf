//! Somebody else on the node who changes rules and routes, as network managers, CNI plugins and people do.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;

use libtest_mimic::Failed;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::sys::socket::{
    AddressFamily as Family, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};
use podid_kernel::Namespace;

use crate::Outcome;

/// Adds a rule that looks into `table`, with what `narrow` puts on it.
pub(crate) fn add_rule(
    node: &Namespace,
    preference: u32,
    table: u32,
    narrow: impl FnOnce(&mut RuleMessage),
) -> Outcome {
    let mut rule = rule_at(preference);
    rule.header.action = RuleAction::ToTable;
    rule.attributes.push(RuleAttribute::Table(table));
    narrow(&mut rule);
    change(node, RouteNetlinkMessage::NewRule(rule))
}

/// Makes a rule match packets to a network.
pub(crate) fn to(network: [u8; 4], prefix: u8) -> impl FnOnce(&mut RuleMessage) {
    move |rule| {
        rule.header.dst_len = prefix;
        rule.attributes
            .push(RuleAttribute::Destination(IpAddr::from(network)));
    }
}

/// Deletes the first rule with a preference.
pub(crate) fn delete_rule(node: &Namespace, preference: u32) -> Outcome {
    change(node, RouteNetlinkMessage::DelRule(rule_at(preference)))
}

/// All rules, to compare.
pub(crate) fn rules(node: &Namespace) -> Result<Vec<RouteNetlinkMessage>, Failed> {
    let mut any = RuleMessage::default();
    any.header.family = AddressFamily::Inet;
    Ok(node.run(|| ask(RouteNetlinkMessage::GetRule(any), NLM_F_DUMP))??)
}

/// Adds `local <to>/32 dev lo` to a table.
pub(crate) fn add_local_route(node: &Namespace, to: Ipv4Addr, table: u32) -> Outcome {
    change(node, RouteNetlinkMessage::NewRoute(local_route(to, table)))
}

/// Deletes it.
pub(crate) fn delete_local_route(node: &Namespace, to: Ipv4Addr, table: u32) -> Outcome {
    change(node, RouteNetlinkMessage::DelRoute(local_route(to, table)))
}

/// Adds `<to>/32 via <gateway>` to a table.
pub(crate) fn add_route(
    node: &Namespace,
    to: Ipv4Addr,
    gateway: Ipv4Addr,
    index: u32,
    table: u32,
) -> Outcome {
    let mut route = local_route(to, table);
    route.header.kind = RouteType::Unicast;
    route.header.scope = RouteScope::Universe;
    route
        .attributes
        .retain(|attribute| !matches!(attribute, RouteAttribute::Oif(_)));
    route.attributes.push(RouteAttribute::Oif(index));
    route
        .attributes
        .push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
    change(node, RouteNetlinkMessage::NewRoute(route))
}

/// Switches the loopback interface off.
pub(crate) fn loopback_down(node: &Namespace) -> Outcome {
    let mut link = LinkMessage::default();
    link.header.index = 1;
    link.header.change_mask = LinkFlags::Up;
    change(node, RouteNetlinkMessage::SetLink(link))
}

fn rule_at(preference: u32) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = AddressFamily::Inet;
    rule.attributes.push(RuleAttribute::Priority(preference));
    rule
}

fn local_route(to: Ipv4Addr, table: u32) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet;
    route.header.destination_prefix_length = 32;
    route.header.kind = RouteType::Local;
    route.header.scope = RouteScope::Host;
    route.header.protocol = RouteProtocol::Unspec;
    route.attributes.push(RouteAttribute::Table(table));
    route
        .attributes
        .push(RouteAttribute::Destination(RouteAddress::Inet(to)));
    route.attributes.push(RouteAttribute::Oif(1));
    route
}

fn change(node: &Namespace, message: RouteNetlinkMessage) -> Outcome {
    node.run(|| ask(message, NLM_F_ACK | NLM_F_CREATE))??;
    Ok(())
}

fn ask(message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
    let socket = socket(
        Family::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    let mut request = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(message));
    request.header.flags = NLM_F_REQUEST | flags;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    send(socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
    let mut answers = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let answer =
                NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
            rest = &rest[answer.header.length as usize..];
            match answer.payload {
                NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                _ => return Ok(answers),
            }
        }
    }
}
