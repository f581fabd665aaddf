//! How many requests a pod may make: a bucket a pod, looked up once a connection and free of locks after that, so that
//! one pod at full speed costs the others nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::time::Instant;

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
        }
    }

    /// The bucket of pod `uid`.
    pub(crate) fn bucket(&self, uid: &Arc<str>) -> Arc<Bucket> {
        let mut buckets = self.buckets.lock();
        let bucket = buckets.entry(Arc::clone(uid)).or_insert_with(|| {
            Arc::new(Bucket {
                limit: self.limit,
                epoch: self.epoch,
                full_at: AtomicU64::new(0),
            })
        });
        Arc::clone(bucket)
    }

    /// Forgets pods that are gone.
    pub(crate) fn retain(&self, there: impl Fn(&str) -> bool) {
        self.buckets.lock().retain(|uid, _| there(uid));
    }
}

impl Bucket {
    /// Takes one request out, if there is one.
    pub(crate) fn take(&self) -> bool {
        let Some(each) = 1_000_000_000_u64.checked_div(self.limit.per_second.into()) else {
            return true;
        };
        let now = u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
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
