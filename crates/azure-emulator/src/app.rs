//! The emulator as a whole: sockets, keys and world are made by `bind`, tasks by `spawn`. Tests and the sandbox embed it
//! so; the binary does the same.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use podid_rt::clock::Clock;
use podid_rt::serve::serve;
use podid_rt::tasks::Tasks;
use serde_json::Value;
use uuid::Uuid;

use crate::cloud::{Authorization, Cloud, Settings, SharedCloud};
use crate::entra::issuer::Issuers;
use crate::error::EmulatorError;
use crate::fault::{Fault, FaultError};
use crate::front::{self, Door};
use crate::kubernetes;
use crate::log::Entry;
use crate::persist::{StateDir, write_public};
use crate::tls::Authority;
use crate::{control, keys};

/// Tenant of an emulator that is told none.
pub const TENANT_ID: &str = "0a2e0000-7e4a-4000-8000-000000000001";
/// Subscription of an emulator that is told none.
pub const SUBSCRIPTION_ID: &str = "0a2e0000-50b5-4000-8000-000000000001";
/// Client id of the built-in service principal, which owns the subscription.
pub const CLIENT_ID: &str = "0a2e0000-c11e-4000-8000-000000000001";

/// Where a door listens.
#[derive(Debug)]
pub enum Listen {
    /// At this address; port 0 takes a free one.
    Address(SocketAddr),
    /// On this socket, which may be in another network namespace.
    Given(TcpListener),
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl From<TcpListener> for Listen {
    fn from(listener: TcpListener) -> Self {
        Self::Given(listener)
    }
}

/// A caller of the metadata service, known by its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Its name.
    pub name: String,
    /// Where its requests come from.
    pub addresses: Vec<IpAddr>,
}

/// What an emulator is made of. `Config::default()` listens on free ports of loopback and keeps nothing.
#[derive(Debug)]
pub struct Config {
    /// ARM, Entra and Graph, over TLS.
    pub https: Vec<Listen>,
    /// The metadata service, plain.
    pub imds: Vec<Listen>,
    /// More names and addresses for the certificate.
    pub names: Vec<String>,
    /// Folder that keeps certificate authority, signing key and world.
    pub state: Option<PathBuf>,
    /// Where to write the certificate authority.
    pub ca_out: Option<PathBuf>,
    /// Tenant id.
    pub tenant_id: String,
    /// Subscription id.
    pub subscription_id: String,
    /// Client id of the built-in service principal.
    pub client_id: String,
    /// Its secret, which is the key of the control API as well; made up when not given.
    pub client_secret: Option<String>,
    /// What happens to callers without the right.
    pub authorization: Authorization,
    /// Life of managed identities' tokens.
    pub identity_token_lifetime: Duration,
    /// Life of other tokens.
    pub token_lifetime: Duration,
    /// How long operations run.
    pub operation_delay: Duration,
    /// Added to each token request of a machine.
    pub imds_latency: Duration,
    /// Token requests of a machine: a second, and at a time. None switches the quota off.
    pub imds_quota: Option<(usize, usize)>,
    /// Whether pod identity needs its feature flag.
    pub require_features: bool,
    /// Nodes. With none there is one virtual machine, which every caller is.
    pub nodes: Vec<NodeConfig>,
    /// Whether to have that virtual machine.
    pub machine: bool,
    /// Kubernetes of the first managed cluster; read when it is needed.
    pub kubeconfig: Option<PathBuf>,
    /// What `get-credentials` gives of it, where people reach it by another address.
    pub user_kubeconfig: Option<PathBuf>,
    /// Kubernetes of certain managed clusters, by `group/name`.
    pub kubeconfigs: HashMap<String, PathBuf>,
    /// More certificate authorities (PEM files) for issuers of federated assertions.
    pub issuer_cas: Vec<PathBuf>,
    /// Keys (JWKS) of issuers that are not asked for them.
    pub issuer_keys: HashMap<String, Value>,
    /// Faults from the start.
    pub faults: Vec<Fault>,
    /// The time of day.
    pub clock: Clock,
}

