//! A VM or a scale set, of which only the managed identities matter. Others' identities are never touched, and the
//! system-assigned one is never taken away.
//! Source: <https://learn.microsoft.com/rest/api/compute/virtual-machine-scale-sets/update>.

use std::fmt;
use std::str::FromStr;

use ::http::Method;
use podid_core::IdentityResourceId;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::{Arm, ArmError, Ask, parsed};

/// Has `If-Match` on updates.
const API_VERSION: &str = "2024-07-01";
/// Most identities in one update. Source: aad-pod-identity v1.8.17, `pkg/cloudprovider`.
pub(crate) const MAX_IN_ONE: usize = 150;

/// Which kind of host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostKind {
    /// A single VM.
    Vm,
    /// A scale set; its instances have its identities.
    ScaleSet,
}

/// What identities are assigned to: a VM, or the scale set of an instance. Compared without case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host {
    kind: HostKind,
    /// Lower case: ARM does not tell cases apart, and nodes of one scale set spell it differently.
    id: String,
}

/// Not a node of Azure.
#[derive(Debug, Error)]
#[error(
    "{0:?} is not the provider id of a VM (azure:///subscriptions/S/resourceGroups/G/providers/Microsoft.Compute/…)"
)]
pub struct HostError(String);

impl FromStr for Host {
    type Err = HostError;

    /// Reads `spec.providerID` of a Node, or an ARM id.
    fn from_str(text: &str) -> Result<Self, HostError> {
        let wrong = || HostError(text.chars().take(200).collect());
        let id = text.strip_prefix("azure://").unwrap_or(text).to_ascii_lowercase();
        let in_segment =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'(' | b')');
        let segments: Vec<&str> = id.split('/').collect();
        let plain = |segment: &&str| {
            !segment.is_empty() && segment.bytes().all(in_segment) && segment.bytes().any(|byte| byte != b'.')
        };
        if !segments.iter().skip(1).all(plain) {
            return Err(wrong());
        }
        let (kind, group, provider, name) = match *segments.as_slice() {
            [
                "",
                "subscriptions",
                subscription,
                "resourcegroups",
                group,
                "providers",
                "microsoft.compute",
                "virtualmachines",
                name,
            ] => (HostKind::Vm, (subscription, group), "virtualMachines", name),
            [
                "",
                "subscriptions",
                subscription,
                "resourcegroups",
                group,
                "providers",
                "microsoft.compute",
                "virtualmachinescalesets",
                name,
                ..,
            ] => (
                HostKind::ScaleSet,
                (subscription, group),
                "virtualMachineScaleSets",
                name,
            ),
            _ => return Err(wrong()),
        };
        let (subscription, group) = group;
        Ok(Self {
            kind,
            id: format!(
                "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Compute/{provider}/{name}"
            ),
        })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}

impl Host {
    /// Which kind.
    pub fn kind(&self) -> HostKind {
        self.kind
    }

    /// ARM id.
    pub fn id(&self) -> &str {
        &self.id
    }

    fn ask(&self, method: Method) -> Ask<'_> {
        Ask {
            method,
            id: &self.id,
            api_version: API_VERSION,
            kind: match self.kind {
                HostKind::Vm => "vm",
                HostKind::ScaleSet => "vmss",
            },
            if_match: None,
        }
    }
}

/// The identities of a host, as ARM has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostIdentities {
    /// Whether it has an identity of its own.
    pub system_assigned: bool,
    /// Managed identities, in ARM's spelling.
    pub user_assigned: Vec<IdentityResourceId>,
    /// `Succeeded`, `Updating`, `Deleting`, …
    pub provisioning_state: String,
    /// Version of the resource, where ARM gives one.
    pub etag: Option<String>,
    /// How many keys of the map are no ids of managed identities as we know them; they stay, and count as left.
    pub unreadable: usize,
}

