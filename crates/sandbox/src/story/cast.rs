//! Who takes part in the story: `az`, `kubectl`, the world; and the tutorial's names.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;

use super::ask::{Answer, Outcome};
use super::pods::{Asking, Pods};
use super::transcript::Seen;
use crate::arm::{Arm, Principal};
use crate::az::{Az, Cluster, Identity};
use crate::control::Request;
use crate::control::client::Control;
use crate::failure::Failure;
use crate::spawned::Spawned;

/// Names of the tutorial.
pub(crate) const GROUP: &str = "myResourceGroup";
pub(crate) const CLUSTER: &str = "myAKSCluster";
pub(crate) const IDENTITY_GROUP: &str = "myIdentityResourceGroup";
pub(crate) const IDENTITY: &str = "application-identity";
pub(crate) const POD_IDENTITY: &str = "my-pod-identity";
pub(crate) const NAMESPACE: &str = "my-app";
/// Audience of tokens for ARM.
pub(crate) const RESOURCE: &str = "https://management.azure.com/";
/// How long something may take that happens at once. For machines that are busy.
pub(crate) const SOON: Duration = Duration::from_secs(10);
/// How long an answer may take: more than the agents' patience.
pub(crate) const ANSWER: Duration = Duration::from_secs(8);

/// Everybody.
pub(crate) struct Cast {
    pub(crate) az: Az,
    pub(crate) pods: Pods,
    pub(crate) control: Control,
    pub(crate) issuers: Vec<String>,
    pub(crate) tenant: String,
    pub(crate) cluster: OnceLock<Cluster>,
}

impl Cast {
    /// Signs in.
    pub(crate) async fn meet(world: &Spawned) -> Result<Seen<Self>, Failure> {
        let info = &world.info;
        let secret = std::fs::read_to_string(info.folder.join("client-secret"))
            .map_err(|error| Failure::said(format!("the world's secret cannot be read: {error}")))?;
        let principal = Principal {
            tenant_id: info.tenant_id.clone(),
            client_id: info.client_id.clone(),
            client_secret: secret,
        };
        let arm = Arm::new(
            &info.endpoints.resource_manager,
            &info.endpoints.authority,
            &info.ca_file,
            principal,
        )?;
        let (keys, issuers) = arm.discovery().await?;
        let client = podid_rt::cluster::client(Some(&info.kubeconfig))
            .await
            .context("reach the world's cluster")?;
        let version = client.apiserver_version().await?;
        let line = format!("tenant {}, subscription {}", info.tenant_id, info.subscription_id);
        let cast = Self {
            az: Az {
                arm,
                subscription: info.subscription_id.clone(),
            },
            pods: Pods { client, keys },
            control: world.control.clone(),
            issuers,
            tenant: info.tenant_id.clone(),
            cluster: OnceLock::new(),
        };
        Ok(Seen::new(cast, line).and(format!("Kubernetes {}", version.git_version)))
    }

    /// The cluster, once it is made.
    pub(crate) fn cluster(&self) -> &Cluster {
        self.cluster.get_or_init(Cluster::default)
    }

    /// Asks the world's supervisor for something.
    pub(crate) async fn control(&self, request: Request) -> Result<(), Failure> {
        let control = self.control.clone();
        tokio::task::spawn_blocking(move || control.command(&request))
            .await
            .map_err(|error| Failure::said(error.to_string()))?
            .map_err(|error| Failure::said(error.to_string()))
    }

    /// The number of the last request that any emulated service has seen.
    pub(crate) async fn last_request(&self) -> Result<u64, Failure> {
        Ok(self.az.last_request().await?)
    }

    /// The answer's token if it is a right one of `identity`: signature, audience, issuer, tenant, object id.
    pub(crate) fn is_token_of(&self, answer: &Answer, identity: &Identity) -> Result<(), Failure> {
        let expected = format!("a token of {}", identity.client_id);
        let Outcome::Token { claims } = &answer.outcome else {
            return Err(Failure::mismatch(expected, answer.outcome.to_string()));
        };
        let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
        let checks = [
            ("appid", same(&claims.appid, &identity.client_id), &claims.appid),
            ("oid", same(&claims.oid, &identity.principal_id), &claims.oid),
            ("tid", same(&claims.tid, &self.tenant), &claims.tid),
            (
                "aud",
                claims.aud.trim_end_matches('/') == RESOURCE.trim_end_matches('/'),
                &claims.aud,
            ),
            ("iss", self.issuers.contains(&claims.iss), &claims.iss),
        ];
        for (claim, right, got) in checks {
            if !right {
                return Err(Failure::mismatch(
                    expected,
                    format!("a token whose {claim} is {got}"),
                ));
            }
        }
        Ok(())
    }

    /// A pod that asks, again and again.
    pub(crate) async fn keep_asking(
        &self,
        (namespace, name): (&str, &str),
        labels: &[(&str, &str)],
        node: &str,
        (url, timeout): (String, Duration),
    ) -> Result<(), Failure> {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), json!(value)))
            .collect();
        self.pods
            .ask(Asking {
                namespace,
                name,
                labels: serde_json::Value::Object(labels),
                node: Some(node),
                urls: vec![url],
                every: Some(Duration::from_millis(80)),
                timeout,
            })
            .await
    }
}

/// The URL of a token, for a certain identity or whichever there is.
pub(crate) fn token_url(client_id: Option<&str>) -> String {
    let resource = "https%3A%2F%2Fmanagement.azure.com%2F";
    let of = client_id.map(|id| format!("&client_id={id}")).unwrap_or_default();
    format!(
        "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource={resource}{of}"
    )
}
