//! The server as a whole: what it is told (`Config`), bound (`App`), running (`Emulator`).
//!
//! ```text
//! Config ─▶ App::bind (sockets, CA, certificates) ─▶ App::spawn(&mut Tasks) ─▶ Emulator (URL, kubeconfig)
//! ```

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use podid_rt::clock::Clock;
use podid_rt::stop::Stop;
use podid_rt::tasks::Tasks;
use zeroize::Zeroizing;

use crate::authority::{Authority, AuthorityError, Identity};
use crate::cluster::Cluster;
use crate::kubeconfig;
use crate::logs::{LogFolder, PodLogs};
use crate::server::Server;
use crate::token::{KeyError, Tokens};

/// Names by which every API server is known.
const OWN_NAMES: [&str; 6] = [
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
    "127.0.0.1",
];
/// Who signs service account tokens when nobody says.
const DEFAULT_ISSUER: &str = "https://kubernetes.default.svc";
/// How often old events are looked for.
const HOUSEKEEPING: Duration = Duration::from_mins(1);

/// What a server is told. The default binds one free port of the loopback address with a CA of its own.
#[derive(Debug)]
pub struct Config {
    /// Addresses to bind.
    pub listen: Vec<SocketAddr>,
    /// Sockets that are bound already, perhaps in another network namespace.
    pub listeners: Vec<std::net::TcpListener>,
    /// More DNS names and addresses for the certificate; those of all sockets are in it anyway.
    pub names: Vec<String>,
    /// Name of the cluster in kubeconfig files.
    pub cluster: String,
    /// The authority; made when none is given.
    pub authority: Option<Authority>,
    /// `iss` of service account tokens, and the default audience.
    pub issuer: String,
    /// The key that signs service account tokens (PKCS#8 PEM); made when first needed if none is given.
    pub service_account_key: Option<Zeroizing<String>>,
    /// Where logs of pods come from.
    pub logs: Logs,
    /// The time.
    pub clock: Clock,
}

/// Where logs of pods come from.
#[derive(Debug, Default)]
pub enum Logs {
    /// There are none.
    #[default]
    None,
    /// Files as a kubelet leaves them, see [`LogFolder`].
    Folder(PathBuf),
    /// Somebody who has them.
    Hook(Arc<dyn PodLogs>),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))],
            listeners: Vec::new(),
            names: Vec::new(),
            cluster: "podid".to_owned(),
            authority: None,
            issuer: DEFAULT_ISSUER.to_owned(),
            service_account_key: None,
            logs: Logs::None,
            clock: Clock::system(),
        }
    }
}

/// The server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// An address is taken, or not of this machine.
    #[error("{address} cannot be bound; choose another address or port")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A socket that was given cannot be used.
    #[error("a given socket cannot be listened on")]
    Socket(#[source] std::io::Error),
    /// There is nothing to listen on.
    #[error("no address and no socket to listen on")]
    Nowhere,
    /// The authority or a certificate.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The key of service account tokens.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl EmulatorError {
    /// A stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Bind { .. } => "bind",
            Self::Socket(_) => "socket",
            Self::Nowhere => "no_listener",
            Self::Authority(error) => error.code(),
            Self::Key(error) => error.code(),
        }
    }
}

/// A server with its sockets bound.
#[derive(Debug)]
pub struct App {
    listeners: Vec<tokio::net::TcpListener>,
    tls: Arc<rustls::ServerConfig>,
    cluster: Cluster,
    tokens: Tokens,
    logs: Option<Arc<dyn PodLogs>>,
    emulator: Emulator,
}

/// A running server, for who started it.
#[derive(Clone, Debug)]
pub struct Emulator {
    addresses: Vec<SocketAddr>,
    cluster_name: String,
    authority: Authority,
    admin: Identity,
    tokens: Tokens,
    clock: Clock,
}

