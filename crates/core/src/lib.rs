//! The nouns of podid and its decisions: may this caller have this token, of which identity, and why. No IO, no async,
//! no clock, no environment, no serialisation: everything here is a value or a pure function.
//!
//! ```text
//! raw path, headers, query ─▶ ask::{Route, TokenRequest} ─┐
//! watch events ─▶ index::Index ─▶ world::World (snapshot) ─┼─▶ decide::decide ─▶ Decision
//! attestation ─▶ Caller ──────────────────────────────────┘        └─▶ steps, when somebody wants to know why
//! ```

pub mod ask;
pub mod code;
pub mod decide;
pub mod identity;
pub mod ids;
pub mod index;
pub mod pod;
pub mod reason;
pub mod secret;
pub mod token;
pub mod world;

pub use ask::{PathGroup, Route, Selector, TokenRequest};
pub use decide::{Caller, Decision, Policy, Refusal, decide};
pub use identity::{Binding, Credential, Exception, Identity, ObjectName, SecretName, TokenSource};
pub use ids::{Guid, IdentityResourceId};
pub use index::Index;
pub use pod::{Phase, Pod, PodRef};
pub use reason::Reason;
pub use secret::Secret;
pub use token::{AccessToken, Retry, SourceError, TroubleKind};
pub use world::World;
