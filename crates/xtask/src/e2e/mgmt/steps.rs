//! The steps of the walk: what a client must have seen, and what the emulator must have been asked.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::Verdict;
use super::clients::Client;
use super::emulator::{RETRY_AFTER_SECS, Ready};
use super::issuer;

/// What came of a walk.
pub(crate) struct Seen<'a> {
    /// The client's report.
    pub(crate) facts: &'a Value,
    /// The emulator's request log.
    pub(crate) asked: &'a [Value],
    /// Operations that it does not know.
    pub(crate) unsupported: &'a [String],
    pub(crate) ready: &'a Ready,
}

/// A step.
pub(crate) struct Step {
    /// What is done, for a table.
    pub(crate) name: &'static str,
    /// Only with an SDK for managed clusters.
    clusters: bool,
    check: fn(&Seen<'_>) -> anyhow::Result<()>,
}

/// In the order of the walk.
pub(crate) const STEPS: [Step; 11] = [
    step("sign in by a secret; make and read a resource group", group),
    step(
        "make an identity, write it again with the same ids, read it, list it",
        identity,
    ),
    step("two federated credentials: make, read, list", credentials),
    step(
        "a token by the federated credential; the list of machines refused as a typed 403",
        before_grant,
    ),
    step(
        "find a role, grant it, list the grant; the same grant again a typed 409",
        grant,
    ),
    step("list the machines as the identity", machines),
    step("429 with `Retry-After`: waited for, asked again", throttled),
    step("an injected error of ARM: typed, with its code", refused),
    Step {
        name: "a managed cluster: make, give it a pod identity, delete, each a long-running operation",
        clusters: true,
        check: cluster,
    },
    step(
        "delete the credential; the exchange is refused as Entra does",
        exchange,
    ),
    step(
        "delete identity (then a typed 404) and group (a long-running operation)",
        deleted,
    ),
];

const fn step(name: &'static str, check: fn(&Seen<'_>) -> anyhow::Result<()>) -> Step {
    Step {
        name,
        clusters: false,
        check,
    }
}

impl Step {
    /// What came of it.
    pub(crate) fn judge(&self, client: &Client, seen: &Seen<'_>) -> Verdict {
        if self.clusters && !client.clusters {
            return Verdict::Left;
        }
        match (self.check)(seen) {
            Ok(()) => Verdict::Passed,
            Err(error) => Verdict::Failed(format!("{error:#}")),
        }
    }
}

fn group(seen: &Seen<'_>) -> anyhow::Result<()> {
    let wanted = format!(
        "/subscriptions/{}/resourceGroups/mgmt",
        seen.ready.subscription_id
    );
    seen.is("/group", &json!(wanted))?;
    ensure!(
        seen.unsupported.is_empty(),
        "it asked for what the emulator does not know: {}",
        seen.unsupported.join(", ")
    );
    Ok(())
}

fn identity(seen: &Seen<'_>) -> anyhow::Result<()> {
    seen.is("/identity/kept", &json!(true))?;
    seen.is("/identity/listed", &json!(["app-identity"]))?;
    seen.is("/identity/tenant_id", &json!(seen.ready.tenant_id))?;
    let id = seen.text("/identity/id")?.to_ascii_lowercase();
    ensure!(
        id.ends_with(
            "/resourcegroups/mgmt/providers/microsoft.managedidentity/userassignedidentities/app-identity"
        ),
        "its id is {id}"
    );
    let statuses = seen.statuses("PUT", "/userassignedidentities/app-identity");
    ensure!(statuses == [201, 200], "its writes were answered {statuses:?}");
    Ok(())
}

fn credentials(seen: &Seen<'_>) -> anyhow::Result<()> {
    seen.is("/credentials", &json!(["one", "two"]))?;
    let wanted = json!({ "issuer": issuer::NAME, "subject": issuer::SUBJECT, "audiences": ["api://AzureADTokenExchange"] });
    seen.is("/credential", &wanted)
}

fn before_grant(seen: &Seen<'_>) -> anyhow::Result<()> {
    seen.error("/before_grant", 403, "AuthorizationFailed")?;
    seen.asked_as_the_identity(403)
}

fn grant(seen: &Seen<'_>) -> anyhow::Result<()> {
    seen.is("/grants", &json!([true]))?;
    seen.error("/granted_twice", 409, "RoleAssignmentExists")
}

fn machines(seen: &Seen<'_>) -> anyhow::Result<()> {
    seen.is("/machines", &json!(["vm-0"]))?;
    seen.asked_as_the_identity(200)
}

fn throttled(seen: &Seen<'_>) -> anyhow::Result<()> {
    seen.is("/throttled/machines", &json!([]))?;
    let waited = seen.facts.pointer("/throttled/waited_ms").and_then(Value::as_u64);
    let waited = waited.context("it did not say how long it waited")?;
    ensure!(
        waited >= RETRY_AFTER_SECS * 1000,
        "it waited {waited} ms, not the {RETRY_AFTER_SECS} s that it was told to"
    );
    let statuses = seen.statuses("GET", "/mgmt/providers/microsoft.compute/virtualmachines");
    ensure!(statuses == [429, 200], "the list was answered {statuses:?}");
    Ok(())
}