#[derive(Deserialize)]
struct Body {
    identity: Option<IdentityBody>,
    #[serde(default)]
    properties: Properties,
    etag: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct IdentityBody {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    user_assigned_identities: Option<Map<String, Value>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Properties {
    provisioning_state: String,
}

impl From<Body> for HostIdentities {
    fn from(body: Body) -> Self {
        let mut identities = Self {
            provisioning_state: body.properties.provisioning_state,
            etag: body.etag,
            ..Self::default()
        };
        let Some(identity) = body.identity else {
            return identities;
        };
        identities.system_assigned = identity
            .kind
            .split(',')
            .any(|kind| kind.trim().eq_ignore_ascii_case("SystemAssigned"));
        for id in identity.user_assigned_identities.unwrap_or_default().keys() {
            match id.parse() {
                Ok(id) => identities.user_assigned.push(id),
                Err(_other_shape) => identities.unreadable += 1,
            }
        }
        identities
    }
}

/// Reads the body of a VM or scale set.
pub(super) fn read(body: &[u8]) -> Result<HostIdentities, ArmError> {
    parsed::<Body>(body).map(Into::into)
}

/// What is to change on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityChange {
    /// To be there.
    pub add: Vec<IdentityResourceId>,
    /// To be gone; one that is also to be added stays.
    pub remove: Vec<IdentityResourceId>,
}

impl IdentityChange {
    /// The bodies of the updates that lead from `now` to what is wanted, in order; none when nothing is to be done.
    /// Each names only what changes, so identities of others stay.
    pub fn bodies(&self, now: &HostIdentities) -> Vec<Value> {
        let mut add: Vec<&IdentityResourceId> = Vec::new();
        for id in &self.add {
            if !now.user_assigned.contains(id) && !add.contains(&id) {
                add.push(id);
            }
        }
        // In ARM's own spelling, as ARM compares keys.
        let remove: Vec<&IdentityResourceId> = now
            .user_assigned
            .iter()
            .filter(|id| self.remove.contains(id) && !self.add.contains(id))
            .collect();
        if add.is_empty() && remove.is_empty() {
            return Vec::new();
        }
        let left = now.user_assigned.len() + now.unreadable - remove.len() + add.len();
        if left == 0 {
            let kind = if now.system_assigned {
                "SystemAssigned"
            } else {
                "None"
            };
            return vec![json!({"identity": {"type": kind}})];
        }
        let kind = if now.system_assigned {
            "SystemAssigned, UserAssigned"
        } else {
            "UserAssigned"
        };
        // Additions first: then no update but the last can be the one that leaves the host without any.
        let added = add.into_iter().map(|id| (id, json!({})));
        let changes: Vec<_> = added
            .chain(remove.into_iter().map(|id| (id, Value::Null)))
            .collect();
        changes
            .chunks(MAX_IN_ONE)
            .map(|chunk| {
                let ids: Map<String, Value> = chunk
                    .iter()
                    .map(|(id, change)| (id.to_string(), change.clone()))
                    .collect();
                json!({"identity": {"type": kind, "userAssignedIdentities": ids}})
            })
            .collect()
    }
}

impl Arm {
    /// Reads the identities of a host.
    pub async fn host_identities(&self, host: &Host) -> Result<HostIdentities, ArmError> {
        let answer = self.send(host.ask(Method::GET), None::<&()>).await?;
        read(&answer.body)
    }

    /// Changes the identities of a host and waits until that is done. Reads first, so what is already so costs one
    /// request. When somebody else changes it meanwhile: [`ArmError::Changed`].
    pub async fn change_host_identities(&self, host: &Host, change: &IdentityChange) -> Result<(), ArmError> {
        let now = self.host_identities(host).await?;
        let bodies = change.bodies(&now);
        if bodies.is_empty() {
            return Ok(());
        }
        if now.provisioning_state.eq_ignore_ascii_case("Deleting") {
            return Err(ArmError::Deleting(host.to_string()));
        }
        let mut if_match = now.etag.as_deref();
        for body in bodies {
            let ask = Ask {
                if_match,
                ..host.ask(Method::PATCH)
            };
            let answer = self.send(ask, Some(&body)).await?;
            self.follow(answer).await?;
            // The first update has changed the version; the later ones only add to it.
            if_match = None;
        }
        Ok(())
    }
}
