//! What is there from the start: the service principal that owns the subscription, and, without nodes, one virtual machine.

use serde_json::{Map, json};
use uuid::Uuid;

use crate::app::new_secret;
use crate::world::machine::{Instance, Kind, Machine, VM};
use crate::world::principal::{Application, ClientSecret, System};
use crate::world::role::{OWNER, RoleAssignment};
use crate::world::{Group, World};

const GROUP: &str = "azure-emulator";
const MACHINE: &str = "vm-0";
const LOCATION: &str = "eastus";

/// Who and what.
pub(crate) struct Seed {
    pub(crate) tenant: String,
    pub(crate) subscription: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: Option<String>,
    pub(crate) machine: bool,
}

/// What came of it.
pub(crate) struct Planted {
    pub(crate) secret: String,
    /// Key of the virtual machine.
    pub(crate) machine: Option<String>,
}

impl Seed {
    /// Adds what is missing; a state that was kept keeps its own.
    pub(crate) fn plant(&self, world: &mut World, now: &str) -> Planted {
        let kept = world.application(&self.client_id).cloned();
        let secret = self
            .client_secret
            .clone()
            .or_else(|| {
                kept.as_ref()
                    .and_then(|kept| kept.secrets.first())
                    .map(|secret| secret.expose().to_owned())
            })
            .unwrap_or_else(new_secret);
        let mut application = kept.unwrap_or_else(|| Application {
            client_id: self.client_id.clone(),
            object_id: Uuid::new_v4().to_string(),
            name: "azure-emulator".to_owned(),
            secrets: Vec::new(),
            certificates: Vec::new(),
            federated: Vec::new(),
        });
        application.secrets = vec![ClientSecret::new(secret.as_str())];
        let principal_id = application.object_id.clone();
        world.put_application(application);
        if world.assignments_of(&principal_id).next().is_none() {
            let name = Uuid::new_v4().to_string();
            let scope = format!("/subscriptions/{}", self.subscription);
            world.put_assignment(RoleAssignment {
                id: format!("{scope}/providers/Microsoft.Authorization/roleAssignments/{name}"),
                name,
                scope,
                role: OWNER.to_owned(),
                principal_id,
                principal_type: Some("ServicePrincipal".to_owned()),
                created_on: now.to_owned(),
            });
        }
        Planted {
            secret,
            machine: self.machine.then(|| self.plant_machine(world)),
        }
    }

    fn plant_machine(&self, world: &mut World) -> String {
        let group = format!("/subscriptions/{}/resourceGroups/{GROUP}", self.subscription);
        let id = format!("{group}/providers/{VM}/{MACHINE}");
        let key = crate::path::key(&id);
        if world.machine(&key).is_none() {
            world.put_group(Group {
                id: group,
                name: GROUP.to_owned(),
                location: LOCATION.to_owned(),
                tags: Map::new(),
                managed_by: None,
            });
            world.put_machine(Machine {
                id,
                name: MACHINE.to_owned(),
                kind: Kind::Vm,
                location: LOCATION.to_owned(),
                tags: Map::new(),
                system: Some(System::new()),
                assigned: std::collections::BTreeMap::new(),
                by_profile: std::collections::BTreeSet::new(),
                sku: json!(null),
                properties: [(
                    "hardwareProfile".to_owned(),
                    json!({ "vmSize": "Standard_DS2_v2" }),
                )]
                .into_iter()
                .collect(),
                version: 0,
                instances: vec![Instance::new(0)],
            });
        }
        key
    }
}
