//! What a pod reads: token and error bodies in the shape of the metadata service. Texts here never hold a secret
//! except the token itself, which goes into the 200 and nowhere else.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{Either, Full};
use serde::Serialize;

/// Why a body broke off.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// A body of ours, or one that is passed through from the metadata service.
pub(crate) type Body = Either<Full<Bytes>, UnsyncBoxBody<Bytes, BodyError>>;
/// An answer to a pod.
pub(crate) type Answer = Response<Body>;

/// Content type of everything we write ourselves. Source: recorded answers of the real service.
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// The members of a token answer: every value a string (Rust SDKs refuse numbers), no `refresh_in` (Python SDKs
/// break on a string there). Order and members as the real service writes them.
#[derive(Serialize)]
pub(crate) struct TokenBody<'a> {
    pub(crate) access_token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_id: Option<&'a str>,
    pub(crate) expires_in: String,
    pub(crate) expires_on: String,
    pub(crate) ext_expires_in: String,
    pub(crate) not_before: String,
    /// Byte for byte what the pod asked for: SDKs look their cache up by it.
    pub(crate) resource: &'a str,
    pub(crate) token_type: &'static str,
}

impl TokenBody<'_> {
    /// 200 with this body.
    pub(crate) fn answer(&self) -> Answer {
        json(StatusCode::OK, self)
    }
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

    /// 404, for paths that do not exist here.
    pub(crate) fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "path_not_found",
            "There is nothing at this path",
        )
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

    /// The answer: a JSON object with `error` and `error_description`, the reason code at the end of the latter.
    pub(crate) fn answer(&self) -> Answer {
        let text = format!("{} [{}]", self.text, self.reason);
        let mut answer = json(
            self.status,
            &ErrorBody {
                error: self.error,
                error_description: &text,
            },
        );
        if let Some(secs) = self.retry_after_secs {
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(secs));
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            answer
                .headers_mut()
                .insert(http::header::ALLOW, HeaderValue::from_static("GET"));
        }
        answer
    }
}

fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    let text = serde_json::to_vec(body).expect("strings are always JSON");
    let mut answer = Response::new(Either::Left(Full::new(Bytes::from(text))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, JSON);
    answer
}

/// The whole 429 for a connection over its address's limit, written before any request was read.
pub(crate) fn too_many_connections() -> &'static [u8] {
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json; charset=utf-8\r\nRetry-After: 1\r\n\
      Connection: close\r\nContent-Length: 119\r\n\r\n\
      {\"error\":\"invalid_request\",\"error_description\":\"Temporarily throttled, too many requests [too_many_connections]\"}      "
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
            expires_in: 3599.to_string(),
            expires_on: 1_700_000_000.to_string(),
            ext_expires_in: 3599.to_string(),
            not_before: 1_699_990_000.to_string(),
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
    fn the_hand_written_429_has_the_length_it_claims() {
        let whole = std::str::from_utf8(too_many_connections()).unwrap();
        let (head, body) = whole.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("Content-Length: {}", body.len())),
            "{} {head}",
            body.len()
        );
        serde_json::from_str::<serde_json::Value>(body).unwrap();
    }
}
