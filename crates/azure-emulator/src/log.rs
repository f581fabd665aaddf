//! The request log: what was asked, by whom, and what came of it. Bounded; secrets and tokens never enter it.

use std::collections::{BTreeMap, VecDeque};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;

use crate::query::decode;

/// Entries that are kept.
const CAPACITY: usize = 20_000;
/// Different unsupported operations that are counted.
const UNSUPPORTED_CAPACITY: usize = 1_000;

/// One request.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Entry {
    /// Counts up from 1.
    pub seq: u64,
    /// RFC 3339.
    pub time: String,
    /// `https` or `imds`.
    pub listener: &'static str,
    /// `arm`, `entra`, `graph`, `imds`, `mirror`.
    pub service: &'static str,
    /// HTTP method.
    pub method: String,
    /// Path as it came.
    pub path: String,
    /// Query with secrets replaced.
    pub query: String,
    /// Status of the answer; none while there is none, and when the connection was cut.
    pub status: Option<u16>,
    /// ARM's, Entra's or IMDS's code, when it was refused.
    pub code: Option<String>,
    /// Address that it came from.
    pub source: String,
    /// Node or machine that it came from, for IMDS.
    pub node: Option<String>,
    /// Client id of whose token it had, or of whom a token was asked for.
    pub principal: Option<String>,
    /// Action that the caller had no right to.
    pub denied: Option<String>,
    /// Fault that was injected.
    pub fault: Option<u64>,
    /// User agent.
    pub agent: Option<String>,
}

/// What is found out about a request while it is answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes {
    pub(crate) code: Option<String>,
    pub(crate) node: Option<String>,
    pub(crate) principal: Option<String>,
    pub(crate) denied: Option<String>,
    pub(crate) fault: Option<u64>,
}

/// The log.
#[derive(Debug)]
pub(crate) struct RequestLog {
    inner: Mutex<Inner>,
    last: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: VecDeque<Entry>,
    last: u64,
    unsupported: BTreeMap<String, u64>,
}

impl Default for RequestLog {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            last: watch::channel(0).0,
        }
    }
}

impl RequestLog {
    /// A request has come; gives its number.
    pub(crate) fn begin(&self, mut entry: Entry) -> u64 {
        let seq = {
            let mut inner = self.inner.lock();
            inner.last += 1;
            entry.seq = inner.last;
            if inner.entries.len() >= CAPACITY {
                inner.entries.pop_front();
            }
            inner.entries.push_back(entry);
            inner.last
        };
        self.last.send_replace(seq);
        seq
    }

    /// It was answered.
    pub(crate) fn end(&self, seq: u64, status: Option<u16>, notes: Notes) {
        let mut inner = self.inner.lock();
        let first = inner.entries.front().map_or(0, |entry| entry.seq);
        let at = seq.checked_sub(first).and_then(|at| usize::try_from(at).ok());
        if let Some(entry) = at.and_then(|at| inner.entries.get_mut(at)) {
            let Notes {
                code,
                node,
                principal,
                denied,
                fault,
            } = notes;
            entry.status = status;
            entry.code = code;
            entry.node = node;
            entry.principal = principal;
            entry.denied = denied;
            entry.fault = fault;
        }
    }

    /// An operation that the emulator does not have was asked for.
    pub(crate) fn unsupported(&self, operation: String) {
        let mut inner = self.inner.lock();
        if inner.unsupported.len() < UNSUPPORTED_CAPACITY || inner.unsupported.contains_key(&operation) {
            *inner.unsupported.entry(operation).or_default() += 1;
        }
    }

    /// Those operations, with how often they were asked for.
    pub(crate) fn list_unsupported(&self) -> BTreeMap<String, u64> {
        self.inner.lock().unsupported.clone()
    }

    /// The entries after number `since`.
    pub(crate) fn since(&self, since: u64) -> Vec<Entry> {
        let inner = self.inner.lock();
        let skip = inner.entries.partition_point(|entry| entry.seq <= since);
        inner.entries.iter().skip(skip).cloned().collect()
    }

    /// Returns when there is an entry after number `since`.
    pub(crate) async fn after(&self, since: u64) {
        let mut last = self.last.subscribe();
        // The sender lives in self, so this cannot fail.
        let _there = last.wait_for(|last| *last > since).await;
    }

    /// Number of the newest entry.
    pub(crate) fn last(&self) -> u64 {
        self.inner.lock().last
    }

    /// Forgets the entries; numbers go on.
    pub(crate) fn clear(&self) {
        let mut inner = self.inner.lock();
        inner.entries.clear();
        inner.unsupported.clear();
    }
}

/// A query without what must not be kept.
pub(crate) fn redact(query: &str) -> String {
    const SECRET: [&str; 9] = [
        "client_secret",
        "client_assertion",
        "assertion",
        "access_token",
        "refresh_token",
        "id_token",
        "password",
        "code",
        "sig",
    ];
    query
        .split('&')
        .map(|part| match part.split_once('=') {
            // Also where the name is written with escapes.
            Some((name, _))
                if SECRET
                    .iter()
                    .any(|secret| decode(name, true).eq_ignore_ascii_case(secret)) =>
            {
                format!("{name}=***")
            }
            _ => part.to_owned(),
        })
        .collect::<Vec<_>>()
        .join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_a_query_are_not_kept() {
        assert_eq!(redact("a=1&client_secret=x&b"), "a=1&client_secret=***&b");
        assert_eq!(redact("Client%5FSecret=x&sig=y"), "Client%5FSecret=***&sig=***");
        assert_eq!(redact("signature=kept"), "signature=kept");
    }
}
