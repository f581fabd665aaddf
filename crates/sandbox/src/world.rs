//! What runs inside a world: puts networks, emulators, nodes, controller and agents together, in an order in which no
//! pod runs before its node's agent intercepts, then keeps them until told to stop.
//!
//! networks ─▶ both emulators at once ─▶ CRDs, nodes ─▶ controller, agents ─▶ kubelet, control socket ─▶ ready

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use podid_kernel::Room;
use podid_rt::clock::Clock;
use podid_rt::stop::Stop;
use podid_rt::tasks::Tasks;
use serde_json::json;

use crate::args::UpArgs;
use crate::arm::{Arm, Principal};
use crate::az::Az;
use crate::certificates::Authority;
use crate::control::server::Server;
use crate::control::{Endpoints, Info, NodeInfo};
use crate::detach;
use crate::fabric::{Fabric, NodeNetwork};
use crate::kubelet::Kubelet;
use crate::kubelet::attach::Attachments;
use crate::layout;
use crate::programs::{Program, Programs};
use crate::relay::{self, Doors};
use crate::runner::Runner;
use crate::services::{Ready, Service, Spec};
use crate::state::{CONTROL_SOCKET, write_private};

/// How long pods and connections may take when the world ends.
const DRAIN_DEADLINE: Duration = Duration::from_secs(3);
/// Who writes the sandbox's own objects.
const MANAGER: &str = "podid-sandbox";
/// How long the cluster may take to serve a new kind.
const ESTABLISHED_DEADLINE: Duration = Duration::from_secs(10);

/// What was made outside before the world was entered.
#[derive(Debug)]
pub(crate) struct Outside {
    /// Listeners for people.
    pub doors: Doors,
    /// The state folder; the lock stays with the supervisor.
    pub folder: PathBuf,
    /// This process's search path, for pods.
    pub path: OsString,
    /// Closed when whoever started the world has gone, if the world shall then end.
    pub lifeline: Option<std::os::fd::OwnedFd>,
}

