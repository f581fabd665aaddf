//! The index of `az` extensions. It has one: the tutorial's `aks-preview`, written by us (`aks-preview/` beside `src`).

mod wheel;

use http::Method;
use serde_json::{Value, json};

use crate::answer::{Answer, Refusal};
use crate::cloud::Cloud;
use crate::front::Ask;
use crate::log::Notes;

/// Answers `az extension …`.
pub(crate) fn answer(cloud: &Cloud, ask: &Ask, notes: &mut Notes) -> Answer {
    if ask.method == Method::GET {
        match ask.path.lower().as_slice() {
            ["mirror", "extensions", "index.json"] => return Answer::ok(index(&ask.base)),
            ["mirror", "extensions", file] if *file == wheel::FILE => {
                return Answer::raw("application/zip", wheel::bytes());
            }
            _ => {}
        }
    }
    cloud.log.unsupported(format!("{} {}", ask.method, ask.raw_path));
    notes.code = Some(crate::answer::UNSUPPORTED.to_owned());
    Refusal::unsupported(&ask.method, &ask.raw_path).into()
}

/// The index as az reads it; `downloadUrl` is for readers, az itself takes the file from beside the index.
fn index(base: &str) -> Value {
    json!({
        "formatVersion": "1",
        "extensions": {
            wheel::NAME: [{
                "downloadUrl": format!("{base}/mirror/extensions/{}", wheel::FILE),
                "filename": wheel::FILE,
                "sha256Digest": wheel::digest(),
                "metadata": {
                    "name": wheel::NAME,
                    "version": wheel::VERSION,
                    "summary": wheel::SUMMARY,
                    "license": "Apache-2.0",
                    "azext.isPreview": true,
                    "azext.minCliCoreVersion": "2.60.0",
                },
            }],
        },
    })
}
