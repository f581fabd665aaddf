//! The few protobuf bodies that `kubectl` sends (`create namespace`, `create token`, `create secret`, …), read into the
//! same values as JSON. Answers are always JSON. A message with a field that is not in these tables is refused whole.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::json::as_object;

/// What begins every such body, before the envelope (`runtime.Unknown`).
const MAGIC: &[u8] = b"k8s\0";

/// Messages nest no deeper than this in the tables below.
type Message = &'static [(u64, &'static str, Kind)];

/// What a field holds.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Bytes,
    Integer,
    Bool,
    /// Repeated text.
    Texts,
    Message(Message),
    Messages(Message),
    /// A map of text to text.
    TextMap,
    /// A map of text to bytes.
    BytesMap,
    /// Something the server fills in itself and takes from nobody.
    Ignored,
}

// Field numbers: the `generated.proto` files of k8s.io/api and k8s.io/apimachinery 0.37.
const METADATA: Message = &[
    (1, "name", Kind::Text),
    (2, "generateName", Kind::Text),
    (3, "namespace", Kind::Text),
    (4, "selfLink", Kind::Ignored),
    (5, "uid", Kind::Text),
    (6, "resourceVersion", Kind::Text),
    (7, "generation", Kind::Ignored),
    (8, "creationTimestamp", Kind::Ignored),
    (11, "labels", Kind::TextMap),
    (12, "annotations", Kind::TextMap),
    (14, "finalizers", Kind::Texts),
];
const REFERENCE: Message = &[(1, "name", Kind::Text)];
const OBJECT_REFERENCE: Message = &[
    (1, "kind", Kind::Text),
    (2, "namespace", Kind::Text),
    (3, "name", Kind::Text),
    (4, "uid", Kind::Text),
    (5, "apiVersion", Kind::Text),
    (6, "resourceVersion", Kind::Text),
    (7, "fieldPath", Kind::Text),
];
const NAMESPACE: Message = &[
    (1, "metadata", Kind::Message(METADATA)),
    (2, "spec", Kind::Message(&[(1, "finalizers", Kind::Texts)])),
    (3, "status", Kind::Ignored),
];
const SERVICE_ACCOUNT: Message = &[
    (1, "metadata", Kind::Message(METADATA)),
    (2, "secrets", Kind::Messages(OBJECT_REFERENCE)),
    (3, "imagePullSecrets", Kind::Messages(REFERENCE)),
    (4, "automountServiceAccountToken", Kind::Bool),
];
const CONFIG_MAP: Message = &[
    (1, "metadata", Kind::Message(METADATA)),
    (2, "data", Kind::TextMap),
    (3, "binaryData", Kind::BytesMap),
    (4, "immutable", Kind::Bool),
];
const SECRET: Message = &[
    (1, "metadata", Kind::Message(METADATA)),
    (2, "data", Kind::BytesMap),
    (3, "type", Kind::Text),
    (4, "stringData", Kind::TextMap),
    (5, "immutable", Kind::Bool),
];
const TOKEN_REQUEST: Message = &[
    (1, "metadata", Kind::Message(METADATA)),
    (
        2,
        "spec",
        Kind::Message(&[
            (1, "audiences", Kind::Texts),
            (
                3,
                "boundObjectRef",
                Kind::Message(&[
                    (1, "kind", Kind::Text),
                    (2, "apiVersion", Kind::Text),
                    (3, "name", Kind::Text),
                    (4, "uid", Kind::Text),
                ]),
            ),
            (4, "expirationSeconds", Kind::Integer),
        ]),
    ),
    (3, "status", Kind::Ignored),
];
const DELETE_OPTIONS: Message = &[
    (1, "gracePeriodSeconds", Kind::Integer),
    (
        2,
        "preconditions",
        Kind::Message(&[(1, "uid", Kind::Text), (2, "resourceVersion", Kind::Text)]),
    ),
    (3, "orphanDependents", Kind::Bool),
    (4, "propagationPolicy", Kind::Text),
    (5, "dryRun", Kind::Texts),
];
const EVICTION: Message = &[
    (1, "metadata", Kind::Message(METADATA)),
    (2, "deleteOptions", Kind::Message(DELETE_OPTIONS)),
];
const ENVELOPE: Message = &[
    (
        1,
        "types",
        Kind::Message(&[(1, "apiVersion", Kind::Text), (2, "kind", Kind::Text)]),
    ),
    (2, "raw", Kind::Bytes),
    (3, "contentEncoding", Kind::Text),
    (4, "contentType", Kind::Text),
];

