//! Events: one stored form for both API groups, and what a new one must say.

use serde_json::{Value, json};

use super::{invalid, required};
use crate::json::{self, text};
use crate::status::Cause;

/// Fields of an event of `events.k8s.io/v1` and of a core event, which is how it is stored. Source: the conversion in Kubernetes'
/// `pkg/apis/events/v1/conversion.go`.
const FIELDS: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// From the stored form to the new one.
pub(super) fn to_new(event: &mut Value) {
    for (new, old) in FIELDS {
        if let Some(value) = json::remove(event, &[old]) {
            json::set(event, &[new], value);
        }
    }
}

/// From the new form to the stored one.
pub(super) fn to_old(event: &mut Value) {
    for (new, old) in FIELDS {
        if let Some(value) = json::remove(event, &[new]) {
            json::set(event, &[old], value);
        }
    }
}

/// What a new event must say. `about` is the field that names its object; the new API group asks for more.
pub(super) fn validate(event: &Value, about: &str, new: bool) -> Vec<Cause> {
    let mut causes = Vec::new();
    let (home, of) = (json::namespace(event), text(event, &[about, "namespace"]));
    if of != home && !(of.is_empty() && home == "default") {
        causes.push(invalid(
            "involvedObject.namespace",
            &json!(of),
            "does not match event.namespace",
        ));
    }
    let timed = !text(event, &["eventTime"]).is_empty();
    if timed {
        let reporter = if new {
            "reportingController"
        } else {
            "reportingComponent"
        };
        for (field, path) in [
            ("reportingController", reporter),
            ("reportingInstance", "reportingInstance"),
            ("action", "action"),
            ("reason", "reason"),
        ] {
            if text(event, &[path]).is_empty() {
                causes.push(required(field, ""));
            }
        }
        let note = text(event, &[if new { "note" } else { "message" }]);
        if note.len() > MAX_NOTE {
            let why = format!("can have at most {MAX_NOTE} bytes");
            causes.push(invalid("message", &json!(""), &why));
        }
    } else if new {
        causes.push(required("eventTime", ""));
    }
    let kind = text(event, &["type"]);
    if new && !matches!(kind, "Normal" | "Warning") {
        causes.push(invalid(
            "type",
            &json!(kind),
            &format!("has invalid value: {kind}"),
        ));
    }
    causes
}

/// The longest note, in bytes. Source: validation of `events.k8s.io`.
const MAX_NOTE: usize = 1024;
