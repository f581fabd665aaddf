//! An allocator that counts: in this bench only, so that what one request allocates can be told.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Allocations (and reallocations) and bytes so far.
pub(crate) fn counted() -> (u64, u64) {
    let stats = ALLOCATOR.stats();
    let count = stats.allocations.saturating_add(stats.reallocations);
    (as_u64(count), as_u64(stats.bytes_allocated))
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
