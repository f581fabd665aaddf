//! Who sends a request: a client certificate or a bearer token becomes a user. There are no rules about what users may
//! do: who is known may do everything.

use podid_rt::serve::ClientCertificate;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::cluster::Cluster;
use crate::status::ApiError;
use crate::token::Tokens;

/// The group of everybody who is known.
const AUTHENTICATED: &str = "system:authenticated";

/// An authenticated user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) groups: Vec<String>,
    /// More facts, as `authentication.kubernetes.io/pod-name`.
    pub(crate) extra: Vec<(String, String)>,
}

impl User {
    /// As reviews show it.
    pub(crate) fn to_info(&self) -> Value {
        let mut info = json!({ "username": self.name, "groups": self.groups });
        if !self.uid.is_empty() {
            crate::json::set(&mut info, &["uid"], self.uid.as_str());
        }
        for (key, value) in &self.extra {
            crate::json::set(&mut info, &["extra", key], json!([value]));
        }
        info
    }
}

/// The user of a request's headers and connection; an error is 401.
pub(crate) async fn authenticate(
    headers: &http::HeaderMap,
    certificate: Option<&ClientCertificate>,
    cluster: &Cluster,
    tokens: &Tokens,
) -> Result<User, ApiError> {
    let bearer = headers
        .get(http::header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    // As in a real API server, a certificate comes before a token.
    let mut user = match (certificate, bearer) {
        (Some(certificate), _) => of_certificate(certificate)?,
        (None, Some(token)) => tokens.review(token, None, cluster).await?.0,
        (None, None) => return Err(ApiError::unauthorized()),
    };
    user.groups.push(AUTHENTICATED.to_owned());
    Ok(user)
}

/// The common name is the user, organizations are its groups.
fn of_certificate(certificate: &ClientCertificate) -> Result<User, ApiError> {
    let Ok((_, parsed)) = X509Certificate::from_der(&certificate.0) else {
        return Err(ApiError::unauthorized());
    };
    let subject = parsed.subject();
    let name = subject
        .iter_common_name()
        .find_map(|name| name.as_str().ok())
        .unwrap_or_default();
    if name.is_empty() {
        return Err(ApiError::unauthorized());
    }
    Ok(User {
        name: name.to_owned(),
        groups: subject
            .iter_organization()
            .filter_map(|group| group.as_str().ok())
            .map(str::to_owned)
            .collect(),
        ..User::default()
    })
}
