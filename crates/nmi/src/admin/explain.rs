//! `/explain`: what a pod would be answered and why, by the token path's own reader and its own decision, run once more
//! with the steps recorded.

use std::sync::Arc;

use podid_broker::Source;
use podid_core::decide::{self, Steps};
use podid_core::reason::Waits;
use podid_core::{
    Caller, Decision, Pod, Policy, Reason, Refusal, Route, TokenRequest, World, decide as decided,
};
use serde_json::{Value, json};

use super::answer::Trouble;
use super::question::Question;
use super::{state, tokens};
use crate::handler::Handler;

/// What would be decided for `pod`.
pub(super) fn decision<'w>(
    world: &'w World,
    policy: Policy,
    pod: &'w Arc<Pod>,
    question: decide::Question<'_>,
    steps: &mut Steps,
) -> Decision<'w> {
    let Some(address) = pod.addresses.first().copied() else {
        return Decision::Refuse(Refusal {
            reason: Reason::PodNotFound,
            pod: Some(pod),
            looked_for: format!("pod {} reports no address yet", pod.id.object),
        });
    };
    let caller = Caller::Proven {
        uid: &pod.id.uid,
        address,
    };
    decided(world, policy, caller, question, steps)
}

pub(super) fn explain<S: Source>(
    handler: &Handler<S>,
    node: &str,
    question: Question<'_>,
) -> Result<Value, Trouble> {
    let world = handler.world.load();
    let pod = question.pod(&world, node)?;
    let query = question.of_the_pod();
    let request = TokenRequest::parse(&query);
    let path = question.get("path");
    let mut steps = Steps::default();
    let refuse = |reason| {
        Decision::Refuse(Refusal {
            reason,
            pod: Some(pod),
            looked_for: String::new(),
        })
    };
    let decision = match (path.as_deref().map(Route::parse), &request) {
        (None | Some(Route::Token), Ok(request)) => decision(
            &world,
            handler.policy,
            pod,
            decide::Question::Token(request),
            &mut steps,
        ),
        (None | Some(Route::Token), Err(reason)) => refuse(*reason),
        (Some(Route::Path { group, .. }), _) => decision(
            &world,
            handler.policy,
            pod,
            decide::Question::Path(group),
            &mut steps,
        ),
        (Some(Route::Invalid), _) => refuse(Reason::PathInvalid),
        (Some(Route::NotFound), _) => refuse(Reason::PathNotFound),
    };
    let reason = decision.reason();
    let (outcome, text, identity) = match &decision {
        Decision::Issue { identity, .. } => ("token", reason.text().to_owned(), Some(*identity)),
        Decision::PassThrough { .. } => ("pass_through", reason.text().to_owned(), None),
        Decision::Refuse(refusal) => ("refused", refusal.describe(), None),
    };
    Ok(json!({
        "pod": state::pod(pod),
        "request": {
            "path": path,
            "resource": request.as_ref().ok().map(|request| &*request.resource),
            "selector": request
                .as_ref()
                .ok()
                .and_then(|request| request.selector.as_ref())
                .map(ToString::to_string),
        },
        "outcome": outcome,
        "reason": reason.code(),
        "text": text,
        "fix": reason.fix(),
        "waits_for": match reason.waits() {
            Waits::Never => None,
            Waits::ForPod => Some("a watch event about the pod"),
            Waits::ForNamespace => Some("a watch event about the pod's namespace"),
        },
        "synced": handler.world.is_synced(),
        "steps": steps.0.iter().map(|(what, found)| json!({ "looked_at": what, "found": found })).collect::<Vec<_>>(),
        "identity": identity.map(|identity| state::identity(identity)),
        "tokens": identity.map(|identity| tokens::of(handler, &identity.object)),
        "besides": "the kernel must confirm, when the pod asks, that the connection is its own (--attestation, see /config)",
    }))
}
