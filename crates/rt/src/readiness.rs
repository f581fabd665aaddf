//! Readiness as a set of named guards: the process is ready when every guard has been lifted, and says which are not.
//!
//! guard(name) ─▶ missing {name} ─▶ guard.ready() ─▶ {} = ready ─▶ guard.not_ready() ─▶ missing {name}

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// The set of what is still missing.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    missing: Mutex<BTreeSet<&'static str>>,
    ready: watch::Sender<bool>,
}

/// One condition of readiness. It is missing from the moment it is made; dropping it does not lift it.
#[derive(Debug)]
pub struct Guard {
    name: &'static str,
    of: Readiness,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// A set without guards. It is not ready: who has not said yet what to wait for has not started.
    pub fn new() -> Self {
        let (ready, _) = watch::channel(false);
        Self(Arc::new(Inner {
            missing: Mutex::default(),
            ready,
        }))
    }

    /// Adds a condition, missing until its guard says otherwise.
    pub fn guard(&self, name: &'static str) -> Guard {
        self.change(|missing| missing.insert(name));
        Guard {
            name,
            of: self.clone(),
        }
    }

    /// The names of what is missing, in order. Ready means that this is empty and that there is a guard at all.
    pub fn missing(&self) -> Vec<&'static str> {
        self.0.missing.lock().iter().copied().collect()
    }

    /// Whether nothing is missing.
    pub fn is_ready(&self) -> bool {
        *self.0.ready.borrow()
    }

    /// Returns when nothing is missing.
    pub async fn wait(&self) {
        let mut ready = self.0.ready.subscribe();
        // The sender lives in self, so this cannot fail.
        let _ready = ready.wait_for(|ready| *ready).await;
    }

    fn change(&self, edit: impl FnOnce(&mut BTreeSet<&'static str>) -> bool) {
        let mut missing = self.0.missing.lock();
        edit(&mut missing);
        self.0.ready.send_replace(missing.is_empty());
    }
}

impl Guard {
    /// The condition holds.
    pub fn ready(&self) {
        self.of.change(|missing| missing.remove(self.name));
    }

    /// The condition does not hold (any more).
    pub fn not_ready(&self) {
        self.of.change(|missing| missing.insert(self.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_only_when_every_guard_is_lifted() {
        let readiness = Readiness::new();
        assert!(!readiness.is_ready());
        let pods = readiness.guard("pods");
        let redirect = readiness.guard("redirect");
        assert_eq!(readiness.missing(), ["pods", "redirect"]);
        pods.ready();
        assert!(!readiness.is_ready());
        redirect.ready();
        readiness.wait().await;
        redirect.not_ready();
        assert_eq!(readiness.missing(), ["redirect"]);
    }
}
