//! Role definitions and assignments, at any scope.

use http::StatusCode;
use uuid::Uuid;

use crate::answer::{Answer, Outcome, Refusal, list};
use crate::cloud::Cloud;
use crate::front::Ask;
use crate::path::{key, name_of};
use crate::world::World;
use crate::world::role::{ROLES, Role, RoleAssignment};

use super::{page, text};

/// Answers it; the scope ends before segment `at`.
pub(crate) fn answer(cloud: &Cloud, ask: &Ask, at: usize) -> Outcome {
    let path = ask.path.lower();
    let subscription = Some(cloud.settings.subscription.as_str());
    let tail = path.get(at + 2..).unwrap_or_default();
    match (ask.method.as_str(), tail) {
        ("GET", ["roledefinitions"]) => {
            let filter = ask.query.arm("$filter").unwrap_or_default();
            let name = quoted(filter, "rolename");
            let fits = |role: &&Role| name.is_none_or(|name| role.name.eq_ignore_ascii_case(name));
            Ok(list(
                ROLES
                    .iter()
                    .filter(fits)
                    .map(|role| role.body(subscription))
                    .collect(),
            ))
        }
        ("GET", ["roledefinitions", id]) => Role::find(id)
            .map(|role| Answer::ok(role.body(subscription)))
            .ok_or_else(|| {
                let text = format!("The specified role definition with ID '{id}' does not exist.");
                Refusal::new(StatusCode::NOT_FOUND, "RoleDefinitionDoesNotExist", text)
            }),
        ("GET", ["roleassignments"]) => assignments(cloud, ask, &ask.path.join_lower(at)),
        ("GET", ["roleassignments", _]) => {
            let key = ask.path.join_lower(at + 4);
            cloud
                .read(|world| world.assignment(&key).map(|grant| grant.body(subscription)))
                .map(Answer::ok)
                .ok_or_else(|| missing(ask.path.shown(at + 3)))
        }
        ("PUT", ["roleassignments", _]) => put(cloud, ask, at),
        ("DELETE", ["roleassignments", _]) => {
            let key = ask.path.join_lower(at + 4);
            Ok(match cloud.write(|world| world.remove_assignment(&key)) {
                Some(grant) => Answer::ok(grant.body(subscription)),
                None => Answer::empty(StatusCode::NO_CONTENT),
            })
        }
        _ => Err(Refusal::unsupported(&ask.method, &ask.raw_path)),
    }
}

fn missing(name: &str) -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "RoleAssignmentNotFound",
        format!("The role assignment '{name}' is not found."),
    )
}

/// `atScope()`: at the scope and above. Without it: below as well. `principalId` and `assignedTo` narrow it down.
fn assignments(cloud: &Cloud, ask: &Ask, scope: &str) -> Outcome {
    let filter = ask.query.arm("$filter").unwrap_or_default();
    let lower = filter.to_ascii_lowercase();
    let at_scope = lower.contains("atscope()");
    let of = quoted(filter, "principalid").or_else(|| quoted(filter, "assignedto"));
    if !lower.is_empty() && !at_scope && of.is_none() {
        return Err(Refusal::bad(
            "InvalidFilter",
            format!(
                "The filter '{filter}' is not supported. Supported filters are atScope(), principalId eq '{{value}}' and assignedTo('{{value}}')."
            ),
        ));
    }
    let subscription = Some(cloud.settings.subscription.as_str());
    Ok(cloud.read(|world| {
        let here = |grant: &&RoleAssignment| {
            grant.covers(scope) || (!at_scope && crate::path::within(&key(&grant.scope), scope))
        };
        match of {
            Some(principal) => page(ask, world.assignments_of(principal).filter(here), |grant| {
                grant.body(subscription)
            }),
            None => page(ask, world.assignments().filter(here), |grant| {
                grant.body(subscription)
            }),
        }
    }))
}

/// The text in quotes that follows `name` in a filter.
fn quoted<'a>(filter: &'a str, name: &str) -> Option<&'a str> {
    let at = filter.to_ascii_lowercase().find(name)?;
    filter.get(at..)?.split('\'').nth(1)
}

