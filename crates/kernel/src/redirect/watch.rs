//! Says that something changed which the interception depends on; not what. The reader checks.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use futures::future::{Either, select};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::local_route::table_of;
use super::nftables;

/// rtnetlink(7): `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV4_RULE`.
const ROUTING: u32 = 0x40 | 0x80;
/// linux/netfilter/nfnetlink.h: `NFNLGRP_NFTABLES` is group 7.
const NFTABLES: u32 = 1 << 6;

/// Changes of rules, of one routing table's routes and of our nf_tables table, in one network namespace.
#[derive(Debug)]
pub struct Watch {
    routing: Notices,
    nftables: Option<Notices>,
    table: u32,
}

impl Watch {
    pub(super) fn open(table: u32, with_nftables: bool) -> io::Result<Self> {
        let nftables = if with_nftables {
            Some(Notices::open(SockProtocol::NetlinkNetFilter, NFTABLES)?)
        } else {
            None
        };
        Ok(Self {
            routing: Notices::open(SockProtocol::NetlinkRoute, ROUTING)?,
            nftables,
            table,
        })
    }

    /// Waits for the next change. Changes between two calls are not lost; many at once may count as one.
    /// Cancel-safe.
    pub async fn changed(&mut self) -> io::Result<()> {
        let table = self.table;
        let routing = std::pin::pin!(self.routing.next(|bytes| concerns(table, bytes)));
        match &mut self.nftables {
            None => routing.await,
            Some(notices) => {
                let nftables = std::pin::pin!(notices.next(nftables::concerns));
                match select(routing, nftables).await {
                    Either::Left((outcome, _)) | Either::Right((outcome, _)) => outcome,
                }
            }
        }
    }
}

/// A netlink socket that is told of changes.
#[derive(Debug)]
struct Notices {
    socket: AsyncFd<OwnedFd>,
    buffer: Vec<u8>,
}

impl Notices {
    fn open(protocol: SockProtocol, groups: u32) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        // SAFETY: an OwnedFd is one open descriptor, always the same, until the AsyncFd that owns it drops it.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }
            .map_err(|error| error.into_parts().1)?;
        Ok(Self {
            socket,
            buffer: vec![0; 64 * 1024],
        })
    }

    /// Waits for the next notice that is of interest.
    async fn next(&mut self, concerns: impl Fn(&[u8]) -> bool) -> io::Result<()> {
        loop {
            let mut ready = self.socket.readable().await?;
            match recv(
                self.socket.get_ref().as_raw_fd(),
                &mut self.buffer,
                MsgFlags::empty(),
            ) {
                Ok(length) if concerns(self.buffer.get(..length).unwrap_or_default()) => return Ok(()),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => ready.clear_ready(),
                // More came than we could read: something did change.
                Err(Errno::ENOBUFS) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

fn concerns(table: u32, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) else {
            // Not understood: better look once too often.
            return true;
        };
        let concerned = match &message.payload {
            NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_),
            ) => true,
            NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route),
            ) => table_of(route) == table,
            _ => false,
        };
        if concerned {
            return true;
        }
        let used = usize::try_from(message.header.length)
            .unwrap_or(usize::MAX)
            .next_multiple_of(4);
        bytes = bytes.get(used..).unwrap_or_default();
    }
    false
}
