//! `podid get pods`: who would get what, by core's own decision.

use kube::Client;
use podid_core::{Decision, Identity};
use serde::Serialize;

use super::{GetArgs, no_such};
use crate::error::CliError;
use crate::output::{self, Format, Listing};
use crate::printer::Printer;
use crate::world::{self, Placed, Seen};

impl IdentityView {
    /// Its name, and how a request may name it.
    pub(crate) fn shown(&self) -> String {
        let by = [
            ("client id", &self.client_id),
            ("object id", &self.object_id),
            ("resource id", &self.resource_id),
        ];
        let by = by
            .into_iter()
            .find_map(|(what, id)| id.as_ref().map(|id| format!("{what} {id}")));
        format!("{}/{} ({})", self.namespace, self.name, by.unwrap_or_default())
    }
}

/// What one pod would get.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PodView {
    namespace: String,
    name: String,
    uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    node: String,
    phase: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    selector: Option<String>,
    /// Of a request that names no identity.
    reason: &'static str,
    message: String,
    /// What such a request gets.
    identity: Option<IdentityView>,
    /// What the pod may name besides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    also: Vec<IdentityView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exception: Option<String>,
}

/// An identity, as a pod may name it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IdentityView {
    namespace: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_id: Option<String>,
}

impl From<&Identity> for IdentityView {
    fn from(identity: &Identity) -> Self {
        Self {
            namespace: identity.object.namespace.to_string(),
            name: identity.object.name.to_string(),
            client_id: identity.client_id.map(|id| id.to_string()),
            object_id: identity.object_id.map(|id| id.to_string()),
            resource_id: identity.resource_id.as_ref().map(ToString::to_string),
        }
    }
}

pub(super) async fn run(args: GetArgs, client: Client, printer: &mut Printer) -> Result<(), CliError> {
    let params = args.params();
    let seen = world::read(&client, &args.scope, &args.names, &params, args.policy, printer).await?;
    let views: Vec<PodView> = seen.pods.iter().map(|pod| view(&seen, pod)).collect();
    let everywhere = args.scope.all_namespaces;
    let one = args.names.len() == 1 && matches!(args.output, Format::Json | Format::Yaml);
    if let (true, [only]) = (one, views.as_slice()) {
        output::object(only, "", args.output, printer)?;
    } else if args.names.is_empty() || !views.is_empty() {
        let namespace = everywhere.then_some("NAMESPACE");
        let listing = Listing {
            what: "pods",
            titles: namespace
                .into_iter()
                .chain(["NAME", "SELECTOR", "GETS", "ALSO", "REASON"])
                .collect(),
            rows: views.iter().map(|view| row(view, everywhere)).collect(),
            names: views.iter().map(|view| format!("pod/{}", view.name)).collect(),
            data: &views,
        };
        listing.print(args.output, printer)?;
    }
    if args.output == Format::Table {
        explain_reasons(&views, printer);
    }
    no_such("pods", seen.missing)
}

fn view(seen: &Seen, placed: &Placed) -> PodView {
    let pod = &placed.pod;
    let decision = seen.decide(placed, None, &mut ());
    let (mut message, mut identity, mut exception) = (decision.reason().text().to_owned(), None, None);
    match &decision {
        Decision::Issue { identity: issued, .. } => identity = Some(*issued),
        Decision::PassThrough {
            exception: matched, ..
        } => exception = matched.map(|exception| exception.object.to_string()),
        Decision::Refuse(refusal) => message = refusal.describe(),
    }
    let also = seen.nameable(placed).into_iter();
    let also = also.filter(|also| identity.is_none_or(|default| default.object != also.object));
    PodView {
        namespace: pod.id.object.namespace.to_string(),
        name: pod.id.object.name.to_string(),
        uid: pod.id.uid.to_string(),
        node: placed.node.clone(),
        phase: placed.phase.clone(),
        selector: pod.selector().map(ToString::to_string),
        reason: decision.reason().code(),
        message,
        also: also.map(|also| IdentityView::from(&**also)).collect(),
        identity: identity.map(|identity| IdentityView::from(&**identity)),
        exception,
    }
}

fn row(view: &PodView, everywhere: bool) -> Vec<String> {
    let gets = match (&view.identity, &view.exception) {
        (Some(identity), _) => shown(identity, view),
        (None, Some(_)) => "<the node's own>".to_owned(),
        (None, None) => String::new(),
    };
    let also: Vec<_> = view.also.iter().map(|also| shown(also, view)).collect();
    let namespace = everywhere.then(|| view.namespace.clone());
    let selector = view.selector.clone().unwrap_or_default();
    namespace
        .into_iter()
        .chain([
            view.name.clone(),
            selector,
            gets,
            also.join(","),
            view.reason.to_owned(),
        ])
        .collect()
}

/// An identity's name; with its namespace where that is not the pod's.
fn shown(identity: &IdentityView, view: &PodView) -> String {
    if identity.namespace == view.namespace {
        identity.name.clone()
    } else {
        format!("{}/{}", identity.namespace, identity.name)
    }
}

/// Says once what each reason in the table means and what would help.
fn explain_reasons(views: &[PodView], printer: &mut Printer) {
    for reason in podid_core::Reason::all() {
        let pods = views.iter().filter(|view| view.reason == reason.code()).count();
        if pods > 0 && !reason.fix().is_empty() {
            printer.hint(&format!("{}: {}; {}", reason.code(), reason.text(), reason.fix()));
        }
    }
}
