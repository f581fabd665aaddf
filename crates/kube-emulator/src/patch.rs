//! The four kinds of patches, and which resources take them.

use serde_json::{Value, json};

use crate::apply;
use crate::decode::{self, Body};
use crate::fields::{Manager, Writer};
use crate::json as fields_of;
use crate::status::ApiError;
use crate::strategic;
use crate::typed;
use crate::write::Target;

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// A patch as it was sent.
#[derive(Debug)]
pub(crate) enum Patch {
    /// RFC 6902.
    Json(json_patch::Patch),
    /// RFC 7386.
    Merge(Body),
    /// Kubernetes' own, for built-in kinds.
    Strategic(Body),
    /// Server-side apply.
    Apply { config: Body, force: bool },
}

/// A patched object, not yet conformed.
#[derive(Debug)]
pub(crate) struct Patched {
    pub(crate) object: Value,
    pub(crate) duplicates: Vec<String>,
    /// Who manages what, when the patch says it.
    pub(crate) managers: Option<Vec<Manager>>,
}

impl Patch {
    /// Reads a body by its content type.
    pub(crate) fn read(content_type: &str, text: &[u8], force: bool, custom: bool) -> Result<Self, ApiError> {
        let media = content_type.split(';').next().unwrap_or_default().trim();
        match media {
            JSON => serde_json::from_slice(text)
                .map(Self::Json)
                .map_err(|error| ApiError::unprocessable(format!("error decoding patch: {error}"))),
            MERGE => decode::json(text).map(Self::Merge),
            STRATEGIC if !custom => decode::json(text).map(Self::Strategic),
            APPLY => Ok(Self::Apply {
                config: decode::yaml(text)?,
                force,
            }),
            _ if custom => Err(ApiError::unsupported_media(&[JSON, MERGE, APPLY])),
            _ => Err(ApiError::unsupported_media(&[JSON, MERGE, STRATEGIC, APPLY])),
        }
    }

    /// Applies it to `live`, none when there is no object yet.
    pub(crate) fn apply_to(
        &self,
        live: Option<&Value>,
        target: Target<'_>,
        writer: &Writer,
        now: &str,
    ) -> Result<Patched, ApiError> {
        let empty = json!({});
        let base = live.unwrap_or(&empty);
        match self {
            Self::Json(patch) => {
                let mut object = base.clone();
                json_patch::patch(&mut object, patch).map_err(|error| {
                    ApiError::unprocessable(format!(
                        "the server rejected our request due to an error in our request: {error}"
                    ))
                })?;
                Ok(Patched {
                    object,
                    duplicates: Vec::new(),
                    managers: None,
                })
            }
            Self::Merge(body) => {
                let mut object = base.clone();
                json_patch::merge(&mut object, &body.value);
                Ok(Patched {
                    object,
                    duplicates: body.duplicates.clone(),
                    managers: None,
                })
            }
            Self::Strategic(body) => Ok(Patched {
                object: strategic::merge(base, &body.value, &target.resource.shape())?,
                duplicates: body.duplicates.clone(),
                managers: None,
            }),
            Self::Apply { config, force } => apply_config(live, config, *force, target, writer, now),
        }
    }
}

fn apply_config(
    live: Option<&Value>,
    config: &Body,
    force: bool,
    target: Target<'_>,
    writer: &Writer,
    now: &str,
) -> Result<Patched, ApiError> {
    let resource = target.resource;
    if writer.manager.is_empty() {
        let cause = crate::kinds::required("fieldManager", "is required for apply patch");
        return Err(ApiError::invalid("meta.k8s.io", "PatchOptions", "", &[cause]));
    }
    let mut wanted = config.value.clone();
    for (field, expected) in [
        ("apiVersion", resource.api_version()),
        ("kind", resource.kind.clone()),
    ] {
        let given = fields_of::text(&wanted, &[field]);
        if given != expected {
            return Err(ApiError::bad_request(format!(
                "the {field} in the apply configuration ({given}) does not match the expected one ({expected})"
            )));
        }
    }
    if fields_of::at(&wanted, &["metadata", "managedFields"]).is_some_and(|value| !value.is_null()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let name = fields_of::name(&wanted);
    if !name.is_empty() && name != target.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            target.name
        )));
    }
    fields_of::set(&mut wanted, &["metadata", "name"], target.name);
    // Only what was given counts as wanted, not what types and schemas fill in: their results are not used.
    let unknown = match &resource.custom {
        Some(custom) => custom.schema.prune(&mut wanted.clone()),
        None => typed::builtin(&resource.api_version(), &resource.kind, &wanted)
            .transpose()?
            .map(|typed| typed.unknown)
            .unwrap_or_default(),
    };
    if let Some(path) = unknown.first() {
        return Err(ApiError::not_typed(format!(
            "failed to create typed patch object ({}/{}; {}/{}, Kind={}): .{path}: field not declared in schema",
            fields_of::namespace(&wanted),
            target.name,
            resource.group,
            resource.version,
            resource.kind,
        )));
    }
    // Each way in writes its own part of the object.
    if target.subresource == "status" {
        fields_of::remove(&mut wanted, &["spec"]);
        if let Some(metadata) = wanted.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata
                .retain(|field, _| ["name", "namespace", "uid", "resourceVersion"].contains(&field.as_str()));
        }
    } else if resource.has_status() {
        fields_of::remove(&mut wanted, &["status"]);
    }
    let uid = fields_of::uid(&wanted);
    if live.is_none() && !uid.is_empty() {
        let why = format!(
            "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        );
        return Err(ApiError::conflict(
            &resource.group,
            &resource.plural,
            target.name,
            &why,
        ));
    }
    if live.is_none() {
        // It names no version of what is not there.
        fields_of::remove(&mut wanted, &["metadata", "resourceVersion"]);
    }
    let empty = json!({});
    let applied = apply::apply(
        live.unwrap_or(&empty),
        &wanted,
        &resource.shape(),
        writer,
        force,
        now,
    )?;
    Ok(Patched {
        object: applied.object,
        duplicates: config.duplicates.clone(),
        managers: Some(applied.managers),
    })
}
