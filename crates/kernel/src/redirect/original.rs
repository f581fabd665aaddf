//! Whether aad-pod-identity's agent (its NMI) intercepts the metadata address on this node: its chain in the nat table of
//! iptables, of either kind. It outlives its agent, and is asked before everything of ours.
//!
//! iptables-nft    ─▶ nf_tables: chain `aad-metadata` of table `ip nat`
//! iptables-legacy ─▶ x_tables: the same in the entries of table `nat`, asked only if there is one: asking makes one

mod entries;

use std::fs;
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::nftables::Nfnetlink;

/// Source: aad-pod-identity v1.8.17, `pkg/nmi/iptables`
pub(crate) const CHAIN: &str = "aad-metadata";
const TABLE: &str = "nat";
/// The tables of x_tables that this thread's network namespace has. Readable by its root.
const LEGACY_TABLES: &str = "/proc/thread-self/net/ip_tables_names";
/// linux/netfilter_ipv4/ip_tables.h
const IPT_SO_GET_INFO: libc::c_int = 64;
const IPT_SO_GET_ENTRIES: libc::c_int = 65;
/// More than a node with thousands of Services has; nothing says how many there may be.
const MAX_BYTES: usize = 256 * 1024 * 1024;

/// Which iptables made the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Original {
    /// iptables over nf_tables
    NfTables,
    /// iptables over x_tables
    Legacy,
}

impl Original {
    /// Looks in the calling thread's network namespace.
    pub fn find() -> io::Result<Option<Self>> {
        match Nfnetlink::open().and_then(|mut open| open.has_chain(TABLE, CHAIN)) {
            Ok(true) => return Ok(Some(Self::NfTables)),
            Ok(false) => {}
            Err(error) if super::nftables::is_unsupported(&error) => {}
            Err(error) => return Err(error),
        }
        let tables = match fs::read_to_string(LEGACY_TABLES) {
            Ok(tables) => tables,
            // A kernel without x_tables.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if !tables.lines().any(|table| table == TABLE) {
            return Ok(None);
        }
        Ok(entries::has_chain(&legacy()?, CHAIN).then_some(Self::Legacy))
    }

    /// The program that removes it.
    pub fn program(self) -> &'static str {
        match self {
            Self::NfTables => "iptables",
            Self::Legacy => "iptables-legacy",
        }
    }
}

/// The entries of the nat table of x_tables.
fn legacy() -> io::Result<Vec<u8>> {
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // Between the two questions somebody may change the table, which then has another size.
    for _try in 0..8 {
        let mut info = entries::info_request(TABLE);
        ask(&socket, IPT_SO_GET_INFO, &mut info)?;
        let size = entries::size(&info).filter(|size| *size <= MAX_BYTES);
        let size =
            size.ok_or_else(|| io::Error::other("the nat table of x_tables has no size that can be"))?;
        let mut answer = entries::entries_request(TABLE, size);
        match ask(&socket, IPT_SO_GET_ENTRIES, &mut answer) {
            Ok(()) => return Ok(entries::of(answer)),
            Err(error) if error.raw_os_error() == Some(Errno::EAGAIN as i32) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

/// getsockopt(2) of x_tables: the buffer is the question, and then the answer.
fn ask(socket: &impl AsRawFd, option: libc::c_int, buffer: &mut [u8]) -> io::Result<()> {
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
    Errno::result(got)?;
    Ok(())
}
