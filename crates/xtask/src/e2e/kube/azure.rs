//! Azure for the real nodes: azure-emulator in the cluster's network, its metadata service where a node's would be. Asked
//! by curl from inside, as an operator's `az` would ask.

use std::cell::RefCell;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::kube::cluster::{Cluster, eventually};
use crate::kube::control::Program;
use crate::kube::tools::run;

/// Where ARM and Entra are, from nodes and pods.
pub(super) const ENDPOINT: &str = "https://10.89.0.1:8443";
/// The emulator's defaults.
pub(super) const SUBSCRIPTION: &str = "0a2e0000-50b5-4000-8000-000000000001";
const TENANT: &str = "0a2e0000-7e4a-4000-8000-000000000001";
const CLIENT: &str = "0a2e0000-c11e-4000-8000-000000000001";
/// Of this run only.
const SECRET: &str = "end-to-end";
const GROUPS: &str = "2024-11-01";
const IDENTITIES: &str = "2023-01-31";
const CLUSTERS: &str = "2024-09-01";
const SCALE_SETS: &str = "2024-07-01";
/// Source: azure-cli's `az aks create`, cut down to what the emulator keeps.
const GROUP: &str = "myResourceGroup";
const CLUSTER: &str = "myAKSCluster";

/// A managed identity.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) id: String,
    pub(super) client_id: String,
    pub(super) object_id: String,
}

/// The emulator that runs.
pub(super) struct Azure<'a> {
    cluster: &'a Cluster,
    authority: PathBuf,
    token: RefCell<Option<String>>,
}

impl<'a> Azure<'a> {
    /// Starts it; `nodes` are the callers of the metadata service.
    pub(super) fn start(
        cluster: &'a Cluster,
        nodes: &[(&str, IpAddr)],
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let program = build()?;
        let inside = |argv: &[&str]| cluster.run_inside(None, argv)?.ok().map(drop);
        inside(&["ip", "address", "replace", "169.254.169.254/32", "dev", "br0"])?;
        let authority = folder.join("azure-ca.pem");
        let mut argv = vec![
            program.display().to_string(),
            "--listen=10.89.0.1:8443".to_owned(),
            "--imds=169.254.169.254:80".to_owned(),
            "--name=10.89.0.1".to_owned(),
            format!("--ca-out={}", authority.display()),
            format!("--client-secret={SECRET}"),
            format!("--kubeconfig={}", cluster.inner_kubeconfig("admin").display()),
        ];
        argv.extend(
            nodes
                .iter()
                .map(|(name, address)| format!("--node={name}={address}")),
        );
        cluster.start_inside(
            None,
            Program {
                name: "azure".to_owned(),
                argv,
                ..Program::default()
            },
        )?;
        let azure = Self {
            cluster,
            authority,
            token: RefCell::default(),
        };
        let url = format!("{ENDPOINT}/_emulator/ca");
        eventually("azure-emulator answers", Duration::from_secs(30), || {
            azure.authority.exists() && azure.curl(&[&url]).is_ok()
        })
        .with_context(|| format!("see {}", cluster.log(None, "azure").display()))?;
        Ok(azure)
    }

    /// What leads az and SDKs to it.
    pub(super) fn environment(&self) -> Vec<(&'static str, String)> {
        let authority = self.authority.display().to_string();
        vec![
            ("AZURE_AUTHORITY_HOST", format!("{ENDPOINT}/")),
            ("AZURE_RESOURCE_MANAGER_ENDPOINT", ENDPOINT.to_owned()),
            ("SSL_CERT_FILE", authority.clone()),
            ("REQUESTS_CA_BUNDLE", authority),
            ("AZURE_TENANT_ID", TENANT.to_owned()),
            ("AZURE_SUBSCRIPTION_ID", SUBSCRIPTION.to_owned()),
            ("AZURE_CLIENT_ID", CLIENT.to_owned()),
            ("AZURE_CLIENT_SECRET", SECRET.to_owned()),
        ]
    }

    /// Its certificate authority.
    pub(super) fn authority(&self) -> &Path {
        &self.authority
    }

