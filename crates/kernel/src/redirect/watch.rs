//! Says that something changed which the interception depends on; not what. The reader checks.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::local_route::table_of;

/// rtnetlink(7): `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV4_RULE`.
const GROUPS: u32 = 0x40 | 0x80;

/// Changes of rules and of one table's routes, in one network namespace.
#[derive(Debug)]
pub struct Watch {
    socket: AsyncFd<OwnedFd>,
    table: u32,
    buffer: Vec<u8>,
}

impl Watch {
    pub(super) fn open(table: u32) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            flags,
            SockProtocol::NetlinkRoute,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
        // SAFETY: an OwnedFd is one open descriptor, always the same, until the AsyncFd that owns it drops it.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }
            .map_err(|error| error.into_parts().1)?;
        Ok(Self {
            socket,
            table,
            buffer: vec![0; 64 * 1024],
        })
    }

    /// Waits for the next change. Changes between two calls are not lost; many at once may count as one.
    /// Cancel-safe.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.socket.readable().await?;
            match recv(
                self.socket.get_ref().as_raw_fd(),
                &mut self.buffer,
                MsgFlags::empty(),
            ) {
                Ok(length) if concerns(self.table, self.buffer.get(..length).unwrap_or_default()) => {
                    return Ok(());
                }
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