impl Default for Config {
    fn default() -> Self {
        let loopback = || vec![Listen::Address(SocketAddr::from(([127, 0, 0, 1], 0)))];
        Self {
            https: loopback(),
            imds: loopback(),
            names: Vec::new(),
            state: None,
            ca_out: None,
            tenant_id: TENANT_ID.to_owned(),
            subscription_id: SUBSCRIPTION_ID.to_owned(),
            client_id: CLIENT_ID.to_owned(),
            client_secret: None,
            authorization: Authorization::default(),
            identity_token_lifetime: Duration::from_hours(24),
            token_lifetime: Duration::from_secs(3599),
            operation_delay: Duration::ZERO,
            imds_latency: Duration::ZERO,
            imds_quota: Some((20, 5)),
            require_features: false,
            nodes: Vec::new(),
            machine: true,
            kubeconfig: None,
            user_kubeconfig: None,
            kubeconfigs: HashMap::new(),
            issuer_cas: Vec::new(),
            issuer_keys: HashMap::new(),
            faults: Vec::new(),
            clock: Clock::system(),
        }
    }
}

/// Where to reach an emulator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// `https://…` of ARM, one for each address.
    pub arm: Vec<String>,
    /// `https://…` of Entra. Today the same as ARM's.
    pub entra: Vec<String>,
    /// `http://…` of the metadata service.
    pub imds: Vec<String>,
}

/// An emulator with its sockets bound and nothing running yet.
pub struct App {
    cloud: SharedCloud,
    tls: Arc<rustls::ServerConfig>,
    https: Vec<tokio::net::TcpListener>,
    imds: Vec<tokio::net::TcpListener>,
    endpoints: Endpoints,
    state: Option<StateDir>,
    ca_file: Option<PathBuf>,
}

/// An emulator from within: what the control API does, without HTTP.
#[derive(Clone)]
pub struct SharedEmulator {
    cloud: SharedCloud,
    endpoints: Endpoints,
    ca_file: Option<PathBuf>,
}

