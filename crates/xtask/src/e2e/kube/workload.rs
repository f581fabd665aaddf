//! What users run on the cluster: pods that ask for tokens, given to the real kubectl. They ask with curl, once, with
//! no retry: the first request is the one that counts.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::kube::cluster::{Cluster, eventually};
use crate::kube::tools::run;

/// The token endpoint, as every SDK asks it.
pub(super) const TOKEN_URL: &str = "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://management.azure.com/";
/// How long a pod may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// A cluster, by kubectl.
pub(super) struct Kubectl<'a>(pub(super) &'a Cluster);

/// A pod that asks once and ends.
#[derive(Clone, Debug, Default)]
pub(super) struct Ask<'a> {
    pub(super) name: &'a str,
    pub(super) namespace: &'a str,
    pub(super) labels: Vec<(&'a str, &'a str)>,
    pub(super) node: Option<&'a str>,
    /// Added to the token endpoint's query, or the whole URL when it starts with `http`
    pub(super) url: String,
}

/// What the metadata service, or the agent in its place, answered.
#[derive(Clone, Debug)]
pub(super) struct Answered {
    pub(super) status: u16,
    pub(super) body: String,
}

impl Answered {
    /// The client id in the token, if it is one.
    pub(super) fn client_id(&self) -> Option<String> {
        let body: Value = serde_json::from_str(&self.body).ok()?;
        body.get("client_id")?.as_str().map(str::to_owned)
    }

    /// The status and client id in a pod's log: the body, then the status on a line of its own.
    pub(super) fn read(log: &str) -> anyhow::Result<Self> {
        let log = log.trim_end();
        let (body, status) = log.rsplit_once('\n').unwrap_or(("", log));
        Ok(Self {
            status: status.parse().with_context(|| format!("no status in {log:?}"))?,
            body: body.to_owned(),
        })
    }
}

impl Kubectl<'_> {
    /// Runs kubectl.
    pub(super) fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        run(self.0.kubectl().args(arguments))
    }

    /// `kubectl apply -f -`.
    pub(super) fn apply(&self, text: &str) -> anyhow::Result<()> {
        self.feed(&["apply", "-f", "-"], text).map(drop)
    }

    /// `kubectl create -f -`.
    pub(super) fn create(&self, object: &Value) -> anyhow::Result<()> {
        self.feed(&["create", "-f", "-"], &object.to_string()).map(drop)
    }

    /// kubectl with something on its standard input.
    pub(super) fn feed(&self, arguments: &[&str], text: &str) -> anyhow::Result<String> {
        let mut child = self
            .0
            .kubectl()
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start kubectl")?;
        child
            .stdin
            .take()
            .context("the input is a pipe")?
            .write_all(text.as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim_end());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Makes a namespace unless there is one.
    pub(super) fn namespace(&self, name: &str) -> anyhow::Result<()> {
        self.apply(
            &json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }).to_string(),
        )?;
        // Until the namespace has it, pods are refused.
        self.run(&[
            "-n",
            name,
            "wait",
            "--for=create",
            "--timeout=30s",
            "serviceaccount/default",
        ])
        .map(drop)
    }

    /// Runs a pod to its end and gives what it was answered. The pod is deleted.
    pub(super) fn ask(&self, ask: &Ask<'_>) -> anyhow::Result<Answered> {
        let pod = pod(ask, json!([container(&curl(&ask.url))]), json!([]));
        self.create(&pod)?;
        let done = self.finished(ask.namespace, &format!("pod/{}", ask.name));
        let log = done.and_then(|()| self.run(&["-n", ask.namespace, "logs", ask.name]));
        self.delete(ask.namespace, "pod", ask.name)?;
        Answered::read(&log?)
    }

    /// Waits until a pod has ended.
    pub(super) fn finished(&self, namespace: &str, pod: &str) -> anyhow::Result<()> {
        let phase = || self.run(&["-n", namespace, "get", pod, "--output=jsonpath={.status.phase}"]);
        eventually("the pod has ended", PATIENCE, || {
            phase().is_ok_and(|phase| matches!(phase.as_str(), "Succeeded" | "Failed"))
        })
        .with_context(|| self.run(&["-n", namespace, "describe", pod]).unwrap_or_default())
    }

    /// Deletes at once.
    pub(super) fn delete(&self, namespace: &str, kind: &str, name: &str) -> anyhow::Result<()> {
        self.run(&[
            "-n",
            namespace,
            "delete",
            kind,
            name,
            "--grace-period=1",
            "--ignore-not-found",
        ])
        .map(drop)
    }
}

/// The shell command that asks.
pub(super) fn curl(url: &str) -> String {
    let url = if url.starts_with("http") {
        url.to_owned()
    } else {
        format!("{TOKEN_URL}{url}")
    };
    format!("curl --silent --max-time 40 --header Metadata:true --write-out '\\n%{{http_code}}\\n' '{url}'")
}

/// A container of the test image with this shell command.
pub(super) fn container(command: &str) -> Value {
    json!({
        "name": "ask", "image": "localhost/box:1", "imagePullPolicy": "Never", "command": ["sh", "-c", command],
        "securityContext": { "capabilities": { "drop": ["ALL"] } },
    })
}

/// A pod that runs to its end.
pub(super) fn pod(ask: &Ask<'_>, containers: Value, init: Value) -> Value {
    let mut spec = template(ask, containers, init);
    if let Some(object) = spec.as_object_mut() {
        object.insert("apiVersion".to_owned(), json!("v1"));
        object.insert("kind".to_owned(), json!("Pod"));
    }
    spec
}

/// Metadata and spec, also of a Job's template.
pub(super) fn template(ask: &Ask<'_>, containers: Value, init: Value) -> Value {
    let labels: serde_json::Map<String, Value> = ask
        .labels
        .iter()
        .map(|(k, v)| ((*k).to_owned(), json!(v)))
        .collect();
    let mut spec = json!({
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
        "initContainers": init, "containers": containers,
    });
    if let (Some(node), Some(spec)) = (ask.node, spec.as_object_mut()) {
        spec.insert(
            "nodeSelector".to_owned(),
            json!({ "kubernetes.io/hostname": node }),
        );
    }
    json!({
        "metadata": { "name": ask.name, "namespace": ask.namespace, "labels": labels },
        "spec": spec,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_the_body_and_the_last_line_its_status() {
        let answered = Answered::read("{\"client_id\":\"c\"}\n200\n").unwrap();
        assert_eq!(
            (answered.status, answered.client_id().as_deref()),
            (200, Some("c"))
        );
        let empty = Answered::read("\n000\n").unwrap();
        assert_eq!((empty.status, empty.client_id()), (0, None));
    }
}
