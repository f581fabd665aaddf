//! A closed-loop load generator: each connection asks, reads the whole answer, and asks again. It runs on threads of
//! its own, on a core that the agent does not have.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use podid_kernel::Namespace;
use podid_testkit::bench::cores;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

/// Room for an answer, in bytes.
const ANSWER: usize = 16 * 1024;
/// Not measured at the start of a run.
const WARM_UP: Duration = Duration::from_millis(300);

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// The agent.
    pub(crate) to: SocketAddr,
    /// Source addresses, taken in turn.
    pub(crate) from: Vec<IpAddr>,
    pub(crate) connections: usize,
    /// A new connection for each request.
    pub(crate) anew: bool,
    /// Between an answer and the next request.
    pub(crate) pause: Duration,
    pub(crate) lasts: Duration,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Of the answers with status 200, sorted.
    pub(crate) took: Vec<Duration>,
    /// Answers with another status.
    pub(crate) refused: usize,
    /// How long was measured.
    pub(crate) elapsed: Duration,
}

impl Seen {
    /// The time within which `share` of the requests were answered.
    pub(crate) fn within(&self, share: f64) -> Duration {
        at_share(&self.took, share)
    }

    /// The part of the whole run that was measured.
    pub(crate) fn share_measured(&self) -> f64 {
        self.elapsed.as_secs_f64() / (self.elapsed + WARM_UP).as_secs_f64()
    }

    /// Answers a second, refusals included.
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 requests")]
    pub(crate) fn a_second(&self) -> f64 {
        (self.took.len() + self.refused) as f64 / self.elapsed.as_secs_f64()
    }
}

/// The value of `sorted` below which `share` of the values lie.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the length of a list is far below 2^52"
)]
pub(crate) fn at_share(sorted: &[Duration], share: f64) -> Duration {
    let at = (sorted.len() as f64 * share).ceil() as usize;
    sorted
        .get(at.saturating_sub(1))
        .or_else(|| sorted.last())
        .copied()
        .unwrap_or_default()
}

/// The target of a token request.
pub(crate) fn target(resource: &str) -> String {
    format!("/metadata/identity/oauth2/token?api-version=2018-02-01&resource={resource}")
}

/// A request as the Python SDK sends it.
pub(crate) fn request(target: &str, close: bool) -> String {
    let connection = if close { "close" } else { "keep-alive" };
    format!(
        "GET {target} HTTP/1.1\r\nHost: 169.254.169.254\r\nAccept-Encoding: gzip, deflate\r\nAccept: */*\r\n\
         Connection: {connection}\r\nMetadata: true\r\nUser-Agent: azsdk-python-identity/1.19.0 Python/3.12.3 (Linux-6.8.0-x86_64)\r\n\r\n"
    )
}

impl Load {
    /// Does it, on a thread of its own, in `within` where that is given, and waits for the end.
    pub(crate) fn run(self, within: Option<&Namespace>) -> anyhow::Result<Seen> {
        let work = || {
            cores::move_to(cores::Side::Ours)?;
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(self.measure())
        };
        match within {
            Some(namespace) => namespace.run(work)?,
            None => thread::scope(|scope| {
                scope
                    .spawn(work)
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            }),
        }
    }

    async fn measure(self) -> anyhow::Result<Seen> {
        let from = Instant::now() + WARM_UP;
        let until = from + self.lasts;
        let all = (0..self.connections).map(|n| self.connection(n, from, until));
        let mut whole = Seen::default();
        for seen in futures::future::try_join_all(all).await? {
            whole.took.extend(seen.took);
            whole.refused += seen.refused;
        }
        whole.elapsed = from.elapsed();
        whole.took.sort_unstable();
        ensure!(
            !whole.took.is_empty(),
            "no request was answered with a token; {} were refused",
            whole.refused
        );
        Ok(whole)
    }

    async fn connection(&self, n: usize, from: Instant, until: Instant) -> anyhow::Result<Seen> {
        let request = request(&target("https%3A%2F%2Fvault.azure.net"), self.anew);
        let mut seen = Seen::default();
        let mut turn = n;
        let mut kept = if self.anew {
            None
        } else {
            Some(self.connect(n).await?)
        };
        let mut room = vec![0; ANSWER];
        loop {
            let started = Instant::now();
            if started >= until {
                return Ok(seen);
            }
            let mut new;
            let stream = if let Some(stream) = &mut kept {
                stream
            } else {
                turn += self.connections;
                new = self.connect(turn).await?;
                &mut new
            };
            stream.write_all(request.as_bytes()).await?;
            let status = answer(stream, &mut room).await?;
            let ended = Instant::now();
            if started >= from {
                match status {
                    200 => seen.took.push(ended - started),
                    _ => seen.refused += 1,
                }
            }
            if !self.pause.is_zero() {
                tokio::time::sleep(self.pause).await;
            }
        }
    }

    async fn connect(&self, turn: usize) -> anyhow::Result<TcpStream> {
        let from = self
            .from
            .get(turn % self.from.len().max(1))
            .context("a source address")?;
        connect(*from, self.to).await
    }
}

/// A connection from `from`.
pub(crate) async fn connect(from: IpAddr, to: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // Connections that have just ended must not use up the ports.
    socket.set_reuseaddr(true)?;
    socket.bind((from, 0).into())?;
    let stream = socket
        .connect(to)
        .await
        .with_context(|| format!("connect from {from} to {to}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads one whole answer; its status.
pub(crate) async fn answer(stream: &mut TcpStream, room: &mut [u8]) -> anyhow::Result<u16> {
    let mut have = 0;
    loop {
        let read = stream.read(room.get_mut(have..).unwrap_or_default()).await?;
        if read == 0 {
            bail!("the connection was closed after {have} bytes of an answer");
        }
        have += read;
        let got = room.get(..have).unwrap_or_default();
        let Some(head) = got.windows(4).position(|end| end == b"\r\n\r\n") else {
            continue;
        };
        let text = std::str::from_utf8(got.get(..head).unwrap_or_default())?;
        let length: usize = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .context("an answer without its length")?
            .1
            .trim()
            .parse()?;
        if have >= head + 4 + length {
            let status = text.get(9..12).context("an answer without status")?;
            return Ok(status.parse()?);
        }
    }
}