    fn curl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let authority = self.authority.display().to_string();
        let mut argv = vec![
            "curl",
            "--silent",
            "--show-error",
            "--fail-with-body",
            "--cacert",
            &authority,
        ];
        argv.extend(arguments);
        let reply = self.cluster.run_inside(None, &argv)?;
        if reply.code != 0 {
            bail!("{} {}", reply.stderr.trim_end(), reply.stdout.trim_end());
        }
        Ok(reply.stdout)
    }

    fn token(&self) -> anyhow::Result<String> {
        if let Some(token) = self.token.borrow().clone() {
            return Ok(token);
        }
        let form = format!(
            "grant_type=client_credentials&client_id={CLIENT}&client_secret={SECRET}\
             &scope=https%3A%2F%2Fmanagement.azure.com%2F.default"
        );
        let answer = self.curl(&["--data", &form, &format!("{ENDPOINT}/{TENANT}/oauth2/v2.0/token")])?;
        let answer: Value = serde_json::from_str(&answer)?;
        let token = text(&answer, "/access_token")?;
        *self.token.borrow_mut() = Some(token.clone());
        Ok(token)
    }

    fn arm(&self, method: &str, path: &str, version: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let bearer = format!("Authorization: Bearer {}", self.token()?);
        let url = format!("{ENDPOINT}{path}?api-version={version}");
        let body = body.map(Value::to_string);
        let mut arguments = vec!["--request", method, "--header", &bearer, &url];
        if let Some(body) = &body {
            arguments.extend(["--header", "Content-Type: application/json", "--data", body]);
        }
        let answer = self
            .curl(&arguments)
            .with_context(|| format!("{method} {path}"))?;
        if answer.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&answer).with_context(|| format!("{method} {path} answered {answer}"))
    }

    /// `az group create`, `az aks create --enable-pod-identity`.
    pub(super) fn create_cluster(&self, nodes: usize) -> anyhow::Result<()> {
        self.put_cluster(nodes, Some(json!({ "enabled": true })))
    }

    /// `az group create`, `az aks create`: nothing is written into the cluster.
    pub(super) fn create_plain_cluster(&self, nodes: usize) -> anyhow::Result<()> {
        self.put_cluster(nodes, None)
    }

    fn put_cluster(&self, nodes: usize, pod_identity: Option<Value>) -> anyhow::Result<()> {
        self.create_group(GROUP)?;
        let mut body = json!({
            "location": "eastus",
            "identity": { "type": "SystemAssigned" },
            "properties": {
                "dnsPrefix": "e2e",
                "agentPoolProfiles": [{
                    "name": "nodepool1", "count": nodes, "osType": "Linux", "type": "VirtualMachineScaleSets", "mode": "System",
                }],
                "networkProfile": { "networkPlugin": "azure" },
            },
        });
        if let (Some(profile), Some(properties)) = (
            pod_identity,
            body.pointer_mut("/properties").and_then(Value::as_object_mut),
        ) {
            properties.insert("podIdentityProfile".to_owned(), profile);
        }
        self.arm("PUT", &cluster_path(), CLUSTERS, Some(&body))?;
        eventually("the managed cluster is made", Duration::from_secs(30), || {
            self.managed().is_ok_and(|found| {
                found.pointer("/properties/provisioningState") == Some(&json!("Succeeded"))
            })
        })
    }

    /// `az vmss identity assign` for every scale set of the managed cluster's.
    pub(super) fn put_on_nodes(&self, identity: &Identity) -> anyhow::Result<()> {
        let group = text(&self.managed()?, "/properties/nodeResourceGroup")?;
        let all = format!(
            "/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}/providers/Microsoft.Compute/virtualMachineScaleSets"
        );
        let found = self.arm("GET", &all, SCALE_SETS, None)?;
        let sets = found
            .get("value")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let body = json!({
            "identity": { "type": "UserAssigned", "userAssignedIdentities": { identity.id.clone(): {} } },
        });
        for set in sets {
            self.arm("PATCH", &text(&set, "/id")?, SCALE_SETS, Some(&body))?;
        }
        Ok(())
    }

    fn managed(&self) -> anyhow::Result<Value> {
        self.arm("GET", &cluster_path(), CLUSTERS, None)
    }

    /// `az group create`.
    pub(super) fn create_group(&self, name: &str) -> anyhow::Result<()> {
        let path = format!("/subscriptions/{SUBSCRIPTION}/resourcegroups/{name}");
        self.arm("PUT", &path, GROUPS, Some(&json!({ "location": "eastus" })))
            .map(drop)
    }

    /// `az identity create`.
    pub(super) fn create_identity(&self, group: &str, name: &str) -> anyhow::Result<Identity> {
        let path = format!(
            "/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
        );
        let made = self.arm("PUT", &path, IDENTITIES, Some(&json!({ "location": "eastus" })))?;
        Ok(Identity {
            id: text(&made, "/id")?,
            client_id: text(&made, "/properties/clientId")?,
            object_id: text(&made, "/properties/principalId")?,
        })
    }

    /// `az aks pod-identity add`; returns when ARM says that it is assigned, that is, when the cluster said so.
    pub(super) fn add_pod_identity(
        &self,
        namespace: &str,
        name: &str,
        identity: &Identity,
        selector: Option<&str>,
    ) -> anyhow::Result<()> {
        let mut entry = json!({
            "name": name, "namespace": namespace,
            "identity": {
                "resourceId": identity.id, "clientId": identity.client_id, "objectId": identity.object_id,
            },
        });
        if let (Some(selector), Some(entry)) = (selector, entry.as_object_mut()) {
            entry.insert("bindingSelector".to_owned(), json!(selector));
        }
        self.change("userAssignedIdentities", |list| list.push(entry))?;
        eventually("the pod identity is assigned", Duration::from_secs(30), || {
            self.state("userAssignedIdentities", namespace, name)
                .is_some_and(|state| state == "Assigned")
        })
        .with_context(|| {
            format!(
                "{:?}",
                self.managed()
                    .ok()
                    .and_then(|m| m.pointer("/properties/podIdentityProfile").cloned())
            )
        })
    }

    /// `az aks pod-identity delete`.
    pub(super) fn delete_pod_identity(&self, namespace: &str, name: &str) -> anyhow::Result<()> {
        self.change("userAssignedIdentities", |list| {
            list.retain(|entry| !is(entry, namespace, name));
        })
    }

    /// `az aks pod-identity exception add`.
    pub(super) fn add_exception(&self, namespace: &str, name: &str, labels: &Value) -> anyhow::Result<()> {
        let entry = json!({ "name": name, "namespace": namespace, "podLabels": labels });
        self.change("userAssignedIdentityExceptions", |list| list.push(entry))
    }

    fn state(&self, list: &str, namespace: &str, name: &str) -> Option<String> {
        let found = self.managed().ok()?;
        let entries = found
            .pointer(&format!("/properties/podIdentityProfile/{list}"))?
            .as_array()?;
        let entry = entries.iter().find(|entry| is(entry, namespace, name))?;
        text(entry, "/provisioningState").ok()
    }

    /// Reads the managed cluster, changes a list of its profile and writes it back, as `az` does.
    fn change(&self, list: &str, edit: impl FnOnce(&mut Vec<Value>)) -> anyhow::Result<()> {
        let mut found = self.managed()?;
        let profile = found
            .pointer_mut("/properties/podIdentityProfile")
            .and_then(Value::as_object_mut)
            .context("the managed cluster has no pod identity profile")?;
        let entries = profile.entry(list).or_insert_with(|| json!([]));
        if entries.is_null() {
            *entries = json!([]);
        }
        let entries = entries.as_array_mut().context("the profile's list is a list")?;
        for entry in entries.iter_mut().filter_map(Value::as_object_mut) {
            entry.retain(|key, value| !key.starts_with("provisioning") && !value.is_null());
        }
        edit(entries);
        if let Some(properties) = found.get_mut("properties").and_then(Value::as_object_mut) {
            for key in [
                "provisioningState",
                "fqdn",
                "powerState",
                "currentKubernetesVersion",
            ] {
                properties.remove(key);
            }
        }
        self.arm("PUT", &cluster_path(), CLUSTERS, Some(&found)).map(drop)
    }

    /// Number of the last request of all.
    pub(super) fn last_request(&self) -> anyhow::Result<u64> {
        Ok(self
            .requests(u64::MAX)?
            .get("last")
            .and_then(Value::as_u64)
            .unwrap_or_default())
    }

    /// Requests at the metadata service after number `since`: where they came from and what they asked.
    pub(super) fn metadata_requests(&self, since: u64) -> anyhow::Result<Vec<(IpAddr, String)>> {
        let found = self.requests(since)?;
        let all = found
            .get("requests")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        all.iter()
            .filter(|one| one.get("listener") == Some(&json!("imds")))
            .map(|one| {
                let source = text(one, "/source")?;
                // `address:port`, or the address alone
                let address = source
                    .parse()
                    .or_else(|_| source.parse().map(|s: std::net::SocketAddr| s.ip()));
                Ok((
                    address.with_context(|| format!("{source} is no address"))?,
                    text(one, "/path")?,
                ))
            })
            .collect()
    }

    fn requests(&self, since: u64) -> anyhow::Result<Value> {
        let key = format!("x-emulator-key: {SECRET}");
        let url = format!("{ENDPOINT}/_emulator/requests?since={since}");
        Ok(serde_json::from_str(&self.curl(&["--header", &key, &url])?)?)
    }
}

fn cluster_path() -> String {
    format!(
        "/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.ContainerService/managedClusters/{CLUSTER}"
    )
}

fn is(entry: &Value, namespace: &str, name: &str) -> bool {
    entry.get("namespace") == Some(&json!(namespace)) && entry.get("name") == Some(&json!(name))
}

fn text(value: &Value, pointer: &str) -> anyhow::Result<String> {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .map(str::to_owned)
        .with_context(|| format!("there is no {pointer} in {value}"))
}

/// Builds the emulator for this machine.
fn build() -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = run(Command::new(cargo).current_dir(crate::root()?).args([
        "build",
        "--quiet",
        "--package",
        "podid-azure-emulator",
        "--message-format=json",
    ]))?;
    for message in cargo_metadata::Message::parse_stream(built.as_bytes()) {
        if let cargo_metadata::Message::CompilerArtifact(artifact) = message?
            && artifact.manifest_path.ends_with("azure-emulator/Cargo.toml")
            && let Some(executable) = artifact.executable
        {
            return Ok(executable.into_std_path_buf());
        }
    }
    bail!("cargo built no azure-emulator")
}
