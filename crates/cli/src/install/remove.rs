//! `podid uninstall`: takes the interception off every node, then deletes what `podid install` made. The chart's hook
//! runs the first half before `helm uninstall`.
//!
//! ```text
//! no policy closes new nodes ─▶ the controller takes the start-up taint off all ─▶ the agents' DaemonSet removes instead of
//! intercepts ─▶ rolled out on every node ─▶ objects deleted
//! ```

use std::time::Duration;

use clap::Args;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, TypeMeta};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::objects::{self, NAMESPACE, Placing};
use super::{FIELD_MANAGER, Shown, other, rollout};
use crate::error::CliError;
use crate::flags::Name;
use crate::printer::Printer;

/// How long the API server may take to delete one object.
const DELETION: Duration = Duration::from_mins(1);
/// The agent's container, and the one that removes the interception.
const AGENT: &str = "nmi";
const REMOVER: &str = "uninstall";
/// The controller's container, and its variable that says what becomes of the start-up taint.
const CONTROLLER: &str = "controller";
const STARTUP_TAINT: &str = "PODID_STARTUP_TAINT";

/// What a container may beyond an ordinary program.
const CAPABILITIES: &str = "/securityContext/capabilities/add";
const NET_ADMIN: &str = "NET_ADMIN";
const NET_BIND_SERVICE: &str = "NET_BIND_SERVICE";
/// Below are ports that need a capability to listen on.
const FIRST_FREE_PORT: i64 = 1024;

/// Flags of `podid uninstall`.
#[derive(Args, Clone, Debug)]
pub struct UninstallArgs {
    /// Namespace that podid is in
    #[arg(short, long, value_name = "NS", default_value = NAMESPACE)]
    pub namespace: Name,
    /// Delete the custom resource definitions as well, with every object of theirs, and the namespace if podid made it
    #[arg(long)]
    pub purge: bool,
    /// Only take the interception off the nodes, and delete nothing
    #[arg(long, conflicts_with = "purge")]
    pub nodes_only: bool,
    /// Name of the agents' DaemonSet
    #[arg(long, value_name = "NAME", default_value = "podid-nmi")]
    pub agent: Name,
    /// Name of the controller's Deployment
    #[arg(long, value_name = "NAME", default_value = "podid-controller")]
    pub controller: Name,
    /// How long the nodes may take, in seconds
    #[arg(long, value_name = "SECS", default_value_t = 300)]
    pub timeout_secs: u64,
    /// Change nothing; print what would be deleted
    #[arg(long)]
    pub dry_run: bool,
    /// Format of what is printed
    #[command(flatten)]
    pub shown: Shown,
}

impl UninstallArgs {
    /// What would be deleted, in order.
    pub(super) fn doomed(&self) -> Result<Vec<DynamicObject>, CliError> {
        let placing = Placing {
            namespace: &self.namespace.0,
            repository: None,
            tag: None,
        };
        let mut objects = objects::all(placing)?;
        objects.extend(objects::policy(placing)?);
        objects.retain(|object| self.purge || !objects::is_kept(object));
        objects.reverse();
        Ok(objects)
    }

    /// Removes podid.
    pub(crate) async fn run(self, client: Client, printer: &mut Printer) -> Result<(), CliError> {
        let agents = Api::<DynamicObject>::namespaced_with(client.clone(), &self.namespace.0, &daemon_sets());
        let title = format!("DaemonSet {}/{}", self.namespace.0, self.agent.0);
        let found = agents
            .get_opt(&self.agent.0)
            .await
            .map_err(|error| CliError::from_kube(format!("read {title}"), error))?;
        if self.nodes_only || found.as_ref().is_none_or(|agent| other::helm(agent).is_none()) {
            self.release_nodes(&client, printer).await?;
        }
        match &found {
            Some(agent)
                if !self.nodes_only
                    && let Some(release) = other::helm(agent) =>
            {
                return Err(CliError::Occupied(format!(
                    "podid was installed by Helm here: use `helm uninstall {release}`"
                )));
            }
            Some(agent) => self.open_nodes(&client, &agents, agent, printer).await?,
            None => printer.say(&format!(
                "{title} not found: no agent is there that could take the interception off its node"
            )),
        }
        if self.nodes_only {
            return Ok(());
        }
        let mut left = Vec::new();
        for object in self.doomed()? {
            if !delete(&client, &object, printer).await? {
                left.push(objects::title(&object));
            }
        }
        for title in left {
            printer.say(&format!("{title} is kept: it does not carry podid's label"));
        }
        if !self.purge {
            printer.hint(&format!(
                "kept: the custom resource definitions with every object of yours, and namespace {}; --purge deletes them",
                self.namespace.0
            ));
        }
        if found.is_none() {
            printer.hint("if nodes are still closed, `podid install` and then `podid uninstall` opens them");
        }
        Ok(())
    }

