//! `/host/token`: tokens of other pods' identities for node agents (a CSI driver that mounts a pod's secrets before the
//! pod runs). Only callers that are proven to be allowed ones; a source address or a header proves nothing.
//! Source: aad-pod-identity v1.8.17, `pkg/nmi/server`.

use http::header::{HeaderMap, HeaderName};
use http::request::Parts;
use podid_broker::Source;
use podid_core::ask::PathGroup;
use podid_core::decide::Question;
use podid_core::identity::ObjectName;
use podid_core::{Reason, Route, TokenRequest};
use tokio::time::Instant;

use super::grant::{For, Granted};
use super::{Ended, FORWARDED_FOR, Handler, Record, refused};
use crate::answer;
use crate::caller::{Connection, Proof};
use crate::metrics::known_resource;

/// The path, in its canonical spelling.
const HOST_TOKEN_PATH: &str = "/host/token";
const POD_NAMESPACE: HeaderName = HeaderName::from_static("podns");
const POD_NAME: HeaderName = HeaderName::from_static("podname");

/// Whether `route` leads here.
pub(super) fn is_host_token(route: &Route) -> bool {
    matches!(route, Route::Path { group: PathGroup::Other, path } if path == HOST_TOKEN_PATH)
}

impl<S: Source> Handler<S> {
    /// Answers a node agent's request for a token of the pod that its headers name.
    pub(super) async fn host_token<'p>(
        &self,
        connection: &Connection,
        parts: &'p Parts,
        started: Instant,
        record: &mut Record<'p>,
    ) -> Ended {
        if parts.method != http::Method::GET {
            return refused(Reason::MethodNotAllowed);
        }
        if parts.headers.contains_key(FORWARDED_FOR) {
            return refused(Reason::ForwardedFor);
        }
        let Some(object) = named(&parts.headers) else {
            return refused(Reason::HostHeadersMissing);
        };
        let request = match TokenRequest::parse_host(parts.uri.query().unwrap_or_default()) {
            Ok(request) => request,
            Err(reason) => return refused(reason),
        };
        record.resource = known_resource(&request.resource);
        record.selector.clone_from(&request.selector);
        if connection.is_crowded() {
            return refused(Reason::TooManyConnections);
        }
        let deadline = started + self.wait;
        let object = &*record.named.insert(object);
        loop {
            let granted = self
                .granted(
                    connection,
                    For::Named(object),
                    Question::Token(&request),
                    deadline,
                )
                .await;
            let (pod, identity) = match granted {
                Ok(Granted::Token { pod, identity }) => (pod, identity),
                // Not decided for a pod that is named; it would be the node's token.
                Ok(Granted::Passage { .. }) => return refused(Reason::PathClosed),
                Err(ended) => return *ended,
            };
            let fetched = self.fetch_first(&pod, &identity, &request, deadline).await;
            let outcome = match fetched.map_err(|not| not.refusal(&pod, &identity, deadline)) {
                Ok(token) => {
                    tracing::info!(
                        pod = %pod.id.object,
                        identity = %identity.object,
                        caller = connection.proof().map(Proof::uid),
                        "token given to a node agent"
                    );
                    Ok(answer::to_host(
                        &self.body(&token, &identity, &request),
                        identity.client_id,
                    ))
                }
                // What was decided does not hold any more; decide anew.
                Err(None) => continue,
                Err(Some(refusal)) => Err(refusal),
            };
            return Ended {
                outcome,
                reason: Some(Reason::TokenIssued),
                pod: Some(pod),
            };
        }
    }
}

/// The pod that the headers name; none unless both are there, once.
fn named(headers: &HeaderMap) -> Option<ObjectName> {
    let one = |name: HeaderName| {
        let mut values = headers.get_all(name).iter();
        let value = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
        // Source: Kubernetes: the longest name of an object, in bytes.
        (!value.is_empty() && value.len() <= 253).then_some(value)
    };
    Some(ObjectName::new(one(POD_NAMESPACE)?, one(POD_NAME)?))
}
