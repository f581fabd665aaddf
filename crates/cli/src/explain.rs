//! `podid explain`: one pod's decision, step by step, by core's own function over what the cluster declares.

use std::path::PathBuf;

use clap::Args;
use http::Method;
use kube::api::ListParams;
use podid_core::decide::Steps;
use podid_core::{Decision, Guid, IdentityResourceId, Selector};
use serde::Serialize;
use serde_json::Value;

use crate::agent::{AgentArgs, DEFAULT_SOCKET, about};
use crate::cluster::Cluster;
use crate::error::CliError;
use crate::get::{IdentityView, ScopeArgs};
use crate::output::{self, Format};
use crate::printer::Printer;
use crate::world::{self, Placed, PolicyArgs, Seen};

/// Flags of `podid explain`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
What is told is the decision of the pod's agent over what the cluster declares now. The pod is not asked, nor is Azure: a
token may still fail there, which the agent's log and the pod's events say.

Examples:
  podid explain web-7d4b9 -n my-app
  podid explain web-7d4b9 -n my-app --client-id \"$CLIENT_ID\"    # may it name this one?
  podid explain web-7d4b9 -n my-app --admin-socket               # on its node: what the agent says")]
pub struct ExplainArgs {
    /// Name of the pod
    #[arg(value_name = "POD")]
    pub pod: String,

    /// Its namespace; that of the kubeconfig's context when not given
    #[arg(short, long, value_name = "NS")]
    pub namespace: Option<String>,

    #[command(flatten)]
    pub asks: AsksArgs,

    /// Ask this node's agent itself, as root, at its admin socket (/run/podid/admin.sock when no path is given)
    #[arg(
        long,
        value_name = "PATH",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = DEFAULT_SOCKET
    )]
    pub admin_socket: Option<PathBuf>,

    /// Format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Format,

    #[command(flatten)]
    pub policy: PolicyArgs,
}

/// Which identity the pod names.
#[derive(Args, Clone, Debug, Default)]
#[group(multiple = false)]
pub struct AsksArgs {
    /// The pod names the identity of this client id
    #[arg(long = "client-id", value_name = "GUID")]
    pub client: Option<Guid>,
    /// The pod names the identity of this object id
    #[arg(long = "object-id", value_name = "GUID")]
    pub object: Option<Guid>,
    /// The pod names the identity of this ARM id
    #[arg(long = "identity-resource-id", value_name = "ID")]
    pub arm: Option<IdentityResourceId>,
}

/// The decision, as data.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Explanation {
    namespace: String,
    pod: String,
    reason: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<IdentityView>,
    /// What else the pod may name.
    nameable: Vec<IdentityView>,
    steps: Vec<Step>,
}

#[derive(Serialize)]
struct Step {
    step: &'static str,
    found: String,
}

impl ExplainArgs {
    pub(crate) async fn run(self, cluster: &Cluster, printer: &mut Printer) -> Result<(), CliError> {
        let Self {
            pod,
            namespace,
            asks,
            admin_socket,
            output,
            policy,
        } = self;
        if let Some(admin_socket) = admin_socket {
            let agent = AgentArgs { admin_socket };
            let name = format!("{}/{pod}", namespace.as_deref().unwrap_or("default"));
            let answer = agent
                .ask(Method::GET, about("/explain", &name, None, &asks))
                .await?;
            return by_agent(&answer, output, printer);
        }
        let client = cluster.client().await?;
        let scope = ScopeArgs {
            namespace,
            all_namespaces: false,
        };
        let names = [pod];
        let seen = world::read(&client, &scope, &names, &ListParams::default(), policy, printer).await?;
        let [placed] = seen.pods.as_slice() else {
            return Err(CliError::NoSuchObjects {
                plural: "pods".to_owned(),
                names: names.to_vec(),
            });
        };
        let explanation = explain(&seen, placed, &asks);
        match output {
            Format::Table => printer.data(&text(&explanation)),
            other => output::object(&explanation, explanation.reason, other, printer)?,
        }
        Ok(())
    }
}

/// The agent's own explanation, in the same form.
fn by_agent(answer: &Value, output: Format, printer: &mut Printer) -> Result<(), CliError> {
    if output != Format::Table {
        return output::object(answer, "", output, printer);
    }
    let text = |of: &Value, member: &str| {
        of.get(member)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let steps = answer.get("steps").and_then(Value::as_array);
    let mut lines: Vec<(String, String)> = steps
        .into_iter()
        .flatten()
        .map(|step| (text(step, "looked_at"), text(step, "found")))
        .collect();
    lines.push((
        "so".to_owned(),
        format!("{}: {}", text(answer, "reason"), text(answer, "text")),
    ));
    printer.data(&columns(&lines));
    Ok(())
}

/// Steps below each other.
fn columns(lines: &[(String, String)]) -> String {
    let width = lines.iter().map(|(step, _)| step.len()).max().unwrap_or_default();
    let lines = lines
        .iter()
        .map(|(step, found)| output::printable(&format!("{step:width$}   {found}")));
    lines.collect::<Vec<_>>().join("\n")
}

fn explain(seen: &Seen, placed: &Placed, asks: &AsksArgs) -> Explanation {
    let AsksArgs { client, object, arm } = asks;
    // At most one is given, which clap sees to.
    let selector = match (client, object, arm) {
        (Some(id), ..) => Some(Selector::ClientId(*id)),
        (_, Some(id), _) => Some(Selector::ObjectId(*id)),
        (.., Some(id)) => Some(Selector::ResourceId(id.as_str().into())),
        (None, None, None) => None,
    };
    let mut steps = Steps::default();
    let decision = seen.decide(placed, selector, &mut steps);
    let (mut message, mut identity) = (decision.reason().text().to_owned(), None);
    match &decision {
        Decision::Issue { identity: issued, .. } => identity = Some(IdentityView::from(&***issued)),
        Decision::PassThrough { .. } => {}
        Decision::Refuse(refusal) => message = refusal.describe(),
    }
    let nameable = seen.nameable(placed).into_iter();
    Explanation {
        namespace: placed.pod.id.object.namespace.to_string(),
        pod: placed.pod.id.object.name.to_string(),
        reason: decision.reason().code(),
        message,
        identity,
        nameable: nameable.map(|identity| IdentityView::from(&**identity)).collect(),
        steps: steps
            .0
            .into_iter()
            .map(|(step, found)| Step { step, found })
            .collect(),
    }
}

/// For people: the steps in their order, then what they came to.
fn text(explanation: &Explanation) -> String {
    let Explanation {
        reason,
        message,
        nameable,
        steps,
        ..
    } = explanation;
    let mut lines: Vec<(String, String)> = steps
        .iter()
        .map(|Step { step, found }| ((*step).to_owned(), found.clone()))
        .collect();
    lines.push(("so".to_owned(), format!("{reason}: {message}")));
    let names: Vec<String> = nameable.iter().map(IdentityView::shown).collect();
    if !names.is_empty() {
        lines.push((String::new(), format!("it may name {}", names.join(", "))));
    }
    columns(&lines)
}
