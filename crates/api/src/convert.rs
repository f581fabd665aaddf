//! From custom resources and pods to core's nouns. Errors name the object and the field. Nothing is repaired: an
//! object that cannot be used as it stands is refused whole.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use kube::core::ObjectMeta;
use podid_core::identity::{Assignment, Binding, Credential, Exception, Identity, ObjectName, TokenSource};
use podid_core::pod::{Phase, Pod, PodRef};
use podid_core::{Guid, IdentityResourceId};

use crate::identity::FoldedIdentity;
use crate::names::{
    BEHAVIOR_ANNOTATION, BEHAVIOR_NAMESPACED, DEFAULT_ANNOTATION, OBJECT_ID_ANNOTATION, SOURCE_ANNOTATION,
    SOURCE_FEDERATION, SOURCE_IMDS,
};
use crate::pod::NodePod;
use crate::spelling::{Of, ResourceError, given};
use crate::{
    AssignedState, AzureAssignedIdentity, AzureIdentity, AzureIdentityBinding, AzurePodIdentityException,
};

/// Most auxiliary tenants of a service principal. Source: aad-pod-identity v1.8.17, `pkg/auth`.
const MAX_AUXILIARY_TENANTS: usize = 3;

/// Namespace and name from an object's metadata. The API server always gives both; an absent one is empty.
pub fn object_name(meta: &ObjectMeta) -> ObjectName {
    ObjectName::new(
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default(),
    )
}

/// An AzureIdentity. Its type, ids and what its type needs must be there.
pub fn identity(resource: &AzureIdentity) -> Result<Identity, ResourceError> {
    let of = Of {
        kind: "AzureIdentity",
        meta: &resource.metadata,
    };
    let folded = resource.folded()?;
    let client_id = folded
        .client_id
        .map(|text| Guid::parse(text).ok_or_else(|| of.invalid("clientID", text, "it is not a GUID")))
        .transpose()?;
    let credential = match folded.kind {
        0 => Credential::Managed(source(&of)?),
        1 => Credential::ClientSecret {
            tenant: tenant(&of, folded.tenant_id)?,
            auxiliary_tenants: auxiliary_tenants(&of, resource.spec.auxiliary_tenant_ids.as_deref())?,
            secret: secret(&of, &folded)?,
            authority: authority(&of, folded.ad_endpoint)?,
        },
        2 => Credential::ClientCertificate {
            tenant: tenant(&of, folded.tenant_id)?,
            secret: secret(&of, &folded)?,
            authority: authority(&of, folded.ad_endpoint)?,
        },
        other => {
            let reason = "there are 0 (managed identity), 1 (secret) and 2 (certificate)";
            return Err(of.invalid("type", &other.to_string(), reason));
        }
    };
    // What a service principal has in this field means nothing, and the original never looked at it.
    let resource_id: Option<IdentityResourceId> = match (folded.kind, folded.resource_id) {
        (0, Some(text)) => Some(
            text.parse()
                .map_err(|error| of.invalid("resourceID", text, error))?,
        ),
        (_, text) => text.and_then(|text| text.parse().ok()),
    };
    match (client_id, &resource_id) {
        (None, None) if folded.kind == 0 => {
            return Err(of.missing(
                "clientID",
                "the metadata service would give the node's own identity",
            ));
        }
        (None, _) if folded.kind != 0 => {
            return Err(of.missing("clientID", "a service principal is known by it"));
        }
        _ => {}
    }
    Ok(Identity {
        object: object_name(of.meta),
        client_id,
        object_id: object_id(&of)?,
        resource_id,
        credential,
        namespaced: annotation(&of, BEHAVIOR_ANNOTATION) == Some(BEHAVIOR_NAMESPACED),
    })
}

