//! What every podid process does alike: logging, metrics, probes, readiness, signals, named tasks, the clock,
//! HTTP serving and (feature `kube`) watches. It knows nothing of identities and makes no decisions.

pub mod clock;
pub mod logging;
pub mod probes;
pub mod readiness;
pub mod ready;
pub mod serve;
pub mod stop;
pub mod tasks;
#[cfg(feature = "kube")]
pub mod watch;
