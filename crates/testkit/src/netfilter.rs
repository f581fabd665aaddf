//! What others do to a node's nf_tables, without the program `nft`.

use std::io;
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// `nft flush ruleset` in the calling thread's network namespace: one transaction that deletes the tables of all families.
/// Numbers are those of linux/netlink.h and linux/netfilter/nf_tables.h.
pub fn flush_ruleset() -> io::Result<()> {
    const REQUEST: u16 = 1;
    const ACKNOWLEDGE: u16 = 4;
    let message = |kind: u16, flags: u16, resource: u16| {
        let mut bytes = 20_u32.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(resource.to_be_bytes());
        bytes
    };
    let batch = [
        message(0x10, REQUEST, 10),
        message(10 << 8 | 2, REQUEST | ACKNOWLEDGE, 0),
        message(0x11, REQUEST, 10),
    ];
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    send(socket.as_raw_fd(), &batch.concat(), MsgFlags::empty())?;
    let mut answer = [0; 64];
    recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    // A header of 16 bytes, then the error as a negative number.
    let error = answer.get(16..).and_then(|rest| rest.first_chunk());
    match error.copied().map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(-errno)),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
