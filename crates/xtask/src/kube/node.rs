//! A real node: containerd, kubelet and perhaps kube-proxy, in network, mount, PID and UTS namespaces of their own
//! inside the cluster's. The machine's own settings and folders stay as they are.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::mount::{MsFlags, mount};
use podid_kernel::Namespace;
use podid_kernel::world::{Side, enter};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::addresses::{CONTROL_PLANE, NODE_PREFIX, node as address, pods};
use super::config::{self, Cni, Proxy};
use super::control::{self, Program, Programs, Reply, Request};
use super::pki::{Pki, Usage};
use super::process::{tail, wait_until};
use super::tools::Tools;
use super::world::BRIDGE;
use crate::printer;

/// A node to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct NodeSpec {
    pub(super) name: String,
    /// From 1; its addresses follow from it
    pub(super) number: u8,
    pub(super) cni: Cni,
    pub(super) proxy: Proxy,
    pub(super) labels: BTreeMap<String, String>,
    /// `azure:///subscriptions/…`: what a cloud's controller would write
    pub(super) provider_id: Option<String>,
    /// Image archives that it has before its kubelet starts
    pub(super) images: Vec<PathBuf>,
    /// Its control group in every hierarchy
    pub(super) cgroup: String,
    /// For its files
    pub(super) folder: PathBuf,
    /// Where the cluster's certificates are
    pub(super) pki: PathBuf,
    /// The API server, from inside
    pub(super) kubeconfig: PathBuf,
    /// kube-proxy's credentials
    pub(super) proxy_kubeconfig: PathBuf,
}

/// Values of the kernel's that a kubelet sets for the whole machine. A node sees files that say already what it wants.
const KERNEL: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// A node's name among the programs of the control plane's holder.
pub(super) fn key(name: &str) -> String {
    format!("node/{name}")
}

/// A node's control socket.
pub(super) fn socket(folder: &Path) -> PathBuf {
    folder.join("control.sock")
}

/// Makes the kubelet's certificate and kubeconfig.
pub(super) fn certificate(pki: &Pki, spec: &NodeSpec) -> anyhow::Result<()> {
    let ip = address(spec.number).to_string();
    let user = format!("system:node:{}", spec.name);
    pki.issue(
        &spec.name,
        &user,
        Some("system:nodes"),
        Usage::Both,
        &[&ip, &spec.name],
    )?;
    let server = format!("https://{CONTROL_PLANE}:{}", super::addresses::API_PORT);
    let text = config::kubeconfig(pki, &spec.name, &server);
    fs::write(&spec.kubeconfig, text).with_context(|| format!("write {}", spec.kubeconfig.display()))
}

