//! Interfaces, addresses, routes and neighbours of one network namespace, by rtnetlink. It knows nothing of pods.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use nix::sys::socket::SockProtocol;
use parking_lot::Mutex;

use super::{Namespace, NamespaceError};
use crate::netlink::Netlink;

/// The interfaces of one namespace. Interfaces are named; a name has at most 15 bytes.
#[derive(Debug)]
pub struct Links {
    netlink: Mutex<Netlink>,
}

/// A link-layer address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: Vec<String> = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        f.write_str(&bytes.join(":"))
    }
}

impl Links {
    /// Those of the calling thread's namespace.
    pub fn open() -> Result<Self, NamespaceError> {
        let netlink = Netlink::open(SockProtocol::NetlinkRoute)
            .map_err(|source| NamespaceError::new("open a netlink socket", source))?;
        Ok(Self {
            netlink: Mutex::new(netlink),
        })
    }

    /// Makes a pair of interfaces: `name` here, `peer` in `there`. Both are down.
    pub fn veth(&self, name: &str, peer: &str, there: &Namespace) -> Result<(), NamespaceError> {
        let mut other = LinkMessage::default();
        other.attributes.push(LinkAttribute::IfName(peer.to_owned()));
        other
            .attributes
            .push(LinkAttribute::NetNsFd(there.as_fd().as_raw_fd()));
        let info = vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
        ];
        self.create(name, info)
    }

    /// Makes a bridge, which is down.
    pub fn bridge(&self, name: &str) -> Result<(), NamespaceError> {
        self.create(name, vec![LinkInfo::Kind(InfoKind::Bridge)])
    }

    fn create(&self, name: &str, info: Vec<LinkInfo>) -> Result<(), NamespaceError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::LinkInfo(info));
        self.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
            .map_err(|source| NamespaceError::new(format!("make interface {name}"), source))
    }

    /// Removes an interface; the other end of a pair goes too.
    pub fn remove(&self, name: &str) -> Result<(), NamespaceError> {
        let mut message = LinkMessage::default();
        message.header.index = self.index(name)?;
        self.change(RouteNetlinkMessage::DelLink(message), 0)
            .map_err(|source| NamespaceError::new(format!("remove interface {name}"), source))
    }

    /// Switches an interface on.
    pub fn up(&self, name: &str) -> Result<(), NamespaceError> {
        let mut message = LinkMessage::default();
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.set(name, message, "switch on")
    }

    /// Makes an interface a port of a bridge.
    pub fn enslave(&self, name: &str, bridge: &str) -> Result<(), NamespaceError> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::Controller(self.index(bridge)?));
        self.set(name, message, "attach to a bridge")
    }

    fn set(&self, name: &str, mut message: LinkMessage, what: &str) -> Result<(), NamespaceError> {
        message.header.index = self.index(name)?;
        self.change(RouteNetlinkMessage::SetLink(message), 0)
            .map_err(|source| NamespaceError::new(format!("{what} interface {name}"), source))
    }

    /// The interface's index.
    pub fn index(&self, name: &str) -> Result<u32, NamespaceError> {
        Ok(self.look(name)?.header.index)
    }

    /// The interface's link-layer address.
    pub fn mac(&self, name: &str) -> Result<Mac, NamespaceError> {
        let found = self
            .look(name)?
            .attributes
            .into_iter()
            .find_map(|attribute| match attribute {
                LinkAttribute::Address(bytes) => <[u8; 6]>::try_from(bytes).ok().map(Mac),
                _ => None,
            });
        found.ok_or_else(|| {
            let none = io::Error::new(io::ErrorKind::NotFound, "it has none");
            NamespaceError::new(format!("read the link-layer address of {name}"), none)
        })
    }

    fn look(&self, name: &str) -> Result<LinkMessage, NamespaceError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let answers = self.netlink.lock().ask(
            RouteNetlinkMessage::GetLink(message),
            netlink_packet_core::NLM_F_ACK,
        );
        answers
            .and_then(|answers| {
                let link = answers.into_iter().find_map(|answer| match answer {
                    RouteNetlinkMessage::NewLink(link) => Some(link),
                    _ => None,
                });
                link.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
            })
            .map_err(|source| NamespaceError::new(format!("find interface {name}"), source))
    }

    /// Gives an interface an address; with prefix 32 (or 128) no route comes with it.
    pub fn address(&self, name: &str, address: impl Into<IpAddr>, prefix: u8) -> Result<(), NamespaceError> {
        let address = address.into();
        let message = self.address_message(name, address, prefix)?;
        self.change(
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
        .map_err(|source| NamespaceError::new(format!("give {name} the address {address}/{prefix}"), source))
    }

    /// Takes an address away.
    pub fn remove_address(
        &self,
        name: &str,
        address: impl Into<IpAddr>,
        prefix: u8,
    ) -> Result<(), NamespaceError> {
        let address = address.into();
        let message = self.address_message(name, address, prefix)?;
        self.change(RouteNetlinkMessage::DelAddress(message), 0)
            .map_err(|source| {
                NamespaceError::new(format!("take the address {address}/{prefix} from {name}"), source)
            })
    }

    fn address_message(
        &self,
        name: &str,
        address: IpAddr,
        prefix: u8,
    ) -> Result<AddressMessage, NamespaceError> {
        let mut message = AddressMessage::default();
        message.header.family = family(address);
        message.header.prefix_len = prefix;
        message.header.index = self.index(name)?;
        message.header.scope = AddressScope::Universe;
        message.attributes.push(AddressAttribute::Local(address));
        message.attributes.push(AddressAttribute::Address(address));
        Ok(message)
    }

    /// Packets to `to`/`prefix` go out of interface `name`, whose far end has them directly.
    pub fn route_direct(&self, to: Ipv4Addr, prefix: u8, name: &str) -> Result<(), NamespaceError> {
        let mut message = route(to, prefix);
        message.header.scope = RouteScope::Link;
        message.attributes.push(RouteAttribute::Oif(self.index(name)?));
        self.add_route(message, to, prefix)
    }

    /// Packets to `to`/`prefix` go to `gateway` out of interface `name`. The gateway need not lie in a network of
    /// the interface's (`onlink`), as with 169.254.1.1.
    pub fn route_via(
        &self,
        to: Ipv4Addr,
        prefix: u8,
        gateway: Ipv4Addr,
        name: &str,
    ) -> Result<(), NamespaceError> {
        let mut message = route(to, prefix);
        message.header.flags.insert(RouteFlags::Onlink);
        message
            .attributes
            .push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
        message.attributes.push(RouteAttribute::Oif(self.index(name)?));
        self.add_route(message, to, prefix)
    }

    fn add_route(&self, message: RouteMessage, to: Ipv4Addr, prefix: u8) -> Result<(), NamespaceError> {
        self.change(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
            .map_err(|source| NamespaceError::new(format!("add a route to {to}/{prefix}"), source))
    }

    /// Removes the route to exactly `to`/`prefix` in the main table.
    pub fn remove_route(&self, to: Ipv4Addr, prefix: u8) -> Result<(), NamespaceError> {
        let mut message = route(to, prefix);
        message.header.scope = RouteScope::NoWhere;
        self.change(RouteNetlinkMessage::DelRoute(message), 0)
            .map_err(|source| NamespaceError::new(format!("remove the route to {to}/{prefix}"), source))
    }

    /// Says once and for all behind which link-layer address `address` is on interface `name`.
    pub fn neighbour(&self, name: &str, address: impl Into<IpAddr>, mac: Mac) -> Result<(), NamespaceError> {
        let address = address.into();
        let mut message = NeighbourMessage::default();
        message.header.family = family(address);
        message.header.ifindex = self.index(name)?;
        message.header.state = NeighbourState::Permanent;
        message
            .attributes
            .push(NeighbourAttribute::Destination(match address {
                IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
                IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
            }));
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        self.change(
            RouteNetlinkMessage::NewNeighbour(message),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
        .map_err(|source| NamespaceError::new(format!("add neighbour {address} on {name}"), source))
    }

    fn change(&self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.netlink.lock().change(message, flags)
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

fn route(to: Ipv4Addr, prefix: u8) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    message.header.destination_prefix_length = prefix;
    message
        .attributes
        .push(RouteAttribute::Destination(RouteAddress::Inet(to)));
    message
}
