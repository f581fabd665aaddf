//! Interception by routing alone: no NAT, no connection tracking, no packet filter, no program to run.
//!
//! With `A` the metadata address, `T` the table and `P` the first preference, in the order in which the kernel asks:
//!
//! ```text
//! rule P    to A iif lo  goto P+3      the node's own requests go on as if we were not here
//! rule P+1  to A         lookup T      T holds: local A dev lo ─▶ delivered to the agent's socket
//! rule P+2  to A         prohibit      whatever happened to T: refused, never forwarded
//! rule P+3  to A         nop           where the node's own requests go on
//! ```
//!
//! **Why it fails closed.** Nothing here depends on the process: without a listener the packets are delivered to
//! nobody. If the route goes (table flushed), rule P+2 refuses; `lo` switched off takes nothing away. If rule P+1 goes, the same. If
//! rule P or P+3 goes, the node's own requests are taken as well, which breaks them and opens nothing. Only without both P+1
//! and P+2 is the way open; [`LocalRoute::watch`] wakes the agent on the first of any of these. Flushing nftables or
//! iptables changes nothing. `install` adds route, P+3, P, P+2, P+1 in that order, so the node's own way never breaks
//! and a failure half way leaves the way closed or as it was, never half open; `remove` goes the other way round.
//!
//! A process in the node's own network namespace (hostNetwork) is not intercepted: its packets come from `lo`.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::{RedirectError, Watch};
use crate::netlink::Netlink;

/// The routing table with the local route: no well-known one, and outside the ranges of Cilium (2004, 2005), Calico (1–250) and Azure CNI.
const TABLE: u32 = 2579;
/// The first of four consecutive rule preferences: after the local table (0; Cilium moves it to 100) and before
/// everything that routes pods' packets elsewhere (Cilium 110, AWS VPC CNI 512, main 32766).
const PREFERENCE: u32 = 90;
/// `RT_TABLE_LOCAL` of linux/rtnetlink.h: the node's own addresses, looked up first on every machine.
const LOCAL_TABLE: u32 = 255;
/// The loopback interface has index 1 in every network namespace.
const LOOPBACK: u32 = 1;
/// systemd-networkd removes rules and routes that it did not make, except those of this protocol.
const PROTOCOL: RouteProtocol = RouteProtocol::Kernel;
/// More copies of one rule than anybody made by accident.
const COPIES: usize = 16;

/// Interception of one address by a local route, in the calling thread's network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalRoute {
    address: Ipv4Addr,
    table: u32,
    preference: u32,
    /// Whether packets are delivered to the agent, or only refused
    delivers: bool,
}

/// One of the things that make up the interception.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The route that delivers to the agent
    Route,
    /// The rule at which the node's own requests go on
    Landing,
    /// The rule that lets the node's own requests pass
    Own,
    /// The rule that refuses whatever the route did not take
    Prohibit,
    /// The rule that leads to the route
    Capture,
    /// The table of nf_tables that says where it leads
    Rewrite,
}

/// In the order of installation.
const PARTS: [Part; 5] = [
    Part::Route,
    Part::Landing,
    Part::Own,
    Part::Prohibit,
    Part::Capture,
];

/// What [`LocalRoute::check`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Parts that are not there. `install` puts them back.
    pub missing: Vec<Part>,
    /// Rules of others that are asked before ours and can take pods' packets, one text each. `install` reports the
    /// first as an error, after it has put in place what it can.
    pub foreign: Vec<String>,
}

impl State {
    /// Everything of ours is there, and nothing of others' is in the way.
    pub fn is_intact(&self) -> bool {
        self.missing.is_empty() && self.foreign.is_empty()
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Route => "local route",
            Self::Landing => "rule where the node's own requests go on",
            Self::Own => "rule for the node's own requests",
            Self::Prohibit => "rule that refuses the rest",
            Self::Capture => "rule that leads to the local route",
            Self::Rewrite => "nf_tables table podid",
        })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self
            .missing
            .iter()
            .map(|part| format!("missing: {part}"))
            .collect::<Vec<_>>();
        said.extend(self.foreign.iter().map(|text| format!("in the way: {text}")));
        if said.is_empty() {
            f.write_str("intact")
        } else {
            f.write_str(&said.join(", "))
        }
    }
}

