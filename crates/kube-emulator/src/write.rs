//! Creating and changing objects: the way of a body through types, schema, defaults and rules into the store.
//!
//! body ─▶ conform (kind, unknown fields) ─▶ defaults ─▶ what its author cannot choose ─▶ validate ─▶ managers ─▶ store

use std::sync::Arc;

use serde_json::{Value, json};

use crate::cluster::State;
use crate::decode::Body;
use crate::fields::{self, Manager, Operation, Writer};
use crate::json::{self, text};
use crate::kinds;
use crate::patch::{Patch, Patched};
use crate::resource::Resource;
use crate::status::{ApiError, Cause};
use crate::store::{Key, Object};
use crate::typed;

/// What is written to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) resource: &'a Resource,
    pub(crate) namespace: &'a str,
    /// Empty when creating.
    pub(crate) name: &'a str,
    /// Empty or `status`.
    pub(crate) subresource: &'a str,
}

/// What to do about fields that a kind does not have, or that are given twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// How to write.
#[derive(Clone, Debug, Default)]
pub(crate) struct How {
    pub(crate) manager: String,
    pub(crate) dry_run: bool,
    pub(crate) validation: FieldValidation,
}

/// What came of a write.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) object: Arc<Object>,
    pub(crate) created: bool,
    pub(crate) warnings: Vec<String>,
}

impl Target<'_> {
    pub(crate) fn key(&self, name: &str) -> Key {
        Key::new(&self.resource.store_key(), self.namespace, name)
    }

    pub(crate) fn not_found(&self, name: &str) -> ApiError {
        ApiError::not_found(&self.resource.group, &self.resource.plural, name)
    }

    fn conflict(&self, why: &str) -> ApiError {
        ApiError::conflict(&self.resource.group, &self.resource.plural, self.name, why)
    }

    fn writer(&self, how: &How, operation: Operation) -> Writer {
        Writer {
            manager: how.manager.clone(),
            operation,
            api_version: self.resource.api_version(),
            subresource: self.subresource.to_owned(),
        }
    }
}

impl State {
    /// Creates an object.
    pub(crate) fn create(&mut self, target: Target<'_>, body: Body, how: &How) -> Result<Written, ApiError> {
        let (object, warnings) = conform(target, body, how.validation)?;
        let stamp = self.stamp();
        // What its author did not choose, nobody manages.
        let writer = target.writer(how, Operation::Update);
        let managers = fields::after_update(
            None,
            &without_status(target.resource, &object),
            &target.resource.shape(),
            &writer,
            &stamp,
        );
        let mut object = self.prepare_new(target, object)?;
        fields::set_managers(&mut object, &managers);
        let object = self.store_new(target, object, how)?;
        Ok(Written {
            object,
            created: true,
            warnings,
        })
    }

