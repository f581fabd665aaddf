//! Runs a program of this machine as a pod, for `run`: makes what is missing for it, then the Pod object, which the
//! kubelet starts like any other, but with the streams that came with the request.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::OwnedFd;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use kube::{Api, Client};
use reqwest::StatusCode;
use serde_json::json;

use crate::az::{self, Az, Network, PodIdentity};
use crate::control::{Identity, RunRequest};
use crate::identity::BINDING_LABEL;
use crate::kubelet::attach::{Attachments, Waiter};
use crate::kubelet::image;

/// Resource group and cluster that are made when there is none to use.
const OWN: &str = "podid-sandbox";

/// Variables of a client that would lead its program out of the world or to another identity.
const NOT_PASSED: [&str; 16] = [
    "KUBECONFIG",
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "IMDS_ENDPOINT",
    "MSI_ENDPOINT",
    "MSI_SECRET",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_POD_IDENTITY_AUTHORITY_HOST",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
];

/// Makes pods for `run`.
pub struct Runner {
    /// The cluster.
    pub client: Client,
    /// Where the kubelet finds the streams.
    pub attachments: Attachments,
    /// ARM.
    pub(crate) az: Az,
}

/// A pod whose end is waited for.
#[derive(Debug)]
pub struct Running {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Signals and end.
    pub waiter: Waiter,
}

impl Runner {
    /// Makes the pod.
    pub async fn start(&self, request: RunRequest, streams: [OwnedFd; 3]) -> anyhow::Result<Running> {
        let RunRequest {
            namespace,
            mut labels,
            identities,
            command,
            environment,
            folder,
        } = request;
        self.namespace(&namespace).await?;
        self.identities(&namespace, &identities, &mut labels).await?;
        let name = format!("run-{}", uuid::Uuid::new_v4().simple().to_string().split_at(8).0);
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": name, "labels": labels },
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 5,
                // What is run comes from the user's own command line: `$(…)` in it is his.
                "containers": [{ "name": "run", "image": image::LOCAL, "command": escaped(&command) }],
            },
        });
        let pod: Pod = serde_json::from_value(pod).context("the pod cannot be described")?;
        let environment: BTreeMap<String, OsString> = environment
            .into_iter()
            .filter(|(name, _)| !NOT_PASSED.contains(&name.as_str()) && !name.starts_with("PODID_"))
            .map(|(name, value)| (name, value.into()))
            .collect();
        let waiter = self
            .attachments
            .expect(&namespace, &name, streams, environment, folder);
        let api = Api::<Pod>::namespaced(self.client.clone(), &namespace);
        if let Err(error) = api.create(&PostParams::default(), &pod).await {
            drop(self.attachments.take(&namespace, &name));
            return Err(error).context("the pod cannot be made");
        }
        Ok(Running {
            namespace,
            pod: name,
            waiter,
        })
    }

    /// Deletes the pod, with the usual grace if it still runs.
    pub async fn remove(&self, running: &Running) {
        let api = Api::<Pod>::namespaced(self.client.clone(), &running.namespace);
        match api.delete(&running.pod, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => tracing::warn!(%error, pod = running.pod, "the pod cannot be deleted"),
        }
    }

    /// A managed identity, made if missing, that is on all nodes.
    pub(crate) async fn identity(&self, group: String, name: String) -> anyhow::Result<Identity> {
        let (cluster_group, cluster) = self.cluster().await?;
        let identity = self.managed(&group, &name).await?;
        let nodes = self.az.aks_show(&cluster_group, &cluster).await?.node_group;
        self.az.vmss_identity_assign(&nodes, &identity.id).await?;
        Ok(Identity {
            group,
            name,
            resource_id: identity.id,
            client_id: identity.client_id,
            object_id: identity.principal_id,
        })
    }

    /// Takes a managed identity away; the machines forget it by themselves.
    pub(crate) async fn delete_identity(&self, group: &str, name: &str) -> anyhow::Result<()> {
        Ok(self.az.identity_delete(group, name).await?)
    }

    /// The managed cluster with pod identity, made if there is none: its nodes are the world's.
    async fn cluster(&self) -> anyhow::Result<(String, String)> {
        if let Some(found) = self.az.aks_with_pod_identity().await? {
            return Ok(found);
        }
        self.az.group_create(OWN).await?;
        self.az.aks_create(OWN, OWN, Network::Azure).await?;
        Ok((OWN.to_owned(), OWN.to_owned()))
    }

    async fn managed(&self, group: &str, name: &str) -> anyhow::Result<az::Identity> {
        match self.az.identity_show(group, name).await {
            Err(error) if error.is(StatusCode::NOT_FOUND) => {
                self.az.group_create(group).await?;
                Ok(self.az.identity_create(group, name).await?)
            }
            other => Ok(other?),
        }
    }

    async fn namespace(&self, name: &str) -> anyhow::Result<()> {
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        let api = Api::<Namespace>::all(self.client.clone());
        match api.create(&PostParams::default(), &namespace).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(error).with_context(|| format!("namespace {name} cannot be made")),
        }
    }

    /// Makes each identity and its pod identity if missing, and labels the pod for them.
    async fn identities(
        &self,
        namespace: &str,
        identities: &[String],
        labels: &mut BTreeMap<String, String>,
    ) -> anyhow::Result<()> {
        let Some(first) = identities.first() else {
            return Ok(());
        };
        let (group, cluster) = self.cluster().await?;
        let mut selector = labels.get(BINDING_LABEL).cloned();
        for name in identities {
            let identity = self.managed(OWN, name).await?;
            let entry = entry_name(name);
            let known = self
                .az
                .pod_identity_show(&group, &cluster, namespace, &entry)
                .await?;
            let Some((known_selector, resource)) = known else {
                let chosen = selector.get_or_insert_with(|| entry_name(first)).clone();
                let new = PodIdentity {
                    namespace,
                    name: &entry,
                    identity: &identity,
                    selector: Some(&chosen),
                };
                self.az.pod_identity_add(&group, &cluster, new).await?;
                continue;
            };
            anyhow::ensure!(
                resource.eq_ignore_ascii_case(&identity.id),
                "pod identity {namespace}/{entry} exists already and is of another identity, {resource}"
            );
            let wanted = selector.get_or_insert_with(|| known_selector.clone());
            anyhow::ensure!(
                *wanted == known_selector,
                "pod identity {namespace}/{entry} has the binding selector {known_selector}, not {wanted}"
            );
        }
        if let Some(selector) = selector {
            labels.insert(BINDING_LABEL.to_owned(), selector);
        }
        Ok(())
    }
}

/// A pod identity's name for a managed identity's, which may have capitals and underscores.
fn entry_name(identity: &str) -> String {
    identity.to_lowercase().replace('_', "-")
}

/// So that the kubelet's expansion gives the texts as they are.
fn escaped(command: &[String]) -> Vec<String> {
    command.iter().map(|text| text.replace('$', "$$")).collect()
}
