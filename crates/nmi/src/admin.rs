//! The admin's door: a Unix socket that only root can open. Loopback would prove nothing on a node with pods on its
//! network. It shows what the agent knows and why it decides as it does, by the very functions that answer pods; nothing
//! here decides anything.
//!
//! ```text
//! connect ─▶ folder 0700, socket 0600 ─▶ uid of the peer (SO_PEERCRED) ─▶ GET /state, /config, /explain, /tokens
//!                                                                      └▶ PUT /log-level, POST /tokens…
//! ```

mod answer;
mod client;
mod explain;
mod question;
mod shown;
mod socket;
mod state;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use podid_broker::Source;
use podid_rt::logging;
use podid_rt::stop::Stop;
use podid_rt::tasks::Group;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::net::unix::UCred;

use self::answer::Trouble;
pub use self::client::AdminArgs;
use self::question::Question;
pub(crate) use self::shown::shown;
pub use self::socket::{AdminSocket, AdminSocketError, DEFAULT_ADMIN_SOCKET};
use crate::answer::Answer;
use crate::handler::Handler;

/// Longest body, in bytes: a filter of the log.
const MAX_BODY: usize = 4 * 1024;
/// How long a request's head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// What there is, for who asks for `/`.
const DOORS: &str = "GET /state\nGET /config\nGET /log-level\nPUT /log-level\n\
GET /explain?pod=NAMESPACE/NAME[&resource=…][&client_id=…][&path=…]\nGET /tokens[?pod=NAMESPACE/NAME]\n\
POST /tokens?pod=NAMESPACE/NAME[&resource=…][&client_id=…]\nPOST /tokens/refresh?pod=NAMESPACE/NAME[&resource=…][&client_id=…]\n";

/// Answers the admin.
#[derive(Debug)]
pub(crate) struct Admin<S> {
    pub(crate) handler: Arc<Handler<S>>,
    /// The node's name.
    pub(crate) node: String,
    /// What `/config` shows.
    pub(crate) config: Value,
}

impl<S: Source> Admin<S> {
    /// Serves who may, until told to stop.
    pub(crate) async fn run(self: Arc<Self>, socket: AdminSocket, group: Group, stop: Stop) {
        loop {
            let (stream, peer) = tokio::select! {
                () = stop.requested() => return,
                accepted = socket.accept() => accepted,
            };
            group.spawn(Arc::clone(&self).connection(stream, peer, stop.clone()));
        }
    }

    async fn connection(self: Arc<Self>, stream: UnixStream, peer: UCred, stop: Stop) {
        let service = hyper::service::service_fn(move |request| {
            let admin = Arc::clone(&self);
            async move { Ok::<_, std::convert::Infallible>(admin.answer(request, peer).await) }
        });
        let mut connection = std::pin::pin!(
            hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
        );
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.requested() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "an admin's connection ended early");
        }
    }

    async fn answer(&self, request: Request<Incoming>, peer: UCred) -> Answer {
        let (parts, body) = request.into_parts();
        let question = Question(parts.uri.query().unwrap_or_default());
        let path = parts.uri.path();
        if parts.method != Method::GET {
            // What changes something or hands out a token is told, with who asked.
            tracing::info!(
                uid = peer.uid(),
                pid = peer.pid(),
                method = %parts.method,
                path,
                pod = question.get("pod").as_deref(),
                "an admin asks"
            );
        }
        let outcome = match (&parts.method, path) {
            (&Method::GET, "/") => return answer::text(DOORS),
            (&Method::GET, "/state") => Ok(state::state(&self.handler, &self.node)),
            (&Method::GET, "/config") => Ok(self.config.clone()),
            (&Method::GET, "/log-level") => Ok(json!({ "filter": logging::filter() })),
            (&Method::PUT, "/log-level") => relog(body).await,
            (&Method::GET, "/explain") => explain::explain(&self.handler, &self.node, question),
            (&Method::GET, "/tokens") => tokens::list(&self.handler, &self.node, question),
            (&Method::POST, "/tokens") => {
                return tokens::issue(&self.handler, &self.node, question)
                    .await
                    .unwrap_or_else(Trouble::answer);
            }
            (&Method::POST, "/tokens/refresh") => tokens::refresh(&self.handler, &self.node, question).await,
            (_, "/" | "/state" | "/config" | "/log-level" | "/explain" | "/tokens" | "/tokens/refresh") => {
                Err(Trouble::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "method_not_allowed",
                    format!("{} is not served at {path}; GET / says what is", parts.method),
                ))
            }
            _ => Err(Trouble::new(
                StatusCode::NOT_FOUND,
                "not_found",
                format!("there is nothing at {path}; GET / says what there is"),
            )),
        };
        match outcome {
            Ok(body) => answer::json(StatusCode::OK, &body),
            Err(trouble) => trouble.answer(),
        }
    }
}

/// Sets the log's filter to the body's text.
async fn relog(body: Incoming) -> Result<Value, Trouble> {
    let bad = |text: String| Trouble::new(StatusCode::BAD_REQUEST, "log_filter_invalid", text);
    let body: Bytes = Limited::new(body, MAX_BODY)
        .collect()
        .await
        .map_err(|error| bad(format!("the filter cannot be read: {error}")))?
        .to_bytes();
    let text = std::str::from_utf8(&body)
        .map_err(|error| bad(format!("the filter is no text: {error}")))?
        .trim();
    let before = logging::filter();
    logging::set_filter(text).map_err(|error| match error {
        logging::SetFilterError::Filter(error) => bad(error.to_string()),
        logging::SetFilterError::NotHere => {
            Trouble::new(StatusCode::CONFLICT, "log_not_ours", error.to_string())
        }
    })?;
    tracing::info!(before, now = text, "the log's filter was changed");
    Ok(json!({ "before": before, "filter": logging::filter() }))
}