    /// Replaces an object.
    pub(crate) fn replace(&mut self, target: Target<'_>, body: Body, how: &How) -> Result<Written, ApiError> {
        let (object, warnings) = conform(target, body, how.validation)?;
        let before = self
            .store
            .get(&target.key(target.name))
            .ok_or_else(|| target.not_found(target.name))?;
        let sent = json::name(&object);
        if sent != target.name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({sent}) does not match the name on the URL ({})",
                target.name
            )));
        }
        let object = self.update(target, &before, object, None, true, how)?;
        Ok(Written {
            object,
            created: false,
            warnings,
        })
    }

    /// Patches an object; applying makes it when it is not there.
    pub(crate) fn patch(
        &mut self,
        target: Target<'_>,
        patch: &Patch,
        how: &How,
    ) -> Result<Written, ApiError> {
        let stamp = self.stamp();
        let stored = self.store.get(&target.key(target.name));
        let live = stored.as_ref().map(|stored| served(target.resource, stored));
        let apply = matches!(patch, Patch::Apply { .. });
        if live.is_none() && (!apply || !target.subresource.is_empty()) {
            return Err(target.not_found(target.name));
        }
        let operation = if apply {
            Operation::Apply
        } else {
            Operation::Update
        };
        let writer = target.writer(how, operation);
        let Patched {
            object,
            duplicates,
            managers,
        } = patch.apply_to(live.as_ref(), target, &writer, &stamp)?;
        let body = Body {
            value: object,
            duplicates,
        };
        let (object, warnings) = conform(target, body, how.validation)?;
        let Some(stored) = stored else {
            let mut object = self.prepare_new(target, object)?;
            fields::set_managers(&mut object, &managers.unwrap_or_default());
            let object = self.store_new(target, object, how)?;
            return Ok(Written {
                object,
                created: true,
                warnings,
            });
        };
        let object = self.update(target, &stored, object, managers, false, how)?;
        Ok(Written {
            object,
            created: false,
            warnings,
        })
    }

    /// Everything between a body and a stored new object, but for managers.
    fn prepare_new(&self, target: Target<'_>, mut object: Value) -> Result<Value, ApiError> {
        let resource = target.resource;
        let namespace = json::namespace(&object);
        if resource.namespaced && !namespace.is_empty() && namespace != target.namespace {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        if !text(&object, &["metadata", "resourceVersion"]).is_empty() {
            return Err(ApiError::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let generate = text(&object, &["metadata", "generateName"]).to_owned();
        if json::name(&object).is_empty() && !generate.is_empty() {
            json::set(
                &mut object,
                &["metadata", "name"],
                format!("{generate}{}", kinds::random_suffix()),
            );
        }
        let name = json::name(&object).to_owned();
        if resource.namespaced {
            json::set(&mut object, &["metadata", "namespace"], target.namespace);
            match self.namespace(target.namespace) {
                None => return Err(ApiError::not_found("", "namespaces", target.namespace)),
                Some(true) => {
                    return Err(ApiError::namespace_terminating(
                        &resource.group,
                        &resource.plural,
                        &name,
                        target.namespace,
                    ));
                }
                Some(false) => {}
            }
        } else {
            json::remove(&mut object, &["metadata", "namespace"]);
        }
        for field in [
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
            "managedFields",
            "generation",
        ] {
            json::remove(&mut object, &["metadata", field]);
        }
        json::set(
            &mut object,
            &["metadata", "uid"],
            uuid::Uuid::new_v4().to_string(),
        );
        json::set(&mut object, &["metadata", "creationTimestamp"], self.stamp());
        if resource.counts_generations() {
            json::set(&mut object, &["metadata", "generation"], 1);
        }
        kinds::prepare_create(resource, &mut object);
        self.admit(target, &mut object)?;
        validate(resource, &object, None)?;
        Ok(object)
    }

    /// What the API server asks of other objects before it takes a new one.
    fn admit(&self, target: Target<'_>, object: &mut Value) -> Result<(), ApiError> {
        if target.resource.group.is_empty() && target.resource.kind == "Pod" {
            let account = text(object, &["spec", "serviceAccountName"]);
            let key = Key::new("serviceaccounts", target.namespace, account);
            let found = self.store.get(&key);
            if let Some(found) = found {
                kinds::mount_token(&found, object);
            } else {
                let why = format!(
                    "error looking up service account {}/{account}: serviceaccount {account:?} not found",
                    target.namespace
                );
                return Err(ApiError::forbidden("", "pods", json::name(object), &why));
            }
        }
        Ok(())
    }

    fn store_new(
        &mut self,
        target: Target<'_>,
        mut object: Value,
        how: &How,
    ) -> Result<Arc<Object>, ApiError> {
        let resource = target.resource;
        let name = json::name(&object).to_owned();
        let key = target.key(&name);
        if self.store.get(&key).is_some() {
            return Err(ApiError::already_exists(&resource.group, &resource.plural, &name));
        }
        self.finish_crd_write(resource, &mut object);
        let object = kinds::to_stored(resource, object);
        if how.dry_run {
            return Ok(Arc::new(Object::new(object)));
        }
        let stored = self.store.put(key.clone(), object);
        self.settle(&key, None);
        Ok(stored)
    }

    /// A definition gets its status when it is written, so that its resources are served from then on.
    fn finish_crd_write(&self, resource: &Resource, object: &mut Value) {
        if resource.kind == "CustomResourceDefinition" {
            let stamp = self.stamp();
            crate::crd::set_status(object, &self.registry, &stamp);
        }
    }

    /// Stores a changed object. `replacing` tells a replaced object from a patched one; `managers` is who manages what, when it is known already (by applying).
    pub(crate) fn update(
        &mut self,
        target: Target<'_>,
        before: &Arc<Object>,
        mut object: Value,
        managers: Option<Vec<Manager>>,
        replacing: bool,
        how: &How,
    ) -> Result<Arc<Object>, ApiError> {
        let resource = target.resource;
        let stamp = self.stamp();
        let old = served(resource, before);
        let sent_version = text(&object, &["metadata", "resourceVersion"]);
        if !sent_version.is_empty() && sent_version != text(&old, &["metadata", "resourceVersion"]) {
            return Err(target.conflict(
                "the object has been modified; please apply your changes to the latest version and try again",
            ));
        }
        refuse_other_uid(target, &old, &object, replacing)?;
        carry_over(target, &old, &mut object);
        if target.subresource == "status" {
            kinds::settle_status(resource, &mut object);
        }
        if json::is_deleting(&old) {
            refuse_new_finalizers(resource, &old, &object)?;
        }
        if resource.counts_generations() && spec_differs(resource, &old, &object) {
            let generation = json::at(&old, &["metadata", "generation"])
                .and_then(Value::as_i64)
                .unwrap_or_default();
            json::set(&mut object, &["metadata", "generation"], generation + 1);
        }
        let managers = managers.unwrap_or_else(|| {
            let writer = target.writer(how, Operation::Update);
            fields::after_update(Some(&old), &object, &resource.shape(), &writer, &stamp)
        });
        kinds::admit(resource, &mut object);
        validate(resource, &object, Some(&old))?;
        fields::set_managers(&mut object, &managers);
        if target.subresource.is_empty() {
            self.finish_crd_write(resource, &mut object);
        }
        if json::same(&old, &object) {
            return Ok(Arc::clone(before));
        }
        let object = kinds::to_stored(resource, object);
        if how.dry_run {
            return Ok(Arc::new(Object::new(object)));
        }
        let key = target.key(target.name);
        let stored = self.store.put(key.clone(), object);
        self.settle(&key, Some(before));
        Ok(stored)
    }
}

/// A new object without what a writer of the object itself cannot write.
fn without_status(resource: &Resource, object: &Value) -> Value {
    let mut object = object.clone();
    if resource.has_status() && resource.kind != "Node" {
        json::remove(&mut object, &["status"]);
    }
    object
}

/// An object as this resource serves it.
pub(crate) fn served(resource: &Resource, stored: &Object) -> Value {
    kinds::to_served(resource, stored).unwrap_or_else(|| (**stored).clone())
}

/// A uid says which object is meant: replacing another one is a conflict, and no patch can change it.
fn refuse_other_uid(target: Target<'_>, old: &Value, new: &Value, replacing: bool) -> Result<(), ApiError> {
    let (sent, uid) = (json::uid(new), json::uid(old));
    if sent.is_empty() || sent == uid {
        return Ok(());
    }
    if replacing {
        return Err(target.conflict(&format!(
            "Precondition failed: UID in precondition: {sent}, UID in object meta: {uid}"
        )));
    }
    let resource = target.resource;
    let cause = kinds::invalid("metadata.uid", &json!(sent), "field is immutable");
    Err(ApiError::invalid(
        &resource.group,
        &resource.kind,
        target.name,
        &[cause],
    ))
}

/// Brings a body into the form of its kind: unknown fields are refused, warned of, or silently left out.
fn conform(
    target: Target<'_>,
    body: Body,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>), ApiError> {
    let resource = target.resource;
    let Body {
        mut value,
        duplicates,
    } = body;
    if !value.is_object() {
        return Err(ApiError::bad_request(format!(
            "the body is not a {} object",
            resource.kind
        )));
    }
    let (api_version, kind) = (resource.api_version(), resource.kind.as_str());
    if resource.is_custom() && text(&value, &["kind"]).is_empty() {
        return Err(ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): Object 'Kind' is missing"
        )));
    }
    json::default(&mut value, &["apiVersion"], api_version.as_str());
    json::default(&mut value, &["kind"], kind);
    if text(&value, &["apiVersion"]) != api_version {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({}) does not match the expected API version ({api_version})",
            text(&value, &["apiVersion"])
        )));
    }
    if text(&value, &["kind"]) != kind {
        return Err(ApiError::bad_request(format!(
            "the kind in the data ({}) does not match the expected kind ({kind})",
            text(&value, &["kind"])
        )));
    }
    let (value, unknown) = match typed::builtin(&api_version, kind, &value) {
        Some(typed) => {
            let typed = typed?;
            (typed.value, typed.unknown)
        }
        None => conform_custom(resource, value)?,
    };
    refuse_lost_rules(resource, &unknown)?;
    let complaints: Vec<String> = unknown
        .iter()
        .map(|path| format!("unknown field {path:?}"))
        .chain(duplicates.iter().map(|path| format!("duplicate field {path:?}")))
        .collect();
    let mut value = value;
    kinds::default(resource, &mut value);
    match validation {
        FieldValidation::Strict if !complaints.is_empty() => Err(ApiError::bad_request(format!(
            "{kind} in version {:?} cannot be handled as a {kind}: strict decoding error: {}",
            resource.version,
            complaints.join(", ")
        ))),
        FieldValidation::Ignore => Ok((value, Vec::new())),
        FieldValidation::Warn | FieldValidation::Strict => Ok((value, complaints)),
    }
}