/// An AzureIdentityBinding. One without selector binds nothing and is an error, so that somebody hears of it.
pub fn binding(resource: &AzureIdentityBinding) -> Result<Binding, ResourceError> {
    let of = Of {
        kind: "AzureIdentityBinding",
        meta: &resource.metadata,
    };
    let (identity, selector) = resource.folded()?;
    let identity = identity.ok_or_else(|| of.missing("azureIdentity", "there is nothing to bind"))?;
    let selector = selector.ok_or_else(|| of.missing("selector", "an empty selector binds no pod"))?;
    Ok(Binding {
        object: object_name(of.meta),
        identity: Arc::from(identity),
        selector: Arc::from(selector),
        default: is_default(&of)?,
    })
}

/// An AzurePodIdentityException. One without labels matches nothing and is an error, so that somebody hears of it.
pub fn exception(resource: &AzurePodIdentityException) -> Result<Exception, ResourceError> {
    let of = Of {
        kind: "AzurePodIdentityException",
        meta: &resource.metadata,
    };
    let labels = resource
        .folded()?
        .ok_or_else(|| of.missing("podLabels", "an exception without labels matches no pod"))?;
    Ok(Exception {
        object: object_name(of.meta),
        labels: shared(labels),
    })
}

/// An AzureAssignedIdentity; none when its state says that it means nothing (any more).
pub fn assignment(resource: &AzureAssignedIdentity) -> Result<Option<Assignment>, ResourceError> {
    let of = Of {
        kind: "AzureAssignedIdentity",
        meta: &resource.metadata,
    };
    let assigned = match resource.state() {
        Some(AssignedState::Assigned) => true,
        Some(AssignedState::Created) => false,
        Some(AssignedState::Unassigned) | None => return Ok(None),
    };
    let spec = &resource.spec;
    let pod = given(spec.pod.as_deref()).ok_or_else(|| of.missing("pod", "it is for nobody"))?;
    let namespace = given(spec.pod_namespace.as_deref())
        .ok_or_else(|| of.missing("podNamespace", "names of pods are not unique"))?;
    let embedded = spec
        .azure_identity_ref
        .as_deref()
        .ok_or_else(|| of.missing("azureIdentityRef", "there is no identity to use"))?;
    let whole = AzureIdentity {
        metadata: embedded.metadata.clone(),
        spec: embedded.spec.clone(),
        status: None,
    };
    let default = match spec.azure_binding_ref.as_deref() {
        Some(binding) => is_default(&Of {
            kind: "AzureIdentityBinding",
            meta: &binding.metadata,
        })?,
        None => false,
    };
    Ok(Some(Assignment {
        object: object_name(of.meta),
        pod: ObjectName::new(namespace, pod),
        identity: Arc::new(identity(&whole)?),
        assigned,
        default,
    }))
}

/// A pod. Addresses that are none are left out: they can be nobody's source.
pub fn pod(pod: NodePod) -> Pod {
    let NodePod {
        metadata,
        spec,
        status,
    } = pod;
    let object = ObjectName::new(metadata.namespace.as_str(), metadata.name.as_str());
    let texts = status
        .pod_ips
        .into_iter()
        .map(|address| address.ip)
        .chain([status.pod_ip]);
    let mut addresses: Vec<IpAddr> = Vec::new();
    for text in texts.flatten() {
        if let Ok(address) = text.parse::<IpAddr>()
            && !addresses.contains(&address.to_canonical())
        {
            addresses.push(address.to_canonical());
        }
    }
    Pod {
        id: PodRef {
            object,
            uid: Arc::from(metadata.uid),
        },
        addresses,
        labels: shared(&metadata.labels),
        service_account: Arc::from(spec.service_account_name.as_deref().unwrap_or("default")),
        phase: match status.phase.as_deref() {
            // Init containers run while a pod is Pending.
            None | Some("" | "Pending" | "Running") => Phase::Active,
            Some(_) => Phase::Finished,
        },
        host_network: spec.host_network.unwrap_or_default(),
    }
}

fn annotation<'a>(of: &Of<'a>, key: &str) -> Option<&'a str> {
    given(of.meta.annotations.as_ref()?.get(key).map(String::as_str))
}

fn bad_annotation(
    of: &Of<'_>,
    annotation: &'static str,
    value: &str,
    reason: impl Into<String>,
) -> ResourceError {
    ResourceError::Annotation {
        kind: of.kind,
        object: of.object(),
        annotation,
        value: value.to_owned(),
        reason: reason.into(),
    }
}

