//! The pods' listener: an accept loop with limits, one HTTP/1.1 connection a task. What a request means is the
//! handler's business.
//!
//! accept ─▶ seat (in all, and per peer) ─▶ connection ─▶ requests one after the other ─▶ idle limit or stop ─▶ seat free

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use podid_broker::Source;
use podid_kernel::redirect::SelfTest;
use podid_rt::stop::Stop;
use podid_rt::tasks::Group;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::answer;
use crate::body::BodyError;
use crate::caller::Connection;
use crate::handler::Handler;
use crate::metrics::Metrics;
use crate::seats::{Seat, Seats};

/// What a client may take for a whole request head, and how long a connection may be idle between two requests.
/// Clients keep connections for at least 60 s.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// Most headers of a request; hyper answers 431 to more. SDKs send up to 15.
const MAX_HEADERS: usize = 64;
/// Most bytes of a request head, in bytes; hyper answers 431 to more. Enough for four times the longest ARM id.
const MAX_HEAD: usize = 16 * 1024;
/// What to wait after accept failed (file descriptors used up), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long somebody over the limit is given to take our refusal.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);
/// Most refusals written at a time; beyond it connections are closed without a word.
const REFUSALS: usize = 64;

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// In all; more wait in the kernel's queue.
    pub connections: usize,
    /// From one address; more get a 429.
    pub per_peer: usize,
}

impl Default for Limits {
    /// A node runs at most 250 pods, whose SDKs hold one to three connections each.
    fn default() -> Self {
        Self {
            connections: 4096,
            per_peer: 128,
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
    /// The interception's test of itself, whose connections are no pod's.
    pub(crate) self_test: Option<SelfTest>,
}

impl<S: Source> Server<S> {
    /// Accepts until told to stop, then returns when every connection has finished the request it was at.
    /// Connections are work of `group`.
    pub(crate) async fn run(self, group: Group, stop: Stop) {
        let most = self.limits.connections;
        let all = self.accept_all(&group, &stop).await;
        // The listener is closed by now. Each connection holds a permit until it ends.
        let _ended = all.acquire_many(u32::try_from(most).unwrap_or(u32::MAX)).await;
    }

    async fn accept_all(self, group: &Group, stop: &Stop) -> Arc<Semaphore> {
        let Self {
            listener,
            limits,
            handler,
            metrics,
            self_test,
        } = self;
        let all = Arc::new(Semaphore::new(limits.connections));
        let refusals = Arc::new(Semaphore::new(REFUSALS));
        let seats = Seats::new(limits.per_peer);
        loop {
            let accepted = tokio::select! {
                () = stop.requested() => return all,
                accepted = accept(&listener, &all) => accepted,
            };
            let Some((stream, peer, permit)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            if let Some(nonce) = self_test.as_ref().and_then(|test| test.answer(peer)) {
                group.spawn(async move {
                    let mut stream = stream;
                    // Whoever tests says so when it gets no answer.
                    let _gone = stream.write_all(&nonce).await;
                    drop(permit);
                });
                continue;
            }
            let Ok(local) = stream.local_addr() else { continue };
            let Some(seat) = seats.take(peer.ip()) else {
                metrics.connections_refused.inc();
                if let Ok(permit) = Arc::clone(&refusals).try_acquire_owned() {
                    group.spawn(async move {
                        refuse(stream).await;
                        drop(permit);
                    });
                }
                continue;
            };
            // Small answers must not wait for a delayed acknowledgement.
            let _best_effort = stream.set_nodelay(true);
            let connection = Connection::new(canonical(peer), canonical(local));
            let (handler, metrics, stop) = (Arc::clone(&handler), Arc::clone(&metrics), stop.clone());
            group.spawn(async move {
                metrics.connections.inc();
                serve(stream, connection, seat, handler, stop).await;
                metrics.connections.dec();
                drop(permit);
            });
        }
    }
}

/// The next connection, once there is a place for it. A failure is logged.
async fn accept(
    listener: &TcpListener,
    all: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(all).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, permit)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            None
        }
    }
}

async fn serve<S: Source>(
    stream: TcpStream,
    connection: Connection,
    seat: Seat,
    handler: Arc<Handler<S>>,
    stop: Stop,
) {
    let peer = connection.peer();
    let connection = Arc::new(connection);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (handler, connection) = (Arc::clone(&handler), Arc::clone(&connection));
        let request = request.map(|body| body.map_err(broken as fn(_) -> _));
        async move { Ok::<_, Infallible>(handler.answer(&connection, request).await) }
    });
    let mut http = std::pin::pin!(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
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
    drop(seat);
}

fn broken(error: hyper::Error) -> BodyError {
    BodyError::new(error)
}

/// Answers 429 without reading a request, then waits a little for the client to take it: closing with unread bytes
/// would reset the connection and lose the answer.
async fn refuse(mut stream: TcpStream) {
    let refusal = async {
        stream.write_all(answer::too_many_connections()).await?;
        stream.shutdown().await?;
        let mut scrap = [0_u8; 1024];
        while stream.read(&mut scrap).await? > 0 {}
        std::io::Result::Ok(())
    };
    let _gone_or_late = tokio::time::timeout(REFUSAL_TIMEOUT, refusal).await;
}

/// IPv4 addresses as IPv4, also on a dual-stack listener.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
