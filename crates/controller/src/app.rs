//! The controller as a set of tasks: watches → world → reconcile, and the probes. Tests build it as `run` does.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher;
use kube::{Api, Client};
use podid_api::PodIdentityProfile;
use podid_azure::arm::Arm;
use podid_rt::clock::Clock;
use podid_rt::probes::Probes;
use podid_rt::readiness::Readiness;
use podid_rt::serve::serve;
use podid_rt::tasks::Tasks;
use podid_rt::watch::follow;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::assign::Assigner;
use crate::desired::Kind;
use crate::metrics::ControllerMetrics;
use crate::reconcile::Reconciler;
use crate::report::Placement;
use crate::startup::{self, Keeper, StartupTaint, View};
use crate::world::{Namespaces, Nodes, Objects, Profiles, World};

/// What an [`App`] is made of.
pub struct AppConfig {
    /// The cluster.
    pub client: Client,
    /// ARM, when the controller is to put the identities on the nodes' scale sets.
    pub arm: Option<Arm>,
    /// The start-up taint, when nodes are to wait for their agent.
    pub startup: Option<StartupTaint>,
    /// Where to serve probes and metrics; port 0 takes a free one.
    pub probe_listen: SocketAddr,
}

/// A controller with its socket bound and nothing running yet.
pub struct App {
    client: Client,
    arm: Option<Arm>,
    startup: Option<StartupTaint>,
    probes: TcpListener,
    address: SocketAddr,
    readiness: Readiness,
}

impl App {
    /// Binds the probes' socket.
    pub async fn bind(config: AppConfig) -> anyhow::Result<Self> {
        let AppConfig {
            client,
            arm,
            startup,
            probe_listen,
        } = config;
        let probes = TcpListener::bind(probe_listen)
            .await
            .with_context(|| format!("listen for probes on {probe_listen} (--probe-listen)"))?;
        let address = probes
            .local_addr()
            .context("read the address of the probes' socket")?;
        Ok(Self {
            client,
            arm,
            startup,
            probes,
            address,
            readiness: Readiness::new(),
        })
    }

    /// Where probes and metrics are served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What readiness waits for.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Starts all tasks.
    pub fn spawn(self, tasks: &mut Tasks) {
        let Self {
            client,
            arm,
            startup,
            probes,
            address: _,
            readiness,
        } = self;
        let world = World::new();
        let synced = Readiness::new();

        spawn_watch::<PodIdentityProfile>("watch-profiles", &client, Profiles(world.clone()), &synced, tasks);
        for kind in Kind::ALL {
            let index = Objects {
                world: world.clone(),
                kind,
            };
            let api = Api::all_with(client.clone(), &kind.resource());
            spawn_follow(kind.watch(), api, index, &synced, tasks);
        }
        spawn_watch::<PartialObjectMeta<Namespace>>(
            "watch-namespaces",
            &client,
            Namespaces(world.clone()),
            &synced,
            tasks,
        );
        let (placement, placed) = watch::channel(Placement::Off);
        if let Some(arm) = arm {
            spawn_watch::<Node>("watch-nodes", &client, Nodes(world.clone()), &synced, tasks);
            placement.send_replace(Placement::Known(BTreeMap::new()));
            let assigner = Assigner {
                client: client.clone(),
                world: world.clone(),
                arm,
                placement,
            };
            let synced = synced.clone();
            let all_synced = async move { synced.wait().await };
            tasks.spawn("assign", assigner.run(all_synced, tasks.stop().clone()));
        }

        let metrics = ControllerMetrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);

        if let Some(taint) = startup {
            spawn_keeper(&client, taint, metrics.clone(), &readiness, tasks);
        }

        let watches = readiness.guard("watches");
        let first_round = readiness.guard("first-round");
        let all_synced = async move {
            synced.wait().await;
            watches.ready();
        };
        let reconciler = Reconciler {
            client,
            world,
            placement: placed,
            metrics,
            clock: Clock::system(),
        };
        tasks.spawn(
            "reconcile",
            reconciler.run(all_synced, first_round, tasks.stop().clone()),
        );

        let service = Probes::new(readiness, registry).service();
        let (group, stop) = (tasks.group(), tasks.stop().clone());
        tasks.spawn("probes", serve(probes, None, service, group, stop));
    }
}

/// The start-up taint's own watches and task: trouble there is none of the profile's.
fn spawn_keeper(
    client: &Client,
    taint: StartupTaint,
    metrics: ControllerMetrics,
    readiness: &Readiness,
    tasks: &mut Tasks,
) {
    let synced = Readiness::new();
    let view = View::new();
    let nodes = startup::Nodes {
        view: view.clone(),
        selector: taint.node_selector.clone(),
        key: taint.key.clone(),
    };
    spawn_watch::<Node>("watch-startup-nodes", client, nodes.clone(), &synced, tasks);
    let agents = Api::<Pod>::namespaced(client.clone(), &taint.agent_namespace);
    let of_agents = watcher::Config::default().labels(&taint.agent_selector);
    let guard = synced.guard("watch-agents");
    let stop = tasks.stop().clone();
    tasks.spawn(
        "watch-agents",
        follow(agents, of_agents, startup::Agents(view), guard, stop),
    );
    let keeper = Keeper {
        client: client.clone(),
        nodes,
        taint,
        metrics,
    };
    let done = readiness.guard("startup-taint");
    let all_synced = async move { synced.wait().await };
    tasks.spawn(
        "startup-taint",
        keeper.run(all_synced, done, tasks.stop().clone()),
    );
}

fn spawn_watch<K>(
    name: &'static str,
    client: &Client,
    index: impl podid_rt::watch::Index<K> + 'static,
    synced: &Readiness,
    tasks: &mut Tasks,
) where
    K: kube::Resource<DynamicType: Default>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + 'static,
{
    spawn_follow(name, Api::<K>::all(client.clone()), index, synced, tasks);
}

fn spawn_follow<K>(
    name: &'static str,
    api: Api<K>,
    index: impl podid_rt::watch::Index<K> + 'static,
    synced: &Readiness,
    tasks: &mut Tasks,
) where
    K: kube::Resource<DynamicType: Send>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + 'static,
{
    let guard = synced.guard(name);
    let stop = tasks.stop().clone();
    tasks.spawn(name, follow(api, watcher::Config::default(), index, guard, stop));
}
