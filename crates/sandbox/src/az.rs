//! The tutorial's `az` commands, each by the requests that `az` with its preview extension makes: pod identity
//! commands read the managed cluster, edit it and write the whole of it back.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::arm::{Arm, ArmError};
use crate::failure::Failure;

const GROUPS: &str = "2024-11-01";
const IDENTITY: &str = "2025-05-31-preview";
const CLUSTER: &str = "2026-06-01";
const SCALE_SETS: &str = "2024-11-01";
const ROLE_DEFINITIONS: &str = "2022-05-01-preview";
const ROLE_ASSIGNMENTS: &str = "2022-04-01";
const LOCATION: &str = "eastus";

/// Role that lets a cluster use an identity.
/// Source: <https://learn.microsoft.com/azure/role-based-access-control/built-in-roles/identity#managed-identity-operator>.
const MANAGED_IDENTITY_OPERATOR: &str = "f1a07417-d97a-45cb-824c-7a7467783830";
/// How long an entry may take to be in force in the cluster.
const ASSIGNED_DEADLINE: Duration = Duration::from_secs(15);
/// How often to look for that.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// The text of the preview extension when kubenet lacks its own flag.
/// Source: azure-cli-extensions, aks-preview, `_validate_pod_identity_with_kubenet`.
pub(crate) const KUBENET_REFUSAL: &str = "--enable-pod-identity-with-kubenet is required for enabling pod identity addon when using Kubenet network plugin";

/// What the tutorial says of kubenet; printed when it is used all the same.
pub(crate) const KUBENET_WARNING: &str = "kubenet is not recommended for pod identity: a pod with NET_RAW can forge \
     another pod's address. Drop NET_RAW by policy (requiredDropCapabilities: [NET_RAW])";

/// The `az` of the story.
pub(crate) struct Az {
    pub(crate) arm: Arm,
    pub(crate) subscription: String,
}

/// A managed identity.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identity {
    pub(crate) id: String,
    pub(crate) client_id: String,
    pub(crate) principal_id: String,
}

/// A managed cluster, as far as the story looks at it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) node_group: String,
    pub(crate) kubelet_client_id: String,
}

/// A pod identity, as `pod-identity add` takes it.
pub(crate) struct PodIdentity<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) identity: &'a Identity,
    pub(crate) selector: Option<&'a str>,
}

/// The network of a new cluster.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    Azure,
    /// Without the second flag.
    Kubenet,
    /// With `--enable-pod-identity-with-kubenet`.
    KubenetWithConsent,
}

impl Az {
    fn group_path(&self, group: &str) -> String {
        format!("/subscriptions/{}/resourcegroups/{group}", self.subscription)
    }

    fn cluster_path(&self, group: &str, name: &str) -> String {
        let subscription = &self.subscription;
        format!(
            "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.ContainerService/managedClusters/{name}"
        )
    }

    fn identity_path(&self, group: &str, name: &str) -> String {
        let subscription = &self.subscription;
        format!(
            "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
        )
    }

    /// `az group create`.
    pub(crate) async fn group_create(&self, name: &str) -> Result<(), ArmError> {
        self.arm
            .put(&self.group_path(name), GROUPS, &json!({ "location": LOCATION }))
            .await
            .map(drop)
    }

    /// `az group show --query id`.
    pub(crate) async fn group_id(&self, name: &str) -> Result<String, ArmError> {
        Ok(text(&self.arm.get(&self.group_path(name), GROUPS).await?, "/id"))
    }

    /// `az group delete --yes`.
    pub(crate) async fn group_delete(&self, name: &str) -> Result<(), ArmError> {
        self.arm.delete(&self.group_path(name), GROUPS).await
    }

    /// `az aks create --enable-pod-identity`. The extension itself refuses kubenet without the second flag.
    pub(crate) async fn aks_create(
        &self,
        group: &str,
        name: &str,
        network: Network,
    ) -> Result<Cluster, Failure> {
        if network == Network::Kubenet {
            return Err(Failure::said(KUBENET_REFUSAL));
        }
        self.aks_put(group, name, network).await.map_err(Failure::from)
    }

