//! Role definitions (the built-in ones that the tutorial and its users name) and role assignments.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::path::{key, within};

use super::World;

/// A built-in role.
pub(crate) struct Role {
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    description: &'static str,
    actions: &'static [&'static str],
    not_actions: &'static [&'static str],
}

/// Role that lets a cluster use an identity.
pub(crate) const MANAGED_IDENTITY_OPERATOR: &str = "f1a07417-d97a-45cb-824c-7a7467783830";
/// Role of the built-in test principal.
pub(crate) const OWNER: &str = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635";
/// Role of a cluster on its node group.
pub(crate) const CONTRIBUTOR: &str = "b24988ac-6180-42a0-ab88-20f7382dd24c";

/// Source: requests of az 2.91.0 for the ids; <https://learn.microsoft.com/azure/role-based-access-control/built-in-roles> for the actions.
pub(crate) const ROLES: &[Role] = &[
    Role {
        id: OWNER,
        name: "Owner",
        description: "Grants full access to manage all resources, including the ability to assign roles in Azure RBAC.",
        actions: &["*"],
        not_actions: &[],
    },
    Role {
        id: CONTRIBUTOR,
        name: "Contributor",
        description: "Grants full access to manage all resources, but does not allow you to assign roles in Azure RBAC.",
        actions: &["*"],
        not_actions: &[
            "Microsoft.Authorization/*/Delete",
            "Microsoft.Authorization/*/Write",
            "Microsoft.Authorization/elevateAccess/Action",
        ],
    },
    Role {
        id: "acdd72a7-3385-48ef-bd42-f606fba81ae7",
        name: "Reader",
        description: "View all resources, but does not allow you to make any changes.",
        actions: &["*/read"],
        not_actions: &[],
    },
    Role {
        id: MANAGED_IDENTITY_OPERATOR,
        name: "Managed Identity Operator",
        description: "Read and Assign User Assigned Identity",
        actions: &[
            "Microsoft.ManagedIdentity/userAssignedIdentities/*/read",
            "Microsoft.ManagedIdentity/userAssignedIdentities/*/assign/action",
            "Microsoft.Authorization/*/read",
            "Microsoft.Resources/subscriptions/resourceGroups/read",
        ],
        not_actions: &[],
    },
    Role {
        id: "e40ec5ca-96e0-45a2-b4ff-59039f2c2b59",
        name: "Managed Identity Contributor",
        description: "Create, Read, Update, and Delete User Assigned Identity",
        actions: &[
            "Microsoft.ManagedIdentity/userAssignedIdentities/read",
            "Microsoft.ManagedIdentity/userAssignedIdentities/write",
            "Microsoft.ManagedIdentity/userAssignedIdentities/delete",
            "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials/*",
            "Microsoft.Authorization/*/read",
            "Microsoft.Resources/subscriptions/resourceGroups/read",
        ],
        not_actions: &[],
    },
    Role {
        id: "9980e02c-c2be-4d73-94e8-173b1dc7cf3c",
        name: "Virtual Machine Contributor",
        description: "Create and manage virtual machines, manage disks, install and run software.",
        actions: &[
            "Microsoft.Compute/virtualMachines/*",
            "Microsoft.Compute/virtualMachineScaleSets/*",
            "Microsoft.Authorization/*/read",
            "Microsoft.Resources/subscriptions/resourceGroups/read",
        ],
        not_actions: &[],
    },
    Role {
        id: "4d97b98b-1d4f-4787-a291-c67834d212e7",
        name: "Network Contributor",
        description: "Lets you manage networks, but not access to them.",
        actions: &[
            "Microsoft.Network/*",
            "Microsoft.Authorization/*/read",
            "Microsoft.Resources/subscriptions/resourceGroups/read",
        ],
        not_actions: &[],
    },
];

