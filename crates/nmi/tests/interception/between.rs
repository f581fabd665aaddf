//! What stands between the agent and its API server and misbehaves as it is told: it holds lists back, ends watches and
//! says that their version is too old, puts objects into lists that no API server of today would take, and goes away.
//!
//! agent ─http─▶ held? too old? ─▶ API server ─▶ a list, with what was put there │ a watch, until it is cut

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use parking_lot::Mutex;
use podid_rt::serve::serve;
use podid_rt::stop::Stop;
use podid_rt::tasks::Tasks;
use podid_testkit::eventually;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// The kinds that the agent watches, as they are called in paths.
pub(crate) const PODS: &str = "pods";
pub(crate) const IDENTITIES: &str = "azureidentities";
pub(crate) const BINDINGS: &str = "azureidentitybindings";
pub(crate) const EXCEPTIONS: &str = "azurepodidentityexceptions";
pub(crate) const KINDS: [&str; 4] = [PODS, IDENTITIES, BINDINGS, EXCEPTIONS];

/// Objects of a page, as clients ask for by default.
const PAGE: usize = 500;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<UnsyncBoxBody<Bytes, Failure>>;

/// It stands between them as long as it is not told to go.
pub(crate) struct Between {
    address: SocketAddr,
    wants: Arc<Wants>,
    stop: Stop,
}

/// What it was told.
struct Wants {
    api_server: kube::Client,
    /// Kinds whose lists wait.
    held: watch::Sender<BTreeSet<&'static str>>,
    /// Kinds of which a list has waited since they were held.
    waited: Mutex<BTreeSet<&'static str>>,
    /// Kinds whose next watch is told that its version is too old.
    too_old: Mutex<BTreeSet<&'static str>>,
    /// Counts how often all watches were ended.
    cuts: watch::Sender<u64>,
    /// What lists have beside what the API server has.
    more: Mutex<BTreeMap<&'static str, Vec<Value>>>,
}

impl Between {
    pub(crate) async fn start(api_server: kube::Client) -> Self {
        let wants = Arc::new(Wants {
            api_server,
            held: watch::Sender::default(),
            waited: Mutex::default(),
            too_old: Mutex::default(),
            cuts: watch::Sender::default(),
            more: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = stand(listener, &wants);
        Self { address, wants, stop }
    }

    /// A kubeconfig that leads here.
    pub(crate) fn kubeconfig(&self) -> String {
        let cluster = json!([{ "name": "c", "cluster": { "server": format!("http://{}", self.address) } }]);
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c", "clusters": cluster,
            "users": [{ "name": "u", "user": {} }],
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
        })
        .to_string()
    }

