//! Answers: JSON bodies whole or streamed, errors as `Status` objects, warnings.

use std::convert::Infallible;

use bytes::Bytes;
use futures::Stream;
use futures::StreamExt;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::Value;

use crate::json;
use crate::status::ApiError;

/// A response of the API server.
pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// A whole body.
pub(crate) fn whole(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()).boxed_unsync());
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// No body.
pub(crate) fn nothing() -> Answer {
    let mut answer = Response::new(Full::default().boxed_unsync());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

/// A JSON body.
pub(crate) fn json(status: StatusCode, value: &Value) -> Answer {
    text(status, json::bytes(value))
}

/// A JSON body that is already text.
pub(crate) fn text(status: StatusCode, body: Bytes) -> Answer {
    whole(status, "application/json", body)
}

/// A body that comes piece by piece.
pub(crate) fn stream(
    content_type: &'static str,
    pieces: impl Stream<Item = Bytes> + Send + 'static,
) -> Answer {
    let frames = pieces.map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
    let mut answer = Response::new(StreamBody::new(frames).boxed_unsync());
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// An error.
pub(crate) fn error(error: &ApiError) -> Answer {
    if let Some(text) = error.plain_text() {
        return whole(error.code, "text/plain; charset=utf-8", text);
    }
    let mut answer = json(error.code, &error.to_status());
    if error.code == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer realm=\"kubernetes\"");
        answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    if let Some(seconds) = error.retry_after() {
        answer
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

/// Adds warnings for people, as `kubectl` prints them.
pub(crate) fn warn(answer: &mut Answer, warnings: &[String]) {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            answer.headers_mut().append(WARNING, value);
        }
    }
}