fn put(cloud: &Cloud, ask: &Ask, at: usize) -> Outcome {
    let body = ask.json()?;
    let name = ask.path.shown(at + 3).to_owned();
    if Uuid::try_parse(&name).is_err() {
        return Err(Refusal::bad(
            "InvalidRoleAssignmentId",
            format!("The role assignment ID '{name}' is not valid. The role assignment ID must be a GUID."),
        ));
    }
    let needed = |member: &str| {
        text(&body, &format!("/properties/{member}")).ok_or_else(|| {
            Refusal::bad(
                "BadRequestFormat",
                format!("The property '{member}' is required."),
            )
            .about(member)
        })
    };
    let role = needed("roleDefinitionId")?;
    let role = Role::find(name_of(role)).ok_or_else(|| {
        let text = format!(
            "The specified role definition with ID '{}' does not exist.",
            name_of(role)
        );
        Refusal::bad("RoleDefinitionDoesNotExist", text)
    })?;
    let principal = needed("principalId")?.to_owned();
    let scope = if at == 0 {
        "/".to_owned()
    } else {
        ask.path.join_shown(at)
    };
    let subscription = Some(cloud.settings.subscription.as_str());
    let created_on = cloud.now_text();
    cloud.write(|world| {
        scope_exists(world, &scope)?;
        if world.by_object_id(&principal).is_none() {
            return Err(Refusal::bad(
                "PrincipalNotFound",
                format!(
                    "Principal {} does not exist in the directory {}. Check that you have the correct principal ID. If you are creating \
                     this principal and then immediately assigning a role, this error might be related to a replication delay. In this \
                     case, set the role assignment principalType property to a value, such as ServicePrincipal, User, or Group. See \
                     https://aka.ms/docs-principaltype",
                    principal.replace('-', ""),
                    cloud.settings.tenant
                ),
            ));
        }
        let id = format!("{}/providers/Microsoft.Authorization/roleAssignments/{name}", scope.trim_end_matches('/'));
        let grant = RoleAssignment {
            id,
            name,
            scope: scope.clone(),
            role: role.id.to_owned(),
            principal_id: principal.clone(),
            principal_type: text(&body, "/properties/principalType").map(str::to_owned),
            created_on,
        };
        if let Some(same) = world.assignment(&key(&grant.id)) {
            let equal = same.role == grant.role && same.principal_id.eq_ignore_ascii_case(&grant.principal_id);
            return if equal {
                Ok(Answer::ok(same.body(subscription)))
            } else {
                Err(Refusal::new(
                    StatusCode::CONFLICT,
                    "RoleAssignmentUpdateNotPermitted",
                    "Tenant ID, application ID, principal ID, and scope are not allowed to be updated.",
                ))
            };
        }
        let twin = world
            .assignments_of(&principal)
            .find(|other| other.role == grant.role && key(&other.scope) == key(&scope))
            .map(|other| other.name.clone());
        if let Some(twin) = twin {
            return Err(Refusal::new(
                StatusCode::CONFLICT,
                "RoleAssignmentExists",
                format!("The role assignment already exists. The ID of the existing role assignment is {}.", twin.replace('-', "")),
            ));
        }
        let shown = grant.body(subscription);
        world.put_assignment(grant);
        Ok(Answer::json(StatusCode::CREATED, shown))
    })
}

/// Whether there is something at that scope.
fn scope_exists(world: &World, scope: &str) -> Result<(), Refusal> {
    let parts: Vec<&str> = scope.split('/').filter(|part| !part.is_empty()).collect();
    let [_, subscription, _, group, rest @ ..] = parts.as_slice() else {
        return Ok(());
    };
    let group_key = format!("/subscriptions/{subscription}/resourcegroups/{group}").to_ascii_lowercase();
    if world.group(&group_key).is_none() {
        return Err(Refusal::group_not_found(group));
    }
    let here = key(scope);
    let there = rest.is_empty()
        || world.identity(&here).is_some()
        || world.machine(&here).is_some()
        || world.cluster(&here).is_some();
    if there {
        return Ok(());
    }
    let kind = rest.get(1..3).map(|pair| pair.join("/")).unwrap_or_default();
    Err(Refusal::resource_not_found(&kind, name_of(scope), group))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_names_its_value_in_quotes() {
        assert_eq!(
            quoted("roleName eq 'Managed Identity Operator'", "rolename"),
            Some("Managed Identity Operator")
        );
        assert_eq!(
            quoted("atScope() and assignedTo('oid')", "assignedto"),
            Some("oid")
        );
        assert_eq!(quoted("atScope()", "assignedto"), None);
    }

    #[test]
    fn a_scope_under_a_missing_group_does_not_exist() {
        let refusal = scope_exists(&World::default(), "/subscriptions/s/resourceGroups/g").unwrap_err();
        assert_eq!(refusal.code, "ResourceGroupNotFound");
        scope_exists(&World::default(), "/subscriptions/s").unwrap();
    }
}