impl App {
    /// Binds every socket, and makes or reads keys and state.
    pub async fn bind(config: Config) -> Result<Self, EmulatorError> {
        let Config {
            https,
            imds,
            mut names,
            state,
            ca_out,
            faults,
            issuer_cas,
            issuer_keys,
            clock,
            nodes,
            machine,
            ..
        } = config;
        // A second installation changes nothing.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let https = bind_all(https)?;
        let imds = bind_all(imds)?;
        let (https_addresses, imds_addresses) = (addresses(&https)?, addresses(&imds)?);
        let stored = tokio::task::spawn_blocking(move || Stored::open(state)).await;
        let Stored {
            state,
            authority,
            key,
            mut world,
        } = match stored {
            Ok(stored) => stored?,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        names.extend(
            https_addresses
                .iter()
                .map(SocketAddr::ip)
                .filter(|ip| !ip.is_unspecified())
                .map(|ip| ip.to_string()),
        );
        names.extend(
            [
                "localhost",
                "127.0.0.1",
                "::1",
                "management.azure.test",
                "login.azure.test",
            ]
            .map(str::to_owned),
        );
        names.sort_unstable();
        names.dedup();
        let tls = authority.serve(names).map_err(EmulatorError::tls)?;
        let mut ca_file = state.as_ref().map(StateDir::ca_file);
        if let Some(path) = ca_out {
            write_public(&path, authority.pem().as_bytes()).map_err(EmulatorError::state)?;
            ca_file = Some(path);
        }
        let mut roots = reqwest::Certificate::from_pem_bundle(authority.pem().as_bytes())
            .map_err(EmulatorError::issuers)?;
        for path in issuer_cas {
            let pem = std::fs::read(&path).map_err(|source| EmulatorError::file(&path, source))?;
            roots.extend(reqwest::Certificate::from_pem_bundle(&pem).map_err(EmulatorError::issuers)?);
        }
        let issuers = Issuers::new(&roots, issuer_keys).map_err(EmulatorError::issuers)?;
        let seed = crate::seed::Seed {
            tenant: config.tenant_id,
            subscription: config.subscription_id,
            client_id: config.client_id,
            client_secret: config.client_secret,
            machine: machine && nodes.is_empty(),
        };
        let planted = seed.plant(&mut world, &crate::cloud::time_text(clock.unix_secs()));
        for node in nodes {
            control::join(&mut world, &node.name, node.addresses, None).map_err(EmulatorError::node)?;
        }
        let settings = Settings {
            tenant: seed.tenant,
            subscription: seed.subscription,
            authorization: config.authorization,
            identity_token_lifetime: config.identity_token_lifetime,
            token_lifetime: config.token_lifetime,
            operation_delay: config.operation_delay,
            imds_latency: config.imds_latency,
            imds_quota: config.imds_quota,
            require_features: config.require_features,
            client_id: seed.client_id,
            control_key: planted.secret,
            kubeconfig: config.kubeconfig,
            user_kubeconfig: config.user_kubeconfig,
            kubeconfigs: config
                .kubeconfigs
                .into_iter()
                .map(|(name, path)| (name.to_ascii_lowercase(), path))
                .collect(),
            fallback_machine: planted.machine,
        };
        let cloud = Cloud::new(settings, key, authority.pem().to_owned(), clock, world, issuers);
        for fault in faults {
            cloud.faults.set(fault).map_err(EmulatorError::fault)?;
        }
        let urls = |scheme: &str, all: &[SocketAddr]| {
            all.iter()
                .map(|address| format!("{scheme}://{address}"))
                .collect::<Vec<_>>()
        };
        let endpoints = Endpoints {
            arm: urls("https", &https_addresses),
            entra: urls("https", &https_addresses),
            imds: urls("http", &imds_addresses),
        };
        Ok(Self {
            cloud: Arc::new(cloud),
            tls,
            https: listen(https)?,
            imds: listen(imds)?,
            endpoints,
            state,
            ca_file,
        })
    }

    /// Where it listens.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// A handle that works before and after `spawn`.
    pub fn handle(&self) -> SharedEmulator {
        SharedEmulator {
            cloud: Arc::clone(&self.cloud),
            endpoints: self.endpoints.clone(),
            ca_file: self.ca_file.clone(),
        }
    }

    /// Starts serving.
    pub fn spawn(self, tasks: &mut Tasks) {
        let Self {
            cloud,
            tls,
            https,
            imds,
            endpoints: _,
            state,
            ca_file: _,
        } = self;
        let doors = https
            .into_iter()
            .map(|listener| ("https", listener, Some(Arc::clone(&tls)), Door::Https))
            .chain(
                imds.into_iter()
                    .map(|listener| ("imds", listener, None, Door::Imds)),
            );
        for (name, listener, tls, door) in doors {
            let (cloud, stop) = (Arc::clone(&cloud), tasks.stop().clone());
            let service = hyper::service::service_fn(move |request| {
                front::answer(Arc::clone(&cloud), door, stop.clone(), request)
            });
            tasks.spawn(
                name,
                serve(listener, tls, service, tasks.group(), tasks.stop().clone()),
            );
        }
        if cloud.settings.kubeconfig.is_some() || !cloud.settings.kubeconfigs.is_empty() {
            tasks.spawn(
                "kubernetes",
                kubernetes::follow(Arc::clone(&cloud), tasks.stop().clone()),
            );
        }
        if let Some(state) = state {
            tasks.spawn("state", state.keep(cloud, tasks.stop().clone()));
        }
    }
}

impl SharedEmulator {
    /// Where it listens.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// The first address of ARM and Entra, `https://…`; empty when it has none.
    pub fn arm(&self) -> &str {
        self.endpoints.arm.first().map_or("", String::as_str)
    }

    /// The first address of the metadata service, `http://…`; empty when it has none.
    pub fn imds(&self) -> &str {
        self.endpoints.imds.first().map_or("", String::as_str)
    }

    /// The certificate authority to trust, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.cloud.ca_pem
    }

    /// The file that has it, if one was written.
    pub fn ca_file(&self) -> Option<&std::path::Path> {
        self.ca_file.as_deref()
    }

    /// Tenant id.
    pub fn tenant_id(&self) -> &str {
        &self.cloud.settings.tenant
    }

    /// Subscription id.
    pub fn subscription_id(&self) -> &str {
        &self.cloud.settings.subscription
    }

    /// Client id of the built-in service principal.
    pub fn client_id(&self) -> &str {
        &self.cloud.settings.client_id
    }