    /// The PUT of `az aks create`, whatever the extension thinks of it.
    pub(crate) async fn aks_put(
        &self,
        group: &str,
        name: &str,
        network: Network,
    ) -> Result<Cluster, ArmError> {
        let path = self.cluster_path(group, name);
        match self.arm.get(&path, CLUSTER).await {
            Err(error) if error.is(StatusCode::NOT_FOUND) => {}
            Err(error) => return Err(error),
            Ok(_) => {
                let why = format!("The cluster '{name}' under resource group '{group}' already exists");
                return Err(ArmError::Odd {
                    what: "aks create".to_owned(),
                    why,
                });
            }
        }
        let location = text(&self.arm.get(&self.group_path(group), GROUPS).await?, "/location");
        let mut profile = json!({ "enabled": true });
        if network == Network::KubenetWithConsent
            && let Some(profile) = profile.as_object_mut()
        {
            profile.insert("allowNetworkPluginKubenet".to_owned(), json!(true));
        }
        let plugin = if network == Network::Azure {
            "azure"
        } else {
            "kubenet"
        };
        let body = json!({
            "location": location,
            "identity": { "type": "SystemAssigned" },
            "sku": { "name": "Base", "tier": "Free" },
            "properties": {
                "kubernetesVersion": "",
                "dnsPrefix": format!("{name}-{group}"),
                "enableRBAC": true,
                "disableLocalAccounts": false,
                "agentPoolProfiles": [{
                    "name": "nodepool1", "count": 3, "vmSize": "", "osType": "Linux",
                    "type": "VirtualMachineScaleSets", "mode": "System", "orchestratorVersion": "",
                    "enableAutoScaling": false, "scaleSetPriority": "Regular", "nodeTaints": [],
                    "upgradeSettings": {}, "enableNodePublicIP": false, "enableEncryptionAtHost": false,
                    "enableUltraSSD": false, "enableFIPS": false,
                }],
                "networkProfile": { "networkPlugin": plugin, "loadBalancerSku": "standard", "outboundType": "loadBalancer" },
                "addonProfiles": {}, "storageProfile": {},
                "podIdentityProfile": profile,
            },
        });
        self.arm.put(&path, CLUSTER, &body).await?;
        self.aks_show(group, name).await
    }

    /// `az aks show`.
    pub(crate) async fn aks_show(&self, group: &str, name: &str) -> Result<Cluster, ArmError> {
        let found = self.arm.get(&self.cluster_path(group, name), CLUSTER).await?;
        Ok(Cluster {
            node_group: text(&found, "/properties/nodeResourceGroup"),
            kubelet_client_id: text(&found, "/properties/identityProfile/kubeletidentity/clientId"),
        })
    }

    /// The managed cluster as ARM has it.
    pub(crate) async fn aks_raw(&self, group: &str, name: &str) -> Result<Value, ArmError> {
        self.arm.get(&self.cluster_path(group, name), CLUSTER).await
    }

    /// The first managed cluster with pod identity, its group and name.
    pub(crate) async fn aks_with_pod_identity(&self) -> Result<Option<(String, String)>, ArmError> {
        let path = format!(
            "/subscriptions/{}/providers/Microsoft.ContainerService/managedClusters",
            self.subscription
        );
        let all = self.arm.list(&path, CLUSTER, "").await?;
        let enabled = all
            .iter()
            .find(|item| item.pointer("/properties/podIdentityProfile/enabled") == Some(&json!(true)));
        Ok(enabled.and_then(|item| {
            let id = text(item, "/id");
            Some((id.split('/').nth(4)?.to_owned(), text(item, "/name")))
        }))
    }

