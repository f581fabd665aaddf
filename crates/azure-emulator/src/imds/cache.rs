//! The tokens that the back end of managed identities keeps for each identity and resource: the same token comes back
//! until half of its life is over.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::entra::token::Issued;

/// Tokens that are kept.
const CAPACITY: usize = 20_000;

/// The cache.
#[derive(Debug, Default)]
pub(crate) struct TokenCache(Mutex<HashMap<(String, String), Issued>>);

impl TokenCache {
    /// The token of that principal for that resource, if it may still be handed out.
    pub(crate) fn get(&self, object_id: &str, resource: &str, now: u64) -> Option<Issued> {
        let tokens = self.0.lock();
        let found = tokens.get(&(object_id.to_owned(), resource.to_owned()))?;
        let half = found.not_before + found.expires_on.saturating_sub(found.not_before) / 2;
        (now < half).then(|| found.clone())
    }

    /// Keeps a token.
    pub(crate) fn put(&self, object_id: &str, resource: &str, issued: &Issued) {
        let mut tokens = self.0.lock();
        if tokens.len() >= CAPACITY {
            tokens.clear();
        }
        tokens.insert((object_id.to_owned(), resource.to_owned()), issued.clone());
    }

    /// Forgets all.
    pub(crate) fn clear(&self) {
        self.0.lock().clear();
    }
}
