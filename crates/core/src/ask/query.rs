//! The query of a token request. Read as form data; unknown parameters are ignored, doubled ones refused.

use std::borrow::Cow;
use std::fmt;

use crate::identity::Identity;
use crate::ids::Guid;
use crate::reason::Reason;

/// A token request that can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest<'q> {
    /// The audience, byte for byte as asked; never normalised.
    pub resource: Cow<'q, str>,
    /// The identity asked for, where one is named.
    pub selector: Option<Selector<'q>>,
}

/// How a request names an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector<'q> {
    /// By `client_id`.
    ClientId(Guid),
    /// By `object_id` or `principal_id`.
    ObjectId(Guid),
    /// By `msi_res_id`, `mi_res_id`, `resource_id` or `msi-res-id`; compared without case.
    ResourceId(Cow<'q, str>),
    /// By something that no identity has: an id that is not one. It is never bound to anybody.
    Malformed(Cow<'q, str>),
}

/// Oldest api-version. Source: <https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token>.
const OLDEST: &str = "2018-02-01";

/// Longest resource, in bytes. Entra's application id URIs have at most 255 characters.
const MAX_RESOURCE: usize = 2048;

/// The parameters that mean something. Real clients send `authority` and `bypass_cache` too; both are ignored, so that
/// neither the tenant nor the cache is the pod's choice.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Name {
    ApiVersion,
    Resource,
    ClientId,
    ObjectId,
    ResourceId,
}

fn name(key: &str) -> Option<Name> {
    Some(match key {
        "api-version" => Name::ApiVersion,
        "resource" => Name::Resource,
        "client_id" => Name::ClientId,
        "object_id" | "principal_id" => Name::ObjectId,
        "msi_res_id" | "mi_res_id" | "resource_id" | "msi-res-id" => Name::ResourceId,
        _ => return None,
    })
}

impl<'q> TokenRequest<'q> {
    /// Reads the query of a token request. Parameters may come in any order, raw or percent-encoded; an empty
    /// value counts as not given.
    pub fn parse(query: &'q str) -> Result<Self, Reason> {
        let (api_version, request) = Self::read(query)?;
        match api_version {
            None => return Err(Reason::ApiVersionMissing),
            Some(version) if !is_known(&version) => return Err(Reason::ApiVersionInvalid),
            Some(_) => {}
        }
        Ok(request)
    }

    /// Reads the query of a request for `/host/token`, which has no versions: its clients never sent one.
    /// Source: aad-pod-identity v1.8.17, `pkg/nmi/server`.
    pub fn parse_host(query: &'q str) -> Result<Self, Reason> {
        Self::read(query).map(|(_version, request)| request)
    }

    fn read(query: &'q str) -> Result<(Option<Cow<'q, str>>, Self), Reason> {
        let mut api_version = None;
        let mut resource = None;
        let mut selector: Option<Selector<'q>> = None;
        let mut seen: Vec<Cow<'q, str>> = Vec::with_capacity(4);
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            if seen.contains(&key) {
                return Err(Reason::DuplicateParameter);
            }
            let name = name(&key);
            // Doubles of unknown parameters matter too: the metadata service refuses them as well.
            if seen.len() >= MAX_PARAMETERS {
                return Err(Reason::QueryInvalid);
            }
            seen.push(key);
            let (Some(name), false) = (name, value.is_empty()) else {
                continue;
            };
            if value.chars().any(char::is_control) || value.contains('\u{fffd}') {
                return Err(Reason::QueryInvalid);
            }
            let named = match name {
                Name::ApiVersion => {
                    api_version = Some(value);
                    continue;
                }
                Name::Resource => {
                    if value.len() > MAX_RESOURCE {
                        return Err(Reason::QueryInvalid);
                    }
                    resource = Some(value);
                    continue;
                }
                Name::ClientId => Guid::parse(&value).map_or(Selector::Malformed(value), Selector::ClientId),
                Name::ObjectId => Guid::parse(&value).map_or(Selector::Malformed(value), Selector::ObjectId),
                Name::ResourceId => Selector::ResourceId(value),
            };
            // The same identity under two of a parameter's spellings is one selector.
            match &selector {
                Some(other) if !other.same(&named) => return Err(Reason::SeveralSelectors),
                _ => selector = Some(named),
            }
        }
        let resource = resource.ok_or(Reason::ResourceMissing)?;
        Ok((api_version, Self { resource, selector }))
    }
}

/// Most parameters that are looked at; clients send up to 5.
const MAX_PARAMETERS: usize = 32;