    /// No node is closed to pods any more, and none will be. The controller does it, which alone may change nodes.
    async fn release_nodes(&self, client: &Client, printer: &mut Printer) -> Result<(), CliError> {
        let name = &self.controller.0;
        let deployment = TypeMeta {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
        };
        let placing = Placing {
            namespace: &self.namespace.0,
            repository: None,
            tag: None,
        };
        // The chart names everything alike.
        let policy = format!("{}-startup-taint", name.trim_end_matches("-controller"));
        for mut object in objects::policy(placing)?.into_iter().rev() {
            object.metadata.name = Some(policy.clone());
            delete(client, &object, printer).await?;
        }
        let api = Api::<DynamicObject>::namespaced_with(
            client.clone(),
            &self.namespace.0,
            &objects::resource(&deployment),
        );
        let failed = |error| CliError::from_kube(format!("change Deployment {name}"), error);
        let Some(there) = api.get_opt(name).await.map_err(failed)? else {
            return Ok(());
        };
        if !keeps_nodes_closed(&there) {
            return Ok(());
        }
        let change = json!({ "spec": { "template": { "spec": { "containers": [{
            "name": CONTROLLER, "env": [{ "name": STARTUP_TAINT, "value": "remove" }],
        }] } } } });
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let mut changed = api
            .patch(name, &params, &Patch::Strategic(&change))
            .await
            .map_err(failed)?;
        changed.types.get_or_insert(deployment);
        printer.say("taking the start-up taint off every node");
        rollout::finished(client, &changed, Duration::from_secs(self.timeout_secs), printer).await
    }

    async fn open_nodes(
        &self,
        client: &Client,
        agents: &Api<DynamicObject>,
        agent: &DynamicObject,
        printer: &mut Printer,
    ) -> Result<(), CliError> {
        let change = remover(agent).ok_or_else(|| {
            CliError::Occupied(format!(
                "{} has no container `{AGENT}`: it is not podid's agent",
                objects::title(&typed(agent.clone()))
            ))
        })?;
        let what = format!("change DaemonSet {}", agent.name_any());
        let changed = agents
            .patch(
                &agent.name_any(),
                &PatchParams {
                    field_manager: Some(FIELD_MANAGER.to_owned()),
                    ..PatchParams::default()
                },
                &Patch::Merge(&change),
            )
            .await
            .map_err(|error| CliError::from_kube(what, error))?;
        printer.say("taking the interception off every node");
        rollout::finished(
            client,
            &typed(changed),
            Duration::from_secs(self.timeout_secs),
            printer,
        )
        .await?;
        printer.say("no node is intercepted any more");
        Ok(())
    }
}

/// Whether this controller puts the start-up taint on nodes.
fn keeps_nodes_closed(controller: &DynamicObject) -> bool {
    let containers = controller
        .data
        .pointer("/spec/template/spec/containers")
        .and_then(Value::as_array);
    let variables = containers
        .into_iter()
        .flatten()
        .filter(|container| container.get("name").is_some_and(|name| name == CONTROLLER))
        .filter_map(|container| container.get("env")?.as_array())
        .flatten();
    variables
        .into_iter()
        .any(|variable| *variable == json!({ "name": STARTUP_TAINT, "value": "keep" }))
}

/// The change that makes agents remove the interception and then only be there. The chart's value `uninstall` renders
/// the same.
fn remover(agent: &DynamicObject) -> Option<Value> {
    let mut containers = agent
        .data
        .pointer("/spec/template/spec/containers")?
        .as_array()?
        .clone();
    let own = containers
        .iter_mut()
        .find(|container| container.get("name").is_some_and(|name| name == AGENT))?;
    // Each with the capabilities that it needs: who removes rules changes the network, who is only there does not.
    let mut remover = json!({ "name": REMOVER, "args": [REMOVER] });
    for key in ["image", "imagePullPolicy", "securityContext"] {
        if let (Some(value), Some(remover)) = (own.get(key), remover.as_object_mut()) {
            remover.insert(key.to_owned(), value.clone());
        }
    }
    if let Some(added) = remover.pointer_mut(CAPABILITIES) {
        *added = json!([NET_ADMIN]);
    }
    let ports = own.get("ports").and_then(Value::as_array).into_iter().flatten();
    let low = ports
        .filter_map(|port| port.get("containerPort")?.as_i64())
        .any(|port| port < FIRST_FREE_PORT);
    if let Some(added) = own.pointer_mut(CAPABILITIES).and_then(Value::as_array_mut) {
        added.retain(|one| one != NET_ADMIN && (low || one != NET_BIND_SERVICE));
    }
    let args = own.get_mut("args")?.as_array_mut()?;
    let mut changed = Vec::new();
    for arg in args.drain(..) {
        match arg.as_str() {
            Some(text) if text.starts_with("--interception=") => {
                changed.extend([json!("--interception=none"), json!("--listen=127.0.0.1:0")]);
            }
            Some(text) if text.starts_with("--listen=") => {}
            _ => changed.push(arg),
        }
    }
    *args = changed;
    Some(json!({
        "spec": {
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": "100%", "maxSurge": null } },
            "template": { "spec": { "initContainers": [remover], "containers": containers } },
        },
    }))
}