fn conform_custom(resource: &Resource, mut value: Value) -> Result<(Value, Vec<String>), ApiError> {
    let metadata = typed::metadata(value.get("metadata").unwrap_or(&json!({})))?;
    json::set(&mut value, &["metadata"], metadata.value);
    let mut unknown = metadata.unknown;
    if let Some(custom) = &resource.custom {
        unknown.extend(custom.schema.prune(&mut value));
        custom.schema.default(&mut value);
    }
    Ok((value, unknown))
}

/// A rule in a schema that this API server does not know would be lost without a word: never that.
fn refuse_lost_rules(resource: &Resource, unknown: &[String]) -> Result<(), ApiError> {
    let lost = unknown.iter().find(|path| path.contains(".openAPIV3Schema."));
    match lost {
        Some(path) if resource.kind == "CustomResourceDefinition" => Err(ApiError::bad_request(format!(
            "this API server cannot keep the rule {path:?}"
        ))),
        _ => Ok(()),
    }
}

/// Puts back what a write of this kind may not change.
fn carry_over(target: Target<'_>, old: &Value, object: &mut Value) {
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "selfLink",
        "managedFields",
        "resourceVersion",
        "generateName",
    ] {
        json::carry(old, object, &["metadata", field]);
    }
    let resource = target.resource;
    if target.subresource == "status" {
        let mut result = old.clone();
        json::carry(object, &mut result, &["status"]);
        if !resource.is_custom() {
            for field in ["labels", "annotations"] {
                json::carry(object, &mut result, &["metadata", field]);
            }
        }
        *object = result;
    } else if resource.has_status() {
        json::carry(old, object, &["status"]);
    }
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Namespace") => json::carry(old, object, &["spec"]),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            json::carry(old, object, &["status"]);
        }
        _ => {}
    }
}

