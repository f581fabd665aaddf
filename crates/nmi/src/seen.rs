//! Objects as the watches see them: each is turned into core's noun while it is read, so that nothing larger is ever
//! kept, and one that cannot be used is seen as such instead of stopping its watch.
//!
//! JSON ─▶ Seen { slim metadata, Ok(noun) | Ok(none) | Err(why not) }

use std::borrow::Cow;
use std::fmt::Debug;
use std::marker::PhantomData;

use k8s_openapi::api::core::v1 as core_v1;
use kube::Resource;
use kube::core::{NamespaceResourceScope, ObjectMeta};
use podid_api::convert;
use podid_api::pod::NodePod;
use podid_api::{
    AzureAssignedIdentity, AzureIdentity, AzureIdentityBinding, AzurePodIdentityException, ResourceError,
};
use podid_core::identity::{Assignment, Binding, Exception};
use podid_core::{Identity, Index, Pod};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use thiserror::Error;

/// Why an object cannot be used.
#[derive(Clone, Debug, Error)]
pub(crate) enum Unusable {
    /// It has not the shape of its kind.
    #[error("it cannot be read: {0}")]
    Shape(String),
    /// It says something that cannot be used.
    #[error(transparent)]
    Resource(#[from] ResourceError),
}

impl Unusable {
    /// Stable code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Shape(_) => "resource_unreadable",
            Self::Resource(error) => error.code(),
        }
    }
}

/// One of the kinds that make up the node's world.
pub(crate) trait Watched: Clone + Debug + Send + Sync + 'static {
    /// Name of the kind.
    const KIND: &'static str;
    /// The kind as the API server knows it.
    type Kind: Resource<DynamicType = (), Scope = NamespaceResourceScope>;
    /// What is read of its JSON.
    type Object: DeserializeOwned;
    /// What is kept.
    type Noun: Clone + Debug + Send + 'static;

    /// None when the object means nothing, which is no error.
    fn read(object: Self::Object) -> Result<Option<Self::Noun>, Unusable>;
    fn apply(index: &mut Index, noun: Self::Noun);
    fn delete(index: &mut Index, meta: &ObjectMeta);
    fn reset(index: &mut Index, nouns: Vec<Self::Noun>);
}

/// An object of a watched kind.
#[derive(Clone, Debug)]
pub(crate) struct Seen<W: Watched> {
    /// Name, namespace, uid and resource version only.
    pub(crate) meta: ObjectMeta,
    /// What it says.
    pub(crate) noun: Result<Option<W::Noun>, Unusable>,
    kind: PhantomData<W>,
}

impl<'de, W: Watched> Deserialize<'de> for Seen<W> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let text = |member: &str| {
            let text = value.get("metadata")?.get(member)?.as_str()?;
            Some(text.to_owned())
        };
        let meta = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            uid: text("uid"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        if meta.name.is_none() {
            // Not an object at all; the watch reports it and lists again.
            return Err(D::Error::custom("an object without metadata.name"));
        }
        let noun = W::Object::deserialize(value)
            .map_err(|error| Unusable::Shape(error.to_string()))
            .and_then(W::read);
        Ok(Self {
            meta,
            noun,
            kind: PhantomData,
        })
    }
}

impl<W: Watched> Resource for Seen<W> {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        W::Kind::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        W::Kind::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        W::Kind::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        W::Kind::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

/// The pods of this node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pods;

impl Watched for Pods {
    const KIND: &'static str = "Pod";
    type Kind = core_v1::Pod;
    type Object = NodePod;
    type Noun = Pod;

    fn read(object: NodePod) -> Result<Option<Pod>, Unusable> {
        // The uid is what proofs and namespaces of pods go by.
        if object.metadata.uid.is_empty() {
            return Err(Unusable::Shape("metadata.uid is missing".to_owned()));
        }
        Ok(Some(convert::pod(object)))
    }

    fn apply(index: &mut Index, noun: Pod) {
        index.apply_pod(noun);
    }

    fn delete(index: &mut Index, meta: &ObjectMeta) {
        index.delete_pod(meta.uid.as_deref().unwrap_or_default());
    }

    fn reset(index: &mut Index, nouns: Vec<Pod>) {
        index.reset_pods(nouns);
    }
}

/// A kind that is known by namespace and name.
macro_rules! named {
    ($(#[$doc:meta])* $marker:ident, $kind:ty => $noun:ty, $read:expr, $apply:ident, $delete:ident, $reset:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $marker;

        impl Watched for $marker {
            const KIND: &'static str = stringify!($kind);
            type Kind = $kind;
            type Object = $kind;
            type Noun = $noun;

            fn read(object: $kind) -> Result<Option<$noun>, Unusable> {
                Ok($read(&object)?)
            }

            fn apply(index: &mut Index, noun: $noun) {
                index.$apply(noun);
            }

            fn delete(index: &mut Index, meta: &ObjectMeta) {
                index.$delete(&convert::object_name(meta));
            }

            fn reset(index: &mut Index, nouns: Vec<$noun>) {
                index.$reset(nouns);
            }
        }
    };
}

named!(
    /// AzureIdentity.
    Identities, AzureIdentity => Identity,
    |object| convert::identity(object).map(Some),
    apply_identity, delete_identity, reset_identities
);
named!(
    /// AzureIdentityBinding.
    Bindings, AzureIdentityBinding => Binding,
    |object| convert::binding(object).map(Some),
    apply_binding, delete_binding, reset_bindings
);
named!(
    /// AzurePodIdentityException.
    Exceptions, AzurePodIdentityException => Exception,
    |object| convert::exception(object).map(Some),
    apply_exception, delete_exception, reset_exceptions
);
named!(
    /// AzureAssignedIdentity of this node.
    Assignments, AzureAssignedIdentity => Assignment,
    convert::assignment,
    apply_assignment, delete_assignment, reset_assignments
);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_of_a_wrong_shape_is_seen_by_name_and_the_list_goes_on() {
        let list = json!([
            { "metadata": { "name": "bad", "namespace": "shop", "resourceVersion": "7", "labels": { "x": "y" } }, "spec": { "type": "zero" } },
            { "metadata": { "name": "odd", "namespace": "shop" }, "spec": { "clientID": "me" } },
            { "metadata": { "name": "good", "namespace": "shop" }, "spec": { "clientID": "9e5b0bc4-1a2b-4c3d-8e9f-001122334455" } },
        ]);
        let seen: Vec<Seen<Identities>> = serde_json::from_value(list).unwrap();
        let codes: Vec<_> = seen
            .iter()
            .map(|seen| seen.noun.as_ref().map_or_else(Unusable::code, |_| "usable"))
            .collect();
        assert_eq!(codes, ["resource_unreadable", "resource_field_invalid", "usable"]);
        assert_eq!(seen[0].meta.name.as_deref(), Some("bad"));
        assert_eq!(
            (seen[0].meta.resource_version.as_deref(), &seen[0].meta.labels),
            (Some("7"), &None)
        );
    }
}
