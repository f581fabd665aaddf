//! Our table in nf_tables: rewrites where the metadata address's port leads, spoken directly to the kernel, so that a
//! node needs no `nft` program. It touches no other table.
//!
//! ```text
//! table ip podid                       (one atomic batch: all of it or nothing)
//!   chain way    nat prerouting -110   iif != lo, ip daddr A, tcp dport P: dnat to :Q, or to N:Q
//!   chain guard  filter input -10      with N only: ip daddr N, tcp dport Q, not by dnat: drop
//! ```
//!
//! What the table does not do is close the way: an emptied ruleset must change nothing about that, so the routing
//! rules of [`LocalRoute`](super::LocalRoute) stand behind it.

mod encoding;

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use encoding::{Attributes, Expressions, Message, Reader};

/// Our table, of family ip.
pub(super) const TABLE: &str = "podid";
const WAY: &str = "way";
const GUARD: &str = "guard";
/// Before the `dstnat` priority (-100) at which kube-proxy and host ports have their chains: the first rewrite wins.
const WAY_PRIORITY: i32 = -110;
/// Before the `filter` priority (0): what a firewall accepts must not get past the guard.
const GUARD_PRIORITY: i32 = -10;
/// In each rule's comment; counts up when the rules' meaning changes, so that an upgraded agent replaces them.
const VERSION: &str = "podid/1";

/// linux/netfilter.h
const HOOK_PREROUTING: u32 = 0;
const HOOK_INPUT: u32 = 1;

/// Where connections to the metadata address are led.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Same address, another port
    Port(u16),
    /// An address of the node's own
    Node(SocketAddrV4),
}

/// The table for one metadata address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rewrite {
    pub(super) asked: SocketAddrV4,
    pub(super) target: Target,
}