    /// Selector and identity's resource id of a pod identity, if there is one of that name.
    pub(crate) async fn pod_identity_show(
        &self,
        group: &str,
        cluster: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<(String, String)>, Failure> {
        let mut found = self.aks_raw(group, cluster).await?;
        let entry = entries(&mut found, IDENTITIES)?
            .iter()
            .find(|entry| is(entry, namespace, name));
        Ok(entry.map(|entry| {
            let selector = text(entry, "/bindingSelector");
            let selector = if selector.is_empty() {
                name.to_owned()
            } else {
                selector
            };
            (selector, text(entry, "/identity/resourceId"))
        }))
    }

    /// `az aks delete --yes`.
    pub(crate) async fn aks_delete(&self, group: &str, name: &str) -> Result<(), ArmError> {
        self.arm.delete(&self.cluster_path(group, name), CLUSTER).await
    }

    /// `az identity create`.
    pub(crate) async fn identity_create(&self, group: &str, name: &str) -> Result<Identity, ArmError> {
        let location = text(&self.arm.get(&self.group_path(group), GROUPS).await?, "/location");
        let body = json!({ "location": location });
        Ok(identity(
            &self
                .arm
                .put(&self.identity_path(group, name), IDENTITY, &body)
                .await?,
        ))
    }

    /// `az identity show`.
    pub(crate) async fn identity_show(&self, group: &str, name: &str) -> Result<Identity, ArmError> {
        Ok(identity(
            &self.arm.get(&self.identity_path(group, name), IDENTITY).await?,
        ))
    }

    /// `az identity delete`.
    pub(crate) async fn identity_delete(&self, group: &str, name: &str) -> Result<(), ArmError> {
        self.arm.delete(&self.identity_path(group, name), IDENTITY).await
    }

    /// `az vmss identity assign --identities ID` for every scale set of a group.
    pub(crate) async fn vmss_identity_assign(&self, group: &str, id: &str) -> Result<(), ArmError> {
        let all = format!(
            "/subscriptions/{}/resourceGroups/{group}/providers/Microsoft.Compute/virtualMachineScaleSets",
            self.subscription
        );
        let body = json!({ "identity": { "type": "UserAssigned", "userAssignedIdentities": { (id): {} } } });
        for set in self.arm.list(&all, SCALE_SETS, "").await? {
            self.arm.patch(&text(&set, "/id"), SCALE_SETS, &body).await?;
        }
        Ok(())
    }

    /// `az role assignment create --role ROLE --assignee-object-id … --scope SCOPE`. Doing it twice is no error.
    pub(crate) async fn role_assignment_create(
        &self,
        role: &str,
        principal_id: &str,
        scope: &str,
    ) -> Result<(), ArmError> {
        let path = format!("{scope}/providers/Microsoft.Authorization/roleDefinitions");
        let found = self
            .arm
            .list(&path, ROLE_DEFINITIONS, &format!("roleName eq '{role}'"))
            .await?;
        let Some(definition) = found.first().map(|item| text(item, "/id")) else {
            return Err(ArmError::Odd {
                what: "role assignment".to_owned(),
                why: format!("Role '{role}' doesn't exist."),
            });
        };
        let name = uuid::Uuid::new_v4();
        let path = format!("{scope}/providers/Microsoft.Authorization/roleAssignments/{name}");
        let body = json!({ "properties": {
            "roleDefinitionId": definition, "principalId": principal_id, "principalType": "ServicePrincipal",
        } });
        match self.arm.put(&path, ROLE_ASSIGNMENTS, &body).await {
            Err(error) if error.is(StatusCode::CONFLICT) => Ok(()),
            other => other.map(drop),
        }
    }

    /// `az aks pod-identity add`; returns when the entry is in force in the cluster.
    pub(crate) async fn pod_identity_add(
        &self,
        group: &str,
        cluster: &str,
        new: PodIdentity<'_>,
    ) -> Result<(), Failure> {
        let mut found = self.enabled(group, cluster).await?;
        self.grant_to_cluster(&found, &new.identity.id).await?;
        let mut entry = json!({
            "name": new.name, "namespace": new.namespace,
            "identity": {
                "resourceId": new.identity.id, "clientId": new.identity.client_id, "objectId": new.identity.principal_id,
            },
        });
        if let (Some(selector), Some(entry)) = (new.selector, entry.as_object_mut()) {
            entry.insert("bindingSelector".to_owned(), json!(selector));
        }
        entries(&mut found, IDENTITIES)?.push(entry);
        self.write(group, cluster, found).await?;
        self.in_force(group, cluster, new.namespace, new.name).await
    }

    /// `az aks pod-identity delete`.
    pub(crate) async fn pod_identity_delete(
        &self,
        group: &str,
        cluster: &str,
        namespace: &str,
        name: &str,
    ) -> Result<(), Failure> {
        self.remove(group, cluster, IDENTITIES, namespace, name).await
    }

    /// `az aks pod-identity exception add`.
    pub(crate) async fn exception_add(
        &self,
        group: &str,
        cluster: &str,
        (namespace, name): (&str, &str),
        labels: &[(&str, &str)],
    ) -> Result<(), Failure> {
        let mut found = self.enabled(group, cluster).await?;
        let entry = json!({ "name": name, "namespace": namespace, "podLabels": object(labels) });
        entries(&mut found, EXCEPTIONS)?.push(entry);
        self.write(group, cluster, found).await
    }

    /// `az aks pod-identity exception update`.
    pub(crate) async fn exception_update(
        &self,
        group: &str,
        cluster: &str,
        (namespace, name): (&str, &str),
        labels: &[(&str, &str)],
    ) -> Result<(), Failure> {
        let mut found = self.enabled(group, cluster).await?;
        let entry = entries(&mut found, EXCEPTIONS)?
            .iter_mut()
            .find(|entry| is(entry, namespace, name))
            .and_then(Value::as_object_mut)
            .ok_or_else(|| Failure::said(format!("pod identity exception {namespace}/{name} not found")))?;
        entry.insert("podLabels".to_owned(), object(labels));
        self.write(group, cluster, found).await
    }

    /// `az aks pod-identity exception delete`.
    pub(crate) async fn exception_delete(
        &self,
        group: &str,
        cluster: &str,
        namespace: &str,
        name: &str,
    ) -> Result<(), Failure> {
        self.remove(group, cluster, EXCEPTIONS, namespace, name).await
    }

    async fn remove(
        &self,
        group: &str,
        cluster: &str,
        list: &str,
        namespace: &str,
        name: &str,
    ) -> Result<(), Failure> {
        let mut found = self.enabled(group, cluster).await?;
        let list = entries(&mut found, list)?;
        let before = list.len();
        list.retain(|entry| !is(entry, namespace, name));
        if list.len() == before {
            return Err(Failure::said(format!("{namespace}/{name} not found")));
        }
        self.write(group, cluster, found).await
    }

    /// The managed cluster, if pod identity is enabled.
    async fn enabled(&self, group: &str, cluster: &str) -> Result<Value, Failure> {
        let found = self.aks_raw(group, cluster).await?;
        if found.pointer("/properties/podIdentityProfile/enabled") != Some(&json!(true)) {
            return Err(Failure::said(
                "The pod identity addon is not enabled for this managed cluster yet.",
            ));
        }
        Ok(found)
    }

    /// Lets the cluster use the identity, unless it may already.
    async fn grant_to_cluster(&self, cluster: &Value, identity: &str) -> Result<(), ArmError> {
        let principal = text(cluster, "/identity/principalId");
        // The extension writes the scope in lower case.
        let scope = identity.to_lowercase();
        let path = format!("{scope}/providers/Microsoft.Authorization/roleAssignments");
        let filter = format!("atScope() and assignedTo('{principal}')");
        let found = self.arm.list(&path, ROLE_ASSIGNMENTS, &filter).await?;
        let granted = found.iter().any(|item| {
            text(item, "/properties/roleDefinitionId").ends_with(MANAGED_IDENTITY_OPERATOR)
                && text(item, "/properties/principalId").eq_ignore_ascii_case(&principal)
                && scope.starts_with(&text(item, "/properties/scope").to_lowercase())
        });
        if granted {
            return Ok(());
        }
        self.role_assignment_create("Managed Identity Operator", &principal, &scope)
            .await
    }

    /// Writes the whole cluster back, without what only the server may write.
    async fn write(&self, group: &str, cluster: &str, mut found: Value) -> Result<(), Failure> {
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
        for entry in entries(&mut found, IDENTITIES)? {
            if let Some(entry) = entry.as_object_mut() {
                entry.retain(|key, value| !key.starts_with("provisioning") && !value.is_null());
            }
        }
        self.arm
            .put(&self.cluster_path(group, cluster), CLUSTER, &found)
            .await?;
        Ok(())
    }

    /// Waits until ARM reports the entry as assigned, that is until the cluster has it.
    async fn in_force(&self, group: &str, cluster: &str, namespace: &str, name: &str) -> Result<(), Failure> {
        let deadline = Instant::now() + ASSIGNED_DEADLINE;
        loop {
            let mut found = self.aks_raw(group, cluster).await?;
            let entry = entries(&mut found, IDENTITIES)?
                .iter()
                .find(|entry| is(entry, namespace, name));
            let state = entry
                .map(|entry| text(entry, "/provisioningState"))
                .unwrap_or_default();
            match state.as_str() {
                "Assigned" | "Succeeded" => return Ok(()),
                "Failed" | "Canceled" => {
                    let why = entry
                        .and_then(|entry| entry.get("provisioningInfo"))
                        .unwrap_or(&Value::Null);
                    return Err(Failure::mismatch(
                        "provisioningState Assigned",
                        format!("{state}: {why}"),
                    ));
                }
                _ if Instant::now() >= deadline => {
                    return Err(Failure::mismatch(
                        "provisioningState Assigned",
                        format!("still `{state}` after {ASSIGNED_DEADLINE:?}"),
                    ));
                }
                _ => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// Number of the last request that any of the emulated services has logged.
    pub(crate) async fn last_request(&self) -> Result<u64, ArmError> {
        let found = self
            .arm
            .control(
                Method::GET,
                "/_emulator/requests",
                &[("since", "18446744073709551615")],
                None,
            )
            .await?;
        Ok(found.get("last").and_then(Value::as_u64).unwrap_or_default())
    }

    /// Requests that reached the emulated metadata service after number `since`: (number, source, path).
    pub(crate) async fn imds_requests(&self, since: u64) -> Result<Vec<(u64, String, String)>, ArmError> {
        let since = since.to_string();
        let found = self
            .arm
            .control(Method::GET, "/_emulator/requests", &[("since", &since)], None)
            .await?;
        let list = found
            .get("requests")
            .unwrap_or(&found)
            .as_array()
            .cloned()
            .unwrap_or_default();
        Ok(list
            .iter()
            .filter(|item| text(item, "/listener") == "imds")
            .map(|item| {
                let seq = item.get("seq").and_then(Value::as_u64).unwrap_or_default();
                (seq, text(item, "/source"), text(item, "/path"))
            })
            .collect())
    }
}

const IDENTITIES: &str = "userAssignedIdentities";
const EXCEPTIONS: &str = "userAssignedIdentityExceptions";

/// The list of that name in the profile, made if it is missing or null.
fn entries<'a>(cluster: &'a mut Value, list: &str) -> Result<&'a mut Vec<Value>, Failure> {
    cluster
        .pointer_mut("/properties/podIdentityProfile")
        .and_then(Value::as_object_mut)
        .map(|profile| profile.entry(list).or_insert(Value::Null))
        .and_then(|list| {
            if list.is_null() {
                *list = json!([]);
            }
            list.as_array_mut()
        })
        .ok_or_else(|| Failure::said("the managed cluster has no podIdentityProfile"))
}

fn is(entry: &Value, namespace: &str, name: &str) -> bool {
    text(entry, "/namespace") == namespace && text(entry, "/name") == name
}

fn identity(body: &Value) -> Identity {
    Identity {
        id: text(body, "/id"),
        client_id: text(body, "/properties/clientId"),
        principal_id: text(body, "/properties/principalId"),
    }
}

/// The text at that place, empty when there is none.
fn text(value: &Value, pointer: &str) -> String {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

fn object(pairs: &[(&str, &str)]) -> Value {
    Value::Object(
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), json!(value)))
            .collect::<Map<_, _>>(),
    )
}
