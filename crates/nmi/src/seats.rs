//! Who holds how many connections: a bounded number per peer address. It accepts nothing and closes nothing.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// The seats that are taken. An address is forgotten with its last seat, so the map is as large as the connections.
#[derive(Clone, Debug)]
pub(crate) struct Seats {
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
    per_peer: usize,
}

/// One connection's place; free again when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    peer: IpAddr,
    of: Seats,
}

impl Seats {
    pub(crate) fn new(per_peer: usize) -> Self {
        Self {
            taken: Arc::default(),
            per_peer,
        }
    }

    /// A seat for `peer`, unless it has all it may have.
    pub(crate) fn take(&self, peer: IpAddr) -> Option<Seat> {
        let mut taken = self.taken.lock();
        let count = taken.entry(peer).or_default();
        if *count >= self.per_peer {
            return None;
        }
        *count += 1;
        Some(Seat {
            peer,
            of: self.clone(),
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.of.taken.lock();
        if let Some(count) = taken.get_mut(&self.peer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_peer_cannot_take_anothers_seats_and_is_forgotten_when_gone() {
        let seats = Seats::new(2);
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = seats.take(a);
        let second = seats.take(a);
        assert!(first.is_some() && second.is_some() && seats.take(a).is_none());
        assert!(seats.take(b).is_some());
        drop((first, second));
        assert!(seats.taken.lock().is_empty());
    }
}
