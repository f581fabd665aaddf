//! The HTTP side: who asks, where the path leads, which operation it is.
//!
//! request ─▶ user ─▶ discovery | review | resource ─▶ list, watch, get, write, delete ─▶ answer

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use podid_rt::serve::ClientCertificate;
use podid_rt::stop::Stop;
use serde_json::json;

use crate::answer::{self, Answer};
use crate::cluster::Cluster;
use crate::decode::{self, Body};
use crate::discovery;
use crate::json as fields;
use crate::list::{self, View};
use crate::logs::{self, PodLogs};
use crate::patch::Patch;
use crate::protobuf;
use crate::remove::{DeleteOptions, Deleted, parse_propagation};
use crate::request::{Form, Params, Place, header, negotiate};
use crate::resource::Resource;
use crate::reviews;
use crate::status::{self, ApiError};
use crate::store::Object;
use crate::table::Include;
use crate::token::Tokens;
use crate::user::{User, authenticate};
use crate::watch::Watch;
use crate::write::{Target, Written};

/// The largest body. Source: the limit of a real API server, 3 MiB.
const MAX_BODY: usize = 3 * 1024 * 1024;

/// The server. Clones are the same server.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) cluster: Cluster,
    pub(crate) tokens: Tokens,
    pub(crate) logs: Option<Arc<dyn PodLogs>>,
    pub(crate) stop: Stop,
}

/// A request whose head was read.
struct Call {
    method: Method,
    path: String,
    params: Params,
    headers: HeaderMap,
    body: Incoming,
}

impl Server {
    /// Answers a request.
    pub(crate) async fn answer(self, request: Request<Incoming>) -> Result<Answer, Infallible> {
        let (head, body) = request.into_parts();
        let certificate = head.extensions.get::<ClientCertificate>().cloned();
        let call = Call {
            params: Params::read(head.uri.query().unwrap_or_default()),
            path: head.uri.path().to_owned(),
            method: head.method,
            headers: head.headers,
            body,
        };
        let (method, path) = (call.method.clone(), call.path.clone());
        let answer = self
            .handle(call, certificate.as_ref())
            .await
            .unwrap_or_else(|error| answer::error(&error));
        tracing::debug!(%method, %path, status = answer.status().as_u16(), "request");
        Ok(answer)
    }

    async fn handle(&self, call: Call, certificate: Option<&ClientCertificate>) -> Result<Answer, ApiError> {
        if let Some(answer) = self.open_paths(&call).await? {
            return Ok(answer);
        }
        let user = authenticate(&call.headers, certificate, &self.cluster, &self.tokens).await?;
        if let Some(answer) = self.discovery(&call)? {
            return Ok(answer);
        }
        let place = Place::read(&call.path).ok_or_else(ApiError::no_route)?;
        let review = discovery::REVIEWS
            .iter()
            .find(|one| (one.0, one.1, one.2) == (&place.group, &place.version, &place.plural));
        if let Some((group, _, _, kind)) = review {
            if call.method != Method::POST {
                return Err(ApiError::method_not_allowed());
            }
            let body = read_body(call.body, &call.headers).await?;
            let review = reviews::answer(kind, group, body.value, &user, &self.cluster, &self.tokens).await?;
            return Ok(answer::json(StatusCode::CREATED, &review));
        }
        self.resource(call, place, &user).await
    }

    /// What everybody may read: health, the version, and the keys that verify tokens.
    async fn open_paths(&self, call: &Call) -> Result<Option<Answer>, ApiError> {
        let found = match call.path.trim_end_matches('/') {
            "/healthz" | "/livez" | "/readyz" => {
                Some(answer::whole(StatusCode::OK, "text/plain; charset=utf-8", "ok"))
            }
            "/version" => Some(answer::json(StatusCode::OK, &discovery::version())),
            "/.well-known/openid-configuration" => {
                Some(answer::json(StatusCode::OK, &self.tokens.discovery()))
            }
            "/openid/v1/jwks" => {
                let keys = self.tokens.key_set().await;
                let keys = keys.map_err(|error| ApiError::internal(error.to_string()))?;
                let body = fields::bytes(&keys);
                Some(answer::whole(StatusCode::OK, "application/jwk-set+json", body))
            }
            _ => None,
        };
        if found.is_some() && call.method != Method::GET && call.method != Method::HEAD {
            return Err(ApiError::method_not_allowed());
        }
        Ok(found)
    }

