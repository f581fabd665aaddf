//! A node with a pod on a bridge, its neighbour, and a pod on an interface of its own; the real metadata service beyond
//! the node; an emulated Kubernetes. Everything of a node runs on threads in its namespace.
//!
//! ```text
//! on_bridge 10.244.0.11 ── cni0 ┐
//! neighbour 10.244.0.12 ── cni0 ├ node 10.1.0.4 ── azure 10.1.0.1, on its lo 169.254.169.254:80
//! direct    10.244.1.12 ── azv ─┘
//! ```

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use clap::Parser as _;
use k8s_openapi::api::core::v1::{Namespace as KubeNamespace, Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::ApiResource;
use libtest_mimic::Failed;
use podid_api::{AzureIdentity, AzureIdentityBinding};
use podid_kernel::redirect::Interception;
use podid_kernel::{Namespace, cni};
use podid_nmi::{App, Nmi};
use podid_rt::stop::Stop;
use podid_rt::tasks::{Tasks, TasksError};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

use crate::azure::Azure;
use crate::between::Between;

pub(crate) const METADATA: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(169, 254, 169, 254), 80);
pub(crate) const WAY: fn() -> Interception = || Interception::local_route(METADATA);
pub(crate) const ON_BRIDGE: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 11);
pub(crate) const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 12);
pub(crate) const DIRECT: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 12);
pub(crate) const ONE: &str = "11111111-1111-4111-8111-111111111111";
pub(crate) const TWO: &str = "22222222-2222-4222-8222-222222222222";
pub(crate) const T: &str =
    "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net";
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 4);
const AZURE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
/// How long a connection may take: longer than the second SYN, shorter than a test's patience.
const CONNECT: Duration = Duration::from_millis(2500);

/// The whole place.
pub(crate) struct Place {
    _azure: Namespace,
    pub(crate) node: Namespace,
    pub(crate) on_bridge: Namespace,
    pub(crate) neighbour: Namespace,
    pub(crate) direct: Namespace,
    folder: tempfile::TempDir,
    /// The real metadata service.
    pub(crate) service: Azure,
    client: kube::Client,
    stop: Stop,
}

/// An agent of the place.
pub(crate) struct Agent {
    stop: Stop,
    probes: SocketAddr,
    ended: tokio::task::JoinHandle<Result<(), TasksError>>,
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn token(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        body.get("access_token")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    }

    pub(crate) fn reason(&self) -> &str {
        self.head
            .lines()
            .find_map(|line| line.strip_prefix("x-podid-reason: "))
            .unwrap_or_default()
    }
}

