//! Custom resource definitions: what is accepted, which resources they bring, their status. What this API server could
//! not carry out is refused at creation.

use serde_json::{Value, json};

use crate::cel::Rules;
use crate::json::{self, list, text};
use crate::resource::{Registry, Resource, from_crd};
use crate::schema::{SchemaError, Structural};
use crate::status::Cause;

/// The finalizer that holds a definition until its objects are gone.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
const APPROVAL: &str = "api-approved.kubernetes.io";

fn cause(reason: &'static str, field: &str, message: impl Into<String>) -> Cause {
    Cause {
        reason,
        message: message.into(),
        field: field.to_owned(),
    }
}

/// Puts in the defaults of a definition.
pub(crate) fn default(crd: &mut Value) {
    let kind = text(crd, &["spec", "names", "kind"]).to_owned();
    json::default(crd, &["spec", "names", "singular"], kind.to_lowercase());
    json::default(crd, &["spec", "names", "listKind"], format!("{kind}List"));
    json::default(crd, &["spec", "conversion"], json!({ "strategy": "None" }));
}

/// The resources that a definition brings, or what is wrong with it.
pub(crate) fn resources(crd: &Value) -> Result<Vec<Resource>, Vec<Cause>> {
    let mut causes = check(crd);
    let mut resources = Vec::new();
    let versions = list(crd, &["spec", "versions"]);
    for (index, version) in versions.iter().enumerate() {
        let served = version.get("served").and_then(Value::as_bool).unwrap_or_default();
        match read(version) {
            Ok((schema, rules)) if served => resources.push(from_crd(crd, version, schema, rules)),
            Ok(_) => {}
            Err(error) => {
                // With one version, its schema counts as that of all.
                let schema = match versions.len() {
                    1 => "spec.validation".to_owned(),
                    _ => format!("spec.versions[{index}].schema"),
                };
                let reason = match error.why.split(':').next() {
                    Some("Required value") => "FieldValueRequired",
                    Some("Forbidden") => "FieldValueForbidden",
                    Some("Unsupported value") => "FieldValueNotSupported",
                    _ => "FieldValueInvalid",
                };
                causes.push(cause(reason, &format!("{schema}.{}", error.path), error.why));
            }
        }
    }
    if causes.is_empty() {
        Ok(resources)
    } else {
        Err(causes)
    }
}

fn read(version: &Value) -> Result<(Structural, Rules), SchemaError> {
    let Some(schema) = json::at(version, &["schema", "openAPIV3Schema"]) else {
        return Err(SchemaError {
            path: "openAPIV3Schema".to_owned(),
            why: "Required value: schemas are required".to_owned(),
        });
    };
    Ok((Structural::read(schema)?, Rules::compile(schema)?))
}

fn check(crd: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let (group, plural) = (
        text(crd, &["spec", "group"]),
        text(crd, &["spec", "names", "plural"]),
    );
    for (field, path) in [
        ("spec.group", &["spec", "group"][..]),
        ("spec.scope", &["spec", "scope"]),
        ("spec.names.plural", &["spec", "names", "plural"]),
        ("spec.names.kind", &["spec", "names", "kind"]),
    ] {
        if text(crd, path).is_empty() {
            causes.push(cause("FieldValueRequired", field, "Required value"));
        }
    }
    let expected = format!("{plural}.{group}");
    if json::name(crd) != expected {
        causes.push(cause(
            "FieldValueInvalid",
            "metadata.name",
            format!(
                "Invalid value: \"{}\": must be spec.names.plural+\".\"+spec.group",
                json::name(crd)
            ),
        ));
    }
    if !matches!(text(crd, &["spec", "scope"]), "Namespaced" | "Cluster" | "") {
        causes.push(cause(
            "FieldValueNotSupported",
            "spec.scope",
            "Unsupported value: supported values: \"Cluster\", \"Namespaced\"",
        ));
    }
    if text(crd, &["spec", "conversion", "strategy"]) != "None" {
        causes.push(cause(
            "FieldValueInvalid",
            "spec.conversion.strategy",
            "Invalid value: this API server calls no conversion webhooks",
        ));
    }
    causes.extend(check_approval(crd, group));
    let versions = list(crd, &["spec", "versions"]);
    let stored = versions
        .iter()
        .filter(|version| {
            version
                .get("storage")
                .and_then(Value::as_bool)
                .unwrap_or_default()
        })
        .count();
    if stored != 1 {
        causes.push(cause(
            "FieldValueInvalid",
            "spec.versions",
            "Invalid value: must have exactly one version marked as storage version",
        ));
    }
    for (index, version) in versions.iter().enumerate() {
        if json::at(version, &["subresources", "scale"]).is_some() {
            causes.push(cause(
                "FieldValueInvalid",
                &format!("spec.versions[{index}].subresources.scale"),
                "Invalid value: this API server serves no scale subresource",
            ));
        }
        for (at, column) in list(version, &["additionalPrinterColumns"]).iter().enumerate() {
            if let Err(why) = crate::jsonpath::Path::parse(text(column, &["jsonPath"])) {
                causes.push(cause(
                    "FieldValueInvalid",
                    &format!("spec.versions[{index}].additionalPrinterColumns[{at}].jsonPath"),
                    format!("Invalid value: {:?}: {why}", text(column, &["jsonPath"])),
                ));
            }
        }
    }
    causes
}