    fn discovery(&self, call: &Call) -> Result<Option<Answer>, ApiError> {
        let registry = self.cluster.read(|state| Arc::clone(&state.registry));
        let accept = header(&call.headers, &ACCEPT);
        let aggregated = accept.contains("as=APIGroupDiscoveryList") && accept.contains("v=v2");
        let parts: Vec<&str> = call.path.trim_matches('/').split('/').collect();
        let value = match parts.as_slice() {
            ["api" | "apis"] if aggregated => {
                let body = fields::bytes(&discovery::aggregated(&registry, parts == ["api"]));
                let content = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
                return Ok(Some(answer::whole(StatusCode::OK, content, body)));
            }
            [""] => json!({ "paths": ["/api", "/api/v1", "/apis", "/healthz", "/openapi/v3", "/version"] }),
            ["api"] => discovery::core_versions(header(&call.headers, &http::header::HOST)),
            ["apis"] => discovery::group_list(&registry),
            ["apis", group] => discovery::group(&registry, group)?,
            ["api", version] => discovery::resource_list(&registry, "", version)?,
            ["apis", group, version] => discovery::resource_list(&registry, group, version)?,
            ["openapi", "v3"] => discovery::openapi_index(&registry),
            ["openapi", "v3", "api", version] => discovery::openapi(&registry, "", version)?,
            ["openapi", "v3", "apis", group, version] => discovery::openapi(&registry, group, version)?,
            _ => return Ok(None),
        };
        if call.method != Method::GET {
            return Err(ApiError::method_not_allowed());
        }
        Ok(Some(answer::json(StatusCode::OK, &value)))
    }

    async fn resource(&self, call: Call, place: Place, user: &User) -> Result<Answer, ApiError> {
        let resource = self
            .cluster
            .resource(&place.group, &place.version, &place.plural)
            .ok_or_else(|| {
                let registry = self.cluster.read(|state| Arc::clone(&state.registry));
                discovery::resource_list(&registry, &place.group, &place.version)
                    .map_or_else(|error| error, |_| ApiError::no_route())
            })?;
        // Namespaced objects have a namespace in their path, others have none.
        if resource.namespaced == place.namespace.is_empty()
            && (!place.name.is_empty() || !resource.namespaced)
        {
            return Err(ApiError::no_route());
        }
        if !place.subresource.is_empty() {
            if !resource.subresources.contains(&place.subresource) {
                return Err(ApiError::no_route());
            }
            if place.subresource != "status" {
                return self.subresource(call, &place, &resource, user).await;
            }
        }
        match (call.method.clone(), place.name.is_empty()) {
            (Method::GET | Method::HEAD, collection) if collection || call.params.flag("watch") => {
                self.list_or_watch(&call, &place, resource)
            }
            (Method::GET | Method::HEAD, _) => self.get(&call, &place, &resource),
            (Method::POST, true) if !resource.namespaced || !place.namespace.is_empty() => {
                let how = call.params.how(&call.headers, false)?;
                let form = negotiate(header(&call.headers, &ACCEPT))?;
                let body = read_body(call.body, &call.headers).await?;
                let written = self
                    .cluster
                    .write(|state| state.create(target(&resource, &place), body, &how))?;
                Ok(self.written(&resource, form, &written))
            }
            (Method::PUT, false) => {
                let how = call.params.how(&call.headers, false)?;
                let form = negotiate(header(&call.headers, &ACCEPT))?;
                let body = read_body(call.body, &call.headers).await?;
                let written = self
                    .cluster
                    .write(|state| state.replace(target(&resource, &place), body, &how))?;
                Ok(self.written(&resource, form, &written))
            }
            (Method::PATCH, false) => {
                let content_type = header(&call.headers, &CONTENT_TYPE);
                let how = call
                    .params
                    .how(&call.headers, content_type.starts_with("application/apply-patch"))?;
                let form = negotiate(header(&call.headers, &ACCEPT))?;
                let force = call.params.flag("force");
                let text = read_text(call.body).await?;
                let patch = Patch::read(content_type, &text, force, resource.is_custom())?;
                let written = self
                    .cluster
                    .write(|state| state.patch(target(&resource, &place), &patch, &how))?;
                Ok(self.written(&resource, form, &written))
            }
            (Method::DELETE, _) if place.subresource.is_empty() => self.delete(call, &place, &resource).await,
            _ => Err(ApiError::method_not_allowed()),
        }
    }

