//! Refusals as aad-pod-identity v1.8.17 wrote them, for who depends on its status codes and texts. What is refused, and
//! why, is decided elsewhere. What the original never refused keeps our status and says in plain text what we say.

use std::net::IpAddr;

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use podid_core::ask::Selector;
use podid_core::decide::Mode;
use podid_core::identity::ObjectName;

use super::{Answer, ErrorBody, JSON, Refusal};
use crate::args::ErrorStyle;
use crate::body::AnswerBody;

/// Content type of the original's errors. Source: Go 1.19, `net/http.Error`.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const NO_SNIFF: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-content-type-options"),
    HeaderValue::from_static("nosniff"),
);
/// What `--set-retry-after-header` sends, in seconds. Source: aad-pod-identity v1.8.17, `pkg/nmi/server`.
const RETRY_AFTER_SECS: u64 = 20;

/// How refusals are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errors {
    /// In whose shape.
    pub style: ErrorStyle,
    /// In the original's: 503 with `Retry-After` instead of 404 (`--set-retry-after-header`).
    pub retry_after: bool,
}

impl Default for Errors {
    fn default() -> Self {
        Self {
            style: ErrorStyle::Podid,
            retry_after: false,
        }
    }
}

/// What the original's texts name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About<'a> {
    pub(crate) mode: Mode,
    pub(crate) peer: IpAddr,
    /// The pod that asks or, at `/host/token`, the one that is named.
    pub(crate) pod: Option<&'a ObjectName>,
    pub(crate) selector: Option<&'a Selector<'a>>,
    /// A token request of an excepted pod.
    pub(crate) excepted: bool,
}

/// When a row counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    Managed,
    Standard,
    /// In standard mode, when the request names an identity.
    StandardNamed,
    /// Token requests of excepted pods.
    Excepted,
    /// The path is closed to everybody.
    Blocked,
}

/// How a body is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Text,
    /// The one error that the original wrote as JSON, with an end of line.
    Json,
}

struct Row {
    codes: &'static [&'static str],
    when: When,
    status: StatusCode,
    shape: Shape,
    /// `{text}` is our own, `{ip}`, `{pod}`, `{client}` and `{error}` are the request's.
    body: &'static str,
}

const fn row(codes: &'static [&'static str], when: When, status: StatusCode, body: &'static str) -> Row {
    Row {
        codes,
        when,
        status,
        shape: Shape::Text,
        body,
    }
}

/// Reasons for which no identity was found.
const NO_IDENTITY: &[&str] = &[
    "no_binding_label",
    "no_binding",
    "binding_removed",
    "identity_missing",
    "identity_not_bound",
    "identity_not_assigned",
    "identity_ambiguous",
];
/// An upstream that answered, with something else than a token; what is not listed never got that far.
const ANSWERED: &[(&str, u16)] = &[
    ("imds_identity_not_found", 400),
    ("imds_invalid_resource", 400),
    ("imds_refused", 400),
    ("imds_throttled", 429),
    ("imds_unavailable", 503),
    ("entra_identity_not_found", 400),
    ("entra_invalid_resource", 400),
    ("entra_invalid_credential", 401),
    ("entra_refused", 400),
    ("entra_throttled", 429),
    ("entra_unavailable", 503),
];