fn is_default(of: &Of<'_>) -> Result<bool, ResourceError> {
    match annotation(of, DEFAULT_ANNOTATION) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(bad_annotation(
            of,
            DEFAULT_ANNOTATION,
            other,
            "write true or false",
        )),
    }
}

fn object_id(of: &Of<'_>) -> Result<Option<Guid>, ResourceError> {
    annotation(of, OBJECT_ID_ANNOTATION)
        .map(|text| {
            Guid::parse(text)
                .ok_or_else(|| bad_annotation(of, OBJECT_ID_ANNOTATION, text, "it is not a GUID"))
        })
        .transpose()
}

fn source(of: &Of<'_>) -> Result<TokenSource, ResourceError> {
    match annotation(of, SOURCE_ANNOTATION) {
        None => Ok(TokenSource::AgentDefault),
        Some(SOURCE_IMDS) => Ok(TokenSource::Imds),
        Some(SOURCE_FEDERATION) => Ok(TokenSource::Federation),
        Some(other) => Err(bad_annotation(
            of,
            SOURCE_ANNOTATION,
            other,
            format!("write {SOURCE_IMDS} or {SOURCE_FEDERATION}"),
        )),
    }
}

/// A tenant is a GUID or a domain; anything else could make the token URL another one.
fn tenant(of: &Of<'_>, tenant: Option<&str>) -> Result<Arc<str>, ResourceError> {
    let text = tenant.ok_or_else(|| of.missing("tenantID", "a service principal lives in a tenant"))?;
    one_tenant(of, "tenantID", text)
}

fn one_tenant(of: &Of<'_>, field: &'static str, text: &str) -> Result<Arc<str>, ResourceError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    if text.is_empty() || !text.bytes().all(plain) || text.starts_with('.') {
        return Err(of.invalid(field, text, "it is neither a GUID nor a domain name"));
    }
    Ok(Arc::from(text))
}

fn auxiliary_tenants(of: &Of<'_>, tenants: Option<&[String]>) -> Result<Vec<Arc<str>>, ResourceError> {
    let tenants = tenants.unwrap_or_default();
    if tenants.len() > MAX_AUXILIARY_TENANTS {
        let reason = format!("there may be up to {MAX_AUXILIARY_TENANTS}");
        return Err(of.invalid("auxiliaryTenantIDs", &tenants.len().to_string(), reason));
    }
    tenants
        .iter()
        .map(|text| one_tenant(of, "auxiliaryTenantIDs", text))
        .collect()
}

/// The Secret must be in the identity's namespace. The original took one of any namespace, so whoever could create an
/// AzureIdentity could have any Secret of the cluster sent to a host of their choice.
fn secret(of: &Of<'_>, folded: &FoldedIdentity<'_>) -> Result<ObjectName, ResourceError> {
    let (namespace, name) = folded
        .secret
        .ok_or_else(|| of.missing("clientPassword.name", "it names the Secret"))?;
    let own = of.meta.namespace.as_deref().unwrap_or_default();
    match namespace {
        Some(other) if other != own => Err(of.invalid(
            "clientPassword.namespace",
            other,
            format!("the Secret must be in the identity's namespace {own}"),
        )),
        _ => Ok(ObjectName::new(own, name)),
    }
}

/// Which hosts may be asked is the agent's to say; here only that nothing travels in the clear.
fn authority(of: &Of<'_>, endpoint: Option<&str>) -> Result<Option<Arc<str>>, ResourceError> {
    match endpoint {
        Some(text) if !text.starts_with("https://") => {
            Err(of.invalid("adEndpoint", text, "it must start with https://"))
        }
        other => Ok(other.map(Arc::from)),
    }
}

fn shared(labels: &BTreeMap<String, String>) -> BTreeMap<Arc<str>, Arc<str>> {
    labels
        .iter()
        .map(|(key, value)| (Arc::from(key.as_str()), Arc::from(value.as_str())))
        .collect()
}

#[cfg(test)]
mod tests;
