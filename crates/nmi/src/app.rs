//! The agent as a set of tasks. Tests and the sandbox build it as `run` does: bind everything, then spawn.
//!
//! ```text
//! told to stop ─▶ drain: unready ─▶ server: stop accepting, finish requests ─▶ the rest: watches, broker, probes
//! ```
//! The rest stays until the last request is answered, because requests wait for watches and for the broker.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kube::runtime::watcher;
use kube::{Api, Client};
use podid_api::names::NODE_NAME_LABEL;
use podid_azure::{Authorities, Entra, Imds, TlsRoots, WallClock};
use podid_broker::Broker;
use podid_core::Policy;
use podid_core::decide::Mode;
use podid_kernel::attest::{Attestor, Places};
use podid_kernel::redirect::Interception;
use podid_rt::clock::Clock;
use podid_rt::probes::Probes;
use podid_rt::readiness::Readiness;
use podid_rt::serve::serve;
use podid_rt::stop::Stop;
use podid_rt::tasks::Tasks;
use podid_rt::watch::follow;
use prometheus_client::registry::Registry;
use reqwest::Url;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

use crate::admin::{self, Admin, AdminSocket};
use crate::answer::Errors;
use crate::args::{Attestation, MsiSource};
use crate::caller::{Callers, Connection};
use crate::events::Events;
use crate::forward::Forward;
use crate::handler::Handler;
use crate::hosts::HostTokens;
use crate::log::Refusals;
use crate::metrics::Metrics;
use crate::patience::Patience;
use crate::rate::{RateLimit, Rates};
use crate::redirect::{Intercepted, Redirect, intercept};
use crate::secrets::Secrets;
use crate::seen::{Assignments, Bindings, Exceptions, Identities, Pods, Watched};
use crate::server::{self, Limits, Server};
use crate::sources::{Sources, Upstream};
use crate::world::SharedWorld;

/// What an [`App`] is made of.
pub struct AppConfig {
    /// The cluster.
    pub client: Client,
    /// This node's name.
    pub node: String,
    /// Where pods' requests come in.
    pub entrance: Entrance,
    /// What happens when the kernel does not confirm a connection.
    pub attestation: Attestation,
    /// How pods' network namespaces are found.
    pub places: Places,
    /// The node's real metadata service.
    pub imds_endpoint: Url,
    /// Which authorities may be asked for tokens of service principals.
    pub authorities: Authorities,
    /// What is trusted beside the system's certificates when they are asked.
    pub roots: TlsRoots,
    /// Where tokens of managed identities come from.
    pub msi_source: MsiSource,
    /// Where probes and metrics are served; port 0 takes a free one.
    pub probe_listen: SocketAddr,
    /// Where metrics are served as well; without it only beside the probes.
    pub metrics_listen: Option<SocketAddr>,
    /// What the operator decided for all pods.
    pub policy: Policy,
    /// How long a request may wait in all.
    pub wait: Duration,
    /// How fast one pod may ask.
    pub rate: RateLimit,
    /// How many connections there may be.
    pub limits: Limits,
    /// Tokens of other pods for node agents, where they are wanted.
    pub host_tokens: Option<HostTokens>,
    /// How refusals are written.
    pub errors: Errors,
    /// Whether refusals are told as Events on pods.
    pub pod_events: bool,
    /// The wall clock.
    pub clock: Clock,
}

/// Where pods' requests come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// At an address of this node's own; port 0 takes a free one.
    Address(SocketAddr),
    /// Where connections to the metadata address are led.
    Intercepted {
        /// The first of these that works is taken; the last one is not tried out.
        ways: Vec<Interception>,
        /// Between two looks at it.
        interval: Duration,
    },
}

/// An agent with its sockets bound, its interception in place, and nothing running yet.
pub struct App {
    config: AppConfig,
    listener: TcpListener,
    hosts: Option<TcpListener>,
    way: Option<Intercepted>,
    probes: TcpListener,
    scrapes: Option<TcpListener>,
    admin: Option<AdminSocket>,
    attestor: Option<Arc<Attestor>>,
    imds: Imds,
    entra: Option<Entra>,
    forward: Forward,
    address: SocketAddr,
    probe_address: SocketAddr,
    readiness: Readiness,
}