// The first row that fits counts. Numbers of attempts are the original's defaults: here a request waits for an event.
const TABLE: &[Row] = &[
    Row {
        shape: Shape::Json,
        ..row(
            &["metadata_header_missing"],
            When::Always,
            StatusCode::BAD_REQUEST,
            "{text}",
        )
    },
    row(
        &["path_invalid"],
        When::Always,
        StatusCode::BAD_REQUEST,
        "Invalid request",
    ),
    row(
        &["path_blocked"],
        When::Blocked,
        StatusCode::FORBIDDEN,
        "Request blocked by AAD Pod Identity NMI",
    ),
    row(
        &["resource_missing"],
        When::Always,
        StatusCode::BAD_REQUEST,
        "parameter resource cannot be empty",
    ),
    row(
        &["host_headers_missing"],
        When::Always,
        StatusCode::BAD_REQUEST,
        "missing 'podname' and 'podns' from request header",
    ),
    row(
        &["host_caller_refused"],
        When::Always,
        StatusCode::INTERNAL_SERVER_ERROR,
        "request remote address is not from a host",
    ),
    row(
        &["named_pod_not_found"],
        When::Managed,
        StatusCode::NOT_FOUND,
        "failed to get pod {pod}, error: pod {pod} doesn't exist",
    ),
    row(
        &["named_pod_not_found"],
        When::Standard,
        StatusCode::NOT_FOUND,
        "getting assigned identities for pod {pod} in CREATED state failed after 16 attempts, retry duration [5]s, \
         error: <nil>. Check MIC pod logs for identity assignment errors",
    ),
    row(
        &["pod_not_found", "pod_gone", "pod_finished"],
        When::Always,
        StatusCode::INTERNAL_SERVER_ERROR,
        "pod list is empty",
    ),
    // The original put the whole pods between the brackets.
    row(
        &["address_ambiguous", "host_network"],
        When::Always,
        StatusCode::INTERNAL_SERVER_ERROR,
        "failed to match pod IP {ip} with []",
    ),
    row(
        NO_IDENTITY,
        When::Managed,
        StatusCode::NOT_FOUND,
        "no azure identity found for request clientID {client}",
    ),
    row(
        &["identity_not_assigned"],
        When::Standard,
        StatusCode::NOT_FOUND,
        "getting assigned identities for pod {pod} in ASSIGNED state failed after 20 attempts, retry duration [5]s, \
         error: <nil>. Check MIC pod logs for identity assignment errors",
    ),
    row(
        NO_IDENTITY,
        When::StandardNamed,
        StatusCode::NOT_FOUND,
        "clientID in request: {client}, getting assigned identities for pod {pod} in CREATED state failed after 16 \
         attempts, retry duration [5]s, error: <nil>. Check MIC pod logs for identity assignment errors",
    ),
    row(
        NO_IDENTITY,
        When::Standard,
        StatusCode::NOT_FOUND,
        "getting assigned identities for pod {pod} in CREATED state failed after 16 attempts, retry duration [5]s, \
         error: <nil>. Check MIC pod logs for identity assignment errors",
    ),
    row(
        &["metadata_service_failed", "metadata_service_refused"],
        When::Excepted,
        StatusCode::FORBIDDEN,
        "failed to get service principal token, error: {text}",
    ),
    row(
        &["metadata_service_failed"],
        When::Always,
        StatusCode::INTERNAL_SERVER_ERROR,
        "{text}",
    ),
    // Without the address and the client id in it that the original added.
    row(
        &[
            "imds_identity_not_found",
            "imds_invalid_resource",
            "imds_refused",
            "imds_throttled",
            "imds_unavailable",
            "entra_identity_not_found",
            "entra_invalid_resource",
            "entra_invalid_credential",
            "entra_refused",
            "entra_throttled",
            "entra_unavailable",
        ],
        When::Always,
        StatusCode::FORBIDDEN,
        "adal: Refresh request failed. Status Code = '{status}'. Response body: {error}",
    ),
    row(
        &["imds_answer_invalid", "entra_answer_invalid"],
        When::Always,
        StatusCode::FORBIDDEN,
        "adal: Failed to unmarshal the service principal token during refresh. Error = '{text}'",
    ),
    row(
        &[
            "imds_timeout",
            "imds_connect",
            "imds_broken",
            "entra_timeout",
            "entra_connect",
            "entra_broken",
            "upstream_slow",
        ],
        When::Always,
        StatusCode::SERVICE_UNAVAILABLE,
        "adal: Failed to execute the refresh request. Error = '{text}'",
    ),
    row(
        &["secret_unread", "secret_unusable"],
        When::Always,
        StatusCode::SERVICE_UNAVAILABLE,
        "failed to get Kubernetes secret, err: {text}",
    ),
    row(
        &[
            "imds_no_identity",
            "entra_tenant_invalid",
            "entra_authority_refused",
            "entra_certificate_invalid",
            "source_unsupported",
            "too_many_resources",
            "identity_changed",
        ],
        When::Always,
        StatusCode::SERVICE_UNAVAILABLE,
        "{text}",
    ),
    row(
        &["internal_error"],
        When::Always,
        StatusCode::INTERNAL_SERVER_ERROR,
        "{text}",
    ),
];

impl Errors {
    /// The answer for `refusal`, in the style that was chosen.
    pub(crate) fn answer(self, refusal: &Refusal, about: &About<'_>) -> Answer {
        match self.style {
            ErrorStyle::Podid => refusal.answer(),
            ErrorStyle::AadPodIdentity => self.original(refusal, about),
        }
    }

