//! Errors as the API server tells them: a `Status` object with code, reason, message, details.

use http::StatusCode;
use serde_json::{Value, json};

/// What a path below no known API group answers.
const NO_SUCH_API: &str = "404 page not found\n";

/// One thing that is wrong, for `details.causes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) field: String,
}

impl Cause {
    /// Whether the object is so wrong that rules between its fields cannot be looked at.
    pub(crate) fn blocks_rules(&self) -> bool {
        [
            "FieldValueRequired",
            "FieldValueTypeInvalid",
            "FieldValueTooLong",
            "FieldValueTooMany",
            "FieldValueNotSupported",
        ]
        .contains(&self.reason)
    }
}

/// A refused request.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ApiError {
    pub(crate) code: StatusCode,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    details: Option<Value>,
}

impl ApiError {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: None,
        }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let mut details = json!({});
        for (key, value) in [("name", name), ("group", group), ("kind", kind)] {
            if !value.is_empty() {
                crate::json::set(&mut details, &[key], value);
            }
        }
        self.details = Some(details);
        self
    }

    fn with_causes(mut self, causes: &[Cause]) -> Self {
        let causes: Vec<Value> = causes
            .iter()
            .map(|cause| {
                let mut json = json!({ "reason": cause.reason, "message": cause.message });
                if !cause.field.is_empty() {
                    crate::json::set(&mut json, &["field"], cause.field.as_str());
                }
                json
            })
            .collect();
        let details = self.details.get_or_insert_with(|| json!({}));
        crate::json::set(details, &["causes"], causes);
        self
    }

    /// `pods "a" not found`.
    pub(crate) fn not_found(group: &str, plural: &str, name: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            format!("{} \"{name}\" not found", qualified(plural, group)),
        )
        .about(group, plural, name)
    }

    /// No such path.
    pub(crate) fn no_route() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            "the server could not find the requested resource",
        )
        .about("", "", "")
    }

    /// `pods "a" already exists`.
    pub(crate) fn already_exists(group: &str, plural: &str, name: &str) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "AlreadyExists",
            format!("{} \"{name}\" already exists", qualified(plural, group)),
        )
        .about(group, plural, name)
    }

    /// `Operation cannot be fulfilled on pods "a": …`.
    pub(crate) fn conflict(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": {why}",
            qualified(plural, group)
        );
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(group, plural, name)
    }

    /// Server-side apply met fields of other managers.
    pub(crate) fn apply_conflict(message: String, causes: &[Cause]) -> Self {
        Self::new(StatusCode::CONFLICT, "Conflict", message).with_causes(causes)
    }

    /// `Pod "a" is invalid: spec.x: Required value`.
    pub(crate) fn invalid(group: &str, kind: &str, name: &str, causes: &[Cause]) -> Self {
        let texts: Vec<String> = causes
            .iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect();
        let listed = match texts.as_slice() {
            [] => "<nil>".to_owned(),
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let qualified = if group.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind}.{group}")
        };
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Invalid",
            format!("{qualified} \"{name}\" is invalid: {listed}"),
        )
        .about(group, kind, name)
        .with_causes(causes)
    }

    /// 400.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// 422 for parameters of a list or watch.
    pub(crate) fn invalid_list_options(field: &str, message: &str) -> Self {
        let cause = Cause {
            reason: "FieldValueForbidden",
            message: message.to_owned(),
            field: field.to_owned(),
        };
        Self::invalid("meta.k8s.io", "ListOptions", "", &[cause])
    }

    /// 422 without a field.
    pub(crate) fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
    }

    /// 500.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    /// 500 without a reason, as the API server tells that an applied configuration does not fit its schema.
    pub(crate) fn not_typed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
    }

    /// No such API at all. This one is not told as a `Status`.
    pub(crate) fn no_such_api() -> Self {
        Self::new(StatusCode::NOT_FOUND, "", NO_SUCH_API)
    }

    /// The text that is sent instead of a `Status`, for the errors that are told so.
    pub(crate) fn plain_text(&self) -> Option<&'static str> {
        (self.code == StatusCode::NOT_FOUND && self.message == NO_SUCH_API).then_some(NO_SUCH_API)
    }

    /// 406.
    pub(crate) fn not_acceptable() -> Self {
        Self::new(
            StatusCode::NOT_ACCEPTABLE,
            "NotAcceptable",
            "only the following media types are accepted: application/json, application/json;as=Table;v=v1;g=meta.k8s.io, \
             application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
        )
        .about("", "", "")
    }

    /// 401.
    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// `pods "a" is forbidden: …`.
    pub(crate) fn forbidden(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let what = if name.is_empty() {
            qualified(plural, group)
        } else {
            format!("{} \"{name}\"", qualified(plural, group))
        };
        Self::new(
            StatusCode::FORBIDDEN,
            "Forbidden",
            format!("{what} is forbidden: {why}"),
        )
        .about(group, plural, name)
    }

    /// A namespace is going away, nothing new may be put into it.
    pub(crate) fn namespace_terminating(group: &str, plural: &str, name: &str, namespace: &str) -> Self {
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        Self::forbidden(group, plural, name, &why).with_causes(&[Cause {
            reason: "NamespaceTerminating",
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".to_owned(),
        }])
    }

    /// The resource version asked for is not in the window any more.
    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// The resource version asked for has not been reached.
    pub(crate) fn too_large_version(asked: u64, current: u64) -> Self {
        let mut error = Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "Timeout",
            format!("Timeout: Too large resource version: {asked}, current: {current}"),
        );
        error = error.with_causes(&[Cause {
            reason: "ResourceVersionTooLarge",
            message: "Too large resource version".to_owned(),
            field: String::new(),
        }]);
        if let Some(details) = &mut error.details {
            crate::json::set(details, &["retryAfterSeconds"], 1);
        }
        error
    }

    /// 405.
    pub(crate) fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
        .about("", "", "")
    }

    /// 413.
    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {limit}"),
        )
    }

    /// 415 for a patch of a type that this resource does not take.
    pub(crate) fn unsupported_media(accepted: &[&str]) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: {}",
                accepted.join(", ")
            ),
        )
    }

    /// After how many seconds it may be worth asking again.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        self.details.as_ref()?.get("retryAfterSeconds")?.as_u64()
    }

    /// The `Status` object.
    pub(crate) fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        });
        if !self.reason.is_empty() {
            crate::json::set(&mut status, &["reason"], self.reason);
        }
        if let Some(details) = &self.details {
            crate::json::set(&mut status, &["details"], details.clone());
        }
        crate::json::set(&mut status, &["code"], self.code.as_u16());
        status
    }
}

/// `pods`, or `leases.coordination.k8s.io`.
pub(crate) fn qualified(plural: &str, group: &str) -> String {
    if group.is_empty() {
        plural.to_owned()
    } else {
        format!("{plural}.{group}")
    }
}

/// The answer to a deletion that is complete.
pub(crate) fn success(group: &str, plural: &str, name: &str, uid: &str) -> Value {
    let mut details = json!({ "name": name });
    if !group.is_empty() {
        crate::json::set(&mut details, &["group"], group);
    }
    crate::json::set(&mut details, &["kind"], plural);
    crate::json::set(&mut details, &["uid"], uid);
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details })
}
