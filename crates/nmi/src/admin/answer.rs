//! Answers to the admin: JSON, and why not.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::body::AnswerBody;

/// Why an admin gets no answer.
#[derive(Debug)]
pub(super) struct Trouble {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Trouble {
    /// `code` is stable, `message` says what would help.
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    pub(super) fn answer(self) -> Answer {
        json(
            self.status,
            &json!({ "error": { "code": self.code, "message": self.message } }),
        )
    }
}

/// `body`, for people too.
pub(super) fn json(status: StatusCode, body: &Value) -> Answer {
    let text = format!("{body:#}\n");
    whole(status, text.into(), HeaderValue::from_static("application/json"))
}

pub(super) fn text(body: &'static str) -> Answer {
    whole(
        StatusCode::OK,
        body.into(),
        HeaderValue::from_static("text/plain; charset=utf-8"),
    )
}

fn whole(status: StatusCode, body: Bytes, kind: HeaderValue) -> Answer {
    let mut answer = Response::new(AnswerBody::Whole(Full::new(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