impl App {
    /// Binds every socket and makes the certificates. Must be called in a tokio runtime.
    pub fn bind(config: Config) -> Result<Self, EmulatorError> {
        let Config {
            listen,
            listeners: given,
            names,
            cluster: cluster_name,
            authority,
            issuer,
            service_account_key,
            logs,
            clock,
        } = config;
        let mut listeners = Vec::new();
        for address in listen {
            let bind = |address: SocketAddr| {
                let socket = std::net::TcpListener::bind(address)?;
                socket.set_nonblocking(true)?;
                tokio::net::TcpListener::from_std(socket)
            };
            listeners.push(bind(address).map_err(|source| EmulatorError::Bind { address, source })?);
        }
        for socket in given {
            let adopt = |socket: std::net::TcpListener| {
                socket.set_nonblocking(true)?;
                tokio::net::TcpListener::from_std(socket)
            };
            listeners.push(adopt(socket).map_err(EmulatorError::Socket)?);
        }
        let addresses = listeners
            .iter()
            .map(tokio::net::TcpListener::local_addr)
            .collect::<Result<Vec<_>, _>>()
            .map_err(EmulatorError::Socket)?;
        if addresses.is_empty() {
            return Err(EmulatorError::Nowhere);
        }
        let authority = match authority {
            Some(authority) => authority,
            None => Authority::generate("podid kube-emulator", &clock)?,
        };
        let mut all_names: Vec<String> = OWN_NAMES.iter().map(|name| (*name).to_owned()).collect();
        all_names.extend(addresses.iter().map(|address| address.ip().to_string()));
        all_names.extend(names);
        all_names.sort();
        all_names.dedup();
        let server = authority.issue_server(&all_names, &clock)?;
        let tls = Arc::new(authority.tls(&server)?);
        let admin = authority.issue_client("kubernetes-admin", &["system:masters"], &clock)?;
        let cluster = Cluster::new(clock.clone(), authority.certificate_pem());
        let tokens = Tokens::new(issuer, service_account_key);
        let logs: Option<Arc<dyn PodLogs>> = match logs {
            Logs::None => None,
            Logs::Folder(folder) => Some(Arc::new(LogFolder::new(folder, cluster.clone()))),
            Logs::Hook(hook) => Some(hook),
        };
        Ok(Self {
            listeners,
            tls,
            cluster,
            tokens: tokens.clone(),
            logs,
            emulator: Emulator {
                addresses,
                cluster_name,
                authority,
                admin,
                tokens,
                clock,
            },
        })
    }

    /// Where it listens, in the order of the configuration: addresses first, then given sockets.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.emulator.addresses()
    }

    /// Serves until the tasks are told to stop.
    pub fn spawn(self, tasks: &mut Tasks) -> Emulator {
        let stop = tasks.stop().clone();
        let server = Server {
            cluster: self.cluster.clone(),
            tokens: self.tokens,
            logs: self.logs,
            stop: stop.clone(),
        };
        for listener in self.listeners {
            let server = server.clone();
            let service = hyper::service::service_fn(move |request| server.clone().answer(request));
            let serving = podid_rt::serve::serve(
                listener,
                Some(Arc::clone(&self.tls)),
                service,
                tasks.group(),
                stop.clone(),
            );
            tasks.spawn("kube-api", serving);
        }
        tasks.spawn("kube-events", forget_old_events(self.cluster, stop));
        self.emulator
    }
}

impl Emulator {
    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The URL of the first address.
    pub fn url(&self) -> String {
        self.addresses
            .first()
            .map(|address| format!("https://{address}"))
            .unwrap_or_default()
    }

    /// The authority that signed the server's certificate.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// An administrator's kubeconfig for the first address.
    pub fn kubeconfig(&self) -> Zeroizing<String> {
        self.kubeconfig_for(&self.url())
    }

    /// The same for another URL of this server.
    pub fn kubeconfig_for(&self, server: &str) -> Zeroizing<String> {
        let user = format!("admin@{}", self.cluster_name);
        kubeconfig::render(&self.cluster_name, &user, server, &self.authority, &self.admin)
    }

    /// The kubeconfig of another user, known by a client certificate of its own.
    pub fn kubeconfig_of(
        &self,
        user: &str,
        groups: &[&str],
        server: &str,
    ) -> Result<Zeroizing<String>, AuthorityError> {
        let identity = self.authority.issue_client(user, groups, &self.clock)?;
        Ok(kubeconfig::render(
            &self.cluster_name,
            user,
            server,
            &self.authority,
            &identity,
        ))
    }

    /// Makes the key of service account tokens now; else the first token request waits for it.
    pub async fn prepare_key(&self) -> Result<(), KeyError> {
        self.tokens.prepare().await
    }
}

/// Events are about the recent past: a real API server keeps them for an hour, and so does this.
async fn forget_old_events(cluster: Cluster, stop: Stop) {
    loop {
        tokio::select! {
            () = stop.requested() => return,
            () = tokio::time::sleep(HOUSEKEEPING) => cluster.write(crate::cluster::State::forget_old_events),
        }
    }
}