fn spec_differs(resource: &Resource, old: &Value, new: &Value) -> bool {
    let stripped = |object: &Value| {
        let mut object = object.clone();
        json::remove(&mut object, &["metadata"]);
        if resource.has_status() {
            json::remove(&mut object, &["status"]);
        }
        object
    };
    !json::same(&stripped(old), &stripped(new))
}

fn refuse_new_finalizers(resource: &Resource, old: &Value, new: &Value) -> Result<(), ApiError> {
    let before = json::list(old, &["metadata", "finalizers"]);
    let added: Vec<&Value> = json::list(new, &["metadata", "finalizers"])
        .iter()
        .filter(|finalizer| !before.contains(finalizer))
        .collect();
    if added.is_empty() {
        return Ok(());
    }
    let cause = kinds::forbidden(
        "metadata.finalizers",
        &format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
        ),
    );
    Err(ApiError::invalid(
        &resource.group,
        &resource.kind,
        json::name(new),
        &[cause],
    ))
}

fn validate(resource: &Resource, object: &Value, before: Option<&Value>) -> Result<(), ApiError> {
    let mut causes = kinds::validate_metadata(&resource.kind, object);
    if let Some(custom) = &resource.custom {
        causes.extend(custom.schema.check(object));
        if !causes.iter().any(Cause::blocks_rules) {
            causes.extend(custom.rules.check(object, before));
        } else if !custom.rules.is_empty() {
            causes.push(Cause {
                reason: "FieldValueInvalid",
                message: "Invalid value: null: some validation rules were not checked because the object was invalid; \
                          correct the existing errors to complete validation"
                    .to_owned(),
                field: "<nil>".to_owned(),
            });
        }
    } else {
        causes.extend(kinds::validate(resource, object));
        if let Some(before) = before {
            causes.extend(kinds::validate_update(resource, before, object));
        }
        if resource.kind == "CustomResourceDefinition" {
            causes.extend(crate::crd::resources(object).err().unwrap_or_default());
        }
    }
    if causes.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(
        &resource.group,
        &resource.kind,
        json::name(object),
        &causes,
    ))
}
