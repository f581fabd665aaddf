//! The pods' listener: an accept loop with limits, one HTTP/1.1 connection a task. What a request means is the
//! handler's business.
//!
//! accept ─▶ seat (in all, and per peer) ─▶ connection ─▶ requests one after the other ─▶ idle limit or stop ─▶ seat free

use std::any::Any;
use std::convert::Infallible;
use std::net::{SocketAddr, SocketAddrV4};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use podid_broker::Source;
use podid_kernel::redirect::SelfTest;
use podid_rt::stop::Stop;
use podid_rt::tasks::Group;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::body::BodyError;
use crate::caller::Connection;
use crate::handler::Handler;
use crate::metrics::Metrics;
use crate::pace::{Beat, Paced};
use crate::seats::Seats;

/// How long a connection may be idle before its first request and between two. Clients keep connections for at least 60 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Most headers of a request; hyper answers 431 to more. SDKs send up to 15.
const MAX_HEADERS: usize = 64;
/// Most bytes of a request head, in bytes; hyper answers 431 to more. Enough for four times the longest ARM id.
const MAX_HEAD: usize = 16 * 1024;
/// What to wait after accept failed (file descriptors used up), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long somebody over the limit is given for a request and its answer.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);
/// Most connections over the limit that are looked at at a time; beyond it they are closed without a word.
const REFUSALS: usize = 64;

/// Open files for all but pods' connections.
const RESERVED: u64 = 512;
/// Connections that there may be however few files a process may open.
const LEAST_CONNECTIONS: usize = 64;

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// In all; more wait in the kernel's queue.
    pub connections: usize,
    /// From one address; on more only probes are answered, everything else gets a 429.
    pub per_peer: usize,
}

impl Limits {
    /// With as many connections as fit into a process of `open_files`: each has a file of its own and perhaps one towards the real
    /// service, and watches, attested pods and probes need some as well.
    pub fn within(self, open_files: u64) -> Self {
        let fit = usize::try_from(open_files.saturating_sub(RESERVED) / 2).unwrap_or(usize::MAX);
        Self {
            connections: self.connections.min(fit.max(LEAST_CONNECTIONS)),
            ..self
        }
    }
}

impl Default for Limits {
    /// SDKs hold one to three connections each, and a pod may have several programs. No hundred pods together can
    /// take all places.
    fn default() -> Self {
        Self {
            connections: 8192,
            per_peer: 64,
        }
    }
}

/// The pods' listener.
#[derive(Debug)]
pub(crate) struct Server<S> {
    pub(crate) listener: TcpListener,
    pub(crate) limits: Limits,
    pub(crate) handler: Arc<Handler<S>>,
    pub(crate) metrics: Arc<Metrics>,
    /// Where connections are intercepted: the address that pods ask, whatever address we accept on, and the
    /// interception's test of itself, whose connections are no pod's.
    pub(crate) intercepted: Option<(SocketAddrV4, SelfTest)>,
    /// Whether this is where node agents on the node's network ask.
    pub(crate) host: bool,
    /// Who came before there was a server.
    pub(crate) early: Vec<(TcpStream, SocketAddr)>,
}

