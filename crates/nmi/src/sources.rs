//! By which way the tokens of an identity are obtained, and the ways there are. It decides nothing about who may have
//! one, and keeps none.

use podid_azure::Imds;
use podid_azure::imds::Who;
use podid_broker::{Key, Source, Via};
use podid_core::{AccessToken, Credential, Identity, Pod, Retry, SourceError, TokenSource, TroubleKind};

use crate::args::MsiSource;

/// Which way for which identity.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sources {
    /// For managed identities that say nothing themselves.
    pub(crate) msi: MsiSource,
}

impl Sources {
    /// The way for `identity`; none when this agent has none.
    pub(crate) fn via(self, identity: &Identity, _pod: &Pod) -> Option<Via> {
        match &identity.credential {
            Credential::Managed(TokenSource::Imds) => Some(Via::Imds),
            Credential::Managed(TokenSource::AgentDefault) => match self.msi {
                MsiSource::Imds => Some(Via::Imds),
                MsiSource::Federation => None,
            },
            // Federation and service principals need Entra.
            Credential::Managed(TokenSource::Federation)
            | Credential::ClientSecret { .. }
            | Credential::ClientCertificate { .. } => None,
        }
    }
}

/// The upstreams of a node.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    pub(crate) imds: Imds,
}

impl Source for Upstream {
    async fn fetch(&self, key: &Key) -> Result<AccessToken, SourceError> {
        match &key.via {
            Via::Imds => Ok(self.imds.token(Who::of(&key.identity)?, &key.resource).await?),
            Via::Credential { .. } | Via::Federation { .. } => Err(SourceError::new(
                "source_unsupported",
                TroubleKind::Refused,
                Retry::Never,
                format!("tokens by {} cannot be obtained by this agent", key.via.code()),
            )),
        }
    }
}
