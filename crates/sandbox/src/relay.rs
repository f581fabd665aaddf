//! Doors for people: listeners on the machine's loopback address, made before the world was entered, whose
//! connections are passed on to an address inside it. It looks into nothing that passes.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use podid_rt::stop::Stop;
use podid_rt::tasks::Tasks;
use tokio::net::TcpStream;

/// What to wait after accept failed (file descriptors used up), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Listeners outside.
#[derive(Debug)]
pub(crate) struct Doors {
    /// To the Kubernetes API.
    pub kubernetes: TcpListener,
    /// To ARM and Entra.
    pub azure: TcpListener,
    /// To the metadata service.
    pub metadata: TcpListener,
}

/// A port cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("port {port} of 127.0.0.1 cannot be used ({source}); choose another one with {flag}")]
pub(crate) struct DoorError {
    flag: &'static str,
    port: u16,
    source: io::Error,
}

impl Doors {
    /// Binds the ports; 0 takes a free one.
    pub(crate) fn bind(kubernetes: u16, azure: u16, metadata: u16) -> Result<Self, DoorError> {
        let bind = |flag, port| {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|source| DoorError { flag, port, source })
        };
        Ok(Self {
            kubernetes: bind("--kubernetes-port", kubernetes)?,
            azure: bind("--azure-port", azure)?,
            metadata: bind("--metadata-port", metadata)?,
        })
    }
}

/// Passes what comes to `listener` on to `inside`.
pub(crate) fn spawn(
    tasks: &mut Tasks,
    name: &'static str,
    listener: TcpListener,
    inside: SocketAddr,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (group, stop) = (tasks.group(), tasks.stop().clone());
    tasks.spawn(name, async move {
        loop {
            let accepted = tokio::select! {
                () = stop.requested() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((outside, _)) => group.spawn(pass(outside, inside, stop.clone())),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    Ok(())
}

async fn pass(mut outside: TcpStream, inside: SocketAddr, stop: Stop) {
    let through = async {
        let mut there = TcpStream::connect(inside).await?;
        // Small answers must not wait for a delayed acknowledgement.
        outside.set_nodelay(true)?;
        there.set_nodelay(true)?;
        tokio::io::copy_bidirectional(&mut outside, &mut there).await
    };
    tokio::select! {
        () = stop.requested() => {}
        passed = through => if let Err(error) = passed {
            tracing::debug!(%inside, %error, "a connection ended early");
        }
    }
}
