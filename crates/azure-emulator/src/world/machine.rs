//! Virtual machines, scale sets and the identities on them; which node (caller of IMDS) is which machine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::World;
use super::principal::{Principal, System};

/// ARM type of a virtual machine.
pub(crate) const VM: &str = "Microsoft.Compute/virtualMachines";
/// ARM type of a scale set.
pub(crate) const SCALE_SET: &str = "Microsoft.Compute/virtualMachineScaleSets";

/// A virtual machine or a scale set.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) location: String,
    #[serde(default)]
    pub(crate) tags: Map<String, Value>,
    #[serde(default)]
    pub(crate) system: Option<System>,
    /// User-assigned identities, by key.
    #[serde(default)]
    pub(crate) assigned: BTreeMap<String, Assigned>,
    /// Keys of those that a cluster's pod identity profile put there.
    #[serde(default)]
    pub(crate) by_profile: BTreeSet<String>,
    #[serde(default)]
    pub(crate) sku: Value,
    #[serde(default)]
    pub(crate) properties: Map<String, Value>,
    /// Counts the changes; the entity tag.
    #[serde(default)]
    pub(crate) version: u64,
    /// A virtual machine has one, a scale set any number.
    pub(crate) instances: Vec<Instance>,
}

/// Which of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    Vm,
    ScaleSet,
}

impl Kind {
    /// ARM type.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Vm => VM,
            Self::ScaleSet => SCALE_SET,
        }
    }
}

/// A reference to a user-assigned identity, as it was when it was assigned.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Assigned {
    pub(crate) id: String,
    pub(crate) principal_id: String,
}

/// One machine of a scale set.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Instance {
    pub(crate) number: u32,
    pub(crate) vm_id: String,
}

impl Instance {
    /// A new one.
    pub(crate) fn new(number: u32) -> Self {
        Self {
            number,
            vm_id: Uuid::new_v4().to_string(),
        }
    }
}

/// A caller of IMDS: from these addresses, and the machine that it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpAddr>,
    /// Key of the machine, and number of the instance.
    #[serde(default)]
    pub(crate) machine: Option<(String, u32)>,
}

impl Node {
    /// Whether it is on the machine of that key.
    pub(crate) fn is_on(&self, key: &str) -> bool {
        self.machine.as_ref().is_some_and(|(machine, _)| machine == key)
    }
}

