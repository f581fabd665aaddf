//! The bytes of nf_tables over netlink, as far as our table needs them. Numbers are those of
//! linux/netfilter/nf_tables.h and linux/netfilter/nfnetlink.h; all in network order unless said otherwise.

use std::net::Ipv4Addr;

use nix::libc::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR};

/// nfnetlink's number of nf_tables, and its transaction marks.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;

const FAMILY_IP: u8 = 2;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;
/// Length of `nlmsghdr`, and of it and `nfgenmsg`.
const HEADER: usize = 16;
const HEADERS: usize = 20;

/// The table's name is attribute 1 of each kind of message.
const TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
pub(super) const RULE_USERDATA: u16 = 7;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
/// Registers 1 and 2; 0 takes the verdict.
const VERDICT: u32 = 0;
const FIRST: u32 = 1;
const SECOND: u32 = 2;

/// Attributes of a message or a nest.
#[derive(Clone, Debug, Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn put(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn number(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes);
    }

    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        fill(&mut inner);
        self.put(kind | NESTED, &inner.0);
    }
}

/// What a rule does, as a list of steps over registers.
#[derive(Clone, Debug, Default)]
pub(super) struct Expressions(Attributes);

impl Expressions {
    fn push(mut self, name: &str, fill: impl FnOnce(&mut Attributes)) -> Self {
        self.0.nest(LIST_ELEMENT, |element| {
            element.text(EXPRESSION_NAME, name);
            element.nest(EXPRESSION_DATA, fill);
        });
        self
    }

    /// `meta`: loads a property of the packet.
    fn meta(self, key: u32) -> Self {
        self.push("meta", |data| {
            data.number(1, FIRST);
            data.number(2, key);
        })
    }

    /// `payload`: loads bytes of the network (1) or transport (2) header.
    fn payload(self, base: u32, offset: u32, length: u32) -> Self {
        self.push("payload", |data| {
            data.number(1, FIRST);
            data.number(2, base);
            data.number(3, offset);
            data.number(4, length);
        })
    }

    /// `cmp`: goes on only if the register is (0) or is not (1) the value.
    fn compare(self, operation: u32, value: &[u8]) -> Self {
        self.push("cmp", |data| {
            data.number(1, FIRST);
            data.number(2, operation);
            data.nest(3, |inner| inner.put(DATA_VALUE, value));
        })
    }

    fn immediate(self, register: u32, value: &[u8]) -> Self {
        self.push("immediate", |data| {
            data.number(1, register);
            data.nest(2, |inner| inner.put(DATA_VALUE, value));
        })
    }

    /// The packet came over an interface other than `lo`. An interface's index is in the machine's byte order.
    pub(super) fn not_from_loopback(self) -> Self {
        const IIF: u32 = 4;
        self.meta(IIF).compare(1, &1_u32.to_ne_bytes())
    }

    /// A TCP packet to this address and port.
    pub(super) fn tcp_to(self, address: Ipv4Addr, port: u16) -> Self {
        const L4PROTO: u32 = 16;
        self.payload(1, 16, 4)
            .compare(0, &address.octets())
            .meta(L4PROTO)
            .compare(0, &[6])
            .payload(2, 2, 2)
            .compare(0, &port.to_be_bytes())
    }

    /// `dnat`: leads the connection to another address, or only another port.
    pub(super) fn redirect(self, address: Option<Ipv4Addr>, port: u16) -> Self {
        const DNAT: u32 = 1;
        let loaded = match address {
            Some(address) => self
                .immediate(FIRST, &address.octets())
                .immediate(SECOND, &port.to_be_bytes()),
            None => self.immediate(SECOND, &port.to_be_bytes()),
        };
        loaded.push("nat", |data| {
            data.number(1, DNAT);
            data.number(2, FAMILY_IP.into());
            if address.is_some() {
                data.number(3, FIRST);
            }
            data.number(5, SECOND);
        })
    }

    /// The connection was not led here by `dnat`. The status bits are in the machine's byte order.
    pub(super) fn not_redirected(self) -> Self {
        const STATUS: u32 = 2;
        /// `IPS_DST_NAT` of linux/netfilter/nf_conntrack_common.h
        const BY_DNAT: u32 = 1 << 5;
        self.push("ct", |data| {
            data.number(1, FIRST);
            data.number(2, STATUS);
        })
        .push("bitwise", |data| {
            data.number(1, FIRST);
            data.number(2, FIRST);
            data.number(3, 4);
            data.nest(4, |mask| mask.put(DATA_VALUE, &BY_DNAT.to_ne_bytes()));
            data.nest(5, |xor| xor.put(DATA_VALUE, &[0; 4]));
        })
        .compare(0, &[0; 4])
    }

    pub(super) fn drop(self) -> Self {
        const DROP: u32 = 0;
        self.push("immediate", |data| {
            data.number(1, VERDICT);
            data.nest(2, |inner| {
                inner.nest(DATA_VERDICT, |verdict| verdict.number(VERDICT_CODE, DROP));
            });
        })
    }
}

/// A message to nf_tables.
#[derive(Clone, Debug)]
pub(super) struct Message {
    kind: u16,
    flags: i32,
    family: u8,
    resource: u16,
    attributes: Attributes,
}