    fn original(self, refusal: &Refusal, about: &About<'_>) -> Answer {
        let mut answer = refusal.answer();
        let Some(row) = TABLE.iter().find(|row| row.is_for(refusal, about)) else {
            // Never refused by the original: our status and headers.
            write(
                &mut answer,
                Shape::Text,
                &format!("{} [{}]", refusal.text, refusal.reason),
                refusal,
            );
            return answer;
        };
        let text = row.fill(refusal, about);
        write(&mut answer, row.shape, &text, refusal);
        let headers = answer.headers_mut();
        headers.remove(RETRY_AFTER);
        *answer.status_mut() = match row.status {
            StatusCode::NOT_FOUND if self.retry_after => {
                answer
                    .headers_mut()
                    .insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECS));
                StatusCode::SERVICE_UNAVAILABLE
            }
            status => status,
        };
        answer
    }
}

impl Row {
    fn is_for(&self, refusal: &Refusal, about: &About<'_>) -> bool {
        let standard = matches!(about.mode, Mode::Standard { .. });
        self.codes.contains(&refusal.reason)
            && match self.when {
                When::Always => true,
                When::Managed => !standard,
                When::Standard => standard,
                When::StandardNamed => standard && about.selector.is_some(),
                When::Excepted => about.excepted,
                When::Blocked => refusal.status == StatusCode::FORBIDDEN,
            }
    }

    fn fill(&self, refusal: &Refusal, about: &About<'_>) -> String {
        let mut text = String::new();
        let mut rest = self.body;
        while let Some((before, after)) = rest.split_once('{') {
            text.push_str(before);
            let (name, after) = after.split_once('}').unwrap_or((after, ""));
            text.push_str(&match name {
                "ip" => about.peer.to_canonical().to_string(),
                "pod" => about.pod.map(ToString::to_string).unwrap_or_default(),
                "client" => about.selector.map(client_id).unwrap_or_default(),
                "status" => upstream_status(refusal.reason).to_string(),
                "error" => error_body(refusal.error, &refusal.text),
                _ => refusal.text.clone(),
            });
            rest = after;
        }
        text.push_str(rest);
        text
    }
}

/// The status with which an upstream refused.
fn upstream_status(code: &str) -> u16 {
    ANSWERED
        .iter()
        .find(|(answered, _)| *answered == code)
        .map_or(400, |(_, status)| *status)
}

fn error_body(error: &str, error_description: &str) -> String {
    let body = ErrorBody {
        error,
        error_description,
    };
    serde_json::to_string(&body).expect("strings are always JSON")
}

/// The client id as the original's texts have it: without its middle; empty when the identity goes by another name.
fn client_id(selector: &Selector<'_>) -> String {
    match selector {
        Selector::ClientId(id) => redacted(&id.to_string()),
        Selector::Malformed(text) => redacted(text),
        Selector::ObjectId(_) | Selector::ResourceId(_) => String::new(),
    }
}

/// First and last four characters. Source: aad-pod-identity v1.8.17, `pkg/utils`; what is shorter than that would be shown
/// whole there.
fn redacted(text: &str) -> String {
    let plain: Vec<char> = text.chars().filter(|c| !c.is_control()).collect();
    match (plain.first_chunk::<4>(), plain.last_chunk::<4>()) {
        (Some(first), Some(last)) if plain.len() > 8 => {
            let (first, last): (String, String) = (first.iter().collect(), last.iter().collect());
            format!("{first}##### REDACTED #####{last}")
        }
        _ => "##### REDACTED #####".to_owned(),
    }
}

fn write(answer: &mut Answer, shape: Shape, text: &str, refusal: &Refusal) {
    let (content, mut body) = match shape {
        Shape::Text => (TEXT, text.to_owned()),
        Shape::Json => (JSON, error_body(refusal.error, text)),
    };
    body.push('\n');
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, content);
    if shape == Shape::Text {
        let (name, value) = NO_SNIFF;
        headers.insert(name, value);
    }
    let (parts, _ours) = std::mem::replace(answer, Response::new(AnswerBody::from(Vec::new()))).into_parts();
    *answer = Response::from_parts(parts, AnswerBody::from(body.into_bytes()));
}

#[cfg(test)]
mod tests;
