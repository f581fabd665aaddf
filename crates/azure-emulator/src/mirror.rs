//! The index of `az` extensions. The folder that is served, if any, is the operator's.

use http::Method;
use serde_json::json;

use crate::answer::{Answer, Refusal};
use crate::cloud::Cloud;
use crate::front::Ask;
use crate::log::Notes;

/// Answers `az extension …`.
pub(crate) fn answer(cloud: &Cloud, ask: &Ask, notes: &mut Notes) -> Answer {
    match ask.path.lower().as_slice() {
        ["mirror", "extensions", "index.json"] if ask.method == Method::GET => {
            Answer::ok(json!({ "formatVersion": "1", "extensions": {} }))
        }
        _ => {
            cloud.log.unsupported(format!("{} {}", ask.method, ask.raw_path));
            notes.code = Some(crate::answer::UNSUPPORTED.to_owned());
            Refusal::unsupported(&ask.method, &ask.raw_path).into()
        }
    }
}
