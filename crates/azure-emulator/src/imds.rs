//! The instance metadata service of the machines: tokens of the identities on the caller's machine, and what the
//! machine knows of itself. Rules: the documentation of the service and what SDKs were seen to need.

pub(crate) mod cache;
pub(crate) mod instance;
pub(crate) mod quota;
pub(crate) mod token;

use http::header::HeaderName;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::cloud::Cloud;
use crate::front::Ask;
use crate::log::Notes;

/// What the service calls itself; no v2 client takes it for one that can do more.
const SERVER: &str = "IMDS/150.870.65.512";

/// Answers a request of a machine.
pub(crate) async fn answer(cloud: &Cloud, ask: &Ask, notes: &mut Notes) -> Answer {
    let machine = cloud.read(|world| {
        let fallback = cloud.settings.fallback_machine.as_deref();
        let node = world.node_at(ask.source.ip()).map(|node| node.name.clone());
        world
            .machine_at(ask.source.ip(), fallback)
            .map(|(machine, number)| machine.instance_name(number))
            .or(node)
    });
    notes.node = machine;
    let answer = route(cloud, ask, notes).await;
    answer.with(http::header::SERVER, SERVER)
}

async fn route(cloud: &Cloud, ask: &Ask, notes: &mut Notes) -> Answer {
    let path = ask.path.lower();
    // Before the headers are looked at: a 400 there means that version 2 exists.
    if let ["metadata", "identity", "getplatformmetadata" | "issuecredential"] = path.as_slice() {
        return refuse(
            StatusCode::NOT_FOUND,
            "not_found",
            "the element does not exist",
            notes,
        );
    }
    let ["metadata", rest @ ..] = path.as_slice() else {
        return refuse(
            StatusCode::NOT_FOUND,
            "not_found",
            "the element does not exist",
            notes,
        );
    };
    if let ["versions"] = rest {
        return instance::versions(ask, notes);
    }
    let known = matches!(
        rest,
        ["identity", "oauth2", "token"]
            | ["identity", "info"]
            | ["instance", ..]
            | ["attested", "document"]
            | ["scheduledevents"]
    );
    if !known {
        return refuse(
            StatusCode::NOT_FOUND,
            "not_found",
            "the element does not exist",
            notes,
        );
    }
    if ask.method != Method::GET && !(rest == ["scheduledevents"] && ask.method == Method::POST) {
        return refuse(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "only GET is supported",
            notes,
        );
    }
    if let Err(answer) = headers(ask, notes) {
        return answer;
    }
    match rest {
        ["identity", "oauth2", "token"] => token::answer(cloud, ask, notes).await,
        ["identity", "info"] => Answer::ok(json!({ "tenantId": cloud.settings.tenant })),
        ["attested", "document"] => instance::attested(cloud, ask, notes),
        ["scheduledevents"] => instance::scheduled_events(ask, notes),
        ["instance", inside @ ..] => instance::answer(cloud, ask, inside, notes),
        _ => refuse(
            StatusCode::NOT_FOUND,
            "not_found",
            "the element does not exist",
            notes,
        ),
    }
}

/// `Metadata: true` must be there, `X-Forwarded-For` must not.
fn headers(ask: &Ask, notes: &mut Notes) -> Result<(), Answer> {
    let metadata = ask.headers.get(HeaderName::from_static("metadata"));
    if !metadata.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true")) {
        let text = "Required metadata header not specified";
        return Err(refuse(StatusCode::BAD_REQUEST, "invalid_request", text, notes));
    }
    if ask
        .headers
        .contains_key(HeaderName::from_static("x-forwarded-for"))
    {
        let text = "X-Forwarded-For header is not allowed";
        return Err(refuse(StatusCode::BAD_REQUEST, "invalid_request", text, notes));
    }
    Ok(())
}

/// A refusal in IMDS's shape.
pub(crate) fn refuse(status: StatusCode, error: &str, text: &str, notes: &mut Notes) -> Answer {
    notes.code = Some(error.to_owned());
    Answer::json(status, json!({ "error": error, "error_description": text }))
}

/// The body of a 429.
pub(crate) fn throttled() -> Value {
    json!({ "error": "invalid_request", "error_description": "Temporarily throttled, too many requests" })
}

/// The newest versions, for those who asked with none or a wrong one.
pub(crate) fn bad_version(notes: &mut Notes) -> Answer {
    notes.code = Some("bad_version".to_owned());
    let newest: Vec<&str> = instance::VERSIONS.iter().rev().take(3).copied().collect();
    Answer::json(
        StatusCode::BAD_REQUEST,
        json!({
            "error": "Bad request. api-version is invalid or was not specified in the request. For more information refer to aka.ms/azureimds",
            "newest-versions": newest,
        }),
    )
}
