//! The socket that takes pods' connections. It accepts nothing itself.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use super::RedirectError;

/// Connections that wait to be accepted; the kernel's own default maximum (`net.core.somaxconn`) since Linux 5.4.
const BACKLOG: i32 = 4096;

/// Listens, in the calling thread's network namespace, on an address that is not the node's own (`IP_TRANSPARENT`;
/// without it the kernel sends no answer). Port 0 takes a free one. The socket does not block.
///
/// Needs `CAP_NET_ADMIN`, and `CAP_NET_BIND_SERVICE` for a port below 1024.
pub fn listen(address: Ipv4Addr, port: u16) -> Result<TcpListener, RedirectError> {
    let address = SocketAddrV4::new(address, port);
    let open = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_ip_transparent_v4(true)?;
        // Connections of the agent before may still be in TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    open().map_err(|source| RedirectError::Listen { address, source })
}
