//! What a pod reads: token and error bodies in the shape of the metadata service. Texts here never hold a secret
//! except the token itself, which goes into the 200 and nowhere else.

use http::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use podid_core::Guid;
use podid_core::reason::Reason;
use serde::{Serialize, Serializer};

use crate::body::AnswerBody;

mod style;

pub(crate) use self::style::About;
pub use self::style::Errors;

/// An answer to a pod.
pub(crate) type Answer = Response<AnswerBody>;

/// Content type of everything we write ourselves. Source: recorded answers of the real service.
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// The reason code of a refusal, for people and tests.
pub(crate) const REASON: HeaderName = HeaderName::from_static("x-podid-reason");

/// Answers to the probes of SDKs are the real service's to the byte. Source: recorded answers, 88 bytes for the first.
fn is_verbatim(reason: &str) -> bool {
    [Reason::MetadataHeaderMissing, Reason::ResourceMissing]
        .iter()
        .any(|probed| probed.code() == reason)
}

/// The members of a token answer: every value a string (Rust SDKs refuse numbers), no `refresh_in` (Python SDKs
/// break on a string there). Order and members as the real service writes them.
#[derive(Serialize)]
pub(crate) struct TokenBody<'a> {
    pub(crate) access_token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_id: Option<Id>,
    /// Whole seconds that are left now, not when the token was issued.
    pub(crate) expires_in: Digits,
    pub(crate) expires_on: Digits,
    pub(crate) ext_expires_in: Digits,
    pub(crate) not_before: Digits,
    /// Byte for byte what the pod asked for: SDKs look their cache up by it.
    pub(crate) resource: &'a str,
    pub(crate) token_type: &'a str,
}

/// A number, written as a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digits(pub(crate) u64);

impl Serialize for Digits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A GUID, written as a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Id(pub(crate) Guid);

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl TokenBody<'_> {
    /// 200 with this body.
    pub(crate) fn answer(&self) -> Answer {
        json(StatusCode::OK, self, self.room())
    }

    /// The token, and at most 400 bytes of names and numbers: one allocation.
    fn room(&self) -> usize {
        self.access_token.len() + self.resource.len() + 400
    }
}

/// 200 with a list of tokens, one a tenant.
pub(crate) fn several(bodies: &[TokenBody<'_>]) -> Answer {
    json(StatusCode::OK, bodies, bodies.iter().map(TokenBody::room).sum())
}

/// What node agents read. Source: aad-pod-identity v1.8.17, `pkg/nmi`.
#[derive(Serialize)]
struct HostBody<'a> {
    token: &'a TokenBody<'a>,
    clientid: Option<Id>,
}

/// 200 with a token of another pod's identity, and its client id.
pub(crate) fn to_host(token: &TokenBody<'_>, client_id: Option<Guid>) -> Answer {
    let body = HostBody {
        token,
        clientid: client_id.map(Id),
    };
    json(StatusCode::OK, &body, token.room() + 80)
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
    error_description: &'a str,
}

/// What is wrong, as a pod is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// HTTP status.
    pub(crate) status: StatusCode,
    /// `error` of the body: `invalid_request`, `invalid_resource`, `temporarily_unavailable`, …
    pub(crate) error: &'static str,
    /// Stable reason code: in the text, the log and the metrics.
    pub(crate) reason: &'static str,
    /// `error_description` of the body, to which the reason code is added.
    pub(crate) text: String,
    /// `Retry-After` in seconds; only ever with 429 and 503, because clients would retry a 400 that has it.
    pub(crate) retry_after_secs: Option<u64>,
}

impl Refusal {
    /// A refusal that no retry can change.
    pub(crate) fn new(status: StatusCode, reason: &'static str, text: impl Into<String>) -> Self {
        Self {
            status,
            error: "invalid_request",
            reason,
            text: text.into(),
            retry_after_secs: None,
        }
    }

    /// 400 `invalid_request`.
    pub(crate) fn bad_request(reason: &'static str, text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason, text)
    }

    /// What core says, with the status that clients need.
    ///
    /// 400 for everything about identities: clients do not retry it, and chains go on to their next credential. A 404
    /// would cost them up to two minutes; a 403 is final for all.
    pub(crate) fn because(reason: Reason, looked_for: String) -> Self {
        let status = match reason {
            Reason::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Reason::PathNotFound | Reason::PathClosed | Reason::PathBlocked => StatusCode::NOT_FOUND,
            Reason::RateLimited | Reason::TooManyConnections => StatusCode::TOO_MANY_REQUESTS,
            Reason::NotSynced => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        };
        let text = if is_verbatim(reason.code()) {
            reason.text().to_owned()
        } else {
            let refusal = podid_core::Refusal {
                reason,
                pod: None,
                looked_for,
            };
            refusal.describe()
        };
        Self {
            error: if reason == Reason::NotSynced {
                "temporarily_unavailable"
            } else {
                "invalid_request"
            },
            retry_after_secs: match reason {
                Reason::RateLimited | Reason::TooManyConnections => Some(1),
                Reason::NotSynced => Some(5),
                _ => None,
            },
            ..Self::new(status, reason.code(), text)
        }
    }

