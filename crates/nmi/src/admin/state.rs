//! `/state`: the node's world, as decisions see it. No secrets, no tokens.

use podid_broker::Source;
use podid_core::identity::Exception;
use podid_core::world::Bound;
use podid_core::{Credential, Identity, Phase, Pod, TokenSource};
use serde_json::{Map, Value, json};

use crate::handler::Handler;

pub(super) fn state<S: Source>(handler: &Handler<S>, node: &str) -> Value {
    let world = handler.world.load();
    let mut pods: Vec<&Pod> = world.pods().map(AsRef::as_ref).collect();
    pods.sort_by_key(|pod| &pod.id.object);
    let mut namespaces: Vec<_> = world.namespaces().collect();
    namespaces.sort_by_key(|(name, _)| *name);
    let (mut bindings, mut assigned, mut exceptions) = (Vec::new(), Vec::new(), Vec::new());
    for (namespace, view) in namespaces {
        let of = |by: &'static str, key: &str, bound: &Bound| {
            let mut one = bound_to(bound);
            one.insert(by.to_owned(), json!(key));
            one.insert("namespace".to_owned(), json!(&**namespace));
            Value::Object(one)
        };
        bindings.extend(sorted(view.bound()).map(|(selector, bound)| of("selector", selector, bound)));
        assigned.extend(sorted(view.assigned()).map(|(pod, bound)| of("pod", pod, bound)));
        exceptions.extend(view.exceptions().iter().map(|one| exception(one)));
    }
    let mut identities: Vec<&Identity> = world.usable_identities().map(AsRef::as_ref).collect();
    identities.sort_by_key(|identity| &identity.object);
    identities.dedup_by_key(|identity| &identity.object);
    json!({
        "node": node,
        "synced": handler.world.is_synced(),
        "pods": pods.into_iter().map(pod).collect::<Vec<_>>(),
        "identities": identities.into_iter().map(identity).collect::<Vec<_>>(),
        "bindings": bindings,
        "assigned": assigned,
        "exceptions": exceptions,
        "unusable": handler.world.unusable().into_iter().map(|(kind, object, why)| json!({
            "kind": kind,
            "object": object.to_string(),
            "why": why,
        })).collect::<Vec<_>>(),
    })
}

fn sorted<'a, K: Ord + ?Sized + 'a, V: 'a>(
    all: impl Iterator<Item = (&'a K, &'a V)>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|(key, _)| *key);
    all.into_iter()
}

pub(super) fn pod(pod: &Pod) -> Value {
    json!({
        "pod": pod.id.object.to_string(),
        "uid": &*pod.id.uid,
        "addresses": pod.addresses,
        "phase": match pod.phase {
            Phase::Active => "active",
            Phase::Finished => "finished",
        },
        "host_network": pod.host_network,
        "service_account": &*pod.service_account,
        "selector": pod.selector().map(|selector| &**selector),
    })
}

pub(super) fn identity(identity: &Identity) -> Value {
    let text = |id: &dyn std::fmt::Display| id.to_string();
    let mut shown = json!({
        "identity": identity.object.to_string(),
        "client_id": identity.client_id.as_ref().map(|id| text(id)),
        "object_id": identity.object_id.as_ref().map(|id| text(id)),
        "resource_id": identity.resource_id.as_ref().map(|id| text(id)),
        "namespaced": identity.namespaced,
    });
    let more = match &identity.credential {
        Credential::Managed(source) => json!({
            "type": "managed identity",
            "source": match source {
                TokenSource::AgentDefault => "as --msi-source says",
                TokenSource::Imds => "imds",
                TokenSource::Federation => "federation",
            },
        }),
        Credential::ClientSecret {
            tenant,
            auxiliary_tenants,
            secret,
            authority,
        } => json!({
            "type": "service principal with secret",
            "tenant": &**tenant,
            "auxiliary_tenants": auxiliary_tenants.iter().map(|tenant| &**tenant).collect::<Vec<_>>(),
            "secret": secret.to_string(),
            "authority": authority.as_deref(),
        }),
        Credential::ClientCertificate {
            tenant,
            secret,
            authority,
        } => json!({
            "type": "service principal with certificate",
            "tenant": &**tenant,
            "secret": secret.to_string(),
            "authority": authority.as_deref(),
        }),
    };
    if let (Value::Object(shown), Value::Object(more)) = (&mut shown, more) {
        shown.extend(more);
    }
    shown
}

fn bound_to(bound: &Bound) -> Map<String, Value> {
    let names = |identities: &[std::sync::Arc<Identity>]| {
        identities
            .iter()
            .map(|identity| identity.object.to_string())
            .collect::<Vec<_>>()
    };
    let mut shown = Map::new();
    shown.insert("identities".to_owned(), json!(names(bound.identities())));
    shown.insert(
        "default".to_owned(),
        json!(bound.marked_default().map(|identity| identity.object.to_string())),
    );
    shown.insert(
        "missing".to_owned(),
        json!(bound.missing().iter().map(|name| &**name).collect::<Vec<_>>()),
    );
    shown.insert("not_assigned_yet".to_owned(), json!(names(bound.pending())));
    shown
}

fn exception(exception: &Exception) -> Value {
    let labels: Map<String, Value> = exception
        .labels
        .iter()
        .map(|(key, value)| (key.to_string(), json!(&**value)))
        .collect();
    json!({ "exception": exception.object.to_string(), "pod_labels": labels })
}