impl App {
    /// Closes the way to the real metadata service, then binds the sockets.
    pub async fn bind(config: AppConfig) -> anyhow::Result<Self> {
        let (listener, way) = match &config.entrance {
            Entrance::Address(address) => {
                let listener = TcpListener::bind(address)
                    .await
                    .with_context(|| format!("listen for pods on {address} (--listen)"))?;
                (listener, None)
            }
            Entrance::Intercepted { ways, .. } => {
                // Closed before open: from here on pods wait or are refused, whatever becomes of us.
                let (listener, way) = intercept(ways).await.context("intercept the metadata address")?;
                (listener, Some(way))
            }
        };
        let address = listener
            .local_addr()
            .context("read the address of the pods' socket")?;
        let probes = TcpListener::bind(config.probe_listen)
            .await
            .with_context(|| format!("listen for probes on {} (--probe-listen)", config.probe_listen))?;
        let probe_address = probes
            .local_addr()
            .context("read the address of the probes' socket")?;
        let scrapes = match config.metrics_listen {
            Some(address) => second_metrics(address).await,
            None => None,
        };
        let hosts = match &config.host_tokens {
            None => None,
            Some(HostTokens { listen, .. }) => {
                let listener = TcpListener::bind(listen)
                    .await
                    .with_context(|| format!("listen for node agents on {listen} (--host-token-listen)"))?;
                Some(listener)
            }
        };
        let attestor = match config.attestation {
            Attestation::Off => None,
            Attestation::Enforce | Attestation::Audit => {
                let attestor = Attestor::new(config.places.clone()).context("prepare attestation")?;
                Some(Arc::new(attestor))
            }
        };
        let clock = config.clock.clone();
        let wall: WallClock = Arc::new(move || clock.unix_secs());
        let entra = Entra::new(config.authorities.clone(), &config.roots, Arc::clone(&wall))
            .inspect_err(|error| {
                let error = error as &dyn std::error::Error;
                tracing::warn!(
                    error,
                    "no client of Entra could be made; service principals get no tokens"
                );
            })
            .ok();
        let imds = Imds::new(&config.imds_endpoint, wall).context("make a client of the metadata service")?;
        let forward = Forward::new(config.imds_endpoint.clone()).context("prepare passing through")?;
        Ok(Self {
            config,
            listener,
            hosts,
            way,
            probes,
            scrapes,
            admin: None,
            attestor,
            imds,
            entra,
            forward,
            address,
            probe_address,
            readiness: Readiness::new(),
        })
    }

    /// Where pods' requests come in.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where node agents on the node's network ask for other pods' tokens, if they may.
    pub fn host_address(&self) -> Option<SocketAddr> {
        self.hosts.as_ref().and_then(|hosts| hosts.local_addr().ok())
    }

    /// Where probes and metrics are served.
    pub fn probe_address(&self) -> SocketAddr {
        self.probe_address
    }

    /// Lets an admin in by `socket`.
    #[must_use]
    pub fn with_admin(self, socket: AdminSocket) -> Self {
        Self {
            admin: Some(socket),
            ..self
        }
    }