impl Message {
    fn new(kind: u16, flags: i32, fill: impl FnOnce(&mut Attributes)) -> Self {
        let mut attributes = Attributes::default();
        fill(&mut attributes);
        Self {
            kind: SUBSYSTEM << 8 | kind,
            flags,
            family: FAMILY_IP,
            resource: 0,
            attributes,
        }
    }

    /// Opens a transaction.
    pub(super) fn begin() -> Self {
        Self {
            kind: BATCH_BEGIN,
            flags: 0,
            family: 0,
            resource: SUBSYSTEM,
            attributes: Attributes::default(),
        }
    }

    /// Closes and commits it.
    pub(super) fn end() -> Self {
        Self {
            kind: BATCH_END,
            ..Self::begin()
        }
    }

    pub(super) fn new_table(name: &str) -> Self {
        Self::new(NEW_TABLE, NLM_F_ACK | NLM_F_CREATE, |message| {
            message.text(TABLE, name);
        })
    }

    pub(super) fn delete_table(name: &str) -> Self {
        Self::new(DELETE_TABLE, NLM_F_ACK, |message| message.text(TABLE, name))
    }

    pub(super) fn new_chain(table: &str, name: &str, kind: &str, hook: u32, priority: i32) -> Self {
        Self::new(NEW_CHAIN, NLM_F_ACK | NLM_F_CREATE, |message| {
            message.text(TABLE, table);
            message.text(CHAIN_NAME, name);
            message.nest(CHAIN_HOOK, |inner| {
                inner.number(HOOK_NUMBER, hook);
                inner.put(HOOK_PRIORITY, &priority.to_be_bytes());
            });
            message.text(CHAIN_TYPE, kind);
        })
    }

    pub(super) fn new_rule(table: &str, chain: &str, comment: &str, expressions: Expressions) -> Self {
        Self::new(NEW_RULE, NLM_F_ACK | NLM_F_CREATE | NLM_F_APPEND, |message| {
            message.text(TABLE, table);
            message.text(RULE_CHAIN, chain);
            message.put(RULE_EXPRESSIONS | NESTED, &expressions.0.0);
            message.comment(comment);
        })
    }

    pub(super) fn get_rules(table: &str) -> Self {
        Self::new(GET_RULE, NLM_F_DUMP, |message| message.text(TABLE, table))
    }

    pub(super) fn get_chain(table: &str, name: &str) -> Self {
        Self::new(GET_CHAIN, NLM_F_ACK, |message| {
            message.text(TABLE, table);
            message.text(CHAIN_NAME, name);
        })
    }

    pub(super) fn encode(&self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(HEADERS + self.attributes.0.len()).unwrap_or(u32::MAX);
        let flags = u16::try_from(self.flags | NLM_F_REQUEST).unwrap_or(u16::MAX);
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend([self.family, 0]);
        bytes.extend(self.resource.to_be_bytes());
        bytes.extend(&self.attributes.0);
        bytes
    }
}

/// A message from nf_tables.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    kind: u16,
    /// Error number, 0 for an acknowledgement; none for all other messages
    pub(super) error: Option<i32>,
    /// The end of a list
    pub(super) done: bool,
    body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let kind = u16_at(bytes, 4)?;
        let error =
            (i32::from(kind) == NLMSG_ERROR).then(|| i32_at(bytes, HEADER).map_or(0, i32::wrapping_neg));
        let body = bytes.get(HEADERS..).unwrap_or_default().to_vec();
        Some(Self {
            kind,
            error,
            done: i32::from(kind) == NLMSG_DONE,
            body,
        })
    }

    fn is_of_nftables(&self) -> bool {
        self.kind >> 8 == SUBSYSTEM
    }

    /// The table it is about.
    pub(super) fn table(&self) -> Option<String> {
        if self.is_of_nftables() {
            text(&self.body, TABLE)
        } else {
            None
        }
    }

    /// Chain and comment, if it is a rule of this table.
    pub(super) fn rule(&self, table: &str) -> Option<(String, String)> {
        if self.kind != SUBSYSTEM << 8 | NEW_RULE || self.table()? != table {
            return None;
        }
        let comment = attribute(&self.body, RULE_USERDATA)
            .and_then(|data| data.get(2..))
            .unwrap_or_default();
        Some((text(&self.body, RULE_CHAIN)?, until_nul(comment)))
    }
}

/// Takes what was received apart.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl Iterator for Reader<'_> {
    type Item = Answer;

    fn next(&mut self) -> Option<Answer> {
        let length = usize::try_from(i32_at(self.rest, 0)?)
            .ok()
            .filter(|length| *length >= HEADER)?;
        let answer = Answer::parse(self.rest.get(..length)?);
        self.rest = self.rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        answer
    }
}

fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & TYPE_MASK;
        let value = bytes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

fn text(bytes: &[u8], wanted: u16) -> Option<String> {
    attribute(bytes, wanted).map(until_nul)
}

fn until_nul(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes
        .get(offset..offset + 2)?
        .try_into()
        .ok()
        .map(u16::from_ne_bytes)
}

fn i32_at(bytes: &[u8], offset: usize) -> Option<i32> {
    bytes
        .get(offset..offset + 4)?
        .try_into()
        .ok()
        .map(i32::from_ne_bytes)
}
