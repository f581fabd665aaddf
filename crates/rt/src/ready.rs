//! The ready line: one JSON object on stdout when a process really serves, for whoever started it.

use std::io::Write;

/// Writes `json` (one object, without line breaks) as the ready line. A closed stdout is no reason to stop serving.
pub fn announce(json: &str) {
    debug_assert!(
        json.starts_with('{') && !json.contains('\n'),
        "a ready line is one JSON object"
    );
    let mut stdout = std::io::stdout().lock();
    if let Err(error) = writeln!(stdout, "{json}").and_then(|()| stdout.flush()) {
        tracing::warn!(%error, "nobody reads the ready line");
    }
}
