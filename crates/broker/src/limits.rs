//! Every number of the broker, with its reason.

use std::time::Duration;

use crate::lane::LaneLimits;

/// Seconds that must be left of a token that is served. Source: below it Python's and JavaScript's SDKs ask again on
/// every call.
pub(crate) const SERVE_MARGIN_SECS: u64 = 300;
/// Below this many seconds over the margin, a refresh no longer waits behind first tokens.
pub(crate) const URGENT_SECS: u64 = 600;
/// First pause between two tries; doubles, with jitter.
pub(crate) const FIRST_BACKOFF: Duration = Duration::from_millis(500);
/// Longest pause between two tries while somebody waits.
pub(crate) const MAX_BACKOFF: Duration = Duration::from_secs(4);
/// First pause after a refresh that failed; doubles.
pub(crate) const FIRST_REFRESH_BACKOFF: Duration = Duration::from_secs(30);
/// Longest pause after a refresh that failed.
pub(crate) const MAX_REFRESH_BACKOFF: Duration = Duration::from_mins(10);
/// Longest that an upstream can make us stay away, whatever it asks for.
pub(crate) const MAX_HOLD: Duration = Duration::from_mins(5);
/// Shortest and longest pause between two looks for what is due. The longest bounds how late a jump of the wall clock is seen.
pub(crate) const MIN_LOOK: Duration = Duration::from_secs(1);
pub(crate) const MAX_LOOK: Duration = Duration::from_secs(30);

/// What can be set.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Towards the node's metadata service.
    pub imds: LaneLimits,
    /// Towards Entra.
    pub entra: LaneLimits,
    /// Longest one try may take; the client's own time-outs are shorter.
    pub attempt: Duration,
    /// How long a refusal is remembered.
    pub negative: Duration,
    /// How long a token that nobody asks for is refreshed. SDKs keep tokens themselves and come back at half life or at
    /// the end, so one life of the longest token (24 h) and a little.
    pub idle: Duration,
    /// Most entries of one identity; the one used longest ago makes room.
    pub per_identity: usize,
    /// Most flights of one identity at once.
    pub flights_per_identity: usize,
    /// Most entries in all.
    pub entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // 20 requests a second and 5 at a time per VM; the window is longer than a second, because what leaves us evenly need not
            // arrive evenly. Two seats of five for refreshes: first tokens find one even when refreshes hang.
            // Source: <https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service>, rate limiting.
            imds: LaneLimits {
                in_flight: 5,
                refreshing: 2,
                per_namespace: 5,
                rate: 20,
                window: Duration::from_millis(1100),
            },
            // Entra limits tenants and applications, not us: this is so that one authority that hangs leaves seats to others.
            entra: LaneLimits {
                in_flight: 32,
                refreshing: 8,
                per_namespace: 8,
                rate: 100,
                window: Duration::from_secs(1),
            },
            attempt: Duration::from_secs(30),
            negative: Duration::from_secs(5),
            idle: Duration::from_hours(25),
            per_identity: 32,
            flights_per_identity: 16,
            entries: 4096,
        }
    }
}
