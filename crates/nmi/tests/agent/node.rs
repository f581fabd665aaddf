//! The agent on its node, and requests of its pods.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::Parser as _;
use podid_nmi::{AdminSocket, App, AppConfig, Nmi};
use podid_rt::readiness::Readiness;
use podid_rt::stop::Stop;
use podid_rt::tasks::{Tasks, TasksError};
use podid_testkit::eventually;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;

use crate::cluster::{Cluster, NODE};
use crate::imds::Imds;

pub(crate) const T: &str = "/metadata/identity/oauth2/token";
pub(crate) const Q: &str = "?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net";

/// A running agent.
pub(crate) struct Agent {
    pub(crate) address: SocketAddr,
    /// Where node agents ask.
    pub(crate) hosts: Option<SocketAddr>,
    pub(crate) probes: SocketAddr,
    pub(crate) readiness: Readiness,
    pub(crate) stop: Stop,
    ended: oneshot::Receiver<Result<(), TasksError>>,
}

impl Agent {
    /// Started as `main` would, with these flags beside the usual ones; not waited for.
    pub(crate) async fn start(cluster: &Cluster, imds: &Imds, flags: &[&str]) -> Self {
        Self::start_with(cluster, imds, flags, |_| {}).await
    }

    /// The same, with what no flag says.
    pub(crate) async fn start_with(
        cluster: &Cluster,
        imds: &Imds,
        flags: &[&str],
        change: impl FnOnce(&mut AppConfig),
    ) -> Self {
        Self::start_as(cluster, imds, flags, change, None).await
    }

    async fn start_as(
        cluster: &Cluster,
        imds: &Imds,
        flags: &[&str],
        change: impl FnOnce(&mut AppConfig),
        admin: Option<AdminSocket>,
    ) -> Self {
        let endpoint = format!("--imds-endpoint=http://{}", imds.address);
        let usual = [
            "podid-nmi",
            "--node",
            NODE,
            "--interception=none",
            "--listen=127.0.0.1:0",
            "--probe-listen=127.0.0.1:0",
            "--attestation=off",
            &endpoint,
        ];
        let usual = usual.iter().filter(|usual| {
            let name = usual.split_once('=').map_or(**usual, |(name, _)| name);
            !flags.iter().any(|flag| flag.starts_with(name))
        });
        let nmi = Nmi::try_parse_from(usual.chain(flags)).unwrap();
        let mut config = nmi.run.config(cluster.client.clone(), NODE.to_owned()).unwrap();
        change(&mut config);
        let mut app = App::bind(config).await.unwrap();
        if let Some(socket) = admin {
            app = app.with_admin(socket);
        }
        let hosts = app.host_address();
        let (address, probes, readiness) = (app.address(), app.probe_address(), app.readiness());
        let stop = Stop::new();
        let mut tasks = Tasks::new(stop.clone());
        app.spawn(&mut tasks);
        let (told, ended) = oneshot::channel();
        #[expect(
            clippy::disallowed_methods,
            reason = "the test waits for its end where that matters"
        )]
        let _running = tokio::spawn(async move {
            told.send(tasks.run(Duration::from_secs(20)).await).ok();
        });
        Self {
            address,
            hosts,
            probes,
            readiness,
            stop,
            ended,
        }
    }

    /// Started, and ready.
    pub(crate) async fn ready(cluster: &Cluster, imds: &Imds, flags: &[&str]) -> Self {
        Self::ready_with(cluster, imds, flags, None).await
    }

    /// The same, with an admin's door.
    pub(crate) async fn ready_with(
        cluster: &Cluster,
        imds: &Imds,
        flags: &[&str],
        admin: Option<AdminSocket>,
    ) -> Self {
        let agent = Self::start_as(cluster, imds, flags, |_| {}, admin).await;
        agent.wait().await;
        agent
    }

    /// Waits until it is ready.
    pub(crate) async fn wait(&self) {
        tokio::time::timeout(podid_testkit::PATIENCE, self.readiness.wait())
            .await
            .unwrap_or_else(|_| panic!("waiting for {:?}", self.readiness.missing()));
    }

    /// How it ended.
    pub(crate) async fn ended(self) -> Result<(), TasksError> {
        self.ended.await.unwrap()
    }

    /// A connection of the pod at `from`.
    pub(crate) async fn connect(&self, from: &str) -> std::io::Result<Wire> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(from.parse::<IpAddr>().unwrap(), 0))?;
        Ok(Wire(socket.connect(self.address).await?))
    }

    /// GET with `Metadata: true` on a connection of its own.
    pub(crate) async fn get(&self, from: &str, target: &str) -> Got {
        let mut wire = self.connect(from).await.unwrap();
        wire.get(target).await
    }

    /// A token request, until it is answered with `status`.
    pub(crate) async fn until(&self, from: &str, target: &str, status: u16) -> Got {
        eventually("the answer changes", || async {
            let got = self.get(from, target).await;
            if got.status == status { Ok(got) } else { Err(got) }
        })
        .await
        .unwrap()
    }

    /// What the probes' listener says at `path`.
    pub(crate) async fn probe(&self, path: &str) -> Got {
        let mut wire = Wire(TcpStream::connect(self.probes).await.unwrap());
        wire.get(path).await
    }
}

/// One connection, byte by byte: nothing between the test and the wire.
pub(crate) struct Wire(TcpStream);

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: u16,
    /// The head, in lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Got {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn token(&self) -> String {
        self.json()["access_token"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    }

    pub(crate) fn reason(&self) -> &str {
        self.header("x-podid-reason").unwrap_or_default()
    }
}

impl Wire {
    /// A connection of somebody on the node's network.
    pub(crate) async fn to(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    /// The number of its socket's inode, as `/proc/<pid>/fd` shows it.
    pub(crate) fn inode(&self) -> u64 {
        nix::sys::stat::fstat(&self.0).unwrap().st_ino
    }

    pub(crate) async fn get(&mut self, target: &str) -> Got {
        self.send(&format!(
            "GET {target} HTTP/1.1\r\nHost: 169.254.169.254\r\nMetadata: true\r\n\r\n"
        ))
        .await;
        self.read().await
    }

    pub(crate) async fn send(&mut self, request: &str) {
        self.0.write_all(request.as_bytes()).await.unwrap();
    }

    /// One answer, framed by its length or by chunks.
    pub(crate) async fn read(&mut self) -> Got {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut got = Got {
            status,
            head,
            body: String::new(),
        };
        let mut body = Vec::new();
        if let Some(length) = got.header("content-length") {
            body.resize(length.parse().unwrap(), 0);
            self.0.read_exact(&mut body).await.unwrap();
        } else if got.header("transfer-encoding").is_some() {
            panic!("chunked, which Hadoop does not read: {}", got.head);
        }
        got.body = String::from_utf8(body).unwrap();
        got
    }

    /// Whether the other side has closed, once it has.
    pub(crate) async fn closed(&mut self) -> bool {
        self.0.read(&mut [0; 1]).await.is_ok_and(|read| read == 0)
    }
}
