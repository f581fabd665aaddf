//! The agent of this node, asked at its admin socket, which only root can open. One request a connection.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::error::CliError;
use crate::explain::AsksArgs;

/// Where an agent has its admin socket unless told otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "/run/podid/admin.sock";
/// Most bytes of an answer; the state of a node with thousands of pods has less.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// How to reach the agent.
#[derive(Args, Clone, Debug)]
pub struct AgentArgs {
    /// Admin socket of this node's agent
    #[arg(long, env = "PODID_ADMIN_SOCKET", hide_env_values = true, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub admin_socket: PathBuf,
}

/// Why the agent gave no answer, or said no.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Nobody answers there.
    #[error("no agent answers at {0}")]
    Absent(PathBuf, #[source] io::Error),
    /// Only root may ask.
    #[error("{0} may be opened by root only")]
    Forbidden(PathBuf, #[source] io::Error),
    /// The connection broke.
    #[error("the agent's answer cannot be read: {0}")]
    Broken(String),
    /// The agent says no.
    #[error("the agent refused: {message} ({code})")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its code.
        code: String,
        /// Its words.
        message: String,
    },
}

impl AgentError {
    /// Whether what was asked about is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// What could be done about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Absent(..) | Self::Forbidden(..) => Some(
                "run it as root on the pod's node, or ask from afar: kubectl -n podid-system exec AGENT_POD_OF_THAT_NODE -- podid-nmi admin /"
                    .to_owned(),
            ),
            Self::Refused { code, .. } if code == "pod_not_found" => {
                Some("`kubectl get pod -o wide` says on which node it is; its agent must be asked".to_owned())
            }
            Self::Broken(_) | Self::Refused { .. } => None,
        }
    }
}

impl AgentArgs {
    /// Asks, and gives the answer's body.
    pub(crate) async fn ask(&self, method: Method, target: String) -> Result<Value, CliError> {
        Ok(self.exchange(method, target).await?)
    }

    async fn exchange(&self, method: Method, target: String) -> Result<Value, AgentError> {
        let broken = |error: &dyn std::error::Error| AgentError::Broken(error.to_string());
        let stream = UnixStream::connect(&self.admin_socket).await.map_err(|error| {
            let at = self.admin_socket.clone();
            if error.kind() == io::ErrorKind::PermissionDenied {
                AgentError::Forbidden(at, error)
            } else {
                AgentError::Absent(at, error)
            }
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("Host", "podid-nmi")
            .body(Empty::<Bytes>::new())
            .map_err(|error| broken(&error))?;
        let answered = async {
            let answer = sender
                .send_request(request)
                .await
                .map_err(|error| broken(&error))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER)
                .collect()
                .await
                .map_err(|error| AgentError::Broken(error.to_string()))?;
            Ok((status, body.to_bytes()))
        };
        tokio::pin!(connection);
        let (status, body) = tokio::select! {
            answered = answered => answered,
            Err(error) = &mut connection => Err(broken(&error)),
        }?;
        let body: Value = serde_json::from_slice(&body).map_err(|error| broken(&error))?;
        if status.is_success() {
            return Ok(body);
        }
        let text = |at: &str| body.pointer(at).and_then(Value::as_str).map(str::to_owned);
        Err(AgentError::Refused {
            status: status.as_u16(),
            // The agent's own shape, or the metadata service's.
            code: text("/error/code")
                .or_else(|| text("/error"))
                .unwrap_or_else(|| status.to_string()),
            message: text("/error/message")
                .or_else(|| text("/error_description"))
                .unwrap_or_else(|| "it did not say why".to_owned()),
        })
    }
}

/// `path` with a query about a pod, and the identity that it names.
pub(crate) fn about(path: &str, pod: &str, resource: Option<&str>, asks: &AsksArgs) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("pod", pod);
    let AsksArgs { client, object, arm } = asks;
    let pairs = [
        ("resource", resource.map(str::to_owned)),
        ("client_id", client.map(|id| id.to_string())),
        ("object_id", object.map(|id| id.to_string())),
        ("msi_res_id", arm.as_ref().map(ToString::to_string)),
    ];
    for (name, value) in pairs {
        if let Some(value) = value {
            query.append_pair(name, &value);
        }
    }
    format!("{path}?{}", query.finish())
}