/// Becomes the holder of a node; to be called in the control plane's world. Says `ready` on stdout when the kubelet
/// runs. Returns when the node has ended.
pub(super) fn hold(spec: &NodeSpec, tools: &Tools) -> anyhow::Result<ExitCode> {
    let outside = Namespace::current()?;
    match enter(outside)? {
        Side::Outside(code) => Ok(code),
        Side::Inside(_, outside) => {
            inside(spec, tools, &outside)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn inside(spec: &NodeSpec, tools: &Tools, outside: &Namespace) -> anyhow::Result<()> {
    nix::unistd::sethostname(&spec.name).context("take the node's name")?;
    wire(spec, outside)?;
    let snapshotter = snapshotter(&spec.folder)?;
    furnish(spec)?;

    let configuration = spec.folder.join("etc");
    let containerd = configuration.join("containerd.toml");
    let kubelet = configuration.join("kubelet.yaml");
    let images = spec.folder.join("containerd");
    write(
        &containerd,
        &config::containerd(&tools.cni(), &tools.program("runc"), &images, snapshotter),
    )?;
    write(
        &kubelet,
        &config::kubelet(&spec.pki, &spec.name, &spec.cgroup, spec.provider_id.as_deref()),
    )?;
    write(
        Path::new("/etc/cni/net.d/10-pods.conflist"),
        &config::cni(spec.cni, spec.number),
    )?;

    let programs = Programs::new(&spec.folder.join("log"), &tools.bin(), Some(tools.lib()))?;
    programs.start(
        &program("containerd", &[format!("--config={}", containerd.display())]),
        true,
    )?;
    let version = ctr(&["version"]);
    if !wait_until(Duration::from_secs(20), || {
        programs.run(&version).is_ok_and(|reply| reply.code == 0)
    }) {
        bail!(
            "containerd does not answer: {}",
            tail(&spec.folder.join("log/containerd.log"), 5)
        );
    }
    let always = ["pause.tar", "box.tar"].map(|image| tools.images().join(image));
    for image in always.iter().chain(&spec.images) {
        import(&programs, image)?;
    }
    programs.start(&program("kubelet", &kubelet_arguments(spec, &kubelet)), true)?;
    if let Some(arguments) = config::proxy(spec.proxy, &spec.name, &spec.proxy_kubeconfig) {
        programs.start(&program("kube-proxy", &arguments), true)?;
    }
    let known = Arc::clone(&programs);
    control::serve(&socket(&spec.folder), move |request| answer(&known, request))?;
    printer::line(&json!({ "event": "ready" }).to_string());
    programs.watch()
}

fn answer(programs: &Programs, request: Request) -> anyhow::Result<Reply> {
    match request {
        Request::Run { argv } => return programs.run(&argv),
        Request::Start(program) => programs.start(&program, false)?,
        Request::Stop { name } => programs.stop(&name)?,
        Request::AddNode(_) => bail!("a node has no nodes"),
    }
    Ok(Reply::default())
}

/// The cable to the control plane's bridge, and the routes over it.
fn wire(spec: &NodeSpec, outside: &Namespace) -> anyhow::Result<()> {
    let own = Namespace::current()?;
    let ip = address(spec.number);
    let (network, prefix) = pods(spec.number);
    let cable = format!("node{}", spec.number);
    let there = outside.links()?;
    there.veth(&cable, "eth0", &own)?;
    there.enslave(&cable, BRIDGE)?;
    there.up(&cable)?;
    there.route_via(network, prefix, ip, BRIDGE)?;
    let here = own.links()?;
    here.address("eth0", ip, NODE_PREFIX)?;
    here.up("eth0")?;
    here.route_via(Ipv4Addr::UNSPECIFIED, 0, CONTROL_PLANE, "eth0")?;
    own.sysctl("net.ipv4.ip_forward", "1")?;
    Ok(())
}

/// overlayfs on overlayfs does not work: a machine that is itself a container copies.
fn snapshotter(folder: &Path) -> anyhow::Result<&'static str> {
    let seen = nix::sys::statfs::statfs(folder).with_context(|| format!("look at {}", folder.display()))?;
    let stacked = seen.filesystem_type() == nix::sys::statfs::OVERLAYFS_SUPER_MAGIC;
    Ok(if stacked { "native" } else { "overlayfs" })
}

/// Folders and files of the node's own, over the machine's.
fn furnish(spec: &NodeSpec) -> anyhow::Result<()> {
    for folder in ["etc", "log", "containerd", "kubelet"] {
        make(&spec.folder.join(folder))?;
    }
    tmpfs("/run")?;
    for folder in [
        "/run/lock",
        "/run/netns",
        "/run/etc/upper",
        "/run/etc/work",
        "/run/kernel",
    ] {
        make(Path::new(folder))?;
    }
    // /etc can be written to, and the machine's is not.
    let layers = "lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work";
    mount(
        Some("overlay"),
        "/etc",
        Some("overlay"),
        MsFlags::empty(),
        Some(layers),
    )
    .context("give the node an /etc of its own")?;
    make(Path::new("/etc/cni/net.d"))?;
    tmpfs("/etc/cni/net.d")?;
    tmpfs("/var/lib")?;
    tmpfs("/var/log")?;
    for folder in [
        "/var/lib/cni",
        "/var/log/pods",
        "/var/log/containers",
        "/var/lib/kubelet",
    ] {
        make(Path::new(folder))?;
    }
    bind(&spec.folder.join("kubelet"), Path::new("/var/lib/kubelet"))?;
    for (name, value) in KERNEL {
        let target = Path::new("/proc/sys").join(name);
        if target.exists() {
            let source = Path::new("/run/kernel").join(name.replace('/', "_"));
            write(&source, &format!("{value}\n"))?;
            bind(&source, &target)?;
        }
    }
    let shared = MsFlags::MS_REC | MsFlags::MS_SHARED;
    mount(None::<&str>, "/", None::<&str>, shared, None::<&str>)
        .context("share the node's mounts with its pods")
}

fn kubelet_arguments(spec: &NodeSpec, configuration: &Path) -> Vec<String> {
    let labels: Vec<String> = spec
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    vec![
        format!("--config={}", configuration.display()),
        format!("--kubeconfig={}", spec.kubeconfig.display()),
        format!("--hostname-override={}", spec.name),
        format!("--node-ip={}", address(spec.number)),
        "--root-dir=/var/lib/kubelet".to_owned(),
        format!("--node-labels={}", labels.join(",")),
        "--v=2".to_owned(),
    ]
}

fn program(name: &str, arguments: &[String]) -> Program {
    Program {
        name: name.to_owned(),
        argv: std::iter::once(name.to_owned())
            .chain(arguments.iter().cloned())
            .collect(),
        ..Program::default()
    }
}

/// containerd's own client.
pub(super) fn ctr(arguments: &[&str]) -> Vec<String> {
    let fixed = [
        "ctr",
        "--address=/run/containerd/containerd.sock",
        "--namespace=k8s.io",
    ];
    fixed
        .iter()
        .chain(arguments)
        .map(|&word| word.to_owned())
        .collect()
}

fn import(programs: &Programs, image: &Path) -> anyhow::Result<()> {
    let path = image.display().to_string();
    programs
        .run(&ctr(&["images", "import", &path]))?
        .ok()
        .map(drop)
        .with_context(|| format!("import {path}"))
}

fn tmpfs(at: &str) -> anyhow::Result<()> {
    mount(
        Some("tmpfs"),
        at,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=0755"),
    )
    .with_context(|| format!("give the node a {at} of its own"))
}

fn bind(source: &Path, target: &Path) -> anyhow::Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("show {} at {}", source.display(), target.display()))
}

fn make(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