    /// Lists of these kinds wait until they are released.
    pub(crate) fn hold(&self, kinds: &[&'static str]) {
        self.wants.waited.lock().clear();
        self.wants.held.send_modify(|held| held.extend(kinds));
    }

    /// All lists are answered again.
    pub(crate) fn release(&self) {
        self.wants.held.send_modify(BTreeSet::clear);
    }

    /// Returns when a list of each held kind waits.
    pub(crate) async fn all_held_wait(&self) -> Result<(), String> {
        eventually("lists wait", async || {
            let (held, waited) = (self.wants.held.borrow().clone(), self.wants.waited.lock().clone());
            if held == waited { Ok(()) } else { Err(waited) }
        })
        .await
    }

    /// Ends all watches; those that are opened next are told 410 Gone.
    pub(crate) fn expire(&self) {
        self.wants.too_old.lock().extend(KINDS);
        self.wants.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Lists of `kind` have these objects too from now on. Watches do not tell of them.
    pub(crate) fn put(&self, kind: &'static str, objects: impl IntoIterator<Item = Value>) {
        self.wants.more.lock().entry(kind).or_default().extend(objects);
    }

    /// There is no API server any more.
    pub(crate) fn go(&self) {
        self.stop.force();
        self.wants.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// It is there again, at the same address.
    pub(crate) async fn come_back(&mut self) {
        let listener = eventually("the address is free", async || {
            TcpListener::bind(self.address).await
        })
        .await;
        self.stop = stand(listener.unwrap(), &self.wants);
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.go();
    }
}

fn stand(listener: TcpListener, wants: &Arc<Wants>) -> Stop {
    let stop = Stop::new();
    let mut tasks = Tasks::new(stop.clone());
    let wants = Arc::clone(wants);
    let service = service_fn(move |request| Arc::clone(&wants).answer(request));
    tasks.spawn(
        "between",
        serve(listener, None, service, tasks.group(), stop.clone()),
    );
    let _running = tokio::spawn(tasks.run(Duration::from_secs(5)));
    stop
}

impl Wants {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Answer, Failure> {
        let (mut parts, body) = request.into_parts();
        let last = parts.uri.path().rsplit('/').next().unwrap_or_default();
        let kind = KINDS.into_iter().find(|kind| *kind == last);
        let query: BTreeMap<String, String> =
            form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
                .into_owned()
                .collect();
        let is_watch = query
            .get("watch")
            .is_some_and(|value| ["1", "true"].contains(&&**value));
        let of = kind.filter(|_| parts.method == Method::GET);
        if let Some(kind) = of {
            if is_watch && self.too_old.lock().remove(kind) {
                return Ok(too_old(kind));
            }
            if !is_watch {
                self.wait_for(kind).await;
            }
            if let Some((version, from)) = query.get("continue").and_then(|from| from.split_once('+')) {
                let page = json!({ "metadata": { "resourceVersion": version }, "items": [] });
                return Ok(self.list(kind, page, from.parse()?));
            }
        }
        parts.headers.remove(http::header::HOST);
        let body = body.collect().await?.to_bytes();
        // Before the watch is opened, so that no cut is missed.
        let mut cuts = self.cuts.subscribe();
        let answer = self
            .api_server
            .send(Request::from_parts(parts, body.into()))
            .await?;
        let status = answer.status();
        match of {
            Some(_) if is_watch => {
                let cut = Box::pin(async move { cuts.changed().await.is_ok() });
                let lines = answer.into_body().into_data_stream().take_until(cut);
                let body = StreamBody::new(lines.map_ok(Frame::data).map_err(Failure::from));
                Ok(json_answer(status, body.boxed_unsync()))
            }
            Some(kind) if status.is_success() && self.more.lock().contains_key(kind) => {
                let list = answer.into_body().collect_bytes().await?;
                Ok(self.list(kind, serde_json::from_slice(&list)?, 0))
            }
            _ => {
                let body = answer.into_body().collect_bytes().await?;
                Ok(whole(status, body))
            }
        }
    }

    async fn wait_for(&self, kind: &'static str) {
        let mut held = self.held.subscribe();
        if held.borrow_and_update().contains(kind) {
            self.waited.lock().insert(kind);
        }
        // The sender lives in self.
        let _free = held.wait_for(|held| !held.contains(kind)).await;
    }

    /// `list` with a page of what was put there, from number `from` on.
    fn list(&self, kind: &str, mut list: Value, from: usize) -> Answer {
        let more = self.more.lock();
        let rest = more.get(kind).and_then(|all| all.get(from..)).unwrap_or_default();
        let page = rest.get(..PAGE).unwrap_or(rest);
        list["items"]
            .as_array_mut()
            .expect("a list has items")
            .extend(page.iter().cloned());
        if page.len() < rest.len() {
            let version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default();
            list["metadata"]["continue"] = format!("{version}+{}", from + page.len()).into();
        }
        whole(StatusCode::OK, list.to_string().into())
    }
}

/// 410 Gone, in both ways that there are: as the answer's status, and within an answer that began well.
fn too_old(kind: &str) -> Answer {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "reason": "Expired", "code": 410,
        "message": "too old resource version: 1 (2)",
    });
    if kind == PODS {
        return whole(StatusCode::GONE, status.to_string().into());
    }
    let line = json!({ "type": "ERROR", "object": status });
    whole(StatusCode::OK, format!("{line}\n").into())
}

fn whole(status: StatusCode, body: Bytes) -> Answer {
    json_answer(
        status,
        Full::new(body).map_err(|never| match never {}).boxed_unsync(),
    )
}

fn json_answer(status: StatusCode, body: UnsyncBoxBody<Bytes, Failure>) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert("content-type", "application/json".parse().unwrap());
    answer
}
