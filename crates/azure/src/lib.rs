//! Clients of Azure, one file an outside door. They ask once and say what came back: caching, waiting and asking again
//! are the caller's. No type is shared with the emulator; both are held to the golden bodies in `fixtures/azure`.
//!
//! ```text
//! imds   the node's metadata service    ─┐
//! entra  secret, certificate, federation ├─▶ AccessToken, or an error with code() and retry()
//! arm    VM, scale set, identity        ─┘   (arm: typed bodies instead of a token)
//! ```

mod aadsts;
pub mod arm;
pub mod cloud;
pub mod codes;
pub mod entra;
mod http;
pub mod imds;
mod wire;

pub use crate::http::{ClientError, TlsRoots, TransportError, WallClock};
pub use arm::{Arm, ArmError};
pub use cloud::Cloud;
pub use entra::{Authorities, Authority, ClientCertificate, Endpoint, Entra, EntraError, Proof, TokenAsk};
pub use imds::{Imds, ImdsError, Who};
