//! How many requests a pod may make: a bucket a pod, looked up once a connection and free of locks after that, so that
//! one pod at full speed costs the others nothing.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Most addresses whose buckets are kept; more than a node has pods.
const MAX_ADDRESSES: usize = 4096;

/// How fast one pod may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests a second in the long run; 0 for no limit.
    pub per_second: u32,
    /// Requests at once.
    pub burst: u32,
}

impl Default for RateLimit {
    /// Ten times what an SDK without a cache of its own was seen to ask at its worst (rule 25: not below 20 a second).
    fn default() -> Self {
        Self {
            per_second: 200,
            burst: 400,
        }
    }
}

/// The buckets of this node's pods.
#[derive(Debug)]
pub(crate) struct Rates {
    limit: RateLimit,
    epoch: Instant,
    buckets: Mutex<HashMap<Arc<str>, Arc<Bucket>>>,
    addresses: Mutex<HashMap<IpAddr, Arc<Bucket>>>,
}

/// One pod's bucket (generic cell rate algorithm: one number says when it will be full again).
#[derive(Debug)]
pub(crate) struct Bucket {
    limit: RateLimit,
    epoch: Instant,
    /// In nanoseconds since `epoch`.
    full_at: AtomicU64,
}

impl Rates {
    pub(crate) fn new(limit: RateLimit) -> Self {
        Self {
            limit,
            epoch: Instant::now(),
            buckets: Mutex::default(),
            addresses: Mutex::default(),
        }
    }

    /// The bucket of pod `uid`.
    pub(crate) fn bucket(&self, uid: &Arc<str>) -> Arc<Bucket> {
        let mut buckets = self.buckets.lock();
        Arc::clone(buckets.entry(Arc::clone(uid)).or_insert_with(|| self.full()))
    }

    /// The bucket of whoever has `address`, for what needs no pod.
    pub(crate) fn of_address(&self, address: IpAddr) -> Arc<Bucket> {
        let mut addresses = self.addresses.lock();
        if addresses.len() >= MAX_ADDRESSES && !addresses.contains_key(&address) {
            // A full bucket is as good as a new one.
            addresses.retain(|_, bucket| !bucket.is_full());
            if addresses.len() >= MAX_ADDRESSES {
                addresses.clear();
            }
        }
        Arc::clone(addresses.entry(address).or_insert_with(|| self.full()))
    }

    fn full(&self) -> Arc<Bucket> {
        Arc::new(Bucket {
            limit: self.limit,
            epoch: self.epoch,
            full_at: AtomicU64::new(0),
        })
    }

    /// Forgets pods that are gone.
    pub(crate) fn retain(&self, there: impl Fn(&str) -> bool) {
        self.buckets.lock().retain(|uid, _| there(uid));
    }
}

impl Bucket {
    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn is_full(&self) -> bool {
        self.full_at.load(Ordering::Relaxed) <= self.now()
    }

    /// Takes one request out, if there is one.
    pub(crate) fn take(&self) -> bool {
        let Some(each) = 1_000_000_000_u64.checked_div(self.limit.per_second.into()) else {
            return true;
        };
        let now = self.now();
        let room = each.saturating_mul(self.limit.burst.into());
        let next = |full_at: u64| {
            let full_at = full_at.max(now).saturating_add(each);
            (full_at - now <= room).then_some(full_at)
        };
        self.full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pod_gets_its_burst_then_its_rate_and_another_pod_is_not_touched() {
        let rates = Rates::new(RateLimit {
            per_second: 10,
            burst: 3,
        });
        let (noisy, quiet) = (rates.bucket(&"a".into()), rates.bucket(&"b".into()));
        assert_eq!((0..5).filter(|_| noisy.take()).count(), 3);
        assert!(quiet.take());
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!((0..5).filter(|_| noisy.take()).count(), 1);
        tokio::time::advance(Duration::from_mins(1)).await;
        assert_eq!((0..5).filter(|_| rates.bucket(&"a".into()).take()).count(), 3);
        rates.retain(|uid| uid == "b");
        assert_eq!(rates.buckets.lock().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_are_forgotten_when_their_buckets_are_full_again_and_not_before() {
        let rates = Rates::new(RateLimit {
            per_second: 1,
            burst: 2,
        });
        let address = |n: usize| IpAddr::from(u32::try_from(n).unwrap().to_be_bytes());
        for n in 0..MAX_ADDRESSES {
            rates.of_address(address(n)).take();
        }
        tokio::time::advance(Duration::from_secs(2)).await;
        let noisy = address(7);
        while rates.of_address(noisy).take() {}
        rates.of_address(address(MAX_ADDRESSES)).take();
        assert_eq!(rates.addresses.lock().len(), 2);
        assert!(!rates.of_address(noisy).take(), "still empty");
    }

    #[tokio::test]
    async fn zero_is_no_limit() {
        let bucket = Rates::new(RateLimit {
            per_second: 0,
            burst: 0,
        })
        .bucket(&"a".into());
        assert!((0..10_000).all(|_| bucket.take()));
    }
}
