//! Refusals in the log, and as events on pods: each once a minute for a pod (or an address) and reason, so that a loop in one pod does not
//! fill the disk, and the first one is always there.

mod lines;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use podid_core::{Pod, Reason};
use tokio::time::Instant;

pub(crate) use self::lines::{Redacted, answered, matched};
use crate::answer::Refusal;
use crate::events::{self, Told};

/// How long the same line is held back.
const AGAIN_AFTER: Duration = Duration::from_mins(1);
/// Most lines that are remembered; beyond it all are forgotten.
const MAX_REMEMBERED: usize = 1024;

/// What was logged lately.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    lately: Mutex<HashMap<(Who, &'static str), Instant>>,
    /// Where pods' owners are told as well.
    pub(crate) events: Option<events::Sender>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Who {
    Pod(Arc<str>),
    Address(IpAddr),
}

impl Refusals {
    /// Logs a refusal, unless the same was logged a moment ago.
    pub(crate) fn tell(&self, refusal: &Refusal, reason: Option<Reason>, pod: Option<&Pod>, peer: IpAddr) {
        let code = refusal.reason;
        // Probes and detectors: nothing is wrong, and nobody can do anything about them.
        let expected = matches!(
            reason,
            Some(
                Reason::MetadataHeaderMissing
                    | Reason::ResourceMissing
                    | Reason::PathNotFound
                    | Reason::PathClosed
                    | Reason::PathBlocked
            )
        );
        let named = pod.map(|pod| &pod.id.object).map(tracing::field::display);
        if expected || !self.is_news(pod, peer, code) {
            tracing::debug!(pod = named, %peer, status = refusal.status.as_u16(), code, "refused: {}", Redacted(&refusal.text));
        } else {
            tracing::warn!(pod = named, %peer, status = refusal.status.as_u16(), code, "refused: {}", Redacted(&refusal.text));
            if let (Some(events), Some(pod)) = (&self.events, pod) {
                // A full queue: the log has it.
                let _dropped = events.try_send(Told {
                    pod: pod.id.clone(),
                    code,
                    text: refusal.text.clone(),
                });
            }
        }
    }

    fn is_news(&self, pod: Option<&Pod>, peer: IpAddr, code: &'static str) -> bool {
        let who = pod.map_or(Who::Address(peer), |pod| Who::Pod(Arc::clone(&pod.id.uid)));
        let now = Instant::now();
        let mut lately = self.lately.lock();
        if lately.len() >= MAX_REMEMBERED {
            lately.retain(|_, at| now.duration_since(*at) < AGAIN_AFTER);
            if lately.len() >= MAX_REMEMBERED {
                lately.clear();
            }
        }
        match lately.entry((who, code)) {
            Entry::Vacant(none) => {
                none.insert(now);
                true
            }
            Entry::Occupied(mut last) if now.duration_since(*last.get()) >= AGAIN_AFTER => {
                last.insert(now);
                true
            }
            Entry::Occupied(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use podid_core::ObjectName;
    use podid_core::pod::{Phase, PodRef};
    use tokio::sync::mpsc;

    use super::*;

    fn pod(name: &str) -> Pod {
        Pod {
            id: PodRef {
                object: ObjectName::new("shop", name),
                uid: format!("uid-{name}").into(),
            },
            addresses: Vec::new(),
            labels: std::collections::BTreeMap::new(),
            service_account: "default".into(),
            phase: Phase::Active,
            host_network: false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pods_owner_is_told_each_refusal_once_a_minute_with_code_and_text_and_probes_never() {
        let (sender, mut events) = mpsc::channel(16);
        let refusals = Refusals {
            events: Some(sender),
            ..Refusals::default()
        };
        let peer = IpAddr::from([10, 0, 0, 1]);
        let tell = |reason: Reason, pod: Option<&Pod>| {
            let refusal = Refusal::because(reason, "pod shop/one, selector one".to_owned());
            refusals.tell(&refusal, Some(reason), pod, peer);
        };
        let (one, other) = (pod("one"), pod("other"));
        for _ in 0..3 {
            tell(Reason::NoBinding, Some(&one));
            tell(Reason::NoBinding, Some(&other));
            tell(Reason::IdentityNotBound, Some(&one));
            for probe in [
                Reason::MetadataHeaderMissing,
                Reason::ResourceMissing,
                Reason::PathNotFound,
                Reason::PathClosed,
                Reason::PathBlocked,
            ] {
                tell(probe, Some(&one));
            }
            // Nobody's pod: there is nobody to tell.
            tell(Reason::PodNotFound, None);
        }
        tokio::time::advance(AGAIN_AFTER).await;
        tell(Reason::NoBinding, Some(&one));
        let mut told = Vec::new();
        while let Ok(event) = events.try_recv() {
            assert!(
                event.text.contains("pod shop/one, selector one") && event.text.contains("; "),
                "what was looked for, and what would help: {}",
                event.text
            );
            told.push((event.pod.object.name.to_string(), event.code));
        }
        let expected = [
            ("one", "no_binding"),
            ("other", "no_binding"),
            ("one", "identity_not_bound"),
            ("one", "no_binding"),
        ];
        assert_eq!(told, expected.map(|(name, code)| (name.to_owned(), code)));
    }
}
