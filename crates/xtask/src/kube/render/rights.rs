//! `docs/reference/rights.md`: every right that the chart grants, from its roles as helm renders them, with the reason, which
//! only people know. A right without a reason is refused, and so is a reason without a right.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context as _, bail};
use serde_json::Value;

/// Settings that grant other rights than the defaults, as helm's `--set` takes them.
pub(super) const SETTINGS: [&str; 7] = [
    "startupTaint.enabled=false",
    "operationMode=standard",
    "msiSource=federation",
    "controller.assignment=vmss",
    "rbac.secrets[0].namespace=NAMESPACE,rbac.secrets[0].names={NAME}",
    "rbac.allowAccessToSecrets=true",
    "rbac.createUserFacingClusterRoles=true",
];

/// Account → resource → why. `*` stands for all of a group.
const WHY: [(&str, &str, &str); 14] = [
    (
        "agent",
        "pods",
        "which pod has which address; it asks for its node's only, which RBAC cannot say",
    ),
    ("agent", "azureidentities", "what pods may have"),
    ("agent", "azureidentitybindings", "which pods may have it"),
    (
        "agent",
        "azureassignedidentities",
        "what pods have, in standard mode",
    ),
    (
        "agent",
        "azurepodidentityexceptions",
        "which pods reach the real metadata service",
    ),
    (
        "agent",
        "secrets",
        "credentials of identities of type 1 and 2; read by name, never listed",
    ),
    (
        "agent",
        "serviceaccounts/token",
        "a pod's own token, to exchange for an identity's",
    ),
    ("controller", "podidentityprofiles", "its input"),
    (
        "controller",
        "podidentityprofiles/status",
        "what became of each entry",
    ),
    (
        "controller",
        "*",
        "its output; it changes and deletes only what it made",
    ),
    (
        "controller",
        "namespaces",
        "a pod identity's namespace is made when it is missing, as AKS does",
    ),
    (
        "controller",
        "nodes",
        "the start-up taint, to which an admission policy holds `patch` (ADR 6); which scale sets the nodes are of",
    ),
    ("controller", "pods", "whether the agent on a node is Ready"),
    (
        "cleanup",
        "*",
        "opens the nodes: no policy closes new ones, the controller takes off its taint, the agents the interception; names the nodes that are late",
    ),
];
/// Roles for people need no reason: they are for whom they are bound to.
const PEOPLE: &str = "people";

/// Who may do what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Right {
    who: &'static str,
    /// Of a Role; none in the whole cluster
    namespace: Option<String>,
    group: String,
    resource: String,
    names: Vec<String>,
    verbs: Vec<String>,
}

/// The rights in what helm rendered.
pub(super) fn of(rendered: &str) -> anyhow::Result<BTreeSet<Right>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(rendered).context("read what helm rendered")?;
    let mut rights = BTreeSet::new();
    for role in &documents {
        let kind = role.get("kind").and_then(Value::as_str).unwrap_or_default();
        if !["Role", "ClusterRole"].contains(&kind) {
            continue;
        }
        let text = |pointer: &str| role.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let name = text("/metadata/name").context("a role has a name")?;
        let who = who(&name)?;
        for rule in role.get("rules").and_then(Value::as_array).into_iter().flatten() {
            let list = |key: &str| -> Vec<String> {
                let items = rule.get(key).and_then(Value::as_array).into_iter().flatten();
                items.filter_map(Value::as_str).map(str::to_owned).collect()
            };
            for group in list("apiGroups") {
                for resource in list("resources") {
                    rights.insert(Right {
                        who,
                        namespace: text("/metadata/namespace"),
                        group: group.clone(),
                        resource,
                        names: list("resourceNames"),
                        verbs: list("verbs"),
                    });
                }
            }
        }
    }
    Ok(rights)
}

fn who(role: &str) -> anyhow::Result<&'static str> {
    Ok(match role {
        "podid-nmi" => "agent",
        "podid-controller" => "controller",
        "podid-cleanup" => "cleanup",
        "podid-view" | "podid-edit" => PEOPLE,
        other => bail!("nobody knows whose the role {other} is; say so in render/rights.rs"),
    })
}

