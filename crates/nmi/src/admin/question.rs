//! What an admin asks about: a pod of this node, and a request that it could make.

use std::borrow::Cow;
use std::sync::Arc;

use http::StatusCode;
use podid_core::{Phase, Pod, World};

use super::answer::Trouble;

/// What is asked for when nothing is named. Source: the audience of ARM, which the tutorial's workload asks for.
const USUAL_RESOURCE: &str = "https://management.azure.com/";
/// Any that is known.
const API_VERSION: &str = "2018-02-01";

/// The query of an admin's request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'q>(pub(super) &'q str);

impl<'q> Question<'q> {
    /// The first value of a parameter; an empty one counts as not given.
    pub(super) fn get(self, name: &str) -> Option<Cow<'q, str>> {
        form_urlencoded::parse(self.0.as_bytes())
            .find(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value)
    }

    /// The query of the pod's own request: what is needed and not given is added, all else is as it was written, so that
    /// the token path's own reader judges it.
    pub(super) fn of_the_pod(self) -> String {
        let mut query = self.0.to_owned();
        let mut add = |name: &str, value: &str| {
            if self.get(name).is_none() {
                let pair = form_urlencoded::Serializer::new(String::new())
                    .append_pair(name, value)
                    .finish();
                query.push('&');
                query.push_str(&pair);
            }
        };
        add("api-version", API_VERSION);
        add("resource", USUAL_RESOURCE);
        query
    }

    /// The pod that `pod=NAMESPACE/NAME` names.
    pub(super) fn pod<'w>(self, world: &'w World, node: &str) -> Result<&'w Arc<Pod>, Trouble> {
        let bad = |text: &str| Trouble::new(StatusCode::BAD_REQUEST, "pod_missing", text);
        let named = self
            .get("pod")
            .ok_or_else(|| bad("name the pod: ?pod=NAMESPACE/NAME"))?;
        let (namespace, name) = named
            .split_once('/')
            .ok_or_else(|| bad("the pod is named by NAMESPACE/NAME"))?;
        let mut found: Vec<&Arc<Pod>> = world
            .pods()
            .filter(|pod| *pod.id.object.namespace == *namespace && *pod.id.object.name == *name)
            .collect();
        // One that ended and its successor may have one name.
        found.sort_by_key(|pod| pod.phase == Phase::Finished);
        found.first().copied().ok_or_else(|| {
            let text = format!(
                "no pod {named} on this node ({node}): it runs on another one, or the watch has not brought it yet; \
                 kubectl get pod -o wide says where it is"
            );
            Trouble::new(StatusCode::NOT_FOUND, "pod_not_found", text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_is_added_and_the_rest_left_as_it_was() {
        let asked = Question("pod=a%2Fb&client_id=x");
        assert_eq!(asked.get("pod").as_deref(), Some("a/b"));
        assert_eq!(asked.get("resource"), None);
        let whole = Question("pod=a/b&resource=https%3A%2F%2Fx&api-version=2019-08-01");
        assert_eq!(whole.of_the_pod(), whole.0);
        assert_eq!(
            Question("client_id=x").of_the_pod(),
            "client_id=x&api-version=2018-02-01&resource=https%3A%2F%2Fmanagement.azure.com%2F"
        );
    }
}
