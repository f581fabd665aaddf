//! The identity category's quota of a machine: so many requests a second, so many at a time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
/// Machines that are remembered.
const CAPACITY: usize = 10_000;

/// The quotas of all machines.
#[derive(Debug)]
pub(crate) struct Quotas {
    limits: Option<(usize, usize)>,
    machines: Arc<Mutex<HashMap<String, Used>>>,
}

#[derive(Debug, Default)]
struct Used {
    recent: VecDeque<Instant>,
    in_flight: usize,
}

/// A request in flight, until it is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    machine: String,
    of: Arc<Mutex<HashMap<String, Used>>>,
}

impl Quotas {
    /// Requests a second and at a time; none lets everything pass.
    pub(crate) fn new(limits: Option<(usize, usize)>) -> Self {
        Self {
            limits,
            machines: Arc::default(),
        }
    }

    /// A ticket for a request of that machine; none when there are too many.
    pub(crate) fn enter(&self, machine: &str) -> Option<Ticket> {
        let (per_second, at_a_time) = self.limits.unwrap_or((usize::MAX, usize::MAX));
        let now = Instant::now();
        {
            let mut machines = self.machines.lock();
            if machines.len() >= CAPACITY {
                machines.retain(|_, used| used.in_flight > 0);
            }
            let used = machines.entry(machine.to_owned()).or_default();
            while used
                .recent
                .front()
                .is_some_and(|at| now.duration_since(*at) >= SECOND)
            {
                used.recent.pop_front();
            }
            if used.recent.len() >= per_second || used.in_flight >= at_a_time {
                return None;
            }
            if self.limits.is_some() {
                used.recent.push_back(now);
            }
            used.in_flight += 1;
        }
        Some(Ticket {
            machine: machine.to_owned(),
            of: Arc::clone(&self.machines),
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(used) = self.of.lock().get_mut(&self.machine) {
            used.in_flight = used.in_flight.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_a_second_and_so_many_at_a_time_for_each_machine() {
        let quotas = Quotas::new(Some((3, 2)));
        let (a, b) = (quotas.enter("m").unwrap(), quotas.enter("m").unwrap());
        assert!(quotas.enter("m").is_none(), "two are in flight");
        assert!(quotas.enter("other").is_some());
        drop(a);
        let c = quotas.enter("m").unwrap();
        drop((b, c));
        assert!(quotas.enter("m").is_none(), "three in this second");
        tokio::time::advance(SECOND).await;
        assert!(quotas.enter("m").is_some());
    }
}