    fn list_or_watch(&self, call: &Call, place: &Place, resource: Arc<Resource>) -> Result<Answer, ApiError> {
        let view = View {
            resource: Arc::clone(&resource),
            form: negotiate(header(&call.headers, &ACCEPT))?,
            include: Include::read(call.params.text("includeObject")),
        };
        if !call.params.flag("watch") {
            let (page, now) = self.cluster.read(|state| {
                (
                    state.page(&resource, &place.namespace, &call.params),
                    self.cluster.now(),
                )
            });
            return Ok(answer::text(StatusCode::OK, list::render(&view, &page?, now)));
        }
        let watch = Watch::open(
            &self.cluster,
            view,
            &place.namespace,
            &place.name,
            &call.params,
            self.stop.clone(),
        )?;
        Ok(answer::stream("application/json", watch.lines()))
    }

    fn get(&self, call: &Call, place: &Place, resource: &Arc<Resource>) -> Result<Answer, ApiError> {
        let target = target(resource, place);
        let object = self
            .cluster
            .read(|state| state.store.get(&target.key(&place.name)))
            .ok_or_else(|| target.not_found(&place.name))?;
        let view = View {
            resource: Arc::clone(resource),
            form: negotiate(header(&call.headers, &ACCEPT))?,
            include: Include::read(call.params.text("includeObject")),
        };
        let text = view.render(&object, self.cluster.now(), true);
        Ok(answer::text(StatusCode::OK, text))
    }

