//! aad-pod-identity's chain on a node, as iptables of either kind would have put it there, is found; nothing else is.

use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use podid_kernel::Namespace;
use podid_kernel::redirect::{Interception, Original};

use crate::topology::METADATA;
use crate::{Outcome, trials};

pub(crate) fn trials() -> Vec<libtest_mimic::Trial> {
    trials![
        the_chain_is_found_in_nftables_and_another_is_not,
        the_chain_is_found_in_legacy_iptables_and_looking_makes_no_table,
    ]
}

const CHAIN: &str = "aad-metadata";

fn the_chain_is_found_in_nftables_and_another_is_not() -> Outcome {
    let node = Namespace::create()?;
    assert_eq!(node.run(Original::find)??, None);
    node.run(|| Interception::local_route_and_port(METADATA, 2579).install())??;
    assert_eq!(node.run(Original::find)??, None, "our own table");
    node.run(|| nft_chain("KUBE-SERVICES"))??;
    assert_eq!(node.run(Original::find)??, None);
    node.run(|| nft_chain(CHAIN))??;
    let found = node.run(Original::find)??;
    assert_eq!(found, Some(Original::NfTables));
    assert_eq!(found.map(Original::program), Some("iptables"));
    Ok(())
}

fn the_chain_is_found_in_legacy_iptables_and_looking_makes_no_table() -> Outcome {
    let node = Namespace::create()?;
    assert_eq!(node.run(Original::find)??, None);
    let tables = || std::fs::read_to_string("/proc/thread-self/net/ip_tables_names");
    if let Ok(tables) = node.run(tables)? {
        assert_eq!(tables, "");
    }
    match node.run(|| legacy_chain("KUBE-SERVICES"))? {
        Ok(()) => {}
        // Where the kernel has no such tables, nobody's chain can be in them.
        Err(error) if error.raw_os_error() == Some(Errno::ENOPROTOOPT as i32) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    assert_eq!(node.run(tables)??.trim(), "nat");
    assert_eq!(node.run(Original::find)??, None);
    node.run(|| legacy_chain(CHAIN))??;
    assert_eq!(node.run(Original::find)??, Some(Original::Legacy));
    Ok(())
}

/// `iptables-nft -t nat -N NAME`: one transaction. Numbers of linux/netfilter/nf_tables.h.
fn nft_chain(name: &str) -> io::Result<()> {
    const CREATE_ACK: u16 = 0x400 | 0x4 | 0x1;
    let text = |kind: u16, text: &str| {
        let mut bytes = u16::try_from(text.len() + 5).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(text.bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let message = |kind: u16, flags: u16, family: u8, resource: u16, attributes: Vec<u8>| {
        let mut bytes = u32::try_from(20 + attributes.len())
            .unwrap()
            .to_ne_bytes()
            .to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend([family, 0]);
        bytes.extend(resource.to_be_bytes());
        bytes.extend(attributes);
        bytes
    };
    let batch = [
        message(0x10, 1, 0, 10, Vec::new()),
        message(10 << 8, CREATE_ACK, 2, 0, text(1, "nat")),
        message(
            10 << 8 | 3,
            CREATE_ACK,
            2,
            0,
            [text(1, "nat"), text(3, name)].concat(),
        ),
        message(0x11, 1, 0, 10, Vec::new()),
    ];
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    send(socket.as_raw_fd(), &batch.concat(), MsgFlags::empty())?;
    let mut acknowledged = 0;
    let mut answer = [0; 1024];
    while acknowledged < 2 {
        let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        let mut rest = &answer[..length];
        while rest.len() >= 20 {
            match i32::from_ne_bytes([rest[16], rest[17], rest[18], rest[19]]) {
                0 => acknowledged += 1,
                errno => return Err(io::Error::from_raw_os_error(-errno)),
            }
            let used = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            rest = &rest[used.next_multiple_of(4).min(rest.len())..];
        }
    }
    Ok(())
}

/// `iptables-legacy -t nat -N NAME`: the whole table anew. Numbers and shapes of linux/netfilter_ipv4/ip_tables.h.
fn legacy_chain(name: &str) -> io::Result<()> {
    const ACCEPT: i32 = -2;
    const RETURN: i32 = -5;
    let entry = |kind: &str, data: &[u8]| {
        let mut bytes = vec![0; 112];
        bytes.extend(u16::try_from(32 + data.len()).unwrap().to_ne_bytes());
        bytes.extend(padded(kind, 30));
        bytes.extend(data);
        let length = u16::try_from(bytes.len()).unwrap();
        bytes.splice(88..90, 112_u16.to_ne_bytes());
        bytes.splice(90..92, length.to_ne_bytes());
        bytes
    };
    let verdict = |verdict: i32| entry("", &[verdict.to_ne_bytes(), [0; 4]].concat());
    let head = |name: &str| entry("ERROR", &padded(name, 32));
    let policies = vec![verdict(ACCEPT); 4].concat();
    let entries = [policies, head(name), verdict(RETURN), head("ERROR")].concat();

    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let mut info = padded("nat", 84);
    get(&socket, 64, &mut info)?;
    let before = u32::from_ne_bytes([info[76], info[77], info[78], info[79]]);

    // The kernel writes the old entries' counters there.
    let mut counters = vec![0_u128; before as usize];
    let mut replace = padded("nat", 32);
    let hooks = [0_u32, 152, 0, 304, 456];
    let head = [0x1b, 7, u32::try_from(entries.len()).map_err(io::Error::other)?];
    for number in head.into_iter().chain(hooks).chain(hooks).chain([before]) {
        replace.extend(number.to_ne_bytes());
    }
    replace.extend((counters.as_mut_ptr() as usize).to_ne_bytes());
    replace.extend(entries);
    set(&socket, 64, &replace)
}

fn padded(text: &str, length: usize) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(length, 0);
    bytes
}

#[expect(unsafe_code, reason = "x_tables' socket options have no safe door")]
fn get(socket: &impl AsRawFd, option: i32, buffer: &mut [u8]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(buffer.len()).map_err(io::Error::other)?;
    // SAFETY: both pointers are to memory that lives for the call, and `length` is the buffer's.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            option,
            buffer.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    Ok(Errno::result(got).map(drop)?)
}

#[expect(unsafe_code, reason = "x_tables' socket options have no safe door")]
fn set(socket: &impl AsRawFd, option: i32, buffer: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(buffer.len()).map_err(io::Error::other)?;
    // SAFETY: the pointer is to memory that lives for the call; the counters' address in it, too.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            option,
            buffer.as_ptr().cast(),
            length,
        )
    };
    Ok(Errno::result(set).map(drop)?)
}
