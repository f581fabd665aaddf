//! What the doors answer with, and ARM's way of refusing. Which answer it is, others decide.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

/// An answer to one request.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(HeaderName, String)>,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    Empty,
    Json(Value),
    Raw { media_type: &'static str, bytes: Bytes },
}

impl Answer {
    /// A JSON body.
    pub(crate) fn json(status: StatusCode, body: Value) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Body::Json(body),
        }
    }

    /// 200 with a JSON body.
    pub(crate) fn ok(body: Value) -> Self {
        Self::json(StatusCode::OK, body)
    }

    /// No body.
    pub(crate) fn empty(status: StatusCode) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Body::Empty,
        }
    }

    /// Bytes of some kind.
    pub(crate) fn raw(media_type: &'static str, bytes: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::OK,
            headers: Vec::new(),
            body: Body::Raw {
                media_type,
                bytes: bytes.into(),
            },
        }
    }

    /// With one more header.
    pub(crate) fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// As HTTP. HEAD gets no body.
    pub(crate) fn into_response(self, head: bool) -> Response<Full<Bytes>> {
        let (media_type, bytes) = match self.body {
            Body::Empty => (None, Bytes::new()),
            Body::Json(value) => (
                Some("application/json; charset=utf-8"),
                Bytes::from(value.to_string()),
            ),
            Body::Raw { media_type, bytes } => (Some(media_type), bytes),
        };
        let length = bytes.len();
        let mut response = Response::new(Full::new(if head { Bytes::new() } else { bytes }));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(media_type) = media_type.filter(|_| !head) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        }
        if !head && self.status != StatusCode::NO_CONTENT {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        for (name, value) in self.headers {
            // A value that cannot be a header (a line break from a request) is left out, not passed on.
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.append(name, value);
            }
        }
        response
    }
}

/// ARM says no.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: String,
    pub(crate) message: String,
    target: Option<String>,
    headers: Vec<(HeaderName, String)>,
}

/// What an ARM operation comes to.
pub(crate) type Outcome = Result<Answer, Refusal>;

impl Refusal {
    /// A refusal with ARM's code and text.
    pub(crate) fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message: message.into(),
            target: None,
            headers: Vec::new(),
        }
    }

    /// 400.
    pub(crate) fn bad(code: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 400 `InvalidRequestContent`.
    pub(crate) fn content(why: impl std::fmt::Display) -> Self {
        Self::bad(
            "InvalidRequestContent",
            format!("The request content was invalid and could not be deserialized: '{why}'."),
        )
    }

    /// 404 of a resource. Source: requests of az 2.91.0 and answers that people pasted.
    pub(crate) fn resource_not_found(kind: &str, name: &str, group: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "ResourceNotFound",
            format!(
                "The Resource '{kind}/{name}' under resource group '{group}' was not found. For more details please go to https://aka.ms/ARMResourceNotFoundFix"
            ),
        )
    }

    /// 404 of a group.
    pub(crate) fn group_not_found(group: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "ResourceGroupNotFound",
            format!("Resource group '{group}' could not be found."),
        )
    }

    /// An operation that Azure may know and the emulator does not.
    pub(crate) fn unsupported(method: &http::Method, path: &str) -> Self {
        Self::new(
            StatusCode::NOT_IMPLEMENTED,
            UNSUPPORTED,
            format!("The emulator does not know the operation '{method} {path}'."),
        )
    }

    /// What it is about.
    pub(crate) fn about(mut self, target: &str) -> Self {
        self.target = Some(target.to_owned());
        self
    }

    /// With one more header.
    pub(crate) fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The inner object of ARM's error shape.
    pub(crate) fn error(&self) -> Value {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let (Some(target), Some(error)) = (&self.target, error.as_object_mut()) {
            error.insert("target".to_owned(), json!(target));
        }
        error
    }
}

/// Code of an operation that the emulator does not have.
pub(crate) const UNSUPPORTED: &str = "NotImplemented";

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let mut answer = Self::json(refusal.status, json!({ "error": refusal.error() }));
        answer.headers = refusal.headers;
        answer.headers.push((
            HeaderName::from_static("x-ms-failure-cause"),
            "gateway".to_owned(),
        ));
        answer
    }
}

/// `{"value": [...]}`.
pub(crate) fn list(items: Vec<Value>) -> Answer {
    Answer::ok(json!({ "value": items }))
}
