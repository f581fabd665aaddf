//! By which way the tokens of an identity are obtained, and the ways there are. It decides nothing about who may have
//! one, and keeps none.

use std::sync::Arc;

use podid_azure::imds::Who;
use podid_azure::{Endpoint, Entra, Imds, Proof, TokenAsk};
use podid_broker::{Key, Source, Via};
use podid_core::{AccessToken, Credential, Identity, Retry, SourceError, TokenSource, TroubleKind};

use tokio::time::Instant;

use crate::args::MsiSource;
use crate::metrics::Metrics;
use crate::secrets::Secrets;

/// Which way for which identity.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sources {
    /// For managed identities that say nothing themselves.
    pub(crate) msi: MsiSource,
}

impl Sources {
    /// The way for `identity`; none when this agent has none.
    pub(crate) fn via(self, identity: &Identity) -> Option<Via> {
        match &identity.credential {
            Credential::Managed(source) => match (source, self.msi) {
                (TokenSource::Imds, _) | (TokenSource::AgentDefault, MsiSource::Imds) => Some(Via::Imds),
                // An exchange of the pod's service-account token at Entra: not there yet.
                (TokenSource::Federation, _) | (TokenSource::AgentDefault, MsiSource::Federation) => None,
            },
            Credential::ClientSecret { tenant, .. } | Credential::ClientCertificate { tenant, .. } => {
                Some(of_tenant(tenant))
            }
        }
    }

    /// The ways for the further tenants in which `identity` is known, in the order in which they are written.
    pub(crate) fn auxiliary(identity: &Identity) -> impl Iterator<Item = Via> {
        let tenants = match &identity.credential {
            Credential::ClientSecret {
                auxiliary_tenants, ..
            } => auxiliary_tenants.as_slice(),
            Credential::Managed(_) | Credential::ClientCertificate { .. } => &[],
        };
        tenants.iter().map(of_tenant)
    }
}

fn of_tenant(tenant: &Arc<str>) -> Via {
    Via::Credential {
        tenant: Arc::clone(tenant),
        secret_version: None,
    }
}

/// The upstreams of a node.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    pub(crate) imds: Imds,
    /// None where no client could be made, which was logged.
    pub(crate) entra: Option<Entra>,
    pub(crate) secrets: Secrets,
    pub(crate) metrics: Arc<Metrics>,
}

impl Source for Upstream {
    async fn fetch(&self, key: &Key) -> Result<AccessToken, SourceError> {
        let started = Instant::now();
        let fetched = self.ask(key).await;
        // Source: aad-pod-identity v1.8.17, `pkg/auth`: what is asked of Entra counts here too.
        let operation = match &key.via {
            Via::Imds => "adal_token_msi_userassignedid",
            Via::Credential { .. } | Via::Federation { .. } => "adal_token",
        };
        self.metrics
            .token_operation(operation, fetched.is_ok(), started.elapsed());
        fetched
    }
}

impl Upstream {
    async fn ask(&self, key: &Key) -> Result<AccessToken, SourceError> {
        match &key.via {
            Via::Imds => Ok(self.imds.token(Who::of(&key.identity)?, &key.resource).await?),
            Via::Credential { tenant, .. } => self.principal(key, tenant).await,
            Via::Federation { .. } => Err(unsupported("federation is not there yet")),
        }
    }

    async fn principal(&self, key: &Key, tenant: &str) -> Result<AccessToken, SourceError> {
        let entra = self.entra.as_ref().ok_or_else(|| {
            unsupported("the agent has no client of Entra, probably for lack of system certificates")
        })?;
        let client_id = key
            .identity
            .client_id
            .ok_or_else(|| unsupported("the AzureIdentity has no client id"))?;
        let (secret, certificate);
        let (authority, proof) = match &key.identity.credential {
            Credential::ClientSecret {
                secret: name,
                authority,
                ..
            } => {
                secret = self.secrets.client_secret(name).await?;
                (authority, Proof::Secret(&secret))
            }
            Credential::ClientCertificate {
                secret: name,
                authority,
                ..
            } => {
                certificate = self.secrets.certificate(name).await?;
                (authority, Proof::Certificate(&certificate))
            }
            Credential::Managed(_) => return Err(unsupported("a managed identity has no credential")),
        };
        let ask = TokenAsk {
            authority: authority.as_deref(),
            tenant,
            client_id,
            resource: &key.resource,
            // As the original did: a resource is not always one that the newer endpoint takes.
            endpoint: Endpoint::V1,
            proof,
        };
        Ok(entra.token(ask).await?)
    }
}

fn unsupported(why: &str) -> SourceError {
    SourceError::new("source_unsupported", TroubleKind::Refused, Retry::Never, why)
}
