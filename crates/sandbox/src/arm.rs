//! ARM, Entra's token endpoint and the directory over HTTP, as `az` speaks to them. It knows addresses, tokens,
//! long-running operations and error shapes, and nothing of clusters or identities.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::Mutex;
use reqwest::{Certificate, Client, Method, StatusCode, Url};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Audience of ARM's tokens. Source: `az cloud show`, AzureCloud, `activeDirectoryResourceId`.
const ARM_AUDIENCE: &str = "https://management.core.windows.net/";
/// How long a long-running operation may take.
const OPERATION_DEADLINE: Duration = Duration::from_secs(15);
/// The longest pause between two looks at an operation that we accept, whatever the server asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The shortest one.
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);

/// Who we are for Entra.
pub(crate) struct Principal {
    pub(crate) tenant_id: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
}

/// A client of ARM.
pub(crate) struct Arm {
    http: Client,
    resource_manager: String,
    login: String,
    principal: Principal,
    token: Mutex<Option<Bearer>>,
}

/// A bearer token; it has no `Debug`, so that it cannot be printed by accident.
#[derive(Clone)]
struct Bearer(String);

/// An answer that is not a success, in ARM's words.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArmError {
    #[error("({code}) {message}")]
    Refused {
        status: StatusCode,
        code: String,
        message: String,
    },
    #[error("{what}: no answer")]
    Unreachable {
        what: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("{what}: {why}")]
    Odd { what: String, why: String },
}

impl ArmError {
    /// Whether this is ARM's refusal with that status.
    pub(crate) fn is(&self, expected: StatusCode) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == expected)
    }
}