/// Deletes an object and waits until it is gone; false when it is somebody else's.
async fn delete(client: &Client, object: &DynamicObject, printer: &mut Printer) -> Result<bool, CliError> {
    let (api, name, title) = (
        objects::api(client, object),
        object.name_any(),
        objects::title(object),
    );
    let refused = |error| CliError::from_kube(format!("delete {title}"), error);
    let Some(there) = api.get_opt(&name).await.map_err(refused)? else {
        return Ok(true);
    };
    if !objects::is_ours(&there) {
        return Ok(false);
    }
    match api.delete(&name, &DeleteParams::foreground()).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(true),
        Err(error) => return Err(refused(error)),
    }
    rollout::gone(client, object, DELETION).await?;
    printer.say(&format!("{title} deleted"));
    Ok(true)
}

fn daemon_sets() -> kube::api::ApiResource {
    objects::resource(&daemon_set())
}

fn daemon_set() -> TypeMeta {
    TypeMeta {
        api_version: "apps/v1".to_owned(),
        kind: "DaemonSet".to_owned(),
    }
}

/// The API server's answers to a typed request may leave out the type.
fn typed(mut object: DynamicObject) -> DynamicObject {
    object.types.get_or_insert_with(daemon_set);
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the real helm renders with `uninstall=true`; see `cargo xtask kube render`.
    const RENDERED: &str = include_str!("../../../../deploy/kustomize/uninstall/agent.yaml");

    #[test]
    fn the_change_makes_of_the_agent_what_the_charts_value_uninstall_renders() {
        let placing = Placing {
            namespace: NAMESPACE,
            repository: None,
            tag: None,
        };
        let mut agents = objects::all(placing).unwrap();
        agents.retain(|object| objects::kind(object) == "DaemonSet");
        let [agent] = agents.as_slice() else {
            panic!("one agent")
        };
        let mut changed = serde_json::to_value(agent).unwrap();
        merge(&mut changed, &remover(agent).unwrap());
        let rendered: Value = serde_saphyr::from_str(RENDERED).unwrap();
        assert_eq!(changed, rendered);
    }

    /// RFC 7396.
    fn merge(target: &mut Value, patch: &Value) {
        let (Some(into), Some(from)) = (target.as_object_mut(), patch.as_object()) else {
            *target = patch.clone();
            return;
        };
        for (key, value) in from {
            if value.is_null() {
                into.remove(key);
            } else {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
    }

    #[test]
    fn the_rendered_controller_is_the_one_that_is_told_to_open_the_nodes() {
        let placing = Placing {
            namespace: NAMESPACE,
            repository: None,
            tag: None,
        };
        let objects = objects::all(placing).unwrap();
        let controllers = objects.iter().filter(|one| keeps_nodes_closed(one)).count();
        assert_eq!(controllers, 1);
    }

    #[test]
    fn users_objects_go_only_when_asked_for() {
        let args = |purge| UninstallArgs {
            namespace: Name("x".to_owned()),
            purge,
            nodes_only: false,
            agent: Name("podid-nmi".to_owned()),
            controller: Name("podid-controller".to_owned()),
            timeout_secs: 1,
            dry_run: true,
            shown: Shown::default(),
        };
        let kinds = |purge: bool| {
            let doomed = args(purge).doomed().unwrap();
            doomed
                .iter()
                .map(|one| objects::kind(one).to_owned())
                .collect::<Vec<_>>()
        };
        assert!(
            kinds(false)
                .iter()
                .all(|kind| kind != "CustomResourceDefinition" && kind != "Namespace")
        );
        assert_eq!(kinds(true).last().map(String::as_str), Some("Namespace"));
    }
}
