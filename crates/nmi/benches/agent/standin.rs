//! A stand-in for the node's metadata service: tokens of a real one's size after a chosen time, and a note of how long
//! each took, so that what the agent adds can be told from what its upstream takes. It checks nothing.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use parking_lot::Mutex;
use podid_rt::serve::serve;
use podid_rt::stop::Stop;
use podid_rt::tasks::Tasks;
use tokio::net::TcpListener;
use tokio::time::Instant;

/// Bytes of a token: an access token of a managed identity has about 1,700.
const TOKEN: usize = 1_700;
/// Requests a second and at a time that the real service answers. Source:
/// <https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service>, rate limiting.
const QUOTA: (usize, usize) = (20, 5);

/// A running stand-in.
pub(crate) struct Standin {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    _tasks: Tasks,
}

#[derive(Default)]
struct State {
    takes: Duration,
    quota: bool,
    /// How long each answered request took in here, oldest first.
    took: Vec<Duration>,
    throttled: usize,
    running: usize,
    lately: VecDeque<Instant>,
}

impl Standin {
    /// One that answers at once.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state: Arc<Mutex<State>> = Arc::default();
        let stop = Stop::new();
        let mut tasks = Tasks::new(stop.clone());
        let shared = Arc::clone(&state);
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let state = Arc::clone(&shared);
            async move { Ok::<_, Infallible>(answer(&state, &request).await) }
        });
        tasks.spawn("standin", serve(listener, None, service, tasks.group(), stop));
        Ok(Self {
            address,
            state,
            _tasks: tasks,
        })
    }

    /// From now on each answer takes `takes`, and with `quota` too many are throttled as the real service does. What
    /// was noted so far is forgotten.
    pub(crate) fn set(&self, takes: Duration, quota: bool) {
        *self.state.lock() = State {
            takes,
            quota,
            ..State::default()
        };
    }

    /// How long each call since [`Self::set`] took in here, and how many were throttled.
    pub(crate) fn seen(&self) -> (Vec<Duration>, usize) {
        let state = self.state.lock();
        (state.took.clone(), state.throttled)
    }
}

impl State {
    /// Whether one more is within the quota.
    fn admit(&mut self, now: Instant) -> bool {
        while self
            .lately
            .front()
            .is_some_and(|at| now.duration_since(*at) >= Duration::from_secs(1))
        {
            self.lately.pop_front();
        }
        let within = self.lately.len() < QUOTA.0 && self.running < QUOTA.1;
        if within || !self.quota {
            self.lately.push_back(now);
            return true;
        }
        self.throttled += 1;
        false
    }
}

async fn answer(state: &Mutex<State>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let started = Instant::now();
    let takes = {
        let mut state = state.lock();
        if !state.admit(started) {
            return json(
                StatusCode::TOO_MANY_REQUESTS,
                r#"{"error":"invalid_request","error_description":"Temporarily throttled, too many requests"}"#
                    .to_owned(),
            );
        }
        state.running += 1;
        state.takes
    };
    let resource = form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes())
        .find(|(key, _)| key == "resource")
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default();
    if !takes.is_zero() {
        tokio::time::sleep(takes).await;
    }
    let token = format!("h.{}.s", "x".repeat(TOKEN - 4));
    let body = format!(
        r#"{{"access_token":"{token}","client_id":"c","expires_in":"86399","expires_on":"4102444800","ext_expires_in":"86399","not_before":"1700000000","resource":"{resource}","token_type":"Bearer"}}"#
    );
    let mut state = state.lock();
    state.running -= 1;
    state.took.push(started.elapsed());
    json(StatusCode::OK, body)
}

fn json(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json; charset=utf-8"),
    );
    response
}
