//! The node's real metadata service, as far as the agent asks it: tokens by client id, and something at every other
//! path. It notes what it was asked and can be held up or stopped.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use parking_lot::Mutex;
use podid_rt::serve::serve;
use podid_rt::stop::Stop;
use podid_rt::tasks::Tasks;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A running service. Dropping the handle changes nothing.
pub(crate) struct Imds {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    open: watch::Sender<bool>,
    stop: Stop,
}

impl Imds {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (open, gate) = watch::channel(true);
        let stop = Stop::new();
        let mut tasks = Tasks::new(stop.clone());
        let noted = Arc::clone(&asked);
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let target = request.uri().path_and_query().unwrap().as_str().to_owned();
            noted.lock().push(target.clone());
            let mut gate = gate.clone();
            async move {
                gate.wait_for(|open| *open).await.unwrap();
                Ok::<_, Infallible>(answer(&target))
            }
        });
        tasks.spawn(
            "imds",
            serve(listener, None, service, tasks.group(), stop.clone()),
        );
        detach(tasks);
        Self {
            address,
            asked,
            open,
            stop,
        }
    }

    /// What was asked so far: path and query.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }

    /// Requests are taken and not answered until `release`.
    pub(crate) fn hold(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn release(&self) {
        self.open.send_replace(true);
    }

    /// Connections are refused from now on.
    pub(crate) fn stop(&self) {
        self.stop.force();
    }
}

/// Lets tasks run on their own until they are told to stop.
pub(crate) fn detach(tasks: Tasks) {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test waits for what the agent does, not for this"
    )]
    let _ended = tokio::spawn(tasks.run(std::time::Duration::from_secs(5)));
}

fn answer(target: &str) -> Response<Full<Bytes>> {
    let body = if target.starts_with("/metadata/identity/oauth2/token") {
        let parameter = |name: &str| {
            let query = target.split_once('?').unwrap().1;
            form_urlencoded::parse(query.as_bytes())
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.into_owned())
        };
        // Without client id: what the VM itself is.
        let client_id = parameter("client_id").unwrap_or_else(|| "vm".to_owned());
        format!(
            r#"{{"access_token":"h.{client_id}.s","client_id":"{client_id}","expires_in":"86399","expires_on":"4102444800","ext_expires_in":"86399","not_before":"1700000000","resource":"{}","token_type":"Bearer"}}"#,
            parameter("resource").unwrap()
        )
    } else {
        format!(r#"{{"passed":"{target}"}}"#)
    };
    Response::builder()
        .header("content-type", "application/json; charset=utf-8")
        .header("server", "IMDS/150.870.65.512")
        .header("connection", "close")
        .body(Full::new(Bytes::from(body)))
        .unwrap()
}