/// Whether `version` is a date, and not too old.
fn is_known(version: &str) -> bool {
    let digits = |range: std::ops::Range<usize>| {
        version
            .get(range)
            .is_some_and(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let shape = version.len() == 10
        && digits(0..4)
        && version.get(4..5) == Some("-")
        && digits(5..7)
        && version.get(7..8) == Some("-")
        && digits(8..10);
    shape && version >= OLDEST
}

impl Selector<'_> {
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::ResourceId(a), Self::ResourceId(b)) => a.eq_ignore_ascii_case(b),
            (a, b) => a == b,
        }
    }

    /// Whether `identity` is the one named.
    pub fn names(&self, identity: &Identity) -> bool {
        match self {
            Self::ClientId(id) => identity.client_id == Some(*id),
            Self::ObjectId(id) => identity.object_id == Some(*id),
            Self::ResourceId(id) => identity.resource_id.as_ref().is_some_and(|own| own.is(id)),
            Self::Malformed(_) => false,
        }
    }
}

impl fmt::Display for Selector<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What the pod wrote comes back to it and goes to the log: bounded, and without characters of control.
        let quoted = |text: &str| {
            text.chars()
                .filter(|c| !c.is_control())
                .take(200)
                .collect::<String>()
        };
        match self {
            Self::ClientId(id) => write!(f, "client id {id}"),
            Self::ObjectId(id) => write!(f, "object id {id}"),
            Self::ResourceId(id) => write!(f, "resource id {}", quoted(id)),
            Self::Malformed(id) => write!(f, "{:?}, which is not a GUID", quoted(id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLIENT: &str = "9E5B0BC4-1A2B-4C3D-8E9F-001122334455";

    fn parse(query: &str) -> Result<TokenRequest<'_>, Reason> {
        TokenRequest::parse(query)
    }

    #[test]
    fn resources_are_kept_byte_for_byte_raw_or_encoded_in_any_order() {
        for (query, resource) in [
            (
                "api-version=2018-02-01&resource=https://vault.azure.net",
                "https://vault.azure.net",
            ),
            (
                "resource=https%3A%2F%2Fmanagement.azure.com%2F&api-version=2019-08-01",
                "https://management.azure.com/",
            ),
            (
                "resource=api%3A%2F%2FX&api-version=2025-04-07&bypass_cache=true&authority=https://x/y",
                "api://X",
            ),
        ] {
            assert_eq!(parse(query).unwrap().resource, resource);
        }
    }

    #[test]
    fn an_identity_can_be_named_in_every_way_that_clients_know() {
        let guid = Guid::parse(CLIENT).unwrap();
        let id =
            "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/n";
        for (parameter, expected) in [
            (format!("client_id={CLIENT}"), Some(Selector::ClientId(guid))),
            (
                format!("object_id={}", CLIENT.to_lowercase()),
                Some(Selector::ObjectId(guid)),
            ),
            (format!("principal_id={CLIENT}"), Some(Selector::ObjectId(guid))),
            (format!("msi_res_id={id}"), Some(Selector::ResourceId(id.into()))),
            (format!("mi_res_id={id}"), Some(Selector::ResourceId(id.into()))),
            (format!("resource_id={id}"), Some(Selector::ResourceId(id.into()))),
            (format!("msi-res-id={id}"), Some(Selector::ResourceId(id.into()))),
            (
                format!("msi_res_id={id}&mi_res_id={}", id.to_uppercase()),
                Some(Selector::ResourceId(id.to_uppercase().into())),
            ),
            ("client_id=".to_owned(), None),
            ("client_id=me".to_owned(), Some(Selector::Malformed("me".into()))),
        ] {
            let query = format!("api-version=2018-02-01&resource=r&{parameter}");
            assert_eq!(parse(&query).unwrap().selector, expected, "{parameter}");
        }
    }

    #[test]
    fn each_fault_has_its_reason() {
        for (query, reason) in [
            ("", Reason::ResourceMissing),
            ("api-version=2018-02-01", Reason::ResourceMissing),
            ("api-version=2018-02-01&resource=", Reason::ResourceMissing),
            ("resource=r", Reason::ApiVersionMissing),
            ("resource=r&api-version=2017-12-01", Reason::ApiVersionInvalid),
            ("resource=r&api-version=latest", Reason::ApiVersionInvalid),
            (
                "resource=r&api-version=2018-02-01&resource=r",
                Reason::DuplicateParameter,
            ),
            (
                "resource=r&api-version=2018-02-01&x=1&x=2",
                Reason::DuplicateParameter,
            ),
            ("resource=r%0d%0ax&api-version=2018-02-01", Reason::QueryInvalid),
            ("resource=%ff&api-version=2018-02-01", Reason::QueryInvalid),
            (
                "resource=r&api-version=2018-02-01&client_id=9e5b0bc4-1a2b-4c3d-8e9f-001122334455&msi_res_id=/x",
                Reason::SeveralSelectors,
            ),
        ] {
            assert_eq!(parse(query).unwrap_err(), reason, "{query}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(query in "\\PC{0,120}") {
            let _any = parse(&query);
        }
    }
}