    fn written(&self, resource: &Arc<Resource>, form: Form, written: &Written) -> Answer {
        let status = if written.created {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        let mut answer = answer::text(status, self.render(resource, form, &written.object));
        answer::warn(&mut answer, &written.warnings);
        answer
    }

    fn render(&self, resource: &Arc<Resource>, form: Form, object: &Object) -> Bytes {
        let view = View {
            resource: Arc::clone(resource),
            form,
            include: Include::default(),
        };
        view.render(object, self.cluster.now(), true)
    }

    async fn delete(&self, call: Call, place: &Place, resource: &Arc<Resource>) -> Result<Answer, ApiError> {
        let how = call.params.how(&call.headers, false)?;
        let form = negotiate(header(&call.headers, &ACCEPT))?;
        let body = read_body(call.body, &call.headers).await?.value;
        let mut options = DeleteOptions::read(&body)?;
        let seconds = call.params.number("gracePeriodSeconds")?;
        if let Some(seconds) = seconds.and_then(|seconds| i64::try_from(seconds).ok()) {
            options.grace_seconds = Some(seconds);
        }
        if !call.params.text("propagationPolicy").is_empty() {
            options.propagation = Some(parse_propagation(call.params.text("propagationPolicy"))?);
        }
        let dry_run = how.dry_run || !fields::list(&body, &["dryRun"]).is_empty();
        let how = crate::write::How { dry_run, ..how };
        let target = target(resource, place);
        if place.name.is_empty() {
            if resource.namespaced && place.namespace.is_empty() {
                return Err(ApiError::method_not_allowed());
            }
            let page = self.cluster.write(|state| {
                let page = state.page(resource, &place.namespace, &call.params)?;
                for object in &page.objects {
                    let target = Target {
                        name: fields::name(object),
                        ..target
                    };
                    match state.delete(target, &options, &how) {
                        // Deleting one may have taken others along.
                        Err(error) if error.code == StatusCode::NOT_FOUND => {}
                        other => drop(other?),
                    }
                }
                Ok(page)
            })?;
            let view = View {
                resource: Arc::clone(resource),
                form,
                include: Include::default(),
            };
            return Ok(answer::text(
                StatusCode::OK,
                list::render(&view, &page, self.cluster.now()),
            ));
        }
        let deleted = self.cluster.write(|state| state.delete(target, &options, &how))?;
        Ok(match deleted {
            Deleted::Gone(last) if !returns_deleted(resource) => {
                let status =
                    status::success(&resource.group, &resource.plural, &place.name, fields::uid(&last));
                answer::json(StatusCode::OK, &status)
            }
            Deleted::Gone(object) | Deleted::Pending(object) => {
                answer::text(StatusCode::OK, self.render(resource, form, &object))
            }
        })
    }

    async fn subresource(
        &self,
        call: Call,
        place: &Place,
        resource: &Arc<Resource>,
        _user: &User,
    ) -> Result<Answer, ApiError> {
        let target = Target {
            subresource: "",
            ..target(resource, place)
        };
        match (place.subresource.as_str(), call.method.clone()) {
            ("log", Method::GET) => {
                let log = logs::answer(
                    &self.cluster,
                    self.logs.as_ref(),
                    &place.namespace,
                    &place.name,
                    &call.params,
                );
                Ok(match log.await? {
                    Some(log) => answer::stream("text/plain", log),
                    None => answer::nothing(),
                })
            }
            ("token", Method::POST) => {
                let body = read_body(call.body, &call.headers).await?;
                let token = self
                    .tokens
                    .request(&self.cluster, &place.namespace, &place.name, &body.value)
                    .await?;
                Ok(answer::json(StatusCode::CREATED, &token))
            }
            ("binding", Method::POST) => {
                let how = call.params.how(&call.headers, false)?;
                let body = read_body(call.body, &call.headers).await?;
                let status = self
                    .cluster
                    .write(|state| state.bind(target, &body.value, &how))?;
                Ok(answer::json(StatusCode::CREATED, &status))
            }
            ("eviction", Method::POST) => {
                let how = call.params.how(&call.headers, false)?;
                let body = read_body(call.body, &call.headers).await?;
                let status = self
                    .cluster
                    .write(|state| state.evict(target, &body.value, &how))?;
                Ok(answer::json(StatusCode::CREATED, &status))
            }
            ("finalize", Method::PUT) => {
                let body = read_body(call.body, &call.headers).await?;
                let namespace = self
                    .cluster
                    .write(|state| state.finalize(&place.name, &body.value))?;
                Ok(answer::json(StatusCode::OK, &namespace))
            }
            _ => Err(ApiError::method_not_allowed()),
        }
    }
}

/// Kinds whose last form is returned when they are deleted; of others, a `Status`.
fn returns_deleted(resource: &Resource) -> bool {
    resource.group.is_empty() && matches!(resource.kind.as_str(), "Pod" | "ServiceAccount" | "Namespace")
        || resource.kind == "CustomResourceDefinition"
}

fn target<'a>(resource: &'a Resource, place: &'a Place) -> Target<'a> {
    Target {
        resource,
        namespace: &place.namespace,
        name: &place.name,
        subresource: &place.subresource,
    }
}

async fn read_text(body: Incoming) -> Result<Bytes, ApiError> {
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(text) => Ok(text.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(ApiError::too_large(MAX_BODY)),
        Err(error) => Err(ApiError::bad_request(format!("the body cannot be read: {error}"))),
    }
}

/// A body in JSON, YAML or (a few kinds) protobuf; nothing is an empty object.
async fn read_body(body: Incoming, headers: &HeaderMap) -> Result<Body, ApiError> {
    let media = header(headers, &CONTENT_TYPE)
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    let text = read_text(body).await?;
    if text.is_empty() {
        return Ok(Body::empty());
    }
    match media {
        "" | "*/*" | "application/json" => decode::json(&text),
        "application/yaml" => decode::yaml(&text),
        "application/vnd.kubernetes.protobuf" => protobuf::read(&text)
            .map(Body::of)
            .ok_or_else(|| ApiError::unsupported_media(&["application/json", "application/yaml"])),
        _ => Err(ApiError::unsupported_media(&[
            "application/json",
            "application/yaml",
        ])),
    }
}
