//! What is asked for: the path read in one way only, and the query of a token request. Hostile input comes in here;
//! nothing of it is trusted, and what could be read in two ways is refused.
//!
//! raw path ─▶ Route { Token, Path(group, canonical path), NotFound, Invalid }
//! query ─▶ TokenRequest { resource, selector, api version } or the Reason why not

mod path;
mod query;

pub use path::{PathGroup, Route, TOKEN_PATH};
pub use query::{Selector, TokenRequest};
