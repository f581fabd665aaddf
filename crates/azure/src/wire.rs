//! Token and error bodies as the metadata service and Entra write them, read tolerantly: numbers or texts, members that
//! are missing, dates in words. Decides nothing about what an error means.

use podid_core::{AccessToken, Guid, Secret};
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

/// A 200.
#[derive(Deserialize)]
struct TokenBody {
    access_token: Option<String>,
    client_id: Option<String>,
    expires_in: Option<Value>,
    expires_on: Option<Value>,
    not_before: Option<Value>,
    resource: Option<String>,
    token_type: Option<String>,
}

/// Anything else.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ErrorBody {
    #[serde(default)]
    pub(crate) error: String,
    #[serde(default)]
    pub(crate) error_description: String,
}

/// Why a 200 is not a token.
#[derive(Debug, Error)]
pub enum AnswerError {
    /// Not JSON, or members of other kinds.
    #[error("the answer is not a token answer in JSON")]
    Json(#[source] serde_json::Error),
    /// No token in it.
    #[error("the answer has no access_token")]
    NoToken,
    /// Neither when it ends nor how long it lasts can be read.
    #[error(
        "the answer does not say when the token ends (expires_on {expires_on:?}, expires_in {expires_in:?})"
    )]
    NoEnd {
        /// As it was given.
        expires_on: String,
        /// As it was given.
        expires_in: String,
    },
}

/// Reads a 200. `asked` is the audience where the answer does not repeat it.
pub(crate) fn token(body: &[u8], asked: &str, now: u64) -> Result<AccessToken, AnswerError> {
    let body: TokenBody = serde_json::from_slice(body).map_err(AnswerError::Json)?;
    let text = body
        .access_token
        .filter(|text| !text.is_empty())
        .ok_or(AnswerError::NoToken)?;
    let ends = body.expires_on.as_ref().and_then(point);
    let lasts = body.expires_in.as_ref().and_then(seconds);
    let Some(expires_on) = ends.or_else(|| lasts.map(|lasts| now.saturating_add(lasts))) else {
        let given = |value: Option<Value>| value.map(|value| value.to_string()).unwrap_or_default();
        return Err(AnswerError::NoEnd {
            expires_on: given(body.expires_on),
            expires_in: given(body.expires_in),
        });
    };
    let filled = |text: Option<String>, otherwise: &str| match text {
        Some(text) if !text.is_empty() => text.into_boxed_str(),
        _ => otherwise.into(),
    };
    Ok(AccessToken {
        secret: Secret::new(text),
        expires_on,
        not_before: body.not_before.as_ref().and_then(point),
        token_type: filled(body.token_type, "Bearer"),
        resource: filled(body.resource, asked),
        client_id: body.client_id.as_deref().and_then(Guid::parse),
    })
}

/// Reads an error; empty members where there is nothing to read.
pub(crate) fn error(body: &[u8]) -> ErrorBody {
    serde_json::from_slice(body).unwrap_or_default()
}

/// Seconds: `3599`, `"3599"`, `"3599.0"`, `3599.0`.
fn seconds(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64().or_else(|| whole(&number.to_string())),
        Value::String(text) => whole(text.trim()),
        _ => None,
    }
}

/// The whole part of a decimal number.
fn whole(text: &str) -> Option<u64> {
    let whole = text.split_once('.').map_or(text, |(whole, fraction)| {
        if fraction.bytes().all(|byte| byte.is_ascii_digit()) {
            whole
        } else {
            ""
        }
    });
    whole.parse().ok()
}

/// A point in time: seconds since the epoch, or a date as App Service's and older services write it.
/// Source: aad-pod-identity v1.8.17 (go-autorest), `M/D/YYYY hh:mm:ss [AM|PM] +00:00`; ISO 8601.
fn point(value: &Value) -> Option<u64> {
    if let Some(secs) = seconds(value) {
        return Some(secs);
    }
    let text = value.as_str()?.trim();
    let timestamp = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        ["%m/%d/%Y %I:%M:%S %p %:z", "%m/%d/%Y %H:%M:%S %:z"]
            .iter()
            .find_map(|format| jiff::Timestamp::strptime(format, text).ok())
    })?;
    u64::try_from(timestamp.as_second()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn read(body: &str) -> Result<AccessToken, AnswerError> {
        token(body.as_bytes(), "https://asked", NOW)
    }

    #[test]
    fn the_end_is_read_in_every_form_that_services_write() {
        for (members, end) in [
            (r#""expires_on":"1506484173""#, 1_506_484_173),
            (r#""expires_on":1506484173"#, 1_506_484_173),
            (r#""expires_on":1506484173.9"#, 1_506_484_173),
            (r#""expires_on":"1506484173.0""#, 1_506_484_173),
            (r#""expires_on":"2017-09-27T03:49:33Z""#, 1_506_484_173),
            (r#""expires_on":"2017-09-27T03:49:33+00:00""#, 1_506_484_173),
            (r#""expires_on":"9/27/2017 3:49:33 AM +00:00""#, 1_506_484_173),
            (r#""expires_on":"09/27/2017 03:49:33 +00:00""#, 1_506_484_173),
            (r#""expires_in":"3599""#, NOW + 3599),
            (r#""expires_in":3599"#, NOW + 3599),
            (r#""expires_on":"","expires_in":"3599.0""#, NOW + 3599),
            (r#""expires_on":"whenever","expires_in":3599.0"#, NOW + 3599),
        ] {
            let token = read(&format!(r#"{{"access_token":"a.b.c",{members}}}"#)).unwrap();
            assert_eq!(token.expires_on, end, "{members}");
        }
    }

    #[test]
    fn members_that_are_missing_are_filled_with_what_is_known() {
        let token = read(r#"{"access_token":"a.b.c","expires_in":"60","resource":"","extra":{}}"#).unwrap();
        assert_eq!(
            (&*token.resource, &*token.token_type),
            ("https://asked", "Bearer")
        );
        assert_eq!((token.client_id, token.not_before), (None, None));
    }

    #[test]
    fn what_is_no_token_is_refused_and_never_quoted() {
        for body in [
            "",
            "<html>",
            "[]",
            "{}",
            r#"{"access_token":"","expires_in":"60"}"#,
            r#"{"access_token":["hush"],"expires_in":60}"#,
            r#"{"access_token":"hush"}"#,
            r#"{"access_token":"hush","expires_on":"-5"}"#,
        ] {
            let error = read(body).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
        }
    }
}