/// The page: `default` are the rights by default, `by_setting` those with each of [`SETTINGS`].
pub(super) fn page(default: &BTreeSet<Right>, by_setting: &[BTreeSet<Right>]) -> anyhow::Result<String> {
    let mut rows: BTreeMap<&Right, String> = BTreeMap::new();
    for right in default {
        let without = SETTINGS
            .iter()
            .zip(by_setting)
            .filter(|(_, rights)| !rights.contains(right));
        let without: Vec<String> = without
            .map(|(setting, _)| format!("not with `{}`", shown(setting)))
            .collect();
        rows.insert(right, without.join(", "));
    }
    for (setting, rights) in SETTINGS.iter().zip(by_setting) {
        for right in rights.difference(default) {
            let when = rows.entry(right).or_default();
            let comma = if when.is_empty() { "only with" } else { ", or" };
            write!(when, "{comma} `{}`", shown(setting))?;
        }
    }
    let mut used = BTreeSet::new();
    let mut page = String::from(
        "<!-- Generated by `cargo xtask kube render` from deploy/helm/podid. Do not edit. -->\n# Rights\n\n\
         Every right that the chart grants. `podid install` and `deploy/kustomize` grant those that need no setting; `cleanup` \
         has its own only while `helm uninstall` runs.\n\n\
         | who | may | of | where | when | why |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for (right, when) in &rows {
        let why = WHY.iter().position(|(who, resource, _)| {
            *who == right.who && (*resource == right.resource || *resource == "*" && !is_named(right))
        });
        let why = match why {
            Some(at) => {
                used.insert(at);
                WHY.get(at).map_or("", |(_, _, why)| why)
            }
            None if right.who == PEOPLE => "for whom the roles view, edit and admin are bound to",
            None => bail!(
                "{} may {} {}, and nobody says why; say so in render/rights.rs",
                right.who,
                right.verbs.join(", "),
                right.resource
            ),
        };
        let names = if right.names.is_empty() {
            String::new()
        } else {
            format!(" {}", right.names.join(", "))
        };
        let group = if right.group.is_empty() {
            String::new()
        } else {
            format!(" ({})", right.group)
        };
        writeln!(
            page,
            "| {} | {} | {}{names}{group} | {} | {when} | {why} |",
            right.who,
            right.verbs.join(", "),
            right.resource,
            right.namespace.as_ref().map_or_else(
                || "cluster".to_owned(),
                |namespace| format!("namespace {namespace}")
            ),
        )?;
    }
    let stale: Vec<_> = WHY
        .iter()
        .enumerate()
        .filter(|(at, _)| !used.contains(at))
        .map(|(_, why)| why)
        .collect();
    if !stale.is_empty() {
        bail!("reasons for rights that the chart does not grant: {stale:?}; drop them in render/rights.rs");
    }
    Ok(page)
}

/// Whether a reason of its own is there for a right.
fn is_named(right: &Right) -> bool {
    WHY.iter()
        .any(|(who, resource, _)| *who == right.who && *resource == right.resource)
}

/// A setting by its first word.
fn shown(setting: &str) -> &str {
    setting.split(['[', ',']).next().unwrap_or(setting)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLE: &str = "kind: ClusterRole\nmetadata: { name: podid-nmi }\nrules:\n- { apiGroups: [''], resources: [RESOURCE], verbs: [list] }\n";

    #[test]
    fn a_right_that_nobody_gives_a_reason_for_is_refused() {
        let rights = of(&ROLE.replace("RESOURCE", "nodes")).unwrap();
        let refused = page(&rights, &[]).unwrap_err().to_string();
        assert!(
            refused.contains("agent may list nodes, and nobody says why"),
            "{refused}"
        );
    }

    #[test]
    fn a_reason_for_what_is_not_granted_is_refused() {
        let rights = of(&ROLE.replace("RESOURCE", "pods")).unwrap();
        let refused = page(&rights, &[]).unwrap_err().to_string();
        assert!(refused.contains("azureidentities"), "{refused}");
    }

    #[test]
    fn the_page_is_true_of_what_is_installed_by_default() {
        let root = crate::root().unwrap();
        let installed = std::fs::read_to_string(root.join("deploy/kustomize/base/podid.yaml")).unwrap();
        let page = std::fs::read_to_string(root.join("docs/reference/rights.md")).unwrap();
        for right in of(&installed).unwrap() {
            let row = format!(
                "| {} | {} | {}",
                right.who,
                right.verbs.join(", "),
                right.resource
            );
            let found = page
                .lines()
                .find(|line| line.starts_with(&row) && !line.contains("only with"));
            assert!(found.is_some(), "no row {row}");
        }
    }
}