impl LocalRoute {
    /// Interception of `address` with the default table (2579) and preferences (90–93).
    pub const fn new(address: Ipv4Addr) -> Self {
        Self {
            address,
            table: TABLE,
            preference: PREFERENCE,
            delivers: true,
        }
    }

    /// Another routing table and first preference, for nodes where the defaults are taken.
    pub fn at(self, table: u32, preference: u32) -> Self {
        Self {
            table,
            preference,
            ..self
        }
    }

    /// Only refuses, where something else leads connections to the agent before routing asks.
    pub(super) fn refuse_only(self) -> Self {
        Self {
            delivers: false,
            ..self
        }
    }

    /// Whatever any way of interception puts in place.
    pub(super) fn all_parts(self) -> Self {
        Self {
            delivers: true,
            ..self
        }
    }

    fn parts(self) -> impl DoubleEndedIterator<Item = Part> {
        PARTS
            .into_iter()
            .filter(move |part| self.delivers || !matches!(part, Part::Route | Part::Capture))
    }

    /// Puts in place what is missing and gives what that was; twice is as once. Takes about a millisecond. A rule of
    /// somebody else's that comes first is an error, but only after all of ours is in place.
    pub fn install(&self) -> Result<Vec<Part>, RedirectError> {
        let mut netlink = open()?;
        let state = self.look(&mut netlink)?;
        for part in self.parts().filter(|part| state.missing.contains(part)) {
            // A route of another kind to the address, in our table, would lead past us: ours takes its place.
            let how = if part == Part::Route {
                NLM_F_REPLACE
            } else {
                NLM_F_EXCL
            };
            match netlink.change(self.message(part, true), NLM_F_CREATE | how) {
                Err(error) if error.raw_os_error() != Some(Errno::EEXIST as i32) => {
                    return Err(RedirectError::kernel(format!("add the {part}"), error));
                }
                _ => {}
            }
        }
        if let Some(foreign) = state.foreign.into_iter().next() {
            return Err(RedirectError::Taken(foreign));
        }
        Ok(state.missing)
    }

    /// What is there, without changing anything.
    pub fn check(&self) -> Result<State, RedirectError> {
        self.look(&mut open()?)
    }

    /// Removes what is ours, and nothing else; gives what was there. Goes on after a failure and reports the first.
    pub fn remove(&self) -> Result<Vec<Part>, RedirectError> {
        let mut netlink = open()?;
        let mut removed = Vec::new();
        let mut failed = None;
        for part in self.parts().rev() {
            for _ in 0..COPIES {
                match netlink.change(self.message(part, false), 0) {
                    Ok(()) => removed.push(part),
                    Err(error) if gone(&error) => break,
                    Err(error) => {
                        failed.get_or_insert_with(|| {
                            RedirectError::kernel(format!("remove the {part}"), error)
                        });
                        break;
                    }
                }
            }
        }
        removed.dedup();
        failed.map_or(Ok(removed), Err)
    }

    /// Wakes when rules or our table's routes change. To be called inside a runtime.
    pub fn watch(&self) -> Result<Watch, RedirectError> {
        self.watch_with(false)
            .map_err(|source| RedirectError::kernel("watch rules and routes", source))
    }

    pub(super) fn watch_with(&self, nftables: bool) -> io::Result<Watch> {
        Watch::open(self.table, nftables)
    }

    fn look(&self, netlink: &mut Netlink) -> Result<State, RedirectError> {
        let mut state = State::default();
        let rules = netlink
            .dump(RouteNetlinkMessage::GetRule(any_rule()))
            .map_err(|source| RedirectError::kernel("list routing rules", source))?;
        let rules: Vec<RuleMessage> = rules.into_iter().filter_map(rule).collect();
        for part in self.parts() {
            let there = match part {
                Part::Route => continue,
                _ => rules.iter().any(|rule| self.is(part, rule)),
            };
            if !there {
                state.missing.push(part);
            }
        }
        let ours = |rule: &RuleMessage| PARTS.into_iter().any(|part| self.is(part, rule));
        state.foreign.extend(
            rules
                .iter()
                .filter(|rule| self.in_the_way(rule) && !ours(rule))
                .map(describe),
        );
        self.look_at_table(netlink, &mut state)?;
        Ok(state)
    }

