//! The front of both doors: reads a request whole, logs it, lets faults happen, hands it to the service that it is for.
//!
//! request ─▶ Ask ─▶ log.begin ─▶ fault? ─▶ arm | entra | graph | imds | mirror ─▶ log.end ─▶ response
//!                └▶ /_emulator/… ─▶ control (not logged, no faults)

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use podid_rt::serve::{Local, Peer};
use podid_rt::stop::Stop;
use serde_json::Value;

use crate::answer::{Answer, Refusal};
use crate::cloud::{Cloud, SharedCloud};
use crate::fault::{Seen, Then};
use crate::log::{Entry, Notes, redact};
use crate::path::Segments;
use crate::query::Query;
use crate::{arm, control, entra, graph, imds, mirror};

/// Bytes of a request's body. Source: ARM's own limit of 4 MB.
const BODY_LIMIT: usize = 4 << 20;

/// Which door a request came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// ARM, Entra, Graph and control, over TLS.
    Https,
    /// The metadata service, in the clear.
    Imds,
}

/// A request.
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) raw_path: String,
    pub(crate) path: Segments,
    pub(crate) raw_query: String,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) source: SocketAddr,
    /// Host and port as the client wrote them.
    pub(crate) host: String,
    /// `https://host:port` as the client reached us; absolute URLs start with it.
    pub(crate) base: String,
}

impl Ask {
    /// The body as text.
    pub(crate) fn body_text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as a JSON object; an empty body is an empty object.
    pub(crate) fn json(&self) -> Result<Value, Refusal> {
        if self.body.is_empty() {
            return Ok(Value::Object(serde_json::Map::new()));
        }
        match serde_json::from_slice(&self.body) {
            Ok(value @ Value::Object(_)) => Ok(value),
            Ok(_) => Err(Refusal::content("a JSON object is expected")),
            Err(error) => Err(Refusal::content(error)),
        }
    }
}

/// The connection is to be cut.
#[derive(Debug, thiserror::Error)]
#[error("an injected fault cuts the connection")]
pub(crate) struct Cut;

/// Answers one request.
pub(crate) async fn answer(
    cloud: SharedCloud,
    door: Door,
    stop: Stop,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Cut> {
    let head = request.method() == Method::HEAD;
    let ask = match read(request, door).await {
        Ok(ask) => ask,
        Err(answer) => return Ok(answer.into_response(head)),
    };
    if door == Door::Https && ask.path.lower().first() == Some(&"_emulator") {
        return Ok(control::answer(&cloud, &ask).await.into_response(head));
    }
    let service = service(door, &ask);
    let seq = cloud.log.begin(entry(&cloud, door, service, &ask));
    // A client that goes away before its answer must not leave the entry open for ever.
    let mut open = Open {
        cloud: &cloud,
        seq,
        notes: Notes::default(),
        status: None,
    };
    let result = serve(&cloud, service, &ask, &stop, &mut open.notes).await;
    open.status = result.as_ref().ok().map(|answer| answer.status.as_u16());
    drop(open);
    Ok(result?.into_response(head))
}

struct Open<'a> {
    cloud: &'a Cloud,
    seq: u64,
    notes: Notes,
    status: Option<u16>,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.cloud
            .log
            .end(self.seq, self.status, std::mem::take(&mut self.notes));
    }
}

async fn serve(
    cloud: &SharedCloud,
    service: &'static str,
    ask: &Ask,
    stop: &Stop,
    notes: &mut Notes,
) -> Result<Answer, Cut> {
    let source = ask.source.ip().to_string();
    let seen = Seen {
        service,
        method: &ask.method,
        path: &ask.raw_path,
        source: &source,
    };
    if let Some(effect) = cloud.faults.meet(&seen) {
        notes.fault = Some(effect.id);
        tokio::select! {
            () = tokio::time::sleep(effect.delay) => {}
            () = stop.requested() => {}
        }
        match effect.then {
            Then::Pass => {}
            Then::Answer(answer) => return Ok(answer),
            Then::Reset => return Err(Cut),
            Then::Hang => {
                tokio::select! {
                    () = cloud.faults.gone(effect.id) => {}
                    () = stop.requested() => {}
                }
                return Err(Cut);
            }
        }
    }
    Ok(match service {
        "imds" => imds::answer(cloud, ask, notes).await,
        "entra" => entra::answer(cloud, ask, notes).await,
        "graph" => graph::answer(cloud, ask, notes),
        "mirror" => mirror::answer(cloud, ask, notes),
        _ => arm::answer(cloud, ask, notes).await,
    })
}

/// Which service a path belongs to. What starts with none of ARM's words is a tenant's.
fn service(door: Door, ask: &Ask) -> &'static str {
    if door == Door::Imds {
        return "imds";
    }
    match ask.path.lower().as_slice() {
        [] | ["subscriptions" | "tenants" | "providers" | "metadata", ..] => "arm",
        ["v1.0" | "beta", ..] => "graph",
        ["mirror", ..] => "mirror",
        [_, "oauth2" | "discovery" | "v2.0" | ".well-known", ..] => "entra",
        _ => "arm",
    }
}

async fn read(request: Request<Incoming>, door: Door) -> Result<Ask, Answer> {
    let (parts, body) = request.into_parts();
    let unspecified = SocketAddr::from(([0, 0, 0, 0], 0));
    let source = parts.extensions.get::<Peer>().map_or(unspecified, |peer| peer.0);
    let local = parts
        .extensions
        .get::<Local>()
        .map_or(unspecified, |local| local.0);
    let host = parts
        .headers
        .get(http::header::HOST)
        .and_then(|host| host.to_str().ok())
        .or_else(|| parts.uri.authority().map(http::uri::Authority::as_str))
        .map_or_else(|| local.to_string(), str::to_owned);
    let scheme = if door == Door::Https { "https" } else { "http" };
    let body = Limited::new(body, BODY_LIMIT).collect().await.map_err(|error| {
        let text = format!("The request's body cannot be read: {error}");
        Answer::from(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestContentTooLarge",
            text,
        ))
    })?;
    let raw_query = parts.uri.query().unwrap_or_default().to_owned();
    Ok(Ask {
        method: parts.method,
        raw_path: parts.uri.path().to_owned(),
        path: Segments::parse(parts.uri.path()),
        query: Query::parse(&raw_query),
        raw_query,
        headers: parts.headers,
        body: body.to_bytes(),
        source,
        base: format!("{scheme}://{host}"),
        host,
    })
}

fn entry(cloud: &Cloud, door: Door, service: &'static str, ask: &Ask) -> Entry {
    let agent = ask
        .headers
        .get(http::header::USER_AGENT)
        .and_then(|value| value.to_str().ok());
    Entry {
        seq: 0,
        time: cloud.now_text(),
        listener: if door == Door::Https { "https" } else { "imds" },
        service,
        method: ask.method.to_string(),
        path: ask.raw_path.clone(),
        query: redact(&ask.raw_query),
        status: None,
        code: None,
        source: ask.source.ip().to_string(),
        node: None,
        principal: None,
        denied: None,
        fault: None,
        agent: agent.map(str::to_owned),
    }
}