/// One rule: its chain and the comment by which it is known again.
type Rule = (&'static str, String, Expressions);

impl Rewrite {
    /// Makes the table, in place of one of the same name, in one step.
    pub(super) fn install(&self) -> io::Result<()> {
        let mut batch = vec![
            Message::new_table(TABLE),
            Message::delete_table(TABLE),
            Message::new_table(TABLE),
        ];
        batch.push(Message::new_chain(
            TABLE,
            WAY,
            "nat",
            HOOK_PREROUTING,
            WAY_PRIORITY,
        ));
        if matches!(self.target, Target::Node(_)) {
            batch.push(Message::new_chain(
                TABLE,
                GUARD,
                "filter",
                HOOK_INPUT,
                GUARD_PRIORITY,
            ));
        }
        let rules = self.rules().into_iter();
        batch.extend(
            rules.map(|(chain, comment, expressions)| Message::new_rule(TABLE, chain, &comment, expressions)),
        );
        Nfnetlink::open()?.commit(batch)
    }

    /// Whether our table has exactly these rules.
    pub(super) fn is_there(&self) -> io::Result<bool> {
        let wanted: Vec<(String, String)> = self
            .rules()
            .into_iter()
            .map(|(chain, comment, _)| (chain.to_owned(), comment))
            .collect();
        Ok(Nfnetlink::open()?.rules(TABLE)? == wanted)
    }

    /// Removes the table; whether there was one.
    pub(super) fn remove() -> io::Result<bool> {
        match Nfnetlink::open()?.commit(vec![Message::delete_table(TABLE)]) {
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(false),
            other => other.map(|()| true),
        }
    }

    fn rules(&self) -> Vec<Rule> {
        let (address, port) = (*self.asked.ip(), self.asked.port());
        let asked = self.asked;
        match self.target {
            Target::Port(to) => {
                let way = incoming_to(address, port).redirect(None, to);
                vec![(WAY, format!("{VERSION} {asked} -> :{to}"), way)]
            }
            Target::Node(to) => {
                let way = incoming_to(address, port).redirect(Some(*to.ip()), to.port());
                let guard = Expressions::default()
                    .tcp_to(*to.ip(), to.port())
                    .not_redirected()
                    .drop();
                vec![
                    (WAY, format!("{VERSION} {asked} -> {to}"), way),
                    (GUARD, format!("{VERSION} only through {asked}"), guard),
                ]
            }
        }
    }
}

fn incoming_to(address: Ipv4Addr, port: u16) -> Expressions {
    Expressions::default().not_from_loopback().tcp_to(address, port)
}

/// A socket to nf_tables in the calling thread's network namespace.
pub(super) struct Nfnetlink {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Nfnetlink {
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        Ok(Self {
            socket,
            buffer: vec![0; 64 * 1024],
        })
    }

    /// Sends messages as one transaction and waits until each is acknowledged.
    fn commit(&mut self, batch: Vec<Message>) -> io::Result<()> {
        let count = batch.len();
        let mut bytes = Message::begin().encode(0);
        for (sequence, message) in (1..).zip(batch) {
            bytes.extend(message.encode(sequence));
        }
        bytes.extend(Message::end().encode(0));
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
        let mut acknowledged = 0;
        while acknowledged < count {
            for answer in self.receive()? {
                match answer.error {
                    Some(0) => acknowledged += 1,
                    Some(errno) => return Err(io::Error::from_raw_os_error(errno)),
                    None => {}
                }
            }
        }
        Ok(())
    }

    /// Chain and comment of each rule of a table, in order; none where there is no such table.
    fn rules(&mut self, table: &str) -> io::Result<Vec<(String, String)>> {
        send(
            self.socket.as_raw_fd(),
            &Message::get_rules(table).encode(1),
            MsgFlags::empty(),
        )?;
        let mut rules = Vec::new();
        loop {
            for answer in self.receive()? {
                match answer.error {
                    Some(errno) if errno == Errno::ENOENT as i32 => return Ok(Vec::new()),
                    Some(0) => return Ok(rules),
                    Some(errno) => return Err(io::Error::from_raw_os_error(errno)),
                    None if answer.done => return Ok(rules),
                    None => rules.extend(answer.rule(table)),
                }
            }
        }
    }

    /// Whether a table of family ip has a chain.
    pub(super) fn has_chain(&mut self, table: &str, chain: &str) -> io::Result<bool> {
        send(
            self.socket.as_raw_fd(),
            &Message::get_chain(table, chain).encode(1),
            MsgFlags::empty(),
        )?;
        loop {
            // The chain comes before the acknowledgement.
            if let Some(answer) = self.receive()?.into_iter().next() {
                return match answer.error {
                    None => Ok(true),
                    Some(errno) if errno == Errno::ENOENT as i32 => Ok(false),
                    Some(errno) => Err(io::Error::from_raw_os_error(errno)),
                };
            }
        }
    }

    fn receive(&mut self) -> io::Result<Vec<encoding::Answer>> {
        let length = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
        Ok(Reader::new(self.buffer.get(..length).unwrap_or_default()).collect())
    }
}

/// Whether the kernel has no nf_tables at all.
pub(super) fn is_unsupported(error: &io::Error) -> bool {
    [
        Errno::EPROTONOSUPPORT,
        Errno::EAFNOSUPPORT,
        Errno::EINVAL,
        Errno::EOPNOTSUPP,
    ]
    .into_iter()
    .any(|errno| error.raw_os_error() == Some(errno as i32))
}

/// Whether a notification of nf_tables is about our table.
pub(super) fn concerns(bytes: &[u8]) -> bool {
    Reader::new(bytes).any(|answer| answer.table().is_some_and(|table| table == TABLE))
}

impl Attributes {
    /// A rule's comment as `nft list ruleset` shows it: type 0, length with the final NUL, text.
    fn comment(&mut self, text: &str) {
        let mut data = vec![0, u8::try_from(text.len() + 1).unwrap_or(u8::MAX)];
        data.extend(text.bytes());
        data.push(0);
        self.put(encoding::RULE_USERDATA, &data);
    }
}
