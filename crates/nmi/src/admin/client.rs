//! `podid-nmi admin`: asks a running agent's admin socket, for who has no other client at hand (`kubectl exec`).

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::DEFAULT_ADMIN_SOCKET;

/// Flags of `podid-nmi admin`.
#[derive(Args, Clone, Debug)]
pub struct AdminArgs {
    /// What to ask for; `/` says what there is
    #[arg(value_name = "TARGET", default_value = "/")]
    pub target: String,

    /// How to ask
    #[arg(long, short = 'X', value_name = "METHOD", default_value = "GET")]
    pub method: Method,

    /// What to send
    #[arg(long, short, value_name = "TEXT", default_value = "")]
    pub data: String,

    /// Where the agent's admin socket is
    #[arg(long, env = "PODID_ADMIN_SOCKET", value_name = "PATH", default_value = DEFAULT_ADMIN_SOCKET)]
    pub admin_socket: PathBuf,
}

impl AdminArgs {
    /// Asks, and writes the answer to stdout; a refusal is an error.
    pub async fn run(self) -> anyhow::Result<()> {
        let at = self.admin_socket.display().to_string();
        let stream = UnixStream::connect(&self.admin_socket).await.with_context(|| {
            format!("open the admin socket {at}; is the agent running, and are you root?")
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .with_context(|| format!("speak to {at}"))?;
        let request = Request::builder()
            .method(self.method)
            .uri(self.target)
            .header("Host", "podid-nmi")
            .body(Full::new(Bytes::from(self.data)))
            .context("make the request")?;
        let answered = async {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            let body = answer.into_body().collect().await?.to_bytes();
            Ok::<_, hyper::Error>((status, body))
        };
        tokio::pin!(connection);
        let (status, body) = tokio::select! {
            answered = answered => answered,
            Err(error) = &mut connection => Err(error),
        }
        .with_context(|| format!("read the answer of {at}"))?;
        if status.is_success() {
            std::io::stdout()
                .write_all(&body)
                .context("write the answer to stdout")
        } else {
            anyhow::bail!("{status}: {}", String::from_utf8_lossy(&body).trim())
        }
    }
}