impl<S: Source> Server<S> {
    /// Accepts until told to stop, then returns when every connection has finished the request it was at.
    /// Connections are work of `group`.
    pub(crate) async fn run(mut self, group: Group, stop: Stop) {
        let doorman = Doorman {
            all: Arc::new(Semaphore::new(self.limits.connections)),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            seats: Seats::new(self.limits.per_peer),
            group,
            stop,
        };
        for (stream, peer) in std::mem::take(&mut self.early) {
            let Ok(permit) = Arc::clone(&doorman.all).acquire_owned().await else {
                break;
            };
            self.admit(&doorman, stream, peer, permit);
        }
        loop {
            let accepted = tokio::select! {
                () = doorman.stop.requested() => break,
                accepted = accept(&self.listener, &doorman.all) => accepted,
            };
            match accepted {
                Some((stream, peer, permit)) => self.admit(&doorman, stream, peer, permit),
                None => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
        let most = u32::try_from(self.limits.connections).unwrap_or(u32::MAX);
        // Closes the listener. Each connection holds a permit until it ends.
        drop(self);
        let _ended = doorman.all.acquire_many(most).await;
    }

    fn admit(&self, doorman: &Doorman, stream: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit) {
        if let Some(nonce) = self.intercepted.as_ref().and_then(|(_, test)| test.answer(peer)) {
            doorman.group.spawn(async move {
                let mut stream = stream;
                // Whoever tests says so when it gets no answer.
                let _gone = stream.write_all(&nonce).await;
                drop(permit);
            });
            return;
        }
        let asked = match &self.intercepted {
            Some((asked, _)) => SocketAddr::V4(*asked),
            None => match stream.local_addr() {
                Ok(local) => local,
                // It is gone already.
                Err(_) => return,
            },
        };
        // Small answers must not wait for a delayed acknowledgement.
        let _best_effort = stream.set_nodelay(true);
        let connect = if self.host {
            Connection::of_host
        } else {
            Connection::new
        };
        let connection = connect(canonical(peer), canonical(asked));
        let (handler, stop) = (Arc::clone(&self.handler), doorman.stop.clone());
        let Some(seat) = doorman.seats.take(peer.ip().to_canonical()) else {
            self.metrics.connections_refused.inc();
            // A probe must get its answer whatever else its pod does; everything else is told to come back.
            if let Ok(turn) = Arc::clone(&doorman.refusals).try_acquire_owned() {
                doorman.group.spawn(async move {
                    let served = serve(stream, connection.crowded(), handler, stop);
                    let _late = tokio::time::timeout(REFUSAL_TIMEOUT, served).await;
                    drop((turn, permit));
                });
            }
            return;
        };
        let counted = Counted::new(&self.metrics);
        doorman.group.spawn(async move {
            serve(stream, connection, handler, stop).await;
            drop((counted, seat, permit));
        });
    }
}

/// Who may come in, and who looks after them.
struct Doorman {
    all: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    seats: Seats,
    group: Group,
    stop: Stop,
}

/// One open connection, as it is counted.
struct Counted(Arc<Metrics>);

impl Counted {
    fn new(metrics: &Arc<Metrics>) -> Self {
        metrics.connections.inc();
        Self(Arc::clone(metrics))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

/// The next connection, once there is a place for it. A failure is logged.
async fn accept(
    listener: &TcpListener,
    all: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(all).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, permit)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            None
        }
    }
}

/// Serves one connection until it ends, or until it has finished the request it was at when told to stop.
pub(crate) async fn serve<S: Source, I>(
    stream: I,
    connection: Connection,
    handler: Arc<Handler<S>>,
    stop: Stop,
) where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let peer = connection.peer();
    let keep_alive = !connection.is_crowded();
    let connection = Arc::new(connection);
    let beat = Beat::new();
    let stream = Paced::new(stream, beat.clone());
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (handler, connection) = (Arc::clone(&handler), Arc::clone(&connection));
        let beat = beat.clone();
        beat.asked();
        let request = request.map(|body| body.map_err(broken as fn(_) -> _));
        async move {
            // One request's bug is that request's trouble; others of the connection, and the connection, go on.
            let started = Instant::now();
            let answered = AssertUnwindSafe(handler.answer(&connection, request))
                .catch_unwind()
                .await;
            let met_a_bug = |panic: Box<dyn Any + Send>| handler.met_a_bug(&connection, &*panic, started);
            let answer = answered.unwrap_or_else(met_a_bug);
            beat.answered();
            Ok::<_, Infallible>(answer)
        }
    });
    let mut http = std::pin::pin!(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE_TIMEOUT)
            .keep_alive(keep_alive)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = http.as_mut() => ended,
        () = stop.requested() => {
            http.as_mut().graceful_shutdown();
            http.await
        }
    };
    if let Err(error) = ended {
        // A port scan, a client that went away, a probe that only connects: nothing to act on.
        tracing::debug!(%peer, %error, "connection ended early");
    }
}

fn broken(error: hyper::Error) -> BodyError {
    BodyError::new(error)
}

/// IPv4 addresses as IPv4, also on a dual-stack listener.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
