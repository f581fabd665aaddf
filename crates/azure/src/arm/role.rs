//! Role assignments over a managed identity: who has a role, and giving it.
//! Source: <https://learn.microsoft.com/rest/api/authorization/role-assignments>, version 2022-04-01.

use ::http::{Method, StatusCode};
use podid_core::{Guid, IdentityResourceId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Arm, ArmError, Ask, parsed};

const API_VERSION: &str = "2022-04-01";

/// A built-in role. Source: <https://learn.microsoft.com/azure/role-based-access-control/built-in-roles>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role {
    /// As people call it.
    pub name: &'static str,
    /// Name of its definition, the same in every subscription.
    pub id: &'static str,
}

/// Lets a principal put a managed identity on VMs and scale sets.
pub const MANAGED_IDENTITY_OPERATOR: Role = Role {
    name: "Managed Identity Operator",
    id: "f1a07417-d97a-45cb-824c-7a7467783830",
};

/// A role that somebody has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleAssignment {
    /// Name of the role's definition, in lower case.
    pub role: String,
    /// Where it was given; it counts for everything below.
    pub scope: String,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    value: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    properties: ItemProperties,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ItemProperties {
    role_definition_id: String,
    scope: String,
}

#[derive(Serialize)]
struct Body<'a> {
    properties: Properties<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Properties<'a> {
    role_definition_id: &'a str,
    principal_id: String,
    /// Said, so that a principal is taken that the directory's copies do not all know yet.
    principal_type: &'static str,
}

fn ask(method: Method, id: &str) -> Ask<'_> {
    Ask {
        method,
        id,
        api_version: API_VERSION,
        kind: "role",
        if_match: None,
    }
}

impl Arm {
    /// The roles that `principal`, or a group of it, has over `identity`: given there, or above. The first page, which
    /// has hundreds.
    pub async fn roles_over(
        &self,
        identity: &IdentityResourceId,
        principal: Guid,
    ) -> Result<Vec<RoleAssignment>, ArmError> {
        let path = format!("{identity}/providers/Microsoft.Authorization/roleAssignments");
        let filter = format!("atScope() and assignedTo('{principal}')");
        let answer = self
            .send_with(ask(Method::GET, &path), &[("$filter", &filter)], None::<&()>)
            .await?;
        let page: Page = parsed(&answer.body)?;
        let assignment = |item: Item| RoleAssignment {
            role: last(&item.properties.role_definition_id).to_ascii_lowercase(),
            scope: item.properties.scope,
        };
        Ok(page.value.into_iter().map(assignment).collect())
    }

    /// Gives `role` over `identity` to `principal`, a service principal or managed identity; false when it has it there
    /// already. Asking twice is the same as asking once.
    pub async fn give_role(
        &self,
        identity: &IdentityResourceId,
        role: Role,
        principal: Guid,
    ) -> Result<bool, ArmError> {
        let lower = identity.as_str().to_ascii_lowercase();
        // The same grant has the same name, so that two who give it at once do not give it twice.
        let name = Uuid::new_v5(
            &Uuid::NAMESPACE_URL,
            format!("{lower}|{}|{principal}", role.id).as_bytes(),
        );
        let path = format!("{identity}/providers/Microsoft.Authorization/roleAssignments/{name}");
        let subscription = identity.subscription();
        let definition = format!(
            "/subscriptions/{subscription}/providers/Microsoft.Authorization/roleDefinitions/{}",
            role.id
        );
        let body = Body {
            properties: Properties {
                role_definition_id: &definition,
                principal_id: principal.to_string(),
                principal_type: "ServicePrincipal",
            },
        };
        match self.send(ask(Method::PUT, &path), Some(&body)).await {
            Ok(answer) => Ok(answer.status == StatusCode::CREATED),
            Err(error) if error.arm_code() == Some("RoleAssignmentExists") => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The last segment of an id.
fn last(id: &str) -> &str {
    id.rsplit('/').next().unwrap_or_default()
}
