//! Managed identities and their federated credentials.
//! Source: <https://learn.microsoft.com/rest/api/managedidentity/>, version 2023-01-31.

use ::http::Method;
use podid_core::{Guid, IdentityResourceId};
use serde::{Deserialize, Serialize};

use super::{Arm, ArmError, Ask};

const API_VERSION: &str = "2023-01-31";

/// A managed identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedIdentity {
    /// Its client id.
    pub client_id: Guid,
    /// Its principal's object id.
    pub object_id: Guid,
    /// Its tenant.
    pub tenant_id: Guid,
}

/// Whose tokens a managed identity accepts in exchange for its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FederatedCredential {
    /// Name, unique for the identity.
    pub name: String,
    /// Issuer's URL, exactly.
    pub issuer: String,
    /// Subject, exactly: `system:serviceaccount:<namespace>:<name>`.
    pub subject: String,
    /// Audiences; one, in practice.
    pub audiences: Vec<String>,
}

#[derive(Deserialize)]
struct Body<P> {
    #[serde(default)]
    name: String,
    properties: P,
}

#[derive(Deserialize)]
struct IdentityProperties {
    #[serde(rename = "clientId")]
    client: String,
    #[serde(rename = "principalId")]
    principal: String,
    #[serde(rename = "tenantId")]
    tenant: String,
}

#[derive(Deserialize, Serialize)]
struct CredentialProperties {
    issuer: String,
    subject: String,
    audiences: Vec<String>,
}

#[derive(Serialize)]
struct CredentialBody<'a> {
    properties: &'a CredentialProperties,
}

/// An identity has at most 20 credentials, which fit on one page.
#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    value: Vec<Body<CredentialProperties>>,
}

fn ask(method: Method, id: &str) -> Ask<'_> {
    Ask {
        method,
        id,
        api_version: API_VERSION,
        kind: "identity",
        if_match: None,
    }
}

/// Where a federated credential is. Its name becomes a segment of the path, so it must not lead elsewhere.
fn credential_path(id: &IdentityResourceId, name: &str) -> Result<String, ArmError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !(3..=120).contains(&name.len()) || !name.bytes().all(fits) {
        return Err(ArmError::Name(name.chars().take(120).collect()));
    }
    Ok(format!("{id}/federatedIdentityCredentials/{name}"))
}

fn guid(text: &str) -> Result<Guid, ArmError> {
    text.parse()
        .map_err(|error| ArmError::Answer(serde::de::Error::custom(error)))
}

impl Arm {
    /// Reads a managed identity.
    pub async fn managed_identity(&self, id: &IdentityResourceId) -> Result<ManagedIdentity, ArmError> {
        let body: Body<IdentityProperties> = self.read(ask(Method::GET, id.as_str())).await?;
        Ok(ManagedIdentity {
            client_id: guid(&body.properties.client)?,
            object_id: guid(&body.properties.principal)?,
            tenant_id: guid(&body.properties.tenant)?,
        })
    }

    /// Lists the federated credentials of a managed identity.
    pub async fn federated_credentials(
        &self,
        id: &IdentityResourceId,
    ) -> Result<Vec<FederatedCredential>, ArmError> {
        let path = format!("{id}/federatedIdentityCredentials");
        let page: Page = self.read(ask(Method::GET, &path)).await?;
        let credential = |body: Body<CredentialProperties>| FederatedCredential {
            name: body.name,
            issuer: body.properties.issuer,
            subject: body.properties.subject,
            audiences: body.properties.audiences,
        };
        Ok(page.value.into_iter().map(credential).collect())
    }

    /// Creates or replaces a federated credential. One identity takes one such change at a time: others get
    /// `arm_conflict`, with when to come back.
    pub async fn put_federated_credential(
        &self,
        id: &IdentityResourceId,
        credential: &FederatedCredential,
    ) -> Result<(), ArmError> {
        let path = credential_path(id, &credential.name)?;
        let properties = CredentialProperties {
            issuer: credential.issuer.clone(),
            subject: credential.subject.clone(),
            audiences: credential.audiences.clone(),
        };
        let body = CredentialBody {
            properties: &properties,
        };
        self.send(ask(Method::PUT, &path), Some(&body)).await?;
        Ok(())
    }

    /// Deletes a federated credential; one that is not there is deleted already.
    pub async fn delete_federated_credential(
        &self,
        id: &IdentityResourceId,
        name: &str,
    ) -> Result<(), ArmError> {
        let path = credential_path(id, name)?;
        match self.send(ask(Method::DELETE, &path), None::<&()>).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other.map(drop),
        }
    }
}
