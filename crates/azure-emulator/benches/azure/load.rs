//! The load generator: each connection asks, reads the whole answer, and asks again, at once or when the next is due.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::ensure;
use futures::future::try_join_all;
use tokio::time::{Instant, sleep_until};

use crate::calls::{Calls, Next};

/// What to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    pub(crate) until: Until,
    /// Requests a second, of all connections; as many as go when not given.
    pub(crate) rate: Option<f64>,
}

/// When it ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    Time(Duration),
    Count(usize),
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Sorted.
    took: Vec<Duration>,
    /// Answers that were no success, with the first one's status.
    bad: Option<(usize, u16)>,
    pub(crate) elapsed: Duration,
}

impl Seen {
    /// Whether everything was answered as it should be.
    pub(crate) fn all_good(&self) -> anyhow::Result<()> {
        let bad = self.bad.unwrap_or_default();
        ensure!(
            self.bad.is_none(),
            "{} of {} requests were refused, one with {}",
            bad.0,
            self.took.len(),
            bad.1
        );
        Ok(())
    }

    /// The time within which `share` of the requests were answered.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the length of a list is far below 2^52"
    )]
    pub(crate) fn within(&self, share: f64) -> Duration {
        let at = (self.count() * share).ceil() as usize;
        self.took.get(at.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// How many were answered.
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 requests")]
    pub(crate) fn count(&self) -> f64 {
        self.took.len() as f64
    }

    /// Answers a second.
    pub(crate) fn a_second(&self) -> f64 {
        self.count() / self.elapsed.as_secs_f64()
    }
}

impl Load {
    /// Does it.
    pub(crate) async fn run(self, calls: &Calls, next: Next) -> anyhow::Result<Seen> {
        let wires = try_join_all((0..self.connections).map(|_| calls.connect())).await?;
        let (begun, turn) = (Instant::now(), AtomicUsize::new(0));
        let turn = &turn;
        let each = wires.into_iter().map(|mut wire| async move {
            let mut seen = Seen::default();
            loop {
                let n = turn.fetch_add(1, Ordering::Relaxed);
                // The n-th request of all is due then.
                let due = self.rate.map(|rate| begun + due(n, rate));
                let over = match self.until {
                    Until::Time(lasts) => due.unwrap_or_else(Instant::now) >= begun + lasts,
                    Until::Count(count) => n >= count,
                };
                if over {
                    return anyhow::Ok(seen);
                }
                if let Some(due) = due {
                    sleep_until(due).await;
                }
                let from = due.unwrap_or_else(Instant::now);
                let (status, _) = wire.ask(&next(calls, n)).await?;
                seen.took.push(from.elapsed());
                if !(200..300).contains(&status) {
                    seen.bad = Some(seen.bad.map_or((1, status), |(count, first)| (count + 1, first)));
                }
            }
        });
        let mut whole = Seen::default();
        for seen in try_join_all(each).await? {
            whole.took.extend(seen.took);
            whole.bad = whole.bad.or(seen.bad);
        }
        whole.elapsed = begun.elapsed();
        whole.took.sort_unstable();
        Ok(whole)
    }
}

#[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 requests")]
fn due(n: usize, rate: f64) -> Duration {
    Duration::from_secs_f64(n as f64 / rate)
}