    /// What readiness waits for.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Starts all tasks. What is returned is of use to who has connections of another kind.
    pub fn spawn(self, tasks: &mut Tasks) -> Door {
        let Self {
            config,
            listener,
            hosts,
            way,
            probes,
            scrapes,
            admin,
            attestor,
            imds,
            entra,
            forward,
            address,
            probe_address: _,
            readiness,
        } = self;
        let shown = admin::shown(&config, address);
        let AppConfig {
            client,
            node,
            entrance,
            attestation,
            places: _,
            imds_endpoint: _,
            authorities: _,
            roots: _,
            msi_source,
            probe_listen: _,
            metrics_listen: _,
            policy,
            wait,
            rate,
            limits,
            host_tokens,
            errors,
            pod_events,
            clock,
        } = config;
        let name = node.clone();
        let mut registry = Registry::default();
        let metrics = Arc::new(Metrics::register(&mut registry));
        let world = SharedWorld::new(Arc::clone(&metrics));
        let group = tasks.group();
        let flights = group.clone();
        let broker = Broker::new(
            Upstream {
                imds,
                entra,
                secrets: Secrets::new(client.clone(), Arc::clone(&metrics)),
                metrics: Arc::clone(&metrics),
            },
            {
                let clock = clock.clone();
                Arc::new(move || clock.unix_secs())
            },
            Box::new(move |flight| flights.spawn(flight)),
            podid_broker::Limits::default(),
            &mut registry,
        );
        // Stop in three steps: the process, then accepting, then all that requests need.
        let (accepting, quiet) = (Stop::new(), Stop::new());

        let watches = Watches {
            client: &client,
            world: &world,
            readiness: &readiness,
            stop: &quiet,
        };
        watches.spawn::<Pods>(
            tasks,
            "watch-pods",
            watcher::Config::default().fields(&format!("spec.nodeName={node}")),
        );
        watches.spawn::<Exceptions>(tasks, "watch-exceptions", watcher::Config::default());
        match policy.mode {
            Mode::Managed => {
                watches.spawn::<Identities>(tasks, "watch-identities", watcher::Config::default());
                watches.spawn::<Bindings>(tasks, "watch-bindings", watcher::Config::default());
            }
            Mode::Standard { .. } => {
                let of_this_node = watcher::Config::default().labels(&format!("{NODE_NAME_LABEL}={node}"));
                watches.spawn::<Assignments>(tasks, "watch-assignments", of_this_node);
            }
        }

        let (intercepted, early) = match (entrance, way) {
            (Entrance::Intercepted { interval, .. }, Some(way)) => {
                let redirect = Redirect {
                    way: way.way,
                    self_test: way.self_test.clone(),
                    interval,
                    guard: readiness.guard("redirect"),
                    metrics: Arc::clone(&metrics),
                };
                tasks.spawn("redirect", redirect.run(quiet.clone()));
                (Some((way.way.asked(), way.self_test)), way.early)
            }
            _ => (None, Vec::new()),
        };

        let mut refusals = Refusals::default();
        if pod_events {
            let (sender, events) = Events::new(client.clone(), node, clock.clone());
            refusals.events = Some(sender);
            tasks.spawn("events", events.run(quiet.clone()));
        }
        let handler = Arc::new(Handler {
            world: world.clone(),
            policy,
            callers: Callers::new(
                attestation,
                attestor,
                host_tokens.map(|hosts| hosts.callers).unwrap_or_default(),
                Rates::new(rate),
                Arc::clone(&metrics),
            ),
            broker: Arc::clone(&broker),
            sources: Sources { msi: msi_source },
            forward,
            patience: Patience::default(),
            errors,
            refusals,
            metrics: Arc::clone(&metrics),
            clock,
            wait,
        });
        let told = Arc::clone(&handler);
        let on_change = Box::new(move |world: &podid_core::World| {
            told.callers.retain(world);
            told.broker.retain(world.usable_identities());
        });
        tasks.spawn("world", world.run(on_change, quiet.clone()));
        let until = quiet.clone();
        tasks.spawn("broker", broker.run(async move { until.requested().await }));

        let draining = readiness.guard("draining");
        draining.ready();
        let (told, then) = (tasks.stop().clone(), accepting.clone());
        tasks.spawn("drain", async move {
            told.requested().await;
            draining.not_ready();
            then.request();
        });
        if let Some(socket) = admin {
            let admin = Arc::new(Admin {
                handler: Arc::clone(&handler),
                node: name,
                config: shown,
            });
            tasks.spawn("admin", admin.run(socket, group.clone(), quiet.clone()));
        }
        let door = Door {
            handler: Arc::clone(&handler),
            stop: accepting.clone(),
        };
        let hosts = hosts.map(|listener| Server {
            listener,
            limits,
            handler: Arc::clone(&handler),
            metrics: Arc::clone(&metrics),
            intercepted: None,
            host: true,
            early: Vec::new(),
        });
        let server = Server {
            listener,
            limits,
            handler,
            metrics,
            intercepted,
            host: false,
            early,
        };
        tasks.spawn("server", {
            let group = group.clone();
            let quiet = quiet.clone();
            async move {
                match hosts {
                    Some(hosts) => {
                        let pods = server.run(group.clone(), accepting.clone());
                        tokio::join!(pods, hosts.run(group, accepting));
                    }
                    None => server.run(group, accepting).await,
                }
                quiet.request();
            }
        });

        let told = Probes::new(readiness.clone(), registry);
        if let Some(scrapes) = scrapes {
            let service = told.metrics_service();
            tasks.spawn(
                "metrics",
                serve(scrapes, None, service, group.clone(), quiet.clone()),
            );
        }
        tasks.spawn("probes", serve(probes, None, told.service(), group, quiet));
        door
    }
}

/// A socket for metrics beside the probes' one. As in the original, a port that is taken is no reason not to serve pods.
async fn second_metrics(address: SocketAddr) -> Option<TcpListener> {
    TcpListener::bind(address)
        .await
        .inspect_err(|error| {
            tracing::error!(%address, %error, "no metrics on this port (--prometheus-port), only beside the probes");
        })
        .ok()
}

/// The pods' side of a running agent, for connections that did not come through its listener: nobody counts them.
#[derive(Clone, Debug)]
pub struct Door {
    handler: Arc<Handler<Upstream>>,
    stop: Stop,
}

impl Door {
    /// Serves a connection that `peer` opened to `asked`, until it ends or the agent is told to stop.
    pub async fn serve<I>(&self, stream: I, peer: SocketAddr, asked: SocketAddr)
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let connection = Connection::new(peer, asked);
        server::serve(stream, connection, Arc::clone(&self.handler), self.stop.clone()).await;
    }
}

/// What every watch needs.
struct Watches<'a> {
    client: &'a Client,
    world: &'a SharedWorld,
    readiness: &'a Readiness,
    stop: &'a Stop,
}

impl Watches<'_> {
    fn spawn<W: Watched>(&self, tasks: &mut Tasks, name: &'static str, config: watcher::Config) {
        let api = Api::all(self.client.clone());
        let guard = self.readiness.guard(name);
        tasks.spawn(
            name,
            follow(api, config, self.world.feed::<W>(), guard, self.stop.clone()),
        );
    }
}
