//! The lines that the original's troubleshooting guide quotes, in its words, so that who looks for them finds them.
//! Source: aad-pod-identity v1.8.17, `pkg/nmi`. Ids are redacted as there, only better: short ones too.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use http::Method;
use podid_core::{Identity, Pod, Selector};

/// From here on a request has waited for something, and its end is worth a line. What comes from memory takes less.
const WAITED: Duration = Duration::from_millis(1);

/// A pod got a token that was fetched for it.
pub(crate) fn matched(selector: Option<&Selector<'_>>, pod: &Pod, identity: &Identity) {
    let (pod, identity) = (&pod.id.object, &identity.object);
    match selector {
        None => tracing::info!(
            "no clientID or resourceID in request. {pod} has been matched with azure identity {identity}"
        ),
        Some(selector) => {
            let (kind, id) = match selector {
                Selector::ClientId(id) => ("clientID", id.to_string()),
                Selector::ObjectId(id) => ("objectID", id.to_string()),
                // One that names an identity is no longer than an ARM id.
                Selector::ResourceId(id) => ("resourceID", id.to_string()),
                // None is ever matched.
                Selector::Malformed(_) => return,
            };
            tracing::info!(
                "{kind} in request: {}, {pod} has been matched with azure identity {identity}",
                Redacted(&id)
            );
        }
    }
}

/// A request was answered.
pub(crate) fn answered(method: &Method, path: &str, peer: IpAddr, status: u16, took: Duration) {
    let took_ns = took.as_nanos();
    // `reg.path` is how the original spells it.
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                "status ({status}) took {took_ns} ns for req.method={method} reg.path={} req.remote={peer}",
                path.escape_default()
            )
        };
    }
    if took >= WAITED {
        line!(info);
    } else {
        line!(debug);
    }
}

/// A text in which every GUID shows only its first and last four characters, as the original showed client ids.
pub(crate) struct Redacted<'t>(pub(crate) &'t str);

impl fmt::Display for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some((before, guid, after)) = guid(rest) {
            let (first, last) = (
                guid.get(..4).unwrap_or_default(),
                guid.get(32..).unwrap_or_default(),
            );
            write!(f, "{before}{first}##### REDACTED #####{last}")?;
            rest = after;
        }
        f.write_str(rest)
    }
}

/// The first GUID of a text, with what is before and after it.
fn guid(text: &str) -> Option<(&str, &str, &str)> {
    const LENGTH: usize = 36;
    let is = |candidate: &str| {
        candidate.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
    };
    text.char_indices().find_map(|(at, _)| {
        let candidate = text.get(at..at + LENGTH).filter(|candidate| is(candidate))?;
        Some((text.get(..at)?, candidate, text.get(at + LENGTH..)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_guid_shows_its_ends_only() {
        for (text, shown) in [
            (
                "aabc0000-a83f-9b4a-000c-2c0a66b0c1f9",
                "aabc##### REDACTED #####c1f9",
            ),
            (
                "pod shop/web, client id 9e5b0bc4-1a2b-4c3d-8e9f-001122334455; bind it",
                "pod shop/web, client id 9e5b##### REDACTED #####4455; bind it",
            ),
            (
                "/subscriptions/0A2E0000-50b5-4000-8000-000000000001/x/11111111-1111-4111-8111-111111111111",
                "/subscriptions/0A2E##### REDACTED #####0001/x/1111##### REDACTED #####1111",
            ),
            ("é no id, 1234-5678", "é no id, 1234-5678"),
            ("", ""),
        ] {
            assert_eq!(Redacted(text).to_string(), shown);
        }
    }
}
