//! Passing a request on to the real metadata service and its answer back, re-framed: hop-by-hop headers stay on
//! their side, bodies have limits, redirects are not followed. Whether a request may pass is decided before.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::{Body, Frame};
use reqwest::Url;

use crate::answer::{Answer, Refusal};
use crate::body::{AnswerBody, BodyError};

/// How long the metadata service may take for a connection; it is one hop away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long it may take for a whole answer. Source: 30 s is the shortest read limit of a known client.
const TIMEOUT: Duration = Duration::from_secs(25);
/// How long a client may take to send a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of a request body; a scheduled-events approval has a few hundred.
const MAX_REQUEST: usize = 64 * 1024;
/// Most bytes of an answer, in bytes; instance metadata with user data has up to 64 KiB of it in base64.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// How much of a refusal of the service is told in other words, in bytes.
const MAX_TOLD: usize = 4096;
/// What a pod is told to wait, in seconds, when the metadata service did not answer.
const RETRY_AFTER_SECS: u64 = 5;

/// The way to the real metadata service.
#[derive(Clone, Debug)]
pub(crate) struct Forward {
    client: reqwest::Client,
    endpoint: Url,
}

impl Forward {
    /// Passes on to `endpoint`, of which only scheme and authority count.
    pub(crate) fn new(endpoint: Url) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .build()?;
        Ok(Self { client, endpoint })
    }

    /// Passes the request on to `path` of the metadata service, its query unchanged.
    pub(crate) async fn pass<B>(&self, parts: &Parts, path: &str, body: B) -> Result<Answer, Refusal>
    where
        B: Body<Data = Bytes, Error = BodyError> + Send + Unpin,
    {
        let url = self.target(path, parts.uri.query())?;
        // Read whole, so that it goes upstream with a length.
        let body = tokio::time::timeout(BODY_TIMEOUT, whole(body))
            .await
            .unwrap_or_else(|_| {
                Err(Refusal::new(
                    StatusCode::REQUEST_TIMEOUT,
                    "body_late",
                    "The request body did not come in time",
                ))
            })?;
        let request = self
            .client
            .request(parts.method.clone(), url)
            .headers(end_to_end(&parts.headers))
            .body(body);
        let upstream = request.send().await.map_err(|error| {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the metadata service did not answer a passed-on request"
            );
            Refusal::unavailable(
                "metadata_service_failed",
                "The metadata service did not answer",
                RETRY_AFTER_SECS,
            )
        })?;
        Ok(back(upstream))
    }

    /// The address upstream. The URL's parser cleans paths (`..`, `\`), which must not lead to another path than the one
    /// that was decided on.
    fn target(&self, path: &str, query: Option<&str>) -> Result<Url, Refusal> {
        let mut url = self.endpoint.clone();
        url.set_path(path);
        url.set_query(query);
        if url.path() != path {
            return Err(Refusal::bad_request("path_invalid", "Invalid request"));
        }
        Ok(url)
    }
}

/// The whole body of a request, unless it is longer than anything the service takes.
async fn whole<B>(mut body: B) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes, Error = BodyError> + Send + Unpin,
{
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Err(Refusal::bad_request(
                "body_unreadable",
                "The request body could not be read",
            ));
        };
        // Trailers are meant for this hop.
        let Ok(data) = frame.into_data() else { continue };
        if read.len() + data.len() > MAX_REQUEST {
            return Err(Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                "The request body is too large",
            ));
        }
        read.extend_from_slice(&data);
    }
    Ok(read.freeze())
}

/// Status, headers and a streamed body, with the length the service gave.
fn back(upstream: reqwest::Response) -> Answer {
    let status = upstream.status();
    let mut headers = end_to_end(upstream.headers());
    if let Some(length) = upstream.headers().get(CONTENT_LENGTH) {
        headers.insert(CONTENT_LENGTH, length.clone());
    }
    let stream = upstream
        .bytes_stream()
        .map_ok(Frame::data)
        .map_err(BodyError::new);
    let body = Limited::new(StreamBody::new(stream), MAX_ANSWER);
    let mut answer = Response::new(AnswerBody::Passed(body.map_err(BodyError::new).boxed_unsync()));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer
}

/// A passed-on answer, or what it refuses where that is to be told in other words: the beginning of its body.
pub(crate) async fn or_refusal(answer: Answer) -> Result<Answer, Refusal> {
    let status = answer.status();
    if status == StatusCode::OK {
        return Ok(answer);
    }
    let mut read = Vec::new();
    let mut body = answer.into_body();
    while let Some(Ok(frame)) = body.frame().await
        && read.len() < MAX_TOLD
    {
        read.extend(frame.into_data().unwrap_or_default());
    }
    read.truncate(MAX_TOLD);
    let text = format!(
        "adal: Refresh request failed. Status Code = '{}'. Response body: {}",
        status.as_u16(),
        String::from_utf8_lossy(&read).trim_end()
    );
    Err(Refusal::new(status, "metadata_service_refused", text))
}

/// The headers that are meant for the other end. `Host` and lengths are written anew on each side.
/// Source: RFC 9110, section 7.6.1.
fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let mut kept = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        if !is_hop_by_hop(name) && !named.contains(name) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    [
        CONNECTION,
        CONTENT_LENGTH,
        EXPECT,
        HOST,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ]
    .contains(name)
        || [
            "keep-alive",
            "proxy-authenticate",
            "proxy-authorization",
            "proxy-connection",
        ]
        .contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paths_parser_never_leads_elsewhere() {
        rustls::crypto::ring::default_provider().install_default().ok();
        let forward = Forward::new("http://127.0.0.1:1".parse().unwrap()).unwrap();
        assert_eq!(
            forward
                .target("/metadata/instance/compute", Some("api-version=2021-02-01"))
                .unwrap()
                .as_str(),
            "http://127.0.0.1:1/metadata/instance/compute?api-version=2021-02-01"
        );
        for path in [
            "/metadata/instance/../identity/oauth2/token",
            "/metadata\\identity/oauth2/token",
            "/metadata/%2e%2e/x",
            "/a b",
        ] {
            assert_eq!(
                forward.target(path, None).unwrap_err().reason,
                "path_invalid",
                "{path}"
            );
        }
    }

    #[test]
    fn what_is_meant_for_one_hop_stays_there() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("host", "evil.example"),
            ("metadata", "true"),
            ("x-ms-client-request-id", "7"),
        ] {
            headers.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        let kept = end_to_end(&headers);
        let names: Vec<_> = kept.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["metadata", "x-ms-client-request-id"]);
    }
}