/// Groups under `k8s.io` and `kubernetes.io` belong to the community.
fn check_approval(crd: &Value, group: &str) -> Option<Cause> {
    let protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|domain| group == *domain || group.ends_with(&format!(".{domain}")));
    let approval = text(crd, &["metadata", "annotations", APPROVAL]);
    let field = format!("metadata.annotations[{APPROVAL}]");
    if !protected || approval.starts_with("unapproved") || approval.starts_with("https://") {
        None
    } else if approval.is_empty() {
        Some(cause(
            "FieldValueRequired",
            &field,
            format!(
                "Required value: protected groups must have approval annotation {APPROVAL:?}, see \
                 https://github.com/kubernetes/enhancements/pull/1111"
            ),
        ))
    } else {
        Some(cause(
            "FieldValueInvalid",
            &field,
            format!("Invalid value: {approval:?}: must be a URL or begin with \"unapproved\""),
        ))
    }
}

/// What is wrong with changing a definition so.
pub(crate) fn check_update(before: &Value, after: &Value) -> Vec<Cause> {
    [
        &["spec", "group"][..],
        &["spec", "scope"],
        &["spec", "names", "kind"],
        &["spec", "names", "plural"],
    ]
    .into_iter()
    .filter(|path| text(before, path) != text(after, path))
    .map(|path| {
        cause(
            "FieldValueInvalid",
            &path.join("."),
            format!("Invalid value: {:?}: field is immutable", text(after, path)),
        )
    })
    .collect()
}

/// Fills in the status: names are accepted unless another definition has them, then it is established.
pub(crate) fn set_status(crd: &mut Value, registry: &Registry, now: &str) {
    let names = json::at(crd, &["spec", "names"]).cloned().unwrap_or_default();
    let taken = registry.all().find_map(|other| {
        let foreign = other
            .custom
            .as_ref()
            .is_none_or(|custom| custom.crd != json::name(crd));
        let same_group = other.group == text(crd, &["spec", "group"]);
        let clash = other.plural == text(&names, &["plural"]) || other.kind == text(&names, &["kind"]);
        (foreign && same_group && clash).then(|| other.qualified())
    });
    let condition = |kind: &str, ok: bool, reason: &str, message: &str| {
        json!({
            "type": kind,
            "status": if ok { "True" } else { "False" },
            "lastTransitionTime": now,
            "reason": reason,
            "message": message,
        })
    };
    let conditions = match taken {
        None => vec![
            condition("NamesAccepted", true, "NoConflicts", "no conflicts found"),
            condition(
                "Established",
                true,
                "InitialNamesAccepted",
                "the initial names have been accepted",
            ),
        ],
        Some(other) => vec![
            condition(
                "NamesAccepted",
                false,
                "PluralConflict",
                &format!("already in use by {other}"),
            ),
            condition("Established", false, "NotAccepted", "not all names are accepted"),
        ],
    };
    let unchanged = |one: &Value| {
        let kind = text(one, &["type"]);
        list(crd, &["status", "conditions"])
            .iter()
            .find(|old| text(old, &["type"]) == kind && text(old, &["status"]) == text(one, &["status"]))
            .cloned()
    };
    let conditions: Vec<Value> = conditions
        .into_iter()
        .map(|one| unchanged(&one).unwrap_or(one))
        .collect();
    let mut stored_versions = list(crd, &["status", "storedVersions"]).to_vec();
    let versions = list(crd, &["spec", "versions"]).iter();
    for version in versions.filter(|version| {
        version
            .get("storage")
            .and_then(Value::as_bool)
            .unwrap_or_default()
    }) {
        if let Some(name) = version.get("name").filter(|name| !stored_versions.contains(name)) {
            stored_versions.push(name.clone());
        }
    }
    let established = conditions.iter().all(|one| text(one, &["status"]) == "True");
    json::set(crd, &["status", "conditions"], conditions);
    json::set(crd, &["status", "storedVersions"], stored_versions);
    json::set(
        crd,
        &["status", "acceptedNames"],
        if established {
            names
        } else {
            json!({ "kind": "", "plural": "" })
        },
    );
}

/// Whether its resources are served.
pub(crate) fn is_established(crd: &Value) -> bool {
    list(crd, &["status", "conditions"])
        .iter()
        .any(|one| text(one, &["type"]) == "Established" && text(one, &["status"]) == "True")
}
