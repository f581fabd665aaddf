//! Carries out one action of the plan on the cluster, by server-side apply. It decides nothing.

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{DynamicObject, ObjectMeta};
use kube::{Api, Client, ResourceExt};
use podid_api::PodIdentityProfile;
use podid_api::names::{MANAGED_BY, MANAGED_BY_LABEL, PROFILE_NAME};
use serde_json::{Value, json};

use crate::code::{self, Obstacle};
use crate::desired::{Desired, Key};
use crate::plan::{Action, Owner, owner};

/// Writes for one profile.
#[derive(Clone)]
pub(crate) struct Writer {
    pub(crate) client: Client,
    pub(crate) profile_uid: String,
}

impl Action {
    /// The verb, for logs and metrics.
    pub(crate) fn verb(&self) -> &'static str {
        match self {
            Self::CreateNamespace { .. } | Self::Create { .. } => "create",
            Self::Update { .. } => "update",
            Self::Delete { .. } => "delete",
        }
    }

    /// What is written, for logs.
    pub(crate) fn object(&self) -> String {
        match self {
            Self::CreateNamespace { name, .. } => format!("Namespace {name}"),
            Self::Create { key, .. } | Self::Update { key, .. } | Self::Delete { key, .. } => key.to_string(),
        }
    }

    /// The kind that is written, for metrics.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::CreateNamespace { .. } => "Namespace",
            Self::Create { key, .. } | Self::Update { key, .. } | Self::Delete { key, .. } => key.kind.name(),
        }
    }
}

impl Writer {
    /// Does it.
    pub(crate) async fn write(&self, action: &Action) -> Result<(), Obstacle> {
        match action {
            Action::CreateNamespace { name, .. } => self.create_namespace(name).await,
            Action::Create { key, desired } => self.create(key, desired).await,
            Action::Update {
                key,
                desired,
                uid,
                extra,
            } => self.update(key, desired, uid, extra.as_ref()).await,
            Action::Delete { key, uid } => self.delete(key, uid).await,
        }
    }