impl Role {
    /// The role with that id.
    pub(crate) fn find(id: &str) -> Option<&'static Self> {
        ROLES.iter().find(|role| role.id.eq_ignore_ascii_case(id))
    }

    /// As ARM shows it, in a subscription.
    pub(crate) fn body(&self, subscription: Option<&str>) -> Value {
        let prefix = subscription
            .map(|id| format!("/subscriptions/{id}"))
            .unwrap_or_default();
        json!({
            "id": format!("{prefix}/providers/Microsoft.Authorization/roleDefinitions/{}", self.id),
            "name": self.id,
            "type": "Microsoft.Authorization/roleDefinitions",
            "properties": {
                "roleName": self.name, "type": "BuiltInRole", "description": self.description,
                "assignableScopes": ["/"],
                "permissions": [{
                    "actions": self.actions, "notActions": self.not_actions, "dataActions": [], "notDataActions": [],
                }],
            },
        })
    }

    /// Whether it allows the action.
    pub(crate) fn allows(&self, action: &str) -> bool {
        let action = action.to_ascii_lowercase();
        let any = |patterns: &[&str]| {
            patterns
                .iter()
                .any(|pattern| covers(&pattern.to_ascii_lowercase(), &action))
        };
        any(self.actions) && !any(self.not_actions)
    }
}

/// A role given to a principal at a scope.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RoleAssignment {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) scope: String,
    pub(crate) role: String,
    pub(crate) principal_id: String,
    #[serde(default)]
    pub(crate) principal_type: Option<String>,
    pub(crate) created_on: String,
}

impl RoleAssignment {
    /// As ARM shows it.
    pub(crate) fn body(&self, subscription: Option<&str>) -> Value {
        let prefix = subscription
            .map(|id| format!("/subscriptions/{id}"))
            .unwrap_or_default();
        json!({
            "id": self.id, "name": self.name, "type": "Microsoft.Authorization/roleAssignments",
            "properties": {
                "roleDefinitionId": format!("{prefix}/providers/Microsoft.Authorization/roleDefinitions/{}", self.role),
                "principalId": self.principal_id, "principalType": self.principal_type.as_deref().unwrap_or("ServicePrincipal"),
                "scope": self.scope, "condition": null, "conditionVersion": null,
                "createdOn": self.created_on, "updatedOn": self.created_on,
                "createdBy": null, "updatedBy": null, "delegatedManagedIdentityResourceId": null, "description": null,
            },
        })
    }

    /// Whether it reaches a resource or scope, given by its key.
    pub(crate) fn covers(&self, at: &str) -> bool {
        let scope = if self.scope == "/" {
            String::new()
        } else {
            key(&self.scope)
        };
        within(at, &scope)
    }
}

impl World {
    /// Whether a principal may do `action` at the resource or scope of that key.
    pub(crate) fn may(&self, principal_id: &str, action: &str, at: &str) -> bool {
        self.assignments_of(principal_id)
            .any(|grant| grant.covers(at) && Role::find(&grant.role).is_some_and(|role| role.allows(action)))
    }
}

/// Whether an action fits a role's pattern. `a/*/b` has `a/b` in it: the built-in roles count on that.
fn covers(pattern: &str, action: &str) -> bool {
    glob(pattern, action) || (pattern.contains("/*/") && glob(&pattern.replace("/*/", "/"), action))
}

/// Whether `text` fits `pattern`, in which `*` is any text.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut rest) = text.strip_prefix(head) else {
        return false;
    };
    let mut parts = tail.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some((_, after)) = rest.split_once(part) else {
            return false;
        };
        rest = after;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text() {
        for (pattern, text, fits) in [
            ("*", "a/b", true),
            ("*/read", "microsoft.compute/virtualmachines/read", true),
            ("*/read", "microsoft.compute/virtualmachines/write", false),
            ("a/*/b/*", "a/x/y/b/z", true),
            ("a/*/b", "a/b", false),
            ("a", "ab", false),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn a_contributor_may_write_all_but_grants() {
        let role = Role::find(CONTRIBUTOR).unwrap();
        assert!(role.allows("Microsoft.ManagedIdentity/userAssignedIdentities/write"));
        assert!(role.allows("Microsoft.Authorization/roleAssignments/read"));
        assert!(!role.allows("Microsoft.Authorization/roleAssignments/write"));
        let operator = Role::find(MANAGED_IDENTITY_OPERATOR).unwrap();
        assert!(operator.allows("Microsoft.ManagedIdentity/userAssignedIdentities/assign/action"));
        assert!(!operator.allows("Microsoft.ManagedIdentity/userAssignedIdentities/write"));
    }
}
