//! The one line that goes to stdout: ready. Logs go to stderr, through tracing.

use std::net::SocketAddr;

/// Says that the controller is at work, in one JSON object.
pub(crate) fn ready(probes: SocketAddr) {
    let line = serde_json::json!({
        "event": "ready",
        "probes": format!("http://{probes}"),
        "pid": std::process::id(),
    });
    podid_rt::ready::announce(&line.to_string());
}