    fn api(&self, key: &Key) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &key.namespace, &key.kind.resource())
    }

    /// AKS makes the namespace of a pod identity when it is missing (the tutorial never makes `my-app` itself). It is
    /// never deleted by us: by then people's pods are in it.
    async fn create_namespace(&self, name: &str) -> Result<(), Obstacle> {
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        let params = PostParams {
            field_manager: Some(MANAGED_BY.to_owned()),
            ..PostParams::default()
        };
        match Api::<Namespace>::all(self.client.clone())
            .create(&params, &namespace)
            .await
        {
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            other => other
                .map(drop)
                .map_err(|error| obstacle(&format!("Namespace {name}"), &error)),
        }
    }

    /// Makes an object. The view may be older than somebody's object of the same name, hence a look before, no force,
    /// and a look after: what somebody else has a hand in is let go again.
    async fn create(&self, key: &Key, desired: &Desired) -> Result<(), Obstacle> {
        let api = self.api(key);
        let before = api
            .get_opt(&key.name)
            .await
            .map_err(|error| obstacle(&key.to_string(), &error))?;
        if let Some(object) = before {
            return match owner(&object.metadata) {
                Owner::Foreign => Err(not_ours(key)),
                // Made a moment ago, the watch has not brought it yet.
                Owner::Ours(_) => {
                    self.update(key, desired, &object.uid().unwrap_or_default(), None)
                        .await
                }
            };
        }
        let body = self.body(key, desired, None);
        let made = api
            .patch(&key.name, &PatchParams::apply(MANAGED_BY), &Patch::Apply(&body))
            .await
            .map_err(|error| match &error {
                // Without force, a conflict means that others hold these fields.
                kube::Error::Api(status) if status.is_conflict() => not_ours(key),
                _ => obstacle(&key.to_string(), &error),
            })?;
        let shared = made
            .managed_fields()
            .iter()
            .any(|field| field.manager.as_deref() != Some(MANAGED_BY));
        if shared {
            let nothing = bare(key);
            let params = PatchParams::apply(MANAGED_BY);
            if let Err(error) = api.patch(&key.name, &params, &Patch::Apply(&nothing)).await {
                tracing::warn!(object = %key, %error, "fields of an object made by others could not be given back");
            }
            return Err(not_ours(key));
        }
        Ok(())
    }

    /// Repairs an object of ours: with force, because ours it is; with its uid, so that an object which somebody made
    /// in its place meanwhile is not touched.
    async fn update(
        &self,
        key: &Key,
        desired: &Desired,
        uid: &str,
        extra: Option<&Value>,
    ) -> Result<(), Obstacle> {
        let api = self.api(key);
        if let Some(extra) = extra {
            let mut patch = extra.clone();
            if let Some(patch) = patch.as_object_mut() {
                let metadata = patch.entry("metadata").or_insert_with(|| json!({}));
                if let Some(metadata) = metadata.as_object_mut() {
                    metadata.insert("uid".to_owned(), json!(uid));
                }
            }
            let params = PatchParams {
                field_manager: Some(MANAGED_BY.to_owned()),
                ..PatchParams::default()
            };
            api.patch(&key.name, &params, &Patch::Merge(&patch))
                .await
                .map_err(|error| obstacle(&key.to_string(), &error))?;
        }
        let body = self.body(key, desired, Some(uid));
        api.patch(
            &key.name,
            &PatchParams::apply(MANAGED_BY).force(),
            &Patch::Apply(&body),
        )
        .await
        .map(drop)
        .map_err(|error| obstacle(&key.to_string(), &error))
    }

    async fn delete(&self, key: &Key, uid: &str) -> Result<(), Obstacle> {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match self.api(key).delete(&key.name, &params).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            // Somebody made another object of this name meanwhile; the watch brings it, and the plan looks again.
            Err(kube::Error::Api(status)) if status.is_conflict() => Ok(()),
            other => other
                .map(drop)
                .map_err(|error| obstacle(&key.to_string(), &error)),
        }
    }

    fn body(&self, key: &Key, desired: &Desired, uid: Option<&str>) -> Value {
        let mut body = bare(key);
        if let Some(body) = body.as_object_mut() {
            body.insert("spec".to_owned(), desired.spec.clone());
        }
        if let Some(metadata) = body.pointer_mut("/metadata").and_then(Value::as_object_mut) {
            metadata.insert("labels".to_owned(), json!({ MANAGED_BY_LABEL: MANAGED_BY }));
            metadata.insert("ownerReferences".to_owned(), self.owner());
            if !desired.annotations.is_empty() {
                metadata.insert("annotations".to_owned(), json!(desired.annotations));
            }
            if let Some(uid) = uid {
                metadata.insert("uid".to_owned(), json!(uid));
            }
        }
        body
    }

    fn owner(&self) -> Value {
        use kube::Resource;
        json!([{
            "apiVersion": PodIdentityProfile::api_version(&()),
            "kind": PodIdentityProfile::kind(&()),
            "name": PROFILE_NAME,
            "uid": self.profile_uid,
            "controller": true,
        }])
    }
}

/// The object with nothing in it.
fn bare(key: &Key) -> Value {
    let resource = key.kind.resource();
    json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": { "name": key.name, "namespace": key.namespace },
    })
}

fn not_ours(key: &Key) -> Obstacle {
    let text = format!("{key} was not made by podid and is left alone; delete it, or choose another name");
    Obstacle::new(code::NOT_OURS, text)
}

/// What an error of the API server means for the entry.
pub(crate) fn obstacle(object: &str, error: &kube::Error) -> Obstacle {
    match error {
        kube::Error::Api(status) if matches!(status.code, 400 | 403 | 404 | 422) => Obstacle::new(
            code::REFUSED,
            format!("the API server refused {object}: {}", status.message),
        ),
        kube::Error::Api(status) => Obstacle::new(
            code::UNAVAILABLE,
            format!("{object} could not be written: {}", status.message),
        ),
        other => Obstacle::new(
            code::UNAVAILABLE,
            format!("{object} could not be written: {other}"),
        ),
    }
}
