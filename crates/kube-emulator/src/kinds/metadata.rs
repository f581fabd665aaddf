//! Rules of metadata: names, labels, annotations.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Value, json};

use super::{invalid, required};
use crate::json::{self, text};
use crate::status::Cause;

/// RFC 1123 names, as the API server writes them in its errors.
const SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const LABEL_VALUE: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
const LABEL_KEY: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

static SUBDOMAIN_RULE: LazyLock<Option<Regex>> = LazyLock::new(|| whole(SUBDOMAIN));
static LABEL_RULE: LazyLock<Option<Regex>> = LazyLock::new(|| whole(LABEL));
static LABEL_VALUE_RULE: LazyLock<Option<Regex>> = LazyLock::new(|| whole(LABEL_VALUE));
static LABEL_KEY_RULE: LazyLock<Option<Regex>> = LazyLock::new(|| whole(LABEL_KEY));

fn whole(pattern: &str) -> Option<Regex> {
    Regex::new(&format!("^(?:{pattern})$")).ok()
}

fn matches(rule: &LazyLock<Option<Regex>>, text: &str) -> bool {
    rule.as_ref().is_some_and(|rule| rule.is_match(text))
}

/// Whether this is a DNS label, as container names and namespaces must be.
pub(super) fn is_label(text: &str) -> bool {
    text.len() <= 63 && matches(&LABEL_RULE, text)
}

pub(super) fn label_cause(field: &str, value: &str) -> Cause {
    invalid(
        field,
        &json!(value),
        &format!(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
             end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{LABEL}')"
        ),
    )
}

/// What is wrong with the metadata of an object of this kind.
pub(crate) fn validate(kind: &str, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let name = json::name(object);
    if name.is_empty() {
        causes.push(required("metadata.name", "name or generateName is required"));
    } else if kind == "Namespace" && !is_label(name) {
        causes.push(label_cause("metadata.name", name));
    } else if name.len() > 253 {
        causes.push(invalid(
            "metadata.name",
            &json!(name),
            "must be no more than 253 characters",
        ));
    } else if !matches(&SUBDOMAIN_RULE, name) {
        causes.push(invalid(
            "metadata.name",
            &json!(name),
            &format!(
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
                 start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
                 '{SUBDOMAIN}')"
            ),
        ));
    }
    for (field, is_label) in [("labels", true), ("annotations", false)] {
        let path = format!("metadata.{field}");
        for (key, value) in json::at(object, &["metadata", field])
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let (prefix, bare) = key
                .rsplit_once('/')
                .map_or(("", key.as_str()), |(prefix, bare)| (prefix, bare));
            let bad_prefix = key.contains('/') && (prefix.len() > 253 || !matches(&SUBDOMAIN_RULE, prefix));
            if bad_prefix || bare.len() > 63 || !matches(&LABEL_KEY_RULE, &bare.replace('/', " ")) {
                causes.push(invalid(
                    &path,
                    &json!(key),
                    &format!(
                        "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with \
                         an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
                         validation is '{LABEL_KEY}')"
                    ),
                ));
            }
            let value = value.as_str().unwrap_or_default();
            if is_label && (value.len() > 63 || !matches(&LABEL_VALUE_RULE, value)) {
                causes.push(invalid(
                    &path,
                    &json!(value),
                    &format!(
                        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
                         and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or \
                         '12345', regex used for validation is '{LABEL_VALUE}')"
                    ),
                ));
            }
        }
    }
    for (index, owner) in json::list(object, &["metadata", "ownerReferences"])
        .iter()
        .enumerate()
    {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if text(owner, &[field]).is_empty() {
                causes.push(required(
                    &format!("metadata.ownerReferences[{index}].{field}"),
                    "must not be empty",
                ));
            }
        }
    }
    causes
}

/// Five characters for `generateName`, from the alphabet that the API server uses (no vowels, nothing ambiguous).
pub(crate) fn random_suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    uuid::Uuid::new_v4()
        .as_bytes()
        .iter()
        .take(5)
        .filter_map(|byte| ALPHABET.get(usize::from(*byte) % ALPHABET.len()))
        .map(|byte| char::from(*byte))
        .collect()
}