    /// 429 with `Retry-After`: an upstream is busy.
    pub(crate) fn throttled(reason: &'static str, text: impl Into<String>, retry_after_secs: u64) -> Self {
        Self {
            retry_after_secs: Some(retry_after_secs.max(1)),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, reason, text)
        }
    }

    /// 503 with `Retry-After`: the same request may succeed later.
    pub(crate) fn unavailable(reason: &'static str, text: impl Into<String>, retry_after_secs: u64) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            error: "temporarily_unavailable",
            reason,
            text: text.into(),
            retry_after_secs: Some(retry_after_secs.max(1)),
        }
    }

    /// 500: a request met a bug of ours, which the log has. Clients try again.
    pub(crate) fn bug() -> Self {
        Self {
            error: "unknown",
            ..Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal_error",
                "The agent of this node failed on this request",
            )
        }
    }

    /// The answer: a JSON object with `error` and `error_description`, the reason code at the end of the latter.
    pub(crate) fn answer(&self) -> Answer {
        let text = if is_verbatim(self.reason) {
            self.text.clone()
        } else {
            format!("{} [{}]", self.text, self.reason)
        };
        let mut answer = json(
            self.status,
            &ErrorBody {
                error: self.error,
                error_description: &text,
            },
            text.len() + 80,
        );
        answer
            .headers_mut()
            .insert(REASON, HeaderValue::from_static(self.reason));
        if let Some(secs) = self.retry_after_secs {
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(secs));
        }
        if self.reason == Reason::PodGone.code() {
            answer
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            answer
                .headers_mut()
                .insert(http::header::ALLOW, HeaderValue::from_static("GET"));
        }
        answer
    }
}

fn json(status: StatusCode, body: &(impl Serialize + ?Sized), room: usize) -> Answer {
    let mut text = Vec::with_capacity(room);
    serde_json::to_writer(&mut text, body).expect("strings are always JSON, and memory takes them");
    let mut answer = Response::new(AnswerBody::from(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, JSON);
    answer
}

/// Answers to what cannot be read as a request: hyper's own, by how they begin, and what is written instead.
const UNREAD: [(&[u8], &[u8]); 3] = [
    (
        b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n",
        b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json; charset=utf-8\r\nx-podid-reason: request_unreadable\r\nconnection: close\r\ncontent-length: 111\r\n\r\n{\"error\":\"invalid_request\",\"error_description\":\"The request is not HTTP that can be read [request_unreadable]\"}",
    ),
    (
        b"HTTP/1.1 414 URI Too Long\r\nconnection: close\r\ncontent-length: 0\r\n",
        b"HTTP/1.1 414 URI Too Long\r\ncontent-type: application/json; charset=utf-8\r\nx-podid-reason: uri_too_long\r\nconnection: close\r\ncontent-length: 97\r\n\r\n{\"error\":\"invalid_request\",\"error_description\":\"The request's target is too long [uri_too_long]\"}",
    ),
    (
        b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n",
        b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json; charset=utf-8\r\nx-podid-reason: head_too_large\r\nconnection: close\r\ncontent-length: 98\r\n\r\n{\"error\":\"invalid_request\",\"error_description\":\"The request's head is too large [head_too_large]\"}",
    ),
];

/// What is written instead of `bytes`, when they are hyper's own answer to what it cannot read: that has no body.
pub(crate) fn unread(bytes: &[u8]) -> Option<&'static [u8]> {
    UNREAD
        .iter()
        .find(|(own, _)| bytes.starts_with(own))
        .map(|(_, ours)| *ours)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn text(answer: Answer) -> String {
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn every_value_of_a_token_answer_is_a_string() {
        let body = TokenBody {
            access_token: "a.b.c",
            client_id: None,
            expires_in: Digits(3599),
            expires_on: Digits(1_700_000_000),
            ext_expires_in: Digits(3599),
            not_before: Digits(1_699_990_000),
            resource: "https://vault.azure.net",
            token_type: "Bearer",
        };
        let value: serde_json::Value = serde_json::from_str(&text(body.answer()).await).unwrap();
        let members = value.as_object().unwrap();
        assert!(members.values().all(serde_json::Value::is_string), "{members:?}");
        assert!(!members.contains_key("refresh_in"));
    }

    #[tokio::test]
    async fn a_400_has_no_retry_after_and_a_503_has_whole_seconds() {
        let refused = Refusal::bad_request("identity_not_found", "Identity not found").answer();
        assert!(!refused.headers().contains_key(RETRY_AFTER));
        assert_eq!(
            text(refused).await,
            r#"{"error":"invalid_request","error_description":"Identity not found [identity_not_found]"}"#
        );
        let later = Refusal::unavailable("upstream_failed", "The token service does not answer", 0).answer();
        assert_eq!(later.headers().get(RETRY_AFTER).unwrap(), "1");
    }

    #[test]
    fn hand_written_answers_have_the_length_they_claim() {
        for (_, ours) in UNREAD {
            let whole = std::str::from_utf8(ours).unwrap();
            let (head, body) = whole.split_once("\r\n\r\n").unwrap();
            assert!(
                head.ends_with(&format!("content-length: {}", body.len())),
                "{} {head}",
                body.len()
            );
            serde_json::from_str::<serde_json::Value>(body).unwrap();
        }
    }
}