fn refused(seen: &Seen<'_>) -> anyhow::Result<()> {
    seen.error("/refused", 409, "OperationNotAllowed")?;
    let message = seen.text("/refused/message")?;
    ensure!(
        message.contains("The operation is not allowed now."),
        "its message is {message:?}"
    );
    // azcore of Go keeps an error's details as text only.
    match seen.facts.pointer("/refused/detail") {
        None => Ok(()),
        Some(_) => seen.is("/refused/detail", &json!("Busy")),
    }
}

fn cluster(seen: &Seen<'_>) -> anyhow::Result<()> {
    seen.is("/cluster/state", &json!("Succeeded"))?;
    seen.is("/cluster/node_group", &json!("MC_mgmt_cluster_eastus"))?;
    seen.is("/cluster/pod_identities", &json!(["my-app/app Assigned"]))?;
    let polls = seen.polls("/providers/microsoft.containerservice/locations/eastus/operations/");
    ensure!(
        polls.len() == 3 && polls.values().all(|count| *count >= 2),
        "its three operations were asked about {polls:?} times"
    );
    Ok(())
}

fn exchange(seen: &Seen<'_>) -> anyhow::Result<()> {
    seen.is("/credentials_after", &json!(["two"]))?;
    let message = seen.text("/exchange_after/message")?;
    ensure!(message.contains("AADSTS700213"), "the refusal says {message:?}");
    Ok(())
}

fn deleted(seen: &Seen<'_>) -> anyhow::Result<()> {
    seen.error("/after_delete", 404, "ResourceNotFound")?;
    seen.is("/group_after", &json!(false))?;
    let polls = seen.polls("/operationresults/");
    ensure!(
        polls.len() == 1 && polls.values().all(|count| *count >= 2),
        "the group's deletion was asked about {polls:?} times"
    );
    let last = seen
        .asked
        .last()
        .and_then(|entry| entry.get("status"))
        .and_then(Value::as_u64);
    ensure!(
        last == Some(404),
        "the group was answered {last:?} after its deletion"
    );
    Ok(())
}

impl Seen<'_> {
    fn is(&self, pointer: &str, wanted: &Value) -> anyhow::Result<()> {
        let found = self.facts.pointer(pointer).unwrap_or(&Value::Null);
        ensure!(found == wanted, "`{pointer}` is {found}, not {wanted}");
        Ok(())
    }

    fn text(&self, pointer: &str) -> anyhow::Result<&str> {
        let found = self.facts.pointer(pointer).and_then(Value::as_str);
        found.with_context(|| format!("it reported no `{pointer}`"))
    }

    /// An error of the SDK's own type, with ARM's code in its place.
    fn error(&self, pointer: &str, status: u16, code: &str) -> anyhow::Result<()> {
        self.is(&format!("{pointer}/status"), &json!(status))?;
        self.is(&format!("{pointer}/code"), &json!(code))?;
        let message = self.text(&format!("{pointer}/message"))?;
        ensure!(!message.is_empty(), "the error `{pointer}` has no message");
        Ok(())
    }

    /// The statuses of the requests with that method whose path ends so, in lower case.
    fn statuses(&self, method: &str, end: &str) -> Vec<u64> {
        let those = self.asked.iter().filter(|entry| {
            let path = text(entry, "path").to_ascii_lowercase();
            text(entry, "method") == method && path.ends_with(end)
        });
        those
            .filter_map(|entry| entry.get("status").and_then(Value::as_u64))
            .collect()
    }

    /// Whether the identity itself asked for the machines, and was answered so.
    fn asked_as_the_identity(&self, status: u16) -> anyhow::Result<()> {
        let client_id = self.text("/identity/client_id")?;
        let asked = self.asked.iter().any(|entry| {
            text(entry, "principal") == client_id
                && text(entry, "path")
                    .ends_with("/azure-emulator/providers/Microsoft.Compute/virtualMachines")
                && entry.get("status") == Some(&json!(status))
        });
        ensure!(asked, "no list of machines by the identity was answered {status}");
        Ok(())
    }

    /// How often each operation was asked about.
    fn polls(&self, part: &str) -> BTreeMap<String, usize> {
        let mut polls = BTreeMap::new();
        for entry in self.asked {
            let path = text(entry, "path").to_ascii_lowercase();
            if path.contains(part) {
                *polls.entry(path).or_default() += 1;
            }
        }
        polls
    }
}

fn text<'a>(entry: &'a Value, member: &str) -> &'a str {
    entry.get(member).and_then(Value::as_str).unwrap_or_default()
}
