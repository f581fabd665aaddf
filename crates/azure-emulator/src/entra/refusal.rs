//! Entra's way of refusing: an OAuth error with an AADSTS number and text.

use http::StatusCode;
use serde_json::json;
use uuid::Uuid;

use crate::answer::Answer;
use crate::cloud::Cloud;

/// A refusal of the token endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Aadsts {
    pub(crate) status: StatusCode,
    pub(crate) error: &'static str,
    pub(crate) number: u32,
    pub(crate) text: String,
    time: String,
}

impl Aadsts {
    /// With that number and text.
    pub(crate) fn new(status: StatusCode, error: &'static str, number: u32, text: impl Into<String>) -> Self {
        Self {
            status,
            error,
            number,
            text: text.into(),
            time: String::new(),
        }
    }

    /// 401 `invalid_client`.
    pub(crate) fn client(number: u32, text: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_client", number, text)
    }

    /// 400 `invalid_request`: a parameter is missing.
    pub(crate) fn missing(parameter: &str) -> Self {
        let text = format!("The request body must contain the following parameter: '{parameter}'.");
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", 900_144, text)
    }

    /// At the time of day.
    pub(crate) fn at(mut self, cloud: &Cloud) -> Self {
        self.time = cloud.now_text();
        self
    }

    /// `AADSTS…: …`.
    pub(crate) fn description(&self) -> String {
        format!("AADSTS{}: {}", self.number, self.text)
    }
}

impl From<Aadsts> for Answer {
    fn from(refusal: Aadsts) -> Self {
        let (trace, correlation) = (Uuid::new_v4().to_string(), Uuid::new_v4().to_string());
        let description = refusal.description();
        let mut answer = Self::json(
            refusal.status,
            json!({
                "error": refusal.error,
                "error_description": format!(
                    "{description} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {}", refusal.time
                ),
                "error_codes": [refusal.number],
                "timestamp": refusal.time,
                "trace_id": trace,
                "correlation_id": correlation,
                "error_uri": format!("https://login.microsoftonline.com/error?code={}", refusal.number),
            }),
        );
        answer
            .headers
            .push((http::header::CACHE_CONTROL, "no-store, no-cache".to_owned()));
        answer
    }
}
