//! Tokens for the agent: a cache, one flight a key, refresh ahead, and a budget towards the upstream. It decides
//! nothing about who may have a token (that is `podid_core::decide`) and speaks to no upstream itself (that is a
//! [`Source`]).
//!
//! ```text
//! get(Lookup) ─▶ shard of the identity ─▶ Entry ─┬─ good token, > 5 min left ─────────────▶ served, nothing allocated
//!                (by hash, borrowed)             ├─ refused a moment ago ─────────────────▶ the same refusal
//!                                                ├─ a flight is under way ─▶ join it ─┐
//!                                                └─ else: new flight (a task) ────────┤
//!                                                                                     ▼
//! waiter: until Done, or its own deadline ◀── watch ── Flight: hold ─▶ Lane (turn) ─▶ Source::fetch ─┬─ token   ─▶ Entry
//!                                                        ▲                                          ├─ refused ─▶ Entry, briefly
//!                                                        └─ back off, while somebody waits ◀────────┴─ trouble
//! run ─▶ every entry past its refresh point and still in use ─▶ Flight (one try, after first tokens) ─▶ Entry
//! forget / retain ─▶ entries out of the store, their flights cancelled, their waiters told
//! ```
//!
//! - A [`Key`] holds every input of the upstream call. An entry is found by a borrowed [`Lookup`]. All entries of one identity
//!   are in one shard, so that their number can be bounded where they are.
//! - A flight is a task of the broker: who waits only listens to it, so leaving harms nobody. When nobody listens any
//!   more it ends after the try that is under way.
//! - A token is served while more than five minutes are left, whatever became of its refresh; then it never is.
//! - A `Lane` gives turns towards one upstream: bounded rate and concurrency, first tokens before refreshes,
//!   namespaces in turn, and within one its identities in turn. What the upstream asks for (`Retry-After`) is kept.
//! - No lock is held across an await. Entries, flights of one identity and what waits in a lane are bounded.

mod broker;
mod entry;
mod error;
mod flight;
mod key;
mod lane;
mod limits;
mod metrics;
mod store;

pub use broker::{Broker, Remembered, SharedBroker, Source, Spawn, WallClock};
pub use error::TokenError;
pub use key::{Key, Lookup, Via};
pub use lane::LaneLimits;
pub use limits::Limits;

#[cfg(test)]
mod tests;
