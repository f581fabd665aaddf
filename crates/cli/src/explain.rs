//! `podid explain`: one pod's decision, step by step, by core's own function over what the cluster declares.

use clap::Args;
use kube::Client;
use kube::api::ListParams;
use podid_core::decide::Steps;
use podid_core::{Decision, Guid, IdentityResourceId, Selector};
use serde::Serialize;

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
  podid explain web-7d4b9 -n my-app --client-id \"$CLIENT_ID\"    # may it name this one?")]
pub struct ExplainArgs {
    /// Name of the pod
    #[arg(value_name = "POD")]
    pub pod: String,

    /// Its namespace; that of the kubeconfig's context when not given
    #[arg(short, long, value_name = "NS")]
    pub namespace: Option<String>,

    #[command(flatten)]
    pub asks: AsksArgs,

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
    pub resource: Option<IdentityResourceId>,
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
    pub(crate) async fn run(self, client: Client, printer: &mut Printer) -> Result<(), CliError> {
        let Self {
            pod,
            namespace,
            asks,
            output,
            policy,
        } = self;
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

fn explain(seen: &Seen, placed: &Placed, asks: &AsksArgs) -> Explanation {
    let AsksArgs {
        client,
        object,
        resource,
    } = asks;
    // At most one is given, which clap sees to.
    let selector = match (client, object, resource) {
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
    let width = steps.iter().map(|step| step.step.len()).max().unwrap_or_default();
    let mut lines: Vec<String> = steps
        .iter()
        .map(|Step { step, found }| output::printable(&format!("{step:width$}   {found}")))
        .collect();
    lines.push(output::printable(&format!(
        "{:width$}   {reason}: {message}",
        "so"
    )));
    let names: Vec<String> = nameable.iter().map(IdentityView::shown).collect();
    if !names.is_empty() {
        let line = format!("{:width$}   it may name {}", "", names.join(", "));
        lines.push(output::printable(&line));
    }
    lines.join("\n")
}