impl Place {
    /// Builds a place and plays `part` on it, on threads of its node's.
    pub(crate) fn play(part: impl AsyncFnOnce(&Self) -> Result<(), Failed> + Send) -> Result<(), Failed> {
        let [azure, node, on_bridge, neighbour, direct] = [(); 5].map(|()| Namespace::create().unwrap());
        node.sysctl("net.ipv4.conf.all.rp_filter", "1")?;
        cni::forward(&node)?;
        cni::cable((&node, "eth0", NODE), (&azure, "node", AZURE), 24)?;
        azure.links()?.address("lo", *METADATA.ip(), 32)?;
        azure.links()?.route_via(Ipv4Addr::UNSPECIFIED, 0, NODE, "node")?;
        node.links()?.route_via(*METADATA.ip(), 32, AZURE, "eth0")?;
        cni::bridge(&node, "cni0", GATEWAY, 24)?;
        cni::join_bridge(&node, "cni0", "veth11", &on_bridge, ON_BRIDGE, 24, GATEWAY)?;
        cni::join_bridge(&node, "cni0", "veth12", &neighbour, NEIGHBOUR, 24, GATEWAY)?;
        cni::join_point_to_point(&node, "azv12", &direct, DIRECT)?;
        let service = Azure::serve(azure.run(|| TcpListener::bind(METADATA))??);
        let inside = node.clone();
        inside.run(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let stop = Stop::new();
                let client = cluster(&stop).await;
                let place = Self {
                    _azure: azure,
                    node,
                    on_bridge,
                    neighbour,
                    direct,
                    folder: tempfile::tempdir()?,
                    service,
                    client,
                    stop,
                };
                place.identity("one", ONE).await;
                place.identity("two", TWO).await;
                place.pod("on-bridge", ON_BRIDGE, "one", &place.on_bridge).await;
                place.pod("neighbour", NEIGHBOUR, "two", &place.neighbour).await;
                place.pod("direct", DIRECT, "two", &place.direct).await;
                let outcome = part(&place).await;
                place.stop.force();
                outcome
            })
        })?
    }

    /// Starts an agent and waits until it is ready.
    pub(crate) async fn agent(&self, flags: &[&str]) -> Agent {
        let folder = format!("--pod-netns-dir={}", self.folder.path().display());
        let usual = ["podid-nmi", "--node=n1", "--probe-listen=127.0.0.1:0", &folder];
        let nmi = Nmi::try_parse_from(usual.iter().chain(flags)).unwrap();
        let config = nmi.run.config(self.client.clone(), "n1".to_owned()).unwrap();
        let app = App::bind(config).await.unwrap();
        let (probes, readiness, stop) = (app.probe_address(), app.readiness(), Stop::new());
        let mut tasks = Tasks::new(stop.clone());
        app.spawn(&mut tasks);
        let ended = tokio::spawn(tasks.run(Duration::from_secs(10)));
        let ready = tokio::time::timeout(podid_testkit::PATIENCE, readiness.wait()).await;
        assert!(ready.is_ok(), "waiting for {:?}", readiness.missing());
        Agent { stop, probes, ended }
    }

    /// How many addresses other than the node's own have asked the real service.
    pub(crate) fn strangers(&self) -> usize {
        self.service.askers().iter().filter(|from| **from != NODE).count()
    }

    /// The agent's way to the API server, which can be told to misbehave.
    pub(crate) async fn between(&self) -> Between {
        Between::start(self.client.clone()).await
    }

    /// Where the agent finds the pods' namespaces.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// GET with `Metadata: true` from a namespace.
    pub(crate) async fn ask(&self, from: &Namespace, target: &str) -> Result<Answer, Failed> {
        self.ask_from(from, Ipv4Addr::UNSPECIFIED, target).await
    }

    /// The same, with this source address.
    pub(crate) async fn ask_from(
        &self,
        from: &Namespace,
        source: Ipv4Addr,
        target: &str,
    ) -> Result<Answer, Failed> {
        let (from, target) = (from.clone(), target.to_owned());
        let asked = tokio::task::spawn_blocking(move || from.run(|| talk(source, &target))).await?;
        Ok(asked??)
    }

    /// A node agent's question for a token of pod `named`, from a namespace.
    pub(crate) async fn ask_for(&self, from: &Namespace, named: &str) -> Result<Answer, Failed> {
        self.ask_for_as(from, Ipv4Addr::UNSPECIFIED, named).await
    }

    /// The same, with this source address.
    pub(crate) async fn ask_for_as(
        &self,
        from: &Namespace,
        source: Ipv4Addr,
        named: &str,
    ) -> Result<Answer, Failed> {
        let from = from.clone();
        let request = format!(
            "GET /host/token?resource=r HTTP/1.1\r\nHost: x\r\nConnection: close\r\npodns: shop\r\npodname: {named}\r\n\r\n"
        );
        let asked = move || from.run(|| send(connect(source)?, &request));
        Ok(tokio::task::spawn_blocking(asked).await???)
    }

    /// `on_bridge` takes the address of a neighbour on its bridge, and the node believes it.
    pub(crate) fn steal(&self, address: Ipv4Addr) -> Result<(), Failed> {
        let links = self.on_bridge.links()?;
        links.address(cni::POD_LINK, address, 32)?;
        let mac = links.mac(cni::POD_LINK)?;
        self.node.links()?.neighbour("cni0", address, mac)?;
        Ok(())
    }

    /// A running pod with this label and address, found by the agent in `namespace`.
    pub(crate) async fn pod(&self, name: &str, address: Ipv4Addr, label: &str, namespace: &Namespace) {
        self.pod_of("default", name, address, label, namespace).await;
    }

    /// The same, of this service account.
    pub(crate) async fn pod_of(
        &self,
        account: &str,
        name: &str,
        address: Ipv4Addr,
        label: &str,
        namespace: &Namespace,
    ) {
        let pod = json!({
            "metadata": { "name": name, "labels": { "aadpodidbinding": label } },
            "spec": { "nodeName": "n1", "serviceAccountName": account, "containers": [{ "name": "c", "image": "i" }] },
        });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let made = self.pods().create(&PostParams::default(), &pod).await.unwrap();
        symlink(
            namespace.path(),
            self.folder.path().join(made.metadata.uid.unwrap()),
        )
        .unwrap();
        let status =
            json!({ "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }] } });
        self.pods()
            .patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
            .await
            .unwrap();
    }

    /// A service account.
    pub(crate) async fn account(&self, name: &str) {
        let account = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), "shop");
        accounts.create(&PostParams::default(), &account).await.unwrap();
    }

    /// The pod is gone, and the API server says so.
    pub(crate) async fn delete(&self, name: &str) {
        let now = DeleteParams {
            grace_period_seconds: Some(0),
            ..DeleteParams::default()
        };
        self.pods().delete(name, &now).await.unwrap();
    }

    /// The pod's sandbox is gone; the API server does not know yet.
    pub(crate) async fn unlink(&self, name: &str) {
        let pod = self.pods().get(name).await.unwrap();
        std::fs::remove_file(self.folder.path().join(pod.metadata.uid.unwrap())).unwrap();
    }

    /// The binding of this name is gone.
    pub(crate) async fn unbind(&self, name: &str) {
        Api::<AzureIdentityBinding>::namespaced(self.client.clone(), "shop")
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "shop")
    }

    /// An identity, bound under its own name.
    async fn identity(&self, name: &str, client_id: &str) {
        let mut identity = AzureIdentity::default();
        identity.metadata.name = Some(name.to_owned());
        identity.spec.client_id = Some(client_id.to_owned());
        Api::namespaced(self.client.clone(), "shop")
            .create(&PostParams::default(), &identity)
            .await
            .unwrap();
        let mut binding = AzureIdentityBinding::default();
        binding.metadata.name = Some(name.to_owned());
        binding.spec.azure_identity = Some(name.to_owned());
        binding.spec.selector = Some(name.to_owned());
        Api::namespaced(self.client.clone(), "shop")
            .create(&PostParams::default(), &binding)
            .await
            .unwrap();
    }
}