    fn look_at_table(&self, netlink: &mut Netlink, state: &mut State) -> Result<(), RedirectError> {
        let mut wanted = RouteMessage::default();
        wanted.header.address_family = AddressFamily::Inet;
        wanted.attributes.push(RouteAttribute::Table(self.table));
        let routes = match netlink.dump(RouteNetlinkMessage::GetRoute(wanted)) {
            Ok(routes) => routes,
            // There is no such table.
            Err(error) if gone(&error) => Vec::new(),
            Err(source) => {
                return Err(RedirectError::kernel(
                    format!("list table {}", self.table),
                    source,
                ));
            }
        };
        let mut there = false;
        for answer in routes {
            let RouteNetlinkMessage::NewRoute(route) = answer else {
                continue;
            };
            if table_of(&route) != self.table {
                continue;
            }
            let to = route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(to)) => Some(*to),
                _ => None,
            });
            let ours = route.header.kind == RouteType::Local
                && route.header.destination_prefix_length == 32
                && to == Some(self.address)
                && route.attributes.contains(&RouteAttribute::Oif(LOOPBACK));
            there |= ours;
        }
        if !there && self.delivers {
            state.missing.insert(0, Part::Route);
        }
        Ok(())
    }

    /// What to send to add or delete a part.
    fn message(&self, part: Part, add: bool) -> RouteNetlinkMessage {
        if part == Part::Route {
            let mut route = RouteMessage::default();
            route.header.address_family = AddressFamily::Inet;
            route.header.destination_prefix_length = 32;
            route.header.kind = RouteType::Local;
            route.header.scope = RouteScope::Host;
            route.header.protocol = PROTOCOL;
            route.attributes.push(RouteAttribute::Table(self.table));
            route
                .attributes
                .push(RouteAttribute::Destination(RouteAddress::Inet(self.address)));
            route.attributes.push(RouteAttribute::Oif(LOOPBACK));
            return if add {
                RouteNetlinkMessage::NewRoute(route)
            } else {
                RouteNetlinkMessage::DelRoute(route)
            };
        }
        let mut rule = any_rule();
        rule.header.dst_len = 32;
        rule.attributes
            .push(RuleAttribute::Destination(IpAddr::V4(self.address)));
        rule.attributes
            .push(RuleAttribute::Priority(self.preference_of(part)));
        rule.attributes.push(RuleAttribute::Protocol(PROTOCOL));
        rule.header.action = action_of(part);
        match part {
            Part::Own => {
                rule.attributes.push(RuleAttribute::Iifname("lo".to_owned()));
                rule.attributes
                    .push(RuleAttribute::Goto(self.preference_of(Part::Landing)));
            }
            Part::Capture => rule.attributes.push(RuleAttribute::Table(self.table)),
            Part::Route | Part::Prohibit | Part::Landing | Part::Rewrite => {}
        }
        if add {
            RouteNetlinkMessage::NewRule(rule)
        } else {
            RouteNetlinkMessage::DelRule(rule)
        }
    }

    fn preference_of(&self, part: Part) -> u32 {
        self.preference
            + match part {
                Part::Own | Part::Route | Part::Rewrite => 0,
                Part::Capture => 1,
                Part::Prohibit => 2,
                Part::Landing => 3,
            }
    }

    /// Whether `rule` is exactly this part: same preference, selectors and action, whoever made it.
    fn is(&self, part: Part, rule: &RuleMessage) -> bool {
        part != Part::Route
            && rule.header.action == action_of(part)
            && rule.header.dst_len == 32
            && rule.header.src_len == 0
            && rule.header.tos == 0
            && !rule.header.flags.intersects(RuleFlags::Invert)
            && preference(rule) == self.preference_of(part)
            && destination(rule) == Some(self.address)
            && incoming(rule) == if part == Part::Own { Some("lo") } else { None }
            && !narrowed(rule)
            && match part {
                Part::Capture => table(rule) == self.table,
                Part::Own => rule
                    .attributes
                    .contains(&RuleAttribute::Goto(self.preference_of(Part::Landing))),
                _ => true,
            }
    }

    /// Whether a rule of somebody else's is asked before ours are done, and can match a pod's packet.
    fn in_the_way(&self, rule: &RuleMessage) -> bool {
        let local_table = table(rule) == LOCAL_TABLE;
        let elsewhere = rule.header.dst_len > 0
            && destination(rule).is_some_and(|to| !same_network(to, self.address, rule.header.dst_len))
            && !rule.header.flags.intersects(RuleFlags::Invert);
        preference(rule) <= self.preference_of(Part::Landing)
            && !local_table
            && !elsewhere
            && incoming(rule) != Some("lo")
            // A mark is put on packets by programs that know what they do (Cilium's proxy, at 9 and 10).
            && !rule.attributes.iter().any(|attribute| matches!(attribute, RuleAttribute::FwMark(mark) if *mark != 0))
            && rule.header.action != RuleAction::Nop
    }
}

