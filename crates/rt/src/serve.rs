//! Serving HTTP/1.1, plain or over TLS, from an accept loop that drains: stop accepting, finish what runs, leave.
//! For the emulators and the probes; the pods' listener has a loop of its own with limits and attestation.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::stop::Stop;
use crate::tasks::Group;

/// How long a client may take to send a request's headers. Source: hyper's default of 30 s.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// What to wait after accept failed (file descriptors used up), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The address of the client, among the extensions of every request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// The address at which the client arrived, among the extensions of every request.
#[derive(Clone, Copy, Debug)]
pub struct Local(pub SocketAddr);

/// The certificate (DER) that the client proved to have, among the extensions of every request of a TLS connection on
/// which one was asked for and given. The chain was verified by the listener's TLS configuration.
#[derive(Clone, Debug)]
pub struct ClientCertificate(pub Bytes);

/// Accepts on `listener` until told to stop; each connection is work of `group`.
pub async fn serve<S, B>(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    service: S,
    group: Group,
    stop: Stop,
) where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let tls = tls.map(TlsAcceptor::from);
    loop {
        let (stream, peer) = tokio::select! {
            () = stop.requested() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let Ok(local) = stream.local_addr() else { continue };
        // Small answers must not wait for a delayed acknowledgement.
        let _best_effort = stream.set_nodelay(true);
        let (tls, service, stop) = (tls.clone(), service.clone(), stop.clone());
        group.spawn(async move {
            let mut service = WithAddresses {
                inner: service,
                peer,
                local,
                certificate: None,
            };
            let result = match tls {
                None => connection(TokioIo::new(stream), service, stop).await,
                Some(tls) => match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let (_, session) = stream.get_ref();
                        service.certificate = session
                            .peer_certificates()
                            .and_then(<[_]>::first)
                            .map(|leaf| ClientCertificate(Bytes::copy_from_slice(leaf)));
                        connection(TokioIo::new(stream), service, stop).await
                    }
                    Ok(Err(error)) => {
                        tracing::debug!(%peer, %error, "TLS handshake failed");
                        return;
                    }
                    Err(_) => return,
                },
            };
            if let Err(error) = result {
                tracing::debug!(%peer, %error, "connection ended early");
            }
        });
    }
}

async fn connection<I, S, B>(io: I, service: S, stop: Stop) -> Result<(), hyper::Error>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut connection = std::pin::pin!(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_READ_TIMEOUT)
            .serve_connection(io, service)
            .with_upgrades()
    );
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = stop.requested() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

/// Puts what is known of the connection among the request's extensions.
#[derive(Clone)]
struct WithAddresses<S> {
    inner: S,
    peer: SocketAddr,
    local: SocketAddr,
    certificate: Option<ClientCertificate>,
}

impl<S: Service<Request<Incoming>>> Service<Request<Incoming>> for WithAddresses<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, mut req: Request<Incoming>) -> Self::Future {
        req.extensions_mut().insert(Peer(self.peer));
        req.extensions_mut().insert(Local(self.local));
        if let Some(certificate) = &self.certificate {
            req.extensions_mut().insert(certificate.clone());
        }
        self.inner.call(req)
    }
}
