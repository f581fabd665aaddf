//! The metadata service as a pod sees it: tokens and instance metadata.

use reqwest::Client;
use serde::Deserialize;

use crate::door::{DoorError, fetch};
use crate::flags::Endpoint;

/// Version of the token endpoint that every client knows.
/// Source: <https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token>.
const TOKEN_VERSION: &str = "2018-02-01";
/// Version of the instance endpoint.
/// Source: <https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service>.
const INSTANCE_VERSION: &str = "2017-08-01";

/// The metadata service.
pub(crate) struct Metadata {
    http: Client,
    endpoint: Endpoint,
}

/// An access token. It has no `Debug` and no `Display`, so that it cannot be printed by accident.
#[derive(Deserialize)]
pub(crate) struct Token {
    #[serde(rename = "access_token")]
    secret: String,
    /// Whose token this is; not every metadata service says it.
    #[serde(default)]
    pub(crate) client_id: Option<String>,
    /// Unix time, as text.
    #[serde(default)]
    pub(crate) expires_on: Option<String>,
    #[serde(default)]
    pub(crate) resource: Option<String>,
}

impl Token {
    /// For an Authorization header and nothing else.
    pub(crate) fn expose(&self) -> &str {
        &self.secret
    }
}

/// The part of the instance document that the log shows.
#[derive(Deserialize)]
pub(crate) struct Instance {
    pub(crate) compute: Compute,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
pub(crate) struct Compute {
    pub(crate) name: String,
    pub(crate) location: String,
    pub(crate) vm_scale_set_name: String,
}

impl Metadata {
    pub(crate) fn new(http: Client, endpoint: Endpoint) -> Self {
        Self { http, endpoint }
    }

    /// The token endpoint's URL.
    pub(crate) fn token_url(&self) -> String {
        self.endpoint.join("/metadata/identity/oauth2/token")
    }

    /// A token for `resource`, of the identity with `client_id` or of the pod's default one.
    pub(crate) async fn token(&self, resource: &str, client_id: Option<&str>) -> Result<Token, DoorError> {
        let mut query = vec![("api-version", TOKEN_VERSION), ("resource", resource)];
        query.extend(client_id.map(|id| ("client_id", id)));
        let request = self
            .http
            .get(self.token_url())
            .header("Metadata", "true")
            .query(&query);
        fetch("token request", request).await
    }

    /// The instance that the pod runs on.
    pub(crate) async fn instance(&self) -> Result<Instance, DoorError> {
        let request = self
            .http
            .get(self.endpoint.join("/metadata/instance"))
            .header("Metadata", "true")
            .query(&[("api-version", INSTANCE_VERSION), ("format", "json")]);
        fetch("GET on instance metadata", request).await
    }
}