impl Arm {
    pub(crate) fn new(arm: &str, login: &str, ca: &Path, principal: Principal) -> anyhow::Result<Self> {
        let pem = std::fs::read(ca).with_context(|| format!("cannot read {}", ca.display()))?;
        let authorities = Certificate::from_pem_bundle(&pem).context("the world's CA cannot be read")?;
        let http = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(20))
            .tls_certs_only(authorities)
            .build()
            .context("cannot make an HTTP client")?;
        let base = |text: &str| text.trim_end_matches('/').to_owned();
        Ok(Self {
            http,
            resource_manager: base(arm),
            login: base(login),
            principal,
            token: Mutex::new(None),
        })
    }

    pub(crate) async fn get(&self, path: &str, version: &str) -> Result<Value, ArmError> {
        self.call(Method::GET, path, &[("api-version", version)], None)
            .await
    }

    pub(crate) async fn list(&self, path: &str, version: &str, filter: &str) -> Result<Vec<Value>, ArmError> {
        let query = [("api-version", version), ("$filter", filter)];
        let query = if filter.is_empty() {
            &query[..1]
        } else {
            &query[..]
        };
        let mut page = self.call(Method::GET, path, query, None).await?;
        match page.get_mut("value").map(Value::take) {
            Some(Value::Array(items)) => Ok(items),
            _ => Err(ArmError::Odd {
                what: path.to_owned(),
                why: "the answer is no list".to_owned(),
            }),
        }
    }

    pub(crate) async fn put(&self, path: &str, version: &str, body: &Value) -> Result<Value, ArmError> {
        self.call(Method::PUT, path, &[("api-version", version)], Some(body))
            .await
    }

    pub(crate) async fn patch(&self, path: &str, version: &str, body: &Value) -> Result<Value, ArmError> {
        self.call(Method::PATCH, path, &[("api-version", version)], Some(body))
            .await
    }

    pub(crate) async fn delete(&self, path: &str, version: &str) -> Result<(), ArmError> {
        self.call(Method::DELETE, path, &[("api-version", version)], None)
            .await
            .map(drop)
    }

    /// The emulator's own control API, which wants its secret.
    pub(crate) async fn control(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Value, ArmError> {
        let url = self.url(path, query)?;
        let mut request = self
            .http
            .request(method, url)
            .header("x-emulator-key", &self.principal.client_secret);
        if let Some(body) = body {
            request = request.json(body);
        }
        let (_, _, body) = self.send(path, request).await?;
        Ok(body)
    }

    /// The keys that tokens are signed with, as published, and the names under which their issuer goes.
    pub(crate) async fn discovery(&self) -> Result<(String, Vec<String>), ArmError> {
        let tenant = &self.principal.tenant_id;
        let mut issuers = Vec::new();
        for version in ["", "/v2.0"] {
            let path = format!(
                "{}/{tenant}{version}/.well-known/openid-configuration",
                self.login
            );
            let (_, _, found) = self.send(&path, self.http.get(&path)).await?;
            issuers.extend(found.get("issuer").and_then(Value::as_str).map(str::to_owned));
        }
        let path = format!("{}/{tenant}/discovery/v2.0/keys", self.login);
        let (_, _, keys) = self.send(&path, self.http.get(&path)).await?;
        Ok((keys.to_string(), issuers))
    }

    fn url(&self, path: &str, query: &[(&str, &str)]) -> Result<Url, ArmError> {
        let text = if path.starts_with('/') {
            format!("{}{path}", self.resource_manager)
        } else {
            path.to_owned()
        };
        let mut url = Url::parse(&text).map_err(|why| ArmError::Odd {
            what: text,
            why: why.to_string(),
        })?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    /// One call as `az` makes it, waiting for the operation that it may start.
    async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Value, ArmError> {
        let url = self.url(path, query)?;
        let token = self.bearer().await?;
        let mut request = self.http.request(method.clone(), url).bearer_auth(&token.0);
        if let Some(body) = body {
            request = request.json(body);
        }
        let (status, headers, first) = self.send(path, request).await?;
        let header = |name: &str| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        if let Some(operation) = header("azure-asyncoperation") {
            self.wait_for(path, &operation, &token, |_, body| body.get("status").cloned())
                .await?;
            return if method == Method::DELETE {
                Ok(Value::Null)
            } else {
                Box::pin(self.call(Method::GET, path, query, None)).await
            };
        }
        if status == StatusCode::ACCEPTED
            && let Some(location) = header("location")
        {
            let done = |status: StatusCode, _: &Value| {
                Some(json!(if status == StatusCode::ACCEPTED {
                    "InProgress"
                } else {
                    "Succeeded"
                }))
            };
            return self.wait_for(path, &location, &token, done).await;
        }
        if method == Method::PUT {
            let state = |body: &Value| body.pointer("/properties/provisioningState").cloned();
            let busy = |state: &Value| {
                state
                    .as_str()
                    .is_some_and(|s| !matches!(s, "Succeeded" | "Failed" | "Canceled"))
            };
            if state(&first).is_some_and(|state| busy(&state)) {
                let url = self.url(path, query)?;
                return self
                    .wait_for(path, url.as_str(), &token, |_, body| state(body))
                    .await;
            }
        }
        Ok(first)
    }

    /// Looks at `url` until `state` is an end; the first look is at once. Gives the last body.
    async fn wait_for(
        &self,
        what: &str,
        url: &str,
        token: &Bearer,
        state: impl Fn(StatusCode, &Value) -> Option<Value>,
    ) -> Result<Value, ArmError> {
        let deadline = Instant::now() + OPERATION_DEADLINE;
        loop {
            let (status, headers, body) = self.send(what, self.http.get(url).bearer_auth(&token.0)).await?;
            match state(status, &body).as_ref().and_then(Value::as_str) {
                Some("Succeeded") => return Ok(body),
                Some(end @ ("Failed" | "Canceled")) => {
                    let error = body.get("error").cloned().unwrap_or_default();
                    let text = |key: &str| error.get(key).and_then(Value::as_str).map(str::to_owned);
                    return Err(ArmError::Refused {
                        status,
                        code: text("code").unwrap_or_else(|| end.to_owned()),
                        message: text("message")
                            .unwrap_or_else(|| "the operation did not succeed".to_owned()),
                    });
                }
                seen if Instant::now() >= deadline => {
                    let why = format!("not done within {OPERATION_DEADLINE:?}, last seen {seen:?}");
                    return Err(ArmError::Odd {
                        what: what.to_owned(),
                        why,
                    });
                }
                _ => {}
            }
            let asked = headers
                .get("retry-after")
                .and_then(|value| value.to_str().ok()?.parse().ok());
            let pause = asked.map_or(SHORTEST_PAUSE, Duration::from_secs);
            tokio::time::sleep(pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE)).await;
        }
    }

    /// Sends, insists on success, reads JSON; an empty body is null.
    async fn send(
        &self,
        what: &str,
        request: reqwest::RequestBuilder,
    ) -> Result<(StatusCode, reqwest::header::HeaderMap, Value), ArmError> {
        let unreachable = |source| ArmError::Unreachable {
            what: what.to_owned(),
            source,
        };
        let response = request.send().await.map_err(unreachable)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await.map_err(unreachable)?;
        let body: Value = if bytes.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&bytes).unwrap_or_default()
        };
        if status.is_success() {
            return Ok((status, headers, body));
        }
        let error = body
            .get("error")
            .filter(|error| error.is_object())
            .unwrap_or(&body);
        let text = |key: &str| error.get(key).and_then(Value::as_str).map(str::to_owned);
        Err(ArmError::Refused {
            status,
            code: text("code")
                .or_else(|| text("error"))
                .unwrap_or_else(|| status.as_u16().to_string()),
            message: text("message")
                .or_else(|| text("error_description"))
                .unwrap_or_else(|| format!("{what}: operation returned an invalid status")),
        })
    }

    /// A token for ARM by client credentials, kept for the run.
    async fn bearer(&self) -> Result<Bearer, ArmError> {
        let known = self.token.lock().clone();
        if let Some(token) = known {
            return Ok(token);
        }
        let url = format!("{}/{}/oauth2/v2.0/token", self.login, self.principal.tenant_id);
        let scope = format!("{ARM_AUDIENCE}/.default");
        let mut form = self.url("https://form.invalid/", &[])?;
        form.query_pairs_mut().extend_pairs([
            ("client_id", self.principal.client_id.as_str()),
            ("grant_type", "client_credentials"),
            ("client_secret", self.principal.client_secret.as_str()),
            ("scope", scope.as_str()),
        ]);
        let request = self
            .http
            .post(&url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.query().unwrap_or_default().to_owned());
        let (_, _, body) = self.send("sign-in", request).await?;
        let token = body
            .get("access_token")
            .and_then(Value::as_str)
            .ok_or_else(|| ArmError::Odd {
                what: "sign-in".to_owned(),
                why: "there is no access token in the answer".to_owned(),
            })?;
        let token = Bearer(token.to_owned());
        *self.token.lock() = Some(token.clone());
        Ok(token)
    }
}
