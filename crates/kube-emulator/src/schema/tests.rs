//! What schemas refuse, prune and default.

use serde_json::{Value, json};

use super::Structural;

fn schema() -> Structural {
    Structural::read(&json!({
        "type": "object",
        "required": ["spec"],
        "properties": { "spec": { "type": "object", "required": ["name"], "properties": {
            "name": { "type": "string", "pattern": "^[a-z]+$", "maxLength": 5 },
            "size": { "type": "integer", "minimum": 1, "default": 3 },
            "mode": { "type": "string", "enum": ["on", "off"], "nullable": true },
            "port": { "x-kubernetes-int-or-string": true },
            "list": { "type": "array", "maxItems": 2, "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["k"],
                "items": { "type": "object", "properties": { "k": { "type": "string" } } } },
            "any": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
            "labels": { "type": "object", "additionalProperties": { "type": "string" } },
        }, "oneOf": [{ "required": ["mode"] }, { "required": ["port"] }] } },
    }))
    .unwrap()
}

fn wrong(spec: Value) -> Vec<String> {
    let mut object = json!({ "apiVersion": "a/v1", "kind": "A", "metadata": {}, "spec": spec });
    let schema = schema();
    schema.prune(&mut object);
    schema.default(&mut object);
    schema
        .check(&object)
        .into_iter()
        .map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect()
}

#[test]
fn each_rule_refuses_what_breaks_it() {
    assert_eq!(wrong(json!({ "name": "a", "mode": null })), [""; 0]);
    for (spec, text) in [
        (json!({ "mode": "on" }), "spec.name: Required value"),
        (
            json!({ "name": "a", "mode": "x" }),
            "spec.mode: Unsupported value: \"x\": supported values: \"on\", \"off\"",
        ),
        (
            json!({ "name": "A", "mode": "on" }),
            "spec.name: Invalid value: \"A\": spec.name in body should match '^[a-z]+$'",
        ),
        (
            json!({ "name": "abcdef", "mode": "on" }),
            "spec.name: Too long: may not be more than 5 bytes",
        ),
        (
            json!({ "name": "a", "mode": "on", "size": 0 }),
            "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1",
        ),
        (
            json!({ "name": "a", "mode": "on", "size": "3" }),
            "spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"",
        ),
        (
            json!({ "name": "a", "mode": "on", "list": [{ "k": "1" }, { "k": "1" }] }),
            "spec.list[1]: Duplicate value: {\"k\":\"1\"}",
        ),
        (
            json!({ "name": "a", "mode": "on", "list": [{}, { "k": "1" }, { "k": "2" }] }),
            "spec.list: Too many: 3: must have at most 2 items",
        ),
        (
            json!({ "name": "a" }),
            "spec: Invalid value: \"object\": spec in body must validate one and only one schema (oneOf). Found none valid",
        ),
        (
            json!({ "name": "a", "mode": "on", "labels": { "x": 1 } }),
            "spec.labels.x: Invalid value: \"integer\": spec.labels.x in body must be of type string: \"integer\"",
        ),
    ] {
        assert_eq!(wrong(spec.clone()), [text], "{spec}");
    }
}

#[test]
fn unknown_fields_go_and_defaults_come() {
    let mut object = json!({ "apiVersion": "a/v1", "kind": "A", "metadata": { "name": "x" },
        "spec": { "name": "a", "nam": 1, "any": { "x": 1 }, "labels": { "l": "v" }, "list": [{ "k": "1", "z": 2 }] } });
    let schema = schema();
    assert_eq!(schema.prune(&mut object), ["spec.nam", "spec.list[0].z"]);
    schema.default(&mut object);
    assert_eq!(
        object["spec"],
        json!({ "name": "a", "any": { "x": 1 }, "labels": { "l": "v" }, "list": [{ "k": "1" }], "size": 3 })
    );
}

#[test]
fn a_rule_that_cannot_be_kept_is_an_error() {
    for (schema, text) in [
        (
            json!({ "type": "object", "patternProperties": {} }),
            "not supported",
        ),
        (
            json!({ "type": "object", "x-kubernetes-novelty": 1 }),
            "cannot keep the rule `x-kubernetes-novelty`",
        ),
        (
            json!({ "type": "object", "properties": { "a": {} } }),
            "properties[a].type: Required value",
        ),
        (
            json!({ "type": "object", "properties": { "a": { "type": "string", "pattern": "(" } } }),
            "regular expression",
        ),
    ] {
        let error = Structural::read(&schema).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}