/// The object in a protobuf body; none when it is of a kind, or has a field, that is not read here.
pub(crate) fn read(body: &[u8]) -> Option<Value> {
    let envelope = message(body.strip_prefix(MAGIC)?, ENVELOPE)?;
    let text = |path: &[&str]| crate::json::text(&envelope, path);
    let (api_version, kind) = (text(&["types", "apiVersion"]), text(&["types", "kind"]));
    let table = match (api_version, kind) {
        ("v1", "Namespace") => NAMESPACE,
        ("v1", "ServiceAccount") => SERVICE_ACCOUNT,
        ("v1", "ConfigMap") => CONFIG_MAP,
        ("v1", "Secret") => SECRET,
        ("authentication.k8s.io/v1", "TokenRequest") => TOKEN_REQUEST,
        ("policy/v1", "Eviction") => EVICTION,
        (_, "DeleteOptions") => DELETE_OPTIONS,
        // Questions about oneself are answered without looking at them.
        (_, "SelfSubjectAccessReview" | "SelfSubjectRulesReview" | "SelfSubjectReview") => {
            return Some(json!({ "apiVersion": api_version, "kind": kind }));
        }
        _ => return None,
    };
    let raw = STANDARD.decode(text(&["raw"])).ok()?;
    let mut object = json!({ "apiVersion": api_version, "kind": kind });
    if let Value::Object(mut read) = message(&raw, table)? {
        as_object(&mut object).append(&mut read);
    }
    Some(object)
}

fn message(mut rest: &[u8], table: Message) -> Option<Value> {
    let mut map = Map::new();
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut rest)?),
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                let (bytes, after) = rest.split_at_checked(length)?;
                rest = after;
                Field::Bytes(bytes)
            }
            _ => return None,
        };
        let (_, name, kind) = table.iter().find(|(number, ..)| *number == tag >> 3)?;
        let list =
            |map: &mut Map<String, Value>, item: Value| match map.entry(*name).or_insert_with(|| json!([])) {
                Value::Array(items) => items.push(item),
                other => *other = json!([item]),
            };
        match (kind, field) {
            (Kind::Ignored, _) => {}
            (Kind::Text, Field::Bytes(bytes)) => {
                let text = std::str::from_utf8(bytes).ok()?;
                // Go writes empty strings too; they mean nothing.
                if !text.is_empty() {
                    map.insert((*name).to_owned(), json!(text));
                }
            }
            (Kind::Bytes, Field::Bytes(bytes)) => {
                map.insert((*name).to_owned(), json!(STANDARD.encode(bytes)));
            }
            (Kind::Integer, Field::Number(number)) => {
                // Negative numbers are written as 64 bits in two's complement.
                map.insert((*name).to_owned(), json!(number.cast_signed()));
            }
            (Kind::Bool, Field::Number(number)) => {
                map.insert((*name).to_owned(), json!(number != 0));
            }
            (Kind::Texts, Field::Bytes(bytes)) => list(&mut map, json!(std::str::from_utf8(bytes).ok()?)),
            (Kind::Message(table), Field::Bytes(bytes)) => {
                map.insert((*name).to_owned(), message(bytes, table)?);
            }
            (Kind::Messages(table), Field::Bytes(bytes)) => {
                let item = message(bytes, table)?;
                list(&mut map, item);
            }
            (kind @ (Kind::TextMap | Kind::BytesMap), Field::Bytes(bytes)) => {
                let value = if matches!(kind, Kind::TextMap) {
                    Kind::Text
                } else {
                    Kind::Bytes
                };
                let entry = match value {
                    Kind::Text => message(bytes, &[(1, "key", Kind::Text), (2, "value", Kind::Text)])?,
                    _ => message(bytes, &[(1, "key", Kind::Text), (2, "value", Kind::Bytes)])?,
                };
                let key = crate::json::text(&entry, &["key"]).to_owned();
                let value = crate::json::text(&entry, &["value"]);
                as_object(map.entry(*name).or_insert_with(|| json!({}))).insert(key, json!(value));
            }
            _ => return None,
        }
    }
    Some(Value::Object(map))
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut part = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        part.extend_from_slice(bytes);
        part
    }

    fn body(kind: &str, raw: &[u8]) -> Vec<u8> {
        let types = [part(1, b"v1"), part(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), part(1, &types), part(2, raw)].concat()
    }

    #[test]
    fn a_namespace_as_kubectl_sends_it_is_read() {
        let label = [part(1, b"a"), part(2, b"b")].concat();
        let metadata = [part(1, b"my-app"), part(2, b""), part(8, b""), part(11, &label)].concat();
        let raw = [part(1, &metadata), part(2, b""), part(3, b"")].concat();
        assert_eq!(
            read(&body("Namespace", &raw)).unwrap(),
            json!({ "apiVersion": "v1", "kind": "Namespace",
                "metadata": { "name": "my-app", "labels": { "a": "b" } }, "spec": {} })
        );
    }

    #[test]
    fn a_field_that_is_not_known_refuses_the_whole_body() {
        assert_eq!(read(&body("Namespace", &part(9, b"x"))), None);
        assert_eq!(read(&body("Pod", b"")), None);
        assert_eq!(read(b"k8s\0\xff"), None);
    }
}
