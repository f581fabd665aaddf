//! What every podid process does alike: logging, metrics, probes, readiness, signals, named tasks, the clock,
//! HTTP serving and (feature `kube`) the cluster's client and watches. It knows nothing of identities and makes no decisions.

pub mod clock;
#[cfg(feature = "kube")]
pub mod cluster;
pub mod logging;
pub mod probes;
pub mod readiness;
pub mod ready;
pub mod serve;
pub mod stop;
pub mod tasks;
#[cfg(feature = "kube")]
pub mod watch;
