//! The story's pods in the cluster: made and deleted as `kubectl` does, looked at by their logs.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, LogParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::ask::{Answer, Outcome};
use crate::failure::Failure;
use crate::kubelet::image;

/// Pause between two looks.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(40);
/// Who applies.
const MANAGER: &str = "kubectl-client-side-apply";

/// The cluster, as the story uses it.
#[derive(Clone)]
pub(crate) struct Pods {
    pub(crate) client: Client,
    /// Published keys, with which pods check tokens.
    pub(crate) keys: String,
}

/// A pod that asks the metadata service.
pub(crate) struct Asking<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) labels: Value,
    pub(crate) node: Option<&'a str>,
    /// What to ask, in this order.
    pub(crate) urls: Vec<String>,
    /// Again and again with this pause.
    pub(crate) every: Option<Duration>,
    /// How long an answer may take.
    pub(crate) timeout: Duration,
}

impl Pods {
    fn api(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// `kubectl apply`.
    pub(crate) async fn apply(&self, namespace: &str, pod: &Value) -> Result<(), Failure> {
        let name = pod
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let params = PatchParams::apply(MANAGER).force();
        self.api(namespace)
            .patch(name, &params, &Patch::Apply(pod))
            .await?;
        Ok(())
    }

    /// Starts a pod that asks.
    pub(crate) async fn ask(&self, asking: Asking<'_>) -> Result<(), Failure> {
        let mut arguments = asking.urls;
        arguments.extend(["--keys".to_owned(), self.keys.clone()]);
        arguments.extend(["--timeout-ms".to_owned(), asking.timeout.as_millis().to_string()]);
        if let Some(every) = asking.every {
            arguments.extend(["--every-ms".to_owned(), every.as_millis().to_string()]);
        }
        let mut pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": asking.name, "namespace": asking.namespace, "labels": asking.labels },
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 2,
                "containers": [{ "name": "ask", "image": image::ASK, "args": arguments }],
            },
        });
        if let (Some(node), Some(spec)) = (asking.node, pod.get_mut("spec").and_then(Value::as_object_mut)) {
            spec.insert(
                "nodeSelector".to_owned(),
                json!({ "kubernetes.io/hostname": node }),
            );
        }
        self.apply(asking.namespace, &pod).await
    }

    /// The log so far; empty while there is none.
    pub(crate) async fn log(&self, namespace: &str, name: &str) -> Result<String, Failure> {
        match self.api(namespace).logs(name, &LogParams::default()).await {
            Ok(log) => Ok(log),
            Err(kube::Error::Api(status)) if status.code == 400 => Ok(String::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// The answers so far.
    pub(crate) async fn answers(&self, namespace: &str, name: &str) -> Result<Vec<Answer>, Failure> {
        let log = self.log(namespace, name).await?;
        Ok(log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect())
    }

    /// Waits for answers with which `enough` is content.
    pub(crate) async fn until(
        &self,
        (namespace, name): (&str, &str),
        what: &str,
        deadline: Duration,
        enough: impl Fn(&[Answer]) -> bool,
    ) -> Result<Vec<Answer>, Failure> {
        let end = Instant::now() + deadline;
        loop {
            let answers = self.answers(namespace, name).await?;
            if enough(&answers) {
                return Ok(answers);
            }
            if Instant::now() >= end {
                let last = answers
                    .last()
                    .map_or_else(|| "no answer yet".to_owned(), |answer| answer.outcome.to_string());
                let got = format!(
                    "{last}, after {deadline:?}{}",
                    self.trouble(namespace, name).await
                );
                return Err(Failure::mismatch(what, got));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// What a pod that says nothing is waiting for.
    pub(crate) async fn trouble(&self, namespace: &str, name: &str) -> String {
        let Ok(pod) = self.api(namespace).get(name).await else {
            return "; the pod is gone".to_owned();
        };
        let status = pod.status.unwrap_or_default();
        let state = status
            .container_statuses
            .and_then(|all| all.into_iter().next()?.state)
            .and_then(|state| serde_json::to_string(&state).ok())
            .unwrap_or_default();
        format!("; the pod is {} {state}", status.phase.unwrap_or_default())
    }

    /// `kubectl delete pod`, which waits until it is gone.
    pub(crate) async fn delete(
        &self,
        namespace: &str,
        name: &str,
        deadline: Duration,
    ) -> Result<(), Failure> {
        let api = self.api(namespace);
        match api.delete(name, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let end = Instant::now() + deadline;
        while api.get_opt(name).await?.is_some() {
            if Instant::now() >= end {
                return Err(Failure::said(format!(
                    "pod {namespace}/{name} is still there after {deadline:?}"
                )));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Names of the pods of a namespace.
    pub(crate) async fn names(&self, namespace: &str) -> Result<Vec<String>, Failure> {
        let all = self
            .api(namespace)
            .list(&kube::api::ListParams::default())
            .await?;
        Ok(all
            .items
            .into_iter()
            .filter_map(|pod| pod.metadata.name)
            .collect())
    }
}

/// The client id in a token, if it is one.
pub(crate) fn token_of(answer: &Answer) -> Option<&str> {
    match &answer.outcome {
        Outcome::Token { claims } => Some(claims.appid.as_str()),
        _ => None,
    }
}

/// Whether it is a refusal: an answer with an error status.
pub(crate) fn refused(answer: &Answer) -> bool {
    matches!(&answer.outcome, Outcome::Answered { status, .. } if (400..500).contains(status))
}
