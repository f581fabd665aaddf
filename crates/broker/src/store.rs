//! The entries, found by borrowed keys. All entries of one identity are in one shard, so that their number is bounded
//! where they are, with that shard's lock alone. Locks are taken in the order shard, then slot of an entry.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::HashTable;
use parking_lot::RwLock;
use podid_core::ObjectName;

use crate::entry::Entry;
use crate::error::TokenError;
use crate::key::Lookup;
use crate::limits::Limits;

/// Enough that cores do not meet; a power of two.
const SHARDS: usize = 16;

#[derive(Debug)]
pub(crate) struct Store {
    shards: [RwLock<HashTable<Arc<Entry>>>; SHARDS],
    /// Keyed at random: a pod that chooses its resources cannot choose where they meet.
    state: RandomState,
    len: AtomicUsize,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self {
            shards: std::array::from_fn(|_| RwLock::default()),
            state: RandomState::new(),
            len: AtomicUsize::new(0),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// What `look` makes of the entry, if there is one.
    pub(crate) fn peek<T>(&self, lookup: Lookup<'_>, look: impl FnOnce(&Arc<Entry>) -> T) -> Option<T> {
        let hash = lookup.hash(&self.state);
        let shard = self.shard(&lookup.identity.object).read();
        shard.find(hash, |entry| lookup.is(&entry.key)).map(look)
    }

    /// The entry of `lookup`, made if need be; room for it is made too.
    pub(crate) fn entry(
        &self,
        lookup: Lookup<'_>,
        limits: &Limits,
        now: u64,
    ) -> Result<Arc<Entry>, TokenError> {
        let hash = lookup.hash(&self.state);
        let mut shard = self.shard(&lookup.identity.object).write();
        if let Some(entry) = shard.find(hash, |entry| lookup.is(&entry.key)) {
            return Ok(Arc::clone(entry));
        }
        let object = &lookup.identity.object;
        let mine = |entry: &Arc<Entry>| entry.key.identity.object == *object;
        let (mut count, mut flying) = (0, 0);
        for entry in shard.iter().filter(|entry| mine(entry)) {
            count += 1;
            flying += usize::from(entry.is_flying());
        }
        if flying >= limits.flights_per_identity {
            return Err(TokenError::TooMany);
        }
        if count >= limits.per_identity && !self.evict(&mut shard, mine) {
            return Err(TokenError::TooMany);
        }
        if self.len() >= limits.entries && !self.evict(&mut shard, |_| true) {
            return Err(TokenError::TooMany);
        }
        let entry = Arc::new(Entry::new(lookup.to_key(), now));
        shard.insert_unique(hash, Arc::clone(&entry), |entry| {
            entry.key.lookup().hash(&self.state)
        });
        self.len.fetch_add(1, Ordering::Relaxed);
        Ok(entry)
    }

    /// Drops one entry among those that `may_go` and have no flight: first those without a token, then the one used
    /// longest ago.
    fn evict(&self, shard: &mut HashTable<Arc<Entry>>, may_go: impl Fn(&Arc<Entry>) -> bool) -> bool {
        let oldest = shard
            .iter()
            .filter(|entry| !entry.is_flying() && may_go(entry))
            .min_by_key(|entry| (entry.has_token(), entry.used()))
            .map(Arc::clone);
        let Some(oldest) = oldest else {
            return false;
        };
        self.remove(shard, |entry| Arc::ptr_eq(entry, &oldest));
        true
    }

    /// Drops the entries of which `goes` is true; says how many.
    pub(crate) fn drop_where(&self, goes: impl Fn(&Arc<Entry>) -> bool) -> usize {
        self.shards
            .iter()
            .map(|shard| {
                let any = shard.read().iter().any(&goes);
                if any {
                    self.remove(&mut shard.write(), &goes)
                } else {
                    0
                }
            })
            .sum()
    }

    fn remove(&self, shard: &mut HashTable<Arc<Entry>>, goes: impl Fn(&Arc<Entry>) -> bool) -> usize {
        let before = shard.len();
        shard.retain(|entry| {
            let goes = goes(entry);
            if goes {
                entry.retire();
            }
            !goes
        });
        let removed = before - shard.len();
        self.len.fetch_sub(removed, Ordering::Relaxed);
        removed
    }

    pub(crate) fn for_each(&self, mut each: impl FnMut(&Arc<Entry>)) {
        for shard in &self.shards {
            shard.read().iter().for_each(&mut each);
        }
    }

    /// The keys that are there, in no order.
    #[cfg(test)]
    pub(crate) fn keys(&self) -> Vec<crate::Key> {
        let mut keys = Vec::new();
        self.for_each(|entry| keys.push(entry.key.clone()));
        keys
    }

    fn shard(&self, object: &ObjectName) -> &RwLock<HashTable<Arc<Entry>>> {
        let at = usize::try_from(self.state.hash_one(object) % SHARDS as u64).unwrap_or_default();
        self.shards
            .get(at)
            .expect("a remainder is smaller than the number of shards")
    }
}