/// Runs a world until told to stop. The calling process must be in a world of its own.
pub(crate) async fn run(args: UpArgs, outside: Outside, supervisor: u32) -> anyhow::Result<()> {
    let stop = Stop::on_signals().context("signals cannot be listened to")?;
    if let Some(lifeline) = outside.lifeline {
        follow(lifeline, stop.clone());
    }
    let mut tasks = Tasks::new(stop.clone());
    let (detached, log) = (args.detached, outside.folder.join(detach::LOG));
    let started = async {
        let world = World::start(
            args,
            outside.doors,
            outside.folder,
            outside.path,
            supervisor,
            &mut tasks,
        )
        .await?;
        podid_rt::ready::announce(&world);
        if detached {
            // Whoever waited for the line above leaves now.
            let log =
                std::fs::File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
            nix::unistd::dup2_stderr(log).context("standard error cannot be sent to the log")?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        started = started => started?,
        // Somebody lost his patience: what was begun ends with this process.
        () = stop.requested() => return Ok(()),
    }
    tasks.run(DRAIN_DEADLINE).await?;
    Ok(())
}

/// Ends the world when the other end of `lifeline` is closed.
fn follow(lifeline: std::os::fd::OwnedFd, stop: Stop) {
    // A thread, for a pipe that nothing ever comes through; it ends with the process.
    let _detached = std::thread::spawn(move || {
        let mut nothing = [0_u8; 64];
        let mut pipe = std::fs::File::from(lifeline);
        while !matches!(std::io::Read::read(&mut pipe, &mut nothing), Ok(0) | Err(_)) {}
        stop.request();
    });
}

struct World {
    programs: Programs,
    folder: PathBuf,
    logs: PathBuf,
    fabric: Fabric,
    room: Room,
}

impl World {
    async fn start(
        args: UpArgs,
        doors: Doors,
        folder: PathBuf,
        path: OsString,
        supervisor: u32,
        tasks: &mut Tasks,
    ) -> anyhow::Result<String> {
        let UpArgs {
            name,
            nodes,
            kubernetes_port: _,
            azure_port: _,
            metadata_port: _,
            wait_timeout_secs,
            detach: _,
            detached: _,
            while_stdin: _,
            programs,
            log: _,
        } = args;
        let logs = folder.join("logs");
        let pods = folder.join("pods");
        let netns = folder.join("netns");
        for inner in [&logs, &pods, &Kubelet::logs(&pods), &netns] {
            std::fs::create_dir_all(inner).with_context(|| format!("cannot make {}", inner.display()))?;
        }
        let hosts = folder.join("hosts");
        std::fs::write(&hosts, layout::hosts(None))
            .with_context(|| format!("cannot write {}", hosts.display()))?;
        let fabric = tokio::task::spawn_blocking(move || Fabric::build(nodes))
            .await?
            .context("the world's networks cannot be made")?;
        let world = Self {
            programs: programs.clone(),
            logs,
            room: Room::default().hosts(&hosts),
            fabric,
            folder: folder.clone(),
        };

        let authority =
            Authority::generate(&name).context("the world's certificate authority cannot be made")?;
        write_private(&folder.join("ca.key"), &authority.key)?;
        write_private(&folder.join("kubernetes-ca.pem"), &authority.certificate)?;
        let secret = uuid::Uuid::new_v4().simple().to_string();
        write_private(&folder.join("client-secret"), &secret)?;
        let kubernetes = world.kube_emulator(&pods, tasks);
        let azure = world.azure_emulator(&secret, tasks);
        let (kubernetes_ready, azure_ready) = tokio::try_join!(kubernetes.ready(), azure.ready())?;
        tracing::debug!(%kubernetes_ready, "the Kubernetes API serves");
        // Both emulators' authorities in one file, which is the CA of the world.
        let ca_file = folder.join("ca.pem");
        let azure_ca = read(&folder.join("azure-ca.pem"))?;
        write_private(&ca_file, &format!("{}{azure_ca}", authority.certificate))?;

        let ports = ports(&doors)?;
        let inside = |address: Ipv4Addr, port| SocketAddr::from((address, port));
        relay::spawn(
            tasks,
            "door-kubernetes",
            doors.kubernetes,
            inside(layout::KUBERNETES, layout::TLS_PORT),
        )?;
        relay::spawn(
            tasks,
            "door-azure",
            doors.azure,
            inside(layout::AZURE, layout::TLS_PORT),
        )?;
        relay::spawn(
            tasks,
            "door-metadata",
            doors.metadata,
            inside(layout::METADATA, 80),
        )?;

        let in_world = world.kubeconfig();
        let kubeconfig = folder.join("kubeconfig");
        for_people(&in_world, &kubeconfig, ports.kubernetes)?;
        let client = podid_rt::cluster::client(Some(&in_world)).await?;
        install_crds(&client).await?;
        for node in world.fabric.nodes().values() {
            register(&client, node).await?;
        }

        let text = |key: &str| {
            azure_ready
                .get(key)
                .and_then(|value| value.as_str())
                .unwrap_or_default()
                .to_owned()
        };
        let (tenant_id, subscription_id, client_id) =
            (text("tenantId"), text("subscriptionId"), text("clientId"));
        let controller = world.controller(tasks);
        let mut agents = Vec::new();
        for node in world.fabric.nodes().values() {
            std::fs::create_dir_all(netns.join(node.plan().name())).context("cannot make a node's folder")?;
            agents.push(world.agent(node, &netns, wait_timeout_secs, tasks));
        }
        controller.ready().await?;
        for agent in &agents {
            agent.ready().await?;
        }

        let attachments = Attachments::default();
        let environment = environment(&ca_file, &tenant_id, &subscription_id, path);
        Kubelet {
            client: client.clone(),
            nodes: world.fabric.nodes().clone(),
            programs,
            pods,
            netns,
            environment,
            attachments: attachments.clone(),
            clock: Clock::system(),
        }
        .spawn(tasks);
        let info = Info {
            world: name.to_string(),
            supervisor,
            folder: folder.clone(),
            kubeconfig,
            ca_file: ca_file.clone(),
            endpoints: Endpoints {
                kubernetes: format!("https://127.0.0.1:{}", ports.kubernetes),
                resource_manager: format!("https://127.0.0.1:{}", ports.azure),
                authority: format!("https://127.0.0.1:{}", ports.azure),
                metadata: format!("http://127.0.0.1:{}", ports.metadata),
            },
            tenant_id: tenant_id.clone(),
            subscription_id: subscription_id.clone(),
            client_id: client_id.clone(),
            nodes: world
                .fabric
                .nodes()
                .iter()
                .map(|(name, node)| NodeInfo {
                    name: name.clone(),
                    address: node.plan().address(),
                })
                .collect(),
        };
        let base = format!("https://{}", layout::AZURE);
        let principal = Principal {
            tenant_id,
            client_id,
            client_secret: secret,
        };
        let runner = Runner {
            client,
            attachments,
            az: Az {
                arm: Arm::new(&base, &base, &ca_file, principal)?,
                subscription: subscription_id,
            },
        };
        let mut line = serde_json::to_value(&info).context("the ready line cannot be written")?;
        if let Some(line) = line.as_object_mut() {
            line.insert("event".to_owned(), json!("ready"));
        }
        Server {
            info,
            agents,
            runner,
            stop: tasks.stop().clone(),
        }
        .spawn(&folder.join(CONTROL_SOCKET), tasks)?;
        Ok(line.to_string())
    }

    fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig.world")
    }

    fn spec(
        &self,
        name: String,
        program: Program,
        arguments: Vec<OsString>,
        ready: Ready,
        essential: bool,
    ) -> Spec {
        let programs = self.programs.clone();
        Spec {
            name,
            namespace: self.fabric.azure().clone(),
            room: self.room.clone(),
            command: Box::new(move || {
                let mut command = programs.command(program);
                command.args(&arguments).current_dir("/");
                command
            }),
            ready,
            essential,
            logs: self.logs.clone(),
        }
    }

    fn kube_emulator(&self, pods: &Path, tasks: &mut Tasks) -> Service {
        let arguments: Vec<OsString> = vec![
            "--listen".into(),
            format!("{}:{}", layout::KUBERNETES, layout::TLS_PORT).into(),
            "--cluster".into(),
            MANAGER.into(),
            "--kubeconfig".into(),
            self.kubeconfig().into(),
            "--ca-cert".into(),
            self.folder.join("kubernetes-ca.pem").into(),
            "--ca-key".into(),
            self.folder.join("ca.key").into(),
            "--pod-logs".into(),
            Kubelet::logs(pods).into(),
        ];
        let spec = self.spec(
            "kube-emulator".to_owned(),
            Program::KubeEmulator,
            arguments,
            Ready::Line,
            true,
        );
        Service::spawn(spec, tasks, "kube-emulator")
    }

    fn azure_emulator(&self, secret: &str, tasks: &mut Tasks) -> Service {
        let mut arguments: Vec<OsString> = vec![
            "--listen".into(),
            format!("{}:{}", layout::AZURE, layout::TLS_PORT).into(),
            "--imds".into(),
            format!("{}:80", layout::METADATA).into(),
            "--ca-out".into(),
            self.folder.join("azure-ca.pem").into(),
            "--kubeconfig".into(),
            self.kubeconfig().into(),
            "--user-kubeconfig".into(),
            self.folder.join("kubeconfig").into(),
            "--issuer-ca".into(),
            self.folder.join("kubernetes-ca.pem").into(),
        ];
        for name in [layout::ARM_HOST, layout::LOGIN_HOST, "127.0.0.1", "localhost"] {
            arguments.extend(["--name".into(), name.into()]);
        }
        for (name, node) in self.fabric.nodes() {
            let plan = node.plan();
            // Azure gives pods addresses of their node's own interface: whatever gets through to the metadata service
            // is answered as the node is. So a leak shows as what it is.
            let pods = plan.pod_hosts().map(|host| plan.pod(host).to_string());
            let all: Vec<String> = [plan.address().to_string()].into_iter().chain(pods).collect();
            arguments.extend(["--node".into(), format!("{name}={}", all.join(",")).into()]);
        }
        let programs = self.programs.clone();
        let secret = secret.to_owned();
        let mut spec = self.spec(
            "azure-emulator".to_owned(),
            Program::AzureEmulator,
            Vec::new(),
            Ready::Line,
            true,
        );
        spec.command = Box::new(move || {
            let mut command = programs.command(Program::AzureEmulator);
            // Not as an argument, which everybody can read.
            command
                .args(&arguments)
                .env("AZURE_EMULATOR_CLIENT_SECRET", &secret)
                .current_dir("/");
            command
        });
        Service::spawn(spec, tasks, "azure-emulator")
    }

    fn controller(&self, tasks: &mut Tasks) -> Service {
        let arguments: Vec<OsString> = vec![
            "--kubeconfig".into(),
            self.kubeconfig().into(),
            "--probe-listen".into(),
            "127.0.0.1:8080".into(),
        ];
        let ready = Ready::Probe("http://127.0.0.1:8080/readyz".to_owned());
        let spec = self.spec(
            "controller".to_owned(),
            Program::Controller,
            arguments,
            ready,
            false,
        );
        Service::spawn(spec, tasks, "controller")
    }

    fn agent(&self, node: &NodeNetwork, netns: &Path, wait_timeout_secs: u32, tasks: &mut Tasks) -> Service {
        let plan = node.plan();
        let probe = SocketAddr::from((plan.address(), layout::PROBE_PORT));
        let arguments: Vec<OsString> = vec![
            "--node".into(),
            plan.name().into(),
            "--kubeconfig".into(),
            self.kubeconfig().into(),
            "--pod-netns-dir".into(),
            netns.join(plan.name()).into(),
            "--probe-listen".into(),
            probe.to_string().into(),
            "--wait-timeout".into(),
            wait_timeout_secs.to_string().into(),
            "--admin-socket".into(),
            netns
                .join(format!("{}-admin", plan.name()))
                .join("admin.sock")
                .into(),
        ];
        let ready = Ready::Probe(format!("http://{probe}/readyz"));
        let mut spec = self.spec(
            format!("nmi-{}", plan.name()),
            Program::Nmi,
            arguments,
            ready,
            false,
        );
        spec.namespace = node.namespace().clone();
        Service::spawn(spec, tasks, "agent")
    }
}