impl Agent {
    /// Tells it to stop and waits until it has.
    pub(crate) async fn end(self) {
        self.stop.request();
        self.ended.await.unwrap().unwrap();
    }

    /// What the probes' listener says.
    pub(crate) async fn probe(&self, path: &str) -> String {
        let (to, path) = (self.probes, path.to_owned());
        tokio::task::spawn_blocking(move || {
            let socket = std::net::TcpStream::connect(to)?;
            exchange(socket, &path)
        })
        .await
        .unwrap()
        .unwrap()
        .body
    }
}

/// An emulated Kubernetes on the node's loopback, with our kinds and the namespace `shop`.
async fn cluster(stop: &Stop) -> kube::Client {
    let mut tasks = Tasks::new(stop.clone());
    let emulator = podid_kube_emulator::App::bind(podid_kube_emulator::Config::default())
        .unwrap()
        .spawn(&mut tasks);
    let kubeconfig = Kubeconfig::from_yaml(&emulator.kubeconfig()).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    let client = kube::Client::try_from(config).unwrap();
    let _running = tokio::spawn(tasks.run(Duration::from_secs(5)));
    let crds = ApiResource {
        group: "apiextensions.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "apiextensions.k8s.io/v1".to_owned(),
        kind: "CustomResourceDefinition".to_owned(),
        plural: "customresourcedefinitions".to_owned(),
    };
    let crds: Api<DynamicObject> = Api::all_with(client.clone(), &crds);
    for crd in podid_api::crd::all() {
        let crd = serde_json::from_value(crd).unwrap();
        crds.create(&PostParams::default(), &crd).await.unwrap();
    }
    let shop: KubeNamespace = serde_json::from_value(json!({ "metadata": { "name": "shop" } })).unwrap();
    Api::all(client.clone())
        .create(&PostParams::default(), &shop)
        .await
        .unwrap();
    client
}

pub(crate) fn talk(source: Ipv4Addr, target: &str) -> io::Result<Answer> {
    exchange(connect(source)?, target)
}

fn connect(source: Ipv4Addr) -> io::Result<std::net::TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddrV4::new(source, 0).into())?;
    socket.connect_timeout(&METADATA.into(), CONNECT)?;
    Ok(socket.into())
}

pub(crate) fn exchange(stream: std::net::TcpStream, target: &str) -> io::Result<Answer> {
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: 169.254.169.254\r\nMetadata: true\r\nConnection: close\r\n\r\n"
    );
    send(stream, &request)
}

fn send(mut stream: std::net::TcpStream, request: &str) -> io::Result<Answer> {
    stream.set_read_timeout(Some(podid_testkit::PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or(io::ErrorKind::InvalidData)?;
    Ok(Answer {
        status,
        head: head.to_lowercase(),
        body: body.to_owned(),
    })
}