impl Machine {
    /// The identity type in ARM's words; none without identities.
    fn identity_type(&self) -> Option<&'static str> {
        match (self.system.is_some(), self.assigned.is_empty()) {
            (true, true) => Some("SystemAssigned"),
            (true, false) => Some("SystemAssigned, UserAssigned"),
            (false, false) => Some("UserAssigned"),
            (false, true) => None,
        }
    }

    /// The `identity` object; null without identities.
    pub(crate) fn identity(&self, world: &World, tenant: &str) -> Value {
        let Some(kind) = self.identity_type() else {
            return Value::Null;
        };
        let mut body = Map::new();
        body.insert("type".to_owned(), json!(kind));
        if let Some(system) = &self.system {
            body.insert("principalId".to_owned(), json!(system.principal_id));
            body.insert("tenantId".to_owned(), json!(tenant));
        }
        if !self.assigned.is_empty() {
            let all: Map<String, Value> = self
                .assigned
                .iter()
                .map(|(key, assigned)| {
                    let there = world.live(key, assigned);
                    let entry = json!({
                        "clientId": there.as_ref().map(|identity| &identity.client_id),
                        "principalId": there.as_ref().map(|identity| &identity.object_id),
                    });
                    (assigned.id.clone(), entry)
                })
                .collect();
            body.insert("userAssignedIdentities".to_owned(), Value::Object(all));
        }
        Value::Object(body)
    }

    /// Its entity tag.
    pub(crate) fn etag(&self) -> String {
        format!("\"{}\"", self.version)
    }

    /// As ARM shows it.
    pub(crate) fn body(&self, world: &World, tenant: &str) -> Value {
        let mut properties = self.properties.clone();
        properties.insert("provisioningState".to_owned(), json!("Succeeded"));
        if self.kind == Kind::Vm
            && let Some(instance) = self.instances.first()
        {
            properties.insert("vmId".to_owned(), json!(instance.vm_id));
            fill(&mut properties, self.defaults());
        }
        let mut body = json!({
            "id": self.id, "name": self.name, "type": self.kind.name(), "location": self.location, "tags": self.tags, "etag": self.etag(),
            "properties": properties,
        });
        let identity = self.identity(world, tenant);
        if let Some(body) = body.as_object_mut() {
            if self.kind == Kind::ScaleSet {
                let mut sku = self.sku.clone();
                if let Some(sku) = sku.as_object_mut() {
                    sku.insert("capacity".to_owned(), json!(self.instances.len()));
                }
                body.insert("sku".to_owned(), sku);
            }
            if !identity.is_null() {
                body.insert("identity".to_owned(), identity);
            }
        }
        body
    }

    /// What every virtual machine has, however little was written. The fluent Java SDK needs the disks of each that it lists.
    /// Source: azure-resourcemanager-compute 2.55.1.
    fn defaults(&self) -> Value {
        let group = self.id.split("/providers/").next().unwrap_or_default();
        let of = |kind: &str, what: &str| format!("{group}/providers/{kind}/{}-{what}", self.name);
        json!({
            "hardwareProfile": { "vmSize": "Standard_DS2_v2" },
            "storageProfile": {
                "osDisk": {
                    "osType": "Linux", "name": format!("{}-os", self.name), "createOption": "FromImage", "caching": "ReadWrite",
                    "managedDisk": { "storageAccountType": "Premium_LRS", "id": of("Microsoft.Compute/disks", "os") },
                    "deleteOption": "Delete", "diskSizeGB": 30,
                },
                "dataDisks": [],
            },
            "osProfile": {
                "computerName": self.name, "adminUsername": "azureuser", "secrets": [], "allowExtensionOperations": true,
                "linuxConfiguration": { "disablePasswordAuthentication": true, "provisionVMAgent": true },
            },
            "networkProfile": {
                "networkInterfaces": [{ "id": of("Microsoft.Network/networkInterfaces", "nic"), "properties": { "primary": true } }],
            },
        })
    }

    /// A machine of the set, as ARM shows it.
    pub(crate) fn instance_body(&self, instance: &Instance, world: &World, tenant: &str) -> Value {
        let name = self.instance_name(instance.number);
        json!({
            "id": format!("{}/virtualMachines/{}", self.id, instance.number),
            "name": format!("{}_{}", self.name, instance.number),
            "instanceId": instance.number.to_string(),
            "type": format!("{SCALE_SET}/virtualMachines"),
            "location": self.location,
            "sku": { "name": self.sku.get("name"), "tier": "Standard" },
            "identity": self.identity(world, tenant),
            "properties": {
                "vmId": instance.vm_id, "provisioningState": "Succeeded", "latestModelApplied": true,
                "osProfile": { "computerName": name },
            },
        })
    }

    /// The host name of an instance: its number in base 36, six places. For a virtual machine its own name.
    pub(crate) fn instance_name(&self, number: u32) -> String {
        if self.kind == Kind::Vm {
            return self.name.clone();
        }
        let mut digits = Vec::new();
        let mut rest = number;
        while rest > 0 || digits.len() < 6 {
            digits.extend(char::from_digit(rest % 36, 36));
            rest /= 36;
        }
        let digits: String = digits.into_iter().rev().collect();
        format!("{}{digits}", self.name)
    }
}

/// Puts in what is missing, at any depth.
fn fill(into: &mut Map<String, Value>, defaults: Value) {
    let Value::Object(defaults) = defaults else { return };
    for (name, value) in defaults {
        match into.get_mut(&name) {
            Some(Value::Object(there)) => fill(there, value),
            Some(_) => {}
            None => {
                into.insert(name, value);
            }
        }
    }
}

impl World {
    /// The identity that a machine's reference means, unless it is gone or another one has its name now.
    pub(crate) fn live(&self, key: &str, assigned: &Assigned) -> Option<Principal> {
        let identity = self.identity(key)?;
        (identity.principal_id == assigned.principal_id).then(|| identity.principal())
    }

    /// A reference to an identity that exists.
    pub(crate) fn reference(&self, id: &str) -> Option<(String, Assigned)> {
        let key = crate::path::key(id);
        let identity = self.identity(&key)?;
        let assigned = Assigned {
            id: id.to_owned(),
            principal_id: identity.principal_id.clone(),
        };
        Some((key, assigned))
    }

    /// The machine that a caller of IMDS is, with the number of the instance: by the node's address; else the fallback;
    /// else, when no node is known at all, the first machine there is.
    pub(crate) fn machine_at(&self, source: IpAddr, fallback: Option<&str>) -> Option<(&Machine, u32)> {
        if let Some(node) = self.node_at(source) {
            let (key, number) = node.machine.as_ref()?;
            return self.machine(key).map(|machine| (machine, *number));
        }
        let first = || {
            if self.has_nodes() {
                None
            } else {
                self.first_machine()
            }
        };
        let machine = fallback.and_then(|key| self.machine(key)).or_else(first)?;
        machine
            .instances
            .first()
            .map(|instance| (machine, instance.number))
    }
}