    /// Its secret, which is also the key of the control API.
    pub fn client_secret(&self) -> &str {
        &self.cloud.settings.control_key
    }

    /// The requests after number `since`, oldest first; 0 gives all that are remembered.
    pub fn requests(&self, since: u64) -> Vec<Entry> {
        self.cloud.log.since(since)
    }

    /// Sets a fault; gives its number.
    pub fn set_fault(&self, fault: Fault) -> Result<u64, FaultError> {
        self.cloud.faults.set(fault)
    }

    /// Takes a fault back, or all of them.
    pub fn clear_faults(&self, id: Option<u64>) {
        self.cloud.faults.clear(id);
    }

    /// Operations that were asked for and that the emulator does not have, with how often.
    pub fn unsupported(&self) -> std::collections::BTreeMap<String, u64> {
        self.cloud.log.list_unsupported()
    }

    /// Makes a node known, or changes its addresses. It becomes a machine of the first managed cluster, now or later.
    pub fn put_node(&self, node: NodeConfig) -> Result<(), EmulatorError> {
        let NodeConfig { name, addresses } = node;
        self.cloud
            .write(|world| control::join(world, &name, addresses, None))
            .map_err(EmulatorError::node)
    }
}

/// What a state folder has, or what an emulator without one makes.
struct Stored {
    state: Option<StateDir>,
    authority: Authority,
    key: keys::SigningKey,
    world: crate::world::World,
}

impl Stored {
    fn open(path: Option<PathBuf>) -> Result<Self, EmulatorError> {
        let Some(path) = path else {
            let key = keys::SigningKey::generate().map_err(EmulatorError::key)?;
            return Ok(Self {
                state: None,
                authority: Authority::generate().map_err(EmulatorError::tls)?,
                key: keys::SigningKey::from_pkcs8(&key).map_err(EmulatorError::key)?,
                world: crate::world::World::default(),
            });
        };
        let state = StateDir::open(&path).map_err(EmulatorError::state)?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let read = |name: &str| state.read(name).map_err(EmulatorError::state);
        let authority = if let (Some(pem), Some(key)) = (read("ca.pem")?, read("ca.key")?) {
            Authority::from_pem(text(pem), &text(key)).map_err(EmulatorError::tls)?
        } else {
            let authority = Authority::generate().map_err(EmulatorError::tls)?;
            state
                .write("ca.key", authority.key_pem().as_bytes())
                .map_err(EmulatorError::state)?;
            write_public(&state.ca_file(), authority.pem().as_bytes()).map_err(EmulatorError::state)?;
            authority
        };
        let key = if let Some(key) = read("signing.key")? {
            key
        } else {
            let key = keys::SigningKey::generate().map_err(EmulatorError::key)?;
            state.write("signing.key", &key).map_err(EmulatorError::state)?;
            key
        };
        let key = keys::SigningKey::from_pkcs8(&key).map_err(EmulatorError::key)?;
        let world = state.world().map_err(EmulatorError::state)?;
        Ok(Self {
            state: Some(state),
            authority,
            key,
            world,
        })
    }
}

fn bind_all(doors: Vec<Listen>) -> Result<Vec<TcpListener>, EmulatorError> {
    doors
        .into_iter()
        .map(|door| match door {
            Listen::Address(address) => {
                TcpListener::bind(address).map_err(|source| EmulatorError::listen(address, source))
            }
            Listen::Given(listener) => Ok(listener),
        })
        .collect()
}

fn addresses(listeners: &[TcpListener]) -> Result<Vec<SocketAddr>, EmulatorError> {
    listeners
        .iter()
        .map(|listener| listener.local_addr().map_err(EmulatorError::socket))
        .collect()
}

fn listen(listeners: Vec<TcpListener>) -> Result<Vec<tokio::net::TcpListener>, EmulatorError> {
    listeners
        .into_iter()
        .map(|listener| {
            listener.set_nonblocking(true).map_err(EmulatorError::socket)?;
            tokio::net::TcpListener::from_std(listener).map_err(EmulatorError::socket)
        })
        .collect()
}

/// A secret that nobody knows beforehand.
pub(crate) fn new_secret() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}