fn open() -> Result<Netlink, RedirectError> {
    Netlink::open(SockProtocol::NetlinkRoute)
        .map_err(|source| RedirectError::kernel("open a netlink socket", source))
}

fn any_rule() -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = AddressFamily::Inet;
    rule
}

fn gone(error: &io::Error) -> bool {
    [Errno::ENOENT, Errno::ESRCH]
        .into_iter()
        .any(|errno| error.raw_os_error() == Some(errno as i32))
}

fn action_of(part: Part) -> RuleAction {
    match part {
        Part::Own => RuleAction::Goto,
        Part::Capture | Part::Route | Part::Rewrite => RuleAction::ToTable,
        Part::Prohibit => RuleAction::Prohibit,
        Part::Landing => RuleAction::Nop,
    }
}

fn rule(message: RouteNetlinkMessage) -> Option<RuleMessage> {
    match message {
        RouteNetlinkMessage::NewRule(rule) => Some(rule),
        _ => None,
    }
}

fn preference(rule: &RuleMessage) -> u32 {
    let found = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Priority(preference) => Some(*preference),
        _ => None,
    });
    found.unwrap_or(0)
}

fn table(rule: &RuleMessage) -> u32 {
    let found = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Table(table) => Some(*table),
        _ => None,
    });
    found.unwrap_or_else(|| rule.header.table.into())
}

fn destination(rule: &RuleMessage) -> Option<Ipv4Addr> {
    rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Destination(IpAddr::V4(to)) => Some(*to),
        _ => None,
    })
}

fn incoming(rule: &RuleMessage) -> Option<&str> {
    rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Iifname(name) => Some(name.as_str()),
        _ => None,
    })
}

/// Whether a rule has a selector that ours never have.
fn narrowed(rule: &RuleMessage) -> bool {
    rule.attributes.iter().any(|attribute| {
        matches!(
            attribute,
            RuleAttribute::Source(_)
                | RuleAttribute::Oifname(_)
                | RuleAttribute::FwMark(_)
                | RuleAttribute::TunId(_)
                | RuleAttribute::UidRange(_)
                | RuleAttribute::IpProtocol(_)
                | RuleAttribute::SourcePortRange(_)
                | RuleAttribute::DestinationPortRange(_)
        )
    })
}

fn same_network(a: Ipv4Addr, b: Ipv4Addr, prefix: u8) -> bool {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    a.to_bits() & mask == b.to_bits() & mask
}

fn describe(rule: &RuleMessage) -> String {
    let to = destination(rule).map_or_else(|| "all".to_owned(), |to| format!("{to}/{}", rule.header.dst_len));
    let from = incoming(rule)
        .map(|name| format!(" iif {name}"))
        .unwrap_or_default();
    let does = match rule.header.action {
        RuleAction::ToTable => format!("lookup {}", table(rule)),
        other => format!("{other:?}").to_lowercase(),
    };
    format!("rule {} to {to}{from} {does}", preference(rule))
}

pub(super) fn table_of(route: &RouteMessage) -> u32 {
    let found = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    found.unwrap_or_else(|| route.header.table.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_compared_by_prefix() {
        let address = Ipv4Addr::new(169, 254, 169, 254);
        assert!(same_network(Ipv4Addr::new(169, 254, 0, 0), address, 16));
        assert!(!same_network(Ipv4Addr::new(169, 254, 0, 0), address, 24));
        assert!(same_network(Ipv4Addr::UNSPECIFIED, address, 0));
        assert!(!same_network(Ipv4Addr::new(169, 254, 169, 253), address, 32));
    }
}