/// What every container's program finds in its environment.
fn environment(
    ca_file: &Path,
    tenant: &str,
    subscription: &str,
    path: OsString,
) -> BTreeMap<String, OsString> {
    let ca = || ca_file.as_os_str().to_owned();
    [
        ("PATH", path),
        ("PODID_TENANT_ID", tenant.into()),
        ("PODID_SUBSCRIPTION_ID", subscription.into()),
        (
            "AZURE_AUTHORITY_HOST",
            format!("https://{}/", layout::LOGIN_HOST).into(),
        ),
        (
            "AZURE_RESOURCE_MANAGER_ENDPOINT",
            format!("https://{}", layout::ARM_HOST).into(),
        ),
        ("SSL_CERT_FILE", ca()),
        ("REQUESTS_CA_BUNDLE", ca()),
        ("NODE_EXTRA_CA_CERTS", ca()),
        ("KUBERNETES_SERVICE_HOST", layout::KUBERNETES.to_string().into()),
        ("KUBERNETES_SERVICE_PORT", layout::TLS_PORT.to_string().into()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

struct Ports {
    kubernetes: u16,
    azure: u16,
    metadata: u16,
}

fn ports(doors: &Doors) -> anyhow::Result<Ports> {
    Ok(Ports {
        kubernetes: doors.kubernetes.local_addr()?.port(),
        azure: doors.azure.local_addr()?.port(),
        metadata: doors.metadata.local_addr()?.port(),
    })
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The same kubeconfig, through the door.
fn for_people(in_world: &Path, out: &Path, port: u16) -> anyhow::Result<()> {
    let inside = format!("https://{}", layout::KUBERNETES);
    let text = read(in_world)?;
    let mut config: serde_json::Value =
        serde_json::from_str(&text).context("the emulator's kubeconfig is not as expected")?;
    let server = config
        .pointer_mut("/clusters/0/cluster/server")
        .filter(|server| server.as_str().is_some_and(|server| server.starts_with(&inside)))
        .context("the emulator's kubeconfig is for another server")?;
    *server = json!(format!("https://127.0.0.1:{port}"));
    write_private(out, &serde_json::to_string_pretty(&config)?)?;
    Ok(())
}

/// Installs podid's kinds, and waits until they are served.
async fn install_crds(client: &Client) -> anyhow::Result<()> {
    let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let api = Api::<DynamicObject>::all_with(client.clone(), &ApiResource::from_gvk(&kind));
    for crd in podid_api::crd::all() {
        let name = crd
            .pointer("/metadata/name")
            .and_then(|name| name.as_str())
            .context("a CRD has no name")?
            .to_owned();
        api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&crd))
            .await
            .with_context(|| format!("CRD {name} cannot be installed"))?;
        let established = |crd: Option<&DynamicObject>| {
            crd.and_then(|crd| crd.data.pointer("/status/conditions")?.as_array())
                .into_iter()
                .flatten()
                .any(|condition| {
                    condition.get("type") == Some(&json!("Established"))
                        && condition.get("status") == Some(&json!("True"))
                })
        };
        let served = kube::runtime::wait::await_condition(api.clone(), &name, established);
        tokio::time::timeout(ESTABLISHED_DEADLINE, served)
            .await
            .with_context(|| format!("CRD {name} is not served"))??;
    }
    Ok(())
}

/// Tells the cluster of a node, as its kubelet would.
async fn register(client: &Client, node: &NodeNetwork) -> anyhow::Result<()> {
    let plan = node.plan();
    let name = plan.name();
    let api = Api::<Node>::all(client.clone());
    let time = k8s_openapi::jiff::Timestamp::now().strftime("%FT%TZ").to_string();
    let object = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": name, "labels": crate::kubelet::labels(&name) },
        "spec": { "podCIDR": format!("{}/24", plan.pods()), "podCIDRs": [format!("{}/24", plan.pods())] },
    });
    let params = PatchParams::apply(MANAGER).force();
    api.patch(&name, &params, &Patch::Apply(&object))
        .await
        .with_context(|| format!("node {name} cannot be registered"))?;
    let resources = json!({ "cpu": "4", "memory": "16Gi", "pods": "240" });
    let status = json!({ "status": {
        "addresses": [
            { "type": "InternalIP", "address": plan.address() }, { "type": "Hostname", "address": name },
        ],
        "capacity": resources,
        "allocatable": resources,
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "the sandbox runs this node",
            "lastHeartbeatTime": time, "lastTransitionTime": time,
        }],
        "nodeInfo": {
            "architecture": crate::kubelet::arch(), "operatingSystem": "linux", "kubeletVersion": concat!("podid-sandbox-", env!("CARGO_PKG_VERSION")),
            "containerRuntimeVersion": concat!("podid-sandbox://", env!("CARGO_PKG_VERSION")),
            "kubeProxyVersion": "", "kernelVersion": kernel(), "osImage": "this machine",
            "machineID": "", "systemUUID": "", "bootID": "",
        },
    } });
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
        .await
        .with_context(|| format!("node {name} cannot be reported ready"))?;
    Ok(())
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}
