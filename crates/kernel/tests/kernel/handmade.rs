//! A TCP handshake made by hand over raw sockets, as a pod with CAP_NET_RAW can: a connection without a socket.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4};

use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};

const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;
const SEQUENCE: u32 = 1000;

/// Sends SYN, waits for SYN-ACK, sends ACK. The result keeps the raw socket open.
pub(crate) fn handshake(from: (Ipv4Addr, u16), to: SocketAddrV4) -> io::Result<Socket> {
    let all_ip = Protocol::from(i32::from(0x0800_u16.to_be()));
    let mut seen = Socket::new(Domain::from(libc::AF_PACKET), Type::DGRAM, Some(all_ip))?;
    seen.set_read_timeout(Some(podid_testkit::PATIENCE))?;
    let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
    raw.send_to(&packet(from, to, SEQUENCE, 0, SYN), &to.into())?;
    let mut buffer = [0; 256];
    loop {
        let length = seen.read(&mut buffer)?;
        // No IP options anywhere here: 20 bytes of IP, then TCP.
        let Some(tcp) = buffer[..length].get(20..) else {
            continue;
        };
        let port = u16::from_be_bytes([tcp[2], tcp[3]]);
        if tcp[13] == SYN_ACK && port == from.1 {
            let theirs = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
            raw.send_to(
                &packet(from, to, SEQUENCE + 1, theirs.wrapping_add(1), ACK),
                &to.into(),
            )?;
            return Ok(raw);
        }
    }
}

/// One TCP segment without data in an IP packet. The kernel fills in IP's length, identification and checksum.
fn packet(from: (Ipv4Addr, u16), to: SocketAddrV4, sequence: u32, acknowledged: u32, flags: u8) -> Vec<u8> {
    let mut tcp = Vec::new();
    tcp.extend(from.1.to_be_bytes());
    tcp.extend(to.port().to_be_bytes());
    tcp.extend(sequence.to_be_bytes());
    tcp.extend(acknowledged.to_be_bytes());
    tcp.extend([0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    let mut summed = Vec::new();
    summed.extend(from.0.octets());
    summed.extend(to.ip().octets());
    summed.extend([0, 6, 0, 20]);
    summed.extend(&tcp);
    tcp[16..18].copy_from_slice(&checksum(&summed).to_be_bytes());
    let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0];
    packet.extend(from.0.octets());
    packet.extend(to.ip().octets());
    packet.extend(tcp);
    packet
}

/// RFC 1071, for an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let once = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((once & 0xffff) + (once >> 16)).unwrap()
}
