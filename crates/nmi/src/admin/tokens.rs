//! `/tokens`: what the broker keeps (never the token itself), a token as a pod would get it, and a refresh ahead of time.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use podid_broker::{Remembered, Source};
use podid_core::ask::TOKEN_PATH;
use podid_core::decide::{self, Steps};
use podid_core::{Decision, Identity, ObjectName, Reason, TokenRequest, World};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::answer::Trouble;
use super::explain::decision;
use super::question::Question;
use crate::answer::Answer;
use crate::args::METADATA_IP;
use crate::caller::Connection;
use crate::handler::Handler;
use crate::rate::{RateLimit, Rates};

/// All that is kept, or what is kept for the identity that a pod would get.
pub(super) fn list<S: Source>(
    handler: &Handler<S>,
    node: &str,
    question: Question<'_>,
) -> Result<Value, Trouble> {
    let only = if question.get("pod").is_some() {
        let world = handler.world.load();
        Some(identity(handler, &world, node, question)?.object.clone())
    } else {
        None
    };
    let kept = handler.broker.remembered().into_iter();
    let kept = kept.filter(|one| only.as_ref().is_none_or(|only| one.key.identity.object == *only));
    Ok(json!({ "tokens": shown(kept, handler.clock.unix_secs()) }))
}

/// What is kept for one identity.
pub(super) fn of<S: Source>(handler: &Handler<S>, identity: &ObjectName) -> Value {
    let kept = handler.broker.remembered().into_iter();
    let kept = kept.filter(|one| one.key.identity.object == *identity);
    shown(kept, handler.clock.unix_secs())
}

fn shown(kept: impl Iterator<Item = Remembered>, now: u64) -> Value {
    let mut kept: Vec<Remembered> = kept.collect();
    kept.sort_by(|a, b| {
        (&a.key.identity.object, &a.key.resource).cmp(&(&b.key.identity.object, &b.key.resource))
    });
    kept.iter()
        .map(|one| {
            json!({
                "identity": one.key.identity.object.to_string(),
                "resource": &*one.key.resource,
                "via": one.key.via.code(),
                "expires_on": one.expires_on,
                "expires_in": one.expires_on.map(|at| at.saturating_sub(now)),
                "refresh_at": one.refresh_at,
                "last_used": one.used,
                "fetching": one.fetching,
                "failures": one.failures,
                "refused": one.refused.as_ref().map(|error| json!({ "code": error.code, "text": error.text })),
            })
        })
        .collect()
}

/// A token exactly as the pod would get it: its own request, through the handler of all pods' requests. Only who opened
/// the connection is taken for granted, and the pod's rate is not used up.
pub(super) async fn issue<S: Source>(
    handler: &Handler<S>,
    node: &str,
    question: Question<'_>,
) -> Result<Answer, Trouble> {
    let world = handler.world.load();
    let pod = question.pod(&world, node)?;
    let address = pod.addresses.first().copied().ok_or_else(|| {
        Trouble::new(
            StatusCode::CONFLICT,
            Reason::PodNotFound.code(),
            format!("pod {} reports no address yet", pod.id.object),
        )
    })?;
    let no_limit = Rates::new(RateLimit {
        per_second: 0,
        burst: 0,
    });
    let connection = Connection::of_pod(
        SocketAddr::new(address, 0),
        SocketAddr::from((METADATA_IP, 80)),
        Arc::clone(&pod.id.uid),
        no_limit.bucket(&pod.id.uid),
    );
    let request = Request::get(format!("{TOKEN_PATH}?{}", question.of_the_pod()))
        .header("Metadata", "true")
        .body(Empty::<Bytes>::new().map_err(|never| match never {}))
        .map_err(|error| {
            Trouble::new(
                StatusCode::BAD_REQUEST,
                Reason::QueryInvalid.code(),
                error.to_string(),
            )
        })?;
    drop(world);
    Ok(handler.answer(&connection, request).await)
}

/// Fetches what is kept for the pod's identity anew, or what is named; what was kept stays when that fails.
pub(super) async fn refresh<S: Source>(
    handler: &Handler<S>,
    node: &str,
    question: Question<'_>,
) -> Result<Value, Trouble> {
    let identity = {
        let world = handler.world.load();
        Arc::clone(identity(handler, &world, node, question)?)
    };
    let only = question.get("resource");
    let kept: Vec<Remembered> = handler
        .broker
        .remembered()
        .into_iter()
        .filter(|one| one.key.identity.object == identity.object)
        .filter(|one| only.as_deref().is_none_or(|only| *one.key.resource == *only))
        .collect();
    if kept.is_empty() {
        return Err(Trouble::new(
            StatusCode::NOT_FOUND,
            "no_token_kept",
            format!(
                "no token of {} is kept{}, so there is nothing to refresh; the pod's next request fetches one",
                identity.object,
                only.map(|only| format!(" for {only}")).unwrap_or_default()
            ),
        ));
    }
    let deadline = Instant::now() + handler.wait;
    let renewed = kept.iter().map(|one| async move {
        let (resource, via) = (&*one.key.resource, one.key.via.code());
        match handler.broker.renew(one.key.lookup(), deadline).await {
            Ok(token) => json!({
                "resource": resource,
                "via": via,
                "expires_on": token.expires_on,
                "expires_in": token.expires_in(handler.clock.unix_secs()),
            }),
            Err(error) => json!({
                "resource": resource,
                "via": via,
                "error": { "code": error.code(), "message": error.to_string() },
            }),
        }
    });
    let renewed = futures::future::join_all(renewed).await;
    let all = renewed.iter().all(|one| one.get("error").is_none());
    Ok(json!({ "identity": identity.object.to_string(), "refreshed": all, "tokens": renewed }))
}

/// The identity that the pod would get.
fn identity<'w, S: Source>(
    handler: &Handler<S>,
    world: &'w World,
    node: &str,
    question: Question<'_>,
) -> Result<&'w Arc<Identity>, Trouble> {
    let pod = question.pod(world, node)?;
    let query = question.of_the_pod();
    let request = TokenRequest::parse(&query)
        .map_err(|reason| Trouble::new(StatusCode::BAD_REQUEST, reason.code(), reason.text()))?;
    let asked = decide::Question::Token(&request);
    match decision(world, handler.policy, pod, asked, &mut Steps::default()) {
        Decision::Issue { identity, .. } => Ok(identity),
        Decision::PassThrough { .. } => Err(Trouble::new(
            StatusCode::CONFLICT,
            Reason::PassedThrough.code(),
            "the pod has an exception: its tokens are the node's metadata service's own, and none is kept",
        )),
        Decision::Refuse(refusal) => Err(Trouble::new(
            StatusCode::CONFLICT,
            refusal.reason.code(),
            refusal.describe(),
        )),
    }
}
