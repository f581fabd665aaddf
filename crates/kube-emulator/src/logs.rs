//! Logs of pods: where they come from is a hook. In a real cluster the API server asks the node's kubelet; here whoever
//! runs the pods gives them, or leaves them as files where this reads them.

mod folder;

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::json::{list, text};
use crate::request::Params;
use crate::status::ApiError;
use crate::store::Key;

pub use folder::LogFolder;

/// Which lines of which container are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Uid of the pod.
    pub uid: String,
    /// Node of the pod.
    pub node: String,
    /// Name of the container.
    pub container: String,
    /// How often the container was restarted; `previous` asks for the run before.
    pub restarts: u64,
    /// The run before this one.
    pub previous: bool,
    /// Go on as long as the container runs.
    pub follow: bool,
    /// Only so many lines from the end.
    pub tail_lines: Option<usize>,
    /// Only lines since this moment (Unix time in seconds).
    pub since: Option<i64>,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// Only so many bytes.
    pub limit_bytes: Option<usize>,
}

/// Pieces of a log.
pub type LogStream = Pin<Box<dyn Stream<Item = Bytes> + Send>>;
/// The answer to a query.
pub type LogAnswer = Pin<Box<dyn Future<Output = Result<LogStream, LogError>> + Send>>;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The container has not begun, or this run of it never was.
    #[error("container {container:?} in pod {pod:?} is waiting to start: {why}")]
    NotStarted {
        /// The container.
        container: String,
        /// The pod.
        pod: String,
        /// What it waits for, `ContainerCreating`.
        why: String,
    },
    /// Who runs the pod cannot be asked.
    #[error("{0}")]
    Unavailable(String),
}

impl LogError {
    /// A stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotStarted { .. } => "log_not_started",
            Self::Unavailable(_) => "log_unavailable",
        }
    }
}

/// Who has the logs of pods.
pub trait PodLogs: Debug + Send + Sync + 'static {
    /// The log that is asked for. A followed one ends when the container has ended, the pod is gone or the reader left.
    fn logs(&self, query: LogQuery) -> LogAnswer;
}

/// A log for a request; none as long as the pod is on no node.
pub(crate) async fn answer(
    cluster: &Cluster,
    source: Option<&Arc<dyn PodLogs>>,
    namespace: &str,
    name: &str,
    params: &Params,
) -> Result<Option<LogStream>, ApiError> {
    let pod = cluster
        .read(|state| state.store.get(&Key::new("pods", namespace, name)))
        .ok_or_else(|| ApiError::not_found("", "pods", name))?;
    let container = pick_container(&pod, name, params.text("container"))?;
    let node = text(&pod, &["spec", "nodeName"]);
    if node.is_empty() {
        // There is nobody to ask yet, and nothing to tell.
        return Ok(None);
    }
    if cluster
        .read(|state| state.store.get(&Key::cluster("nodes", node)))
        .is_none()
    {
        // The real one names the node in an error about pods, too.
        return Err(ApiError::not_found("", "pods", node));
    }
    let status = ["containerStatuses", "initContainerStatuses"]
        .iter()
        .flat_map(|field| list(&pod, &["status", field]))
        .find(|one| text(one, &["name"]) == container);
    let waiting = status.map_or("ContainerCreating", |status| {
        text(status, &["state", "waiting", "reason"])
    });
    let restarts = status
        .and_then(|status| status.get("restartCount")?.as_u64())
        .unwrap_or_default();
    let previous = params.flag("previous");
    if previous && restarts == 0 {
        return Err(ApiError::bad_request(format!(
            "previous terminated container {container:?} in pod {name:?} not found"
        )));
    }
    if !waiting.is_empty() && restarts == 0 {
        return Err(ApiError::bad_request(format!(
            "container {container:?} in pod {name:?} is waiting to start: {waiting}"
        )));
    }
    let now = i64::try_from(cluster.clock().unix_secs()).unwrap_or_default();
    let since = match params.text("sinceTime") {
        "" => params
            .number("sinceSeconds")?
            .and_then(|seconds| i64::try_from(seconds).ok())
            .map(|seconds| now - seconds),
        time => Some(
            time.parse::<jiff::Timestamp>()
                .map_err(|error| ApiError::bad_request(format!("sinceTime: {error}")))?
                .as_second(),
        ),
    };
    let count = |name: &str| -> Result<Option<usize>, ApiError> {
        Ok(params
            .number(name)?
            .and_then(|number| usize::try_from(number).ok()))
    };
    let query = LogQuery {
        namespace: namespace.to_owned(),
        pod: name.to_owned(),
        uid: crate::json::uid(&pod).to_owned(),
        node: node.to_owned(),
        container,
        restarts,
        previous,
        follow: params.flag("follow"),
        tail_lines: count("tailLines")?,
        since,
        timestamps: params.flag("timestamps"),
        limit_bytes: count("limitBytes")?,
    };
    let Some(source) = source else {
        return Err(ApiError::internal(format!(
            "this API server has no logs of pods: nothing answers for node {node:?}"
        )));
    };
    source.logs(query).await.map(Some).map_err(|error| match error {
        LogError::NotStarted { .. } => ApiError::bad_request(error.to_string()),
        LogError::Unavailable(_) => ApiError::internal(error.to_string()),
    })
}

fn pick_container(pod: &Value, name: &str, wanted: &str) -> Result<String, ApiError> {
    let names: Vec<&str> = list(pod, &["spec", "containers"])
        .iter()
        .map(|container| text(container, &["name"]))
        .collect();
    let is_init = |wanted: &str| {
        list(pod, &["spec", "initContainers"])
            .iter()
            .any(|container| text(container, &["name"]) == wanted)
    };
    match (wanted, names.as_slice()) {
        ("", [only]) => Ok((*only).to_owned()),
        ("", many) => Err(ApiError::bad_request(format!(
            "a container name must be specified for pod {name}, choose one of: {many:?}"
        ))),
        (wanted, names) if names.contains(&wanted) || is_init(wanted) => Ok(wanted.to_owned()),
        (wanted, _) => Err(ApiError::bad_request(format!(
            "container {wanted} is not valid for pod {name}"
        ))),
    }
}

/// Pause between two looks at a file that is followed.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(100);
