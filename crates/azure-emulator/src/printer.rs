//! The one line that goes to stdout: ready. Logs go to stderr, through tracing.

use serde_json::json;

use crate::app::SharedEmulator;

/// Says where everything is, in one JSON object. It has the built-in principal's secret: it is how one signs in.
pub(crate) fn ready(emulator: &SharedEmulator) {
    let endpoints = emulator.endpoints();
    let first = |all: &[String]| all.first().cloned();
    let ca_file = emulator.ca_file();
    let line = json!({
        "event": "ready",
        "arm": first(&endpoints.arm), "entra": first(&endpoints.entra), "imds": first(&endpoints.imds),
        "endpoints": { "arm": endpoints.arm, "entra": endpoints.entra, "imds": endpoints.imds },
        "caFile": ca_file,
        // Without a file there is no other way to trust it.
        "caPem": ca_file.is_none().then(|| emulator.ca_pem()),
        "tenantId": emulator.tenant_id(),
        "subscriptionId": emulator.subscription_id(),
        "clientId": emulator.client_id(),
        "clientSecret": emulator.client_secret(),
        "pid": std::process::id(),
    });
    podid_rt::ready::announce(&line.to_string());
}
