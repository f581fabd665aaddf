//! The wall clock, passed in so that tests can set it. Durations are measured with tokio's `Instant`, not with this.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where a process takes the time of day from.
#[derive(Clone, Debug, Default)]
pub struct Clock(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    System,
    Fixed(Arc<AtomicU64>),
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands at `unix_secs` until it is moved; clones share it.
    pub fn fixed(unix_secs: u64) -> Self {
        Self(Source::Fixed(Arc::new(AtomicU64::new(
            unix_secs.saturating_mul(1000),
        ))))
    }

    /// Time since 1970-01-01T00:00:00Z.
    pub fn since_epoch(&self) -> Duration {
        match &self.0 {
            Source::System => system_now(),
            Source::Fixed(millis) => Duration::from_millis(millis.load(Ordering::Relaxed)),
        }
    }

    /// Whole seconds since 1970-01-01T00:00:00Z.
    pub fn unix_secs(&self) -> u64 {
        self.since_epoch().as_secs()
    }

    /// Moves a fixed clock forward; the machine's clock is not ours to move.
    pub fn advance(&self, by: Duration) {
        if let Source::Fixed(millis) = &self.0 {
            millis.fetch_add(
                u64::try_from(by.as_millis()).unwrap_or(u64::MAX),
                Ordering::Relaxed,
            );
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where wall-clock time enters"
)]
fn system_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_clock_moves_only_when_told_and_for_all_its_clones() {
        let clock = Clock::fixed(1_000);
        let other = clock.clone();
        clock.advance(Duration::from_millis(2_500));
        assert_eq!((clock.unix_secs(), other.unix_secs()), (1_002, 1_002));
    }
}
