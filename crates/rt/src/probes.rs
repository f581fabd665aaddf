//! The probes and metrics listener: `/healthz`, `/readyz`, `/metrics`, on a listener of its own, never on the pods' one.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use prometheus_client::registry::Registry;

use crate::readiness::Readiness;

/// What the listener tells.
#[derive(Clone)]
pub struct Probes {
    readiness: Readiness,
    registry: Arc<Registry>,
}

impl std::fmt::Debug for Probes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probes")
            .field("readiness", &self.readiness)
            .finish_non_exhaustive()
    }
}

impl Probes {
    /// Tells about `readiness` and the metrics of `registry`.
    pub fn new(readiness: Readiness, registry: Registry) -> Self {
        Self {
            readiness,
            registry: Arc::new(registry),
        }
    }

    /// Answers one request.
    ///
    /// `/healthz` is always 200, with the texts of the original (`aad-pod-identity v1.8.17`): `Active` when ready, else
    /// `Not Active`. `/readyz` is 200, or 503 with the names of
    /// the missing guards.
    pub fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        // The original answers its probe whatever the method is.
        if path != "/healthz" && request.method() != Method::GET && request.method() != Method::HEAD {
            return text(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET is served here\n".to_owned(),
            );
        }
        match path {
            "/healthz" => {
                let body = if self.readiness.is_ready() {
                    "Active"
                } else {
                    "Not Active"
                };
                text(StatusCode::OK, body.to_owned())
            }
            "/readyz" => {
                if self.readiness.is_ready() {
                    text(StatusCode::OK, "ready\n".to_owned())
                } else {
                    text(
                        StatusCode::SERVICE_UNAVAILABLE,
                        format!("waiting for {}\n", self.readiness.missing().join(", ")),
                    )
                }
            }
            "/metrics" => self.metrics(),
            _ => text(
                StatusCode::NOT_FOUND,
                "there are /healthz, /readyz and /metrics\n".to_owned(),
            ),
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let mut body = String::new();
        if prometheus_client::encoding::text::encode(&mut body, &self.registry).is_err() {
            return text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "metrics cannot be encoded\n".to_owned(),
            );
        }
        let mut response = text(StatusCode::OK, body);
        response.headers_mut().insert(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8"),
        );
        response
    }

    /// `/metrics` alone as a service for [`crate::serve::serve`], for a second listener.
    pub fn metrics_service(
        &self,
    ) -> impl hyper::service::Service<
        Request<Incoming>,
        Response = Response<Full<Bytes>>,
        Error = Infallible,
        Future: Send,
    > + Clone
    + Send
    + 'static {
        let probes = self.clone();
        hyper::service::service_fn(move |request: Request<Incoming>| {
            let response = if request.uri().path() == "/metrics" {
                probes.answer(&request)
            } else {
                text(StatusCode::NOT_FOUND, "there is /metrics\n".to_owned())
            };
            async move { Ok::<_, Infallible>(response) }
        })
    }

    /// This listener as a service for [`crate::serve::serve`].
    pub fn service(
        &self,
    ) -> impl hyper::service::Service<
        Request<Incoming>,
        Response = Response<Full<Bytes>>,
        Error = Infallible,
        Future: Send,
    > + Clone
    + Send
    + 'static {
        let probes = self.clone();
        hyper::service::service_fn(move |request| {
            let response = probes.answer(&request);
            async move { Ok::<_, Infallible>(response) }
        })
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn ask(probes: &Probes, method: Method, path: &str) -> (u16, String) {
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        let response = probes.answer(&request);
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn get(probes: &Probes, path: &str) -> (u16, String) {
        ask(probes, Method::GET, path).await
    }

    #[tokio::test]
    async fn readyz_is_503_with_who_is_missing_and_healthz_is_200_in_the_originals_words() {
        let readiness = Readiness::new();
        let probes = Probes::new(readiness.clone(), Registry::default());
        // Nobody has said yet what to wait for.
        assert_eq!(get(&probes, "/readyz").await.0, 503);
        let (pods, redirect) = (readiness.guard("pods"), readiness.guard("redirect"));
        let said = |status, body: &str| (status, body.to_owned());
        assert_eq!(
            get(&probes, "/readyz").await,
            said(503, "waiting for pods, redirect\n")
        );
        assert_eq!(get(&probes, "/healthz").await, said(200, "Not Active"));
        pods.ready();
        assert_eq!(get(&probes, "/readyz").await, said(503, "waiting for redirect\n"));
        redirect.ready();
        assert_eq!(get(&probes, "/readyz").await, said(200, "ready\n"));
        assert_eq!(ask(&probes, Method::POST, "/healthz").await, said(200, "Active"));
        redirect.not_ready();
        assert_eq!(get(&probes, "/healthz").await, said(200, "Not Active"));
        assert_eq!(ask(&probes, Method::POST, "/readyz").await.0, 405);
        assert_eq!(get(&probes, "/debug/pprof").await.0, 404);
    }
}
