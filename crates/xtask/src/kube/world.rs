//! The control plane, in a world of its own: network, mounts and processes. Its holder starts everything, answers at
//! the control socket, and when it is killed the kernel ends all the rest.
//!
//! ```text
//! up ──starts──▶ supervisor ─▶ init ─▶ holder ─┬─▶ etcd, kube-apiserver, kube-controller-manager, kube-scheduler
//!     ◀─ ready ────────────────────────────────┤   nodes (each a world in this one)
//! 127.0.0.1:port ──forward──▶ 10.89.0.1:443    └─▶ control.sock
//! ```

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use podid_kernel::Namespace;
use podid_kernel::world::{Side, World, enter};
use serde_json::json;

use super::addresses::{API_PORT, API_SERVICE, CONTROL_PLANE, ETCD_PORTS, NODE_PREFIX, PODS, SERVICES};
use super::config::kubeconfig;
use super::control::{self, Program, Programs, Reply, Request};
use super::node::{self, NodeSpec};
use super::pki::{Pki, Usage};
use super::process::wait_until;
use super::tools::Tools;
use super::{forward, state::State};
use crate::printer;

/// The bridge that nodes hang on.
pub(super) const BRIDGE: &str = "br0";

/// Becomes the holder of a cluster in `state`; says `ready` on stdout when the control plane is. Returns when the
/// cluster has ended.
pub(super) fn hold(state: &State, tools: &Tools) -> anyhow::Result<ExitCode> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("listen on a loopback port")?;
    match enter(listener)? {
        Side::Outside(code) => Ok(code),
        Side::Inside(world, listener) => {
            inside(state, tools, world, listener)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn inside(state: &State, tools: &Tools, world: World, listener: TcpListener) -> anyhow::Result<()> {
    let here = Namespace::current()?;
    let links = here.links()?;
    links.bridge(BRIDGE)?;
    links.address(BRIDGE, CONTROL_PLANE, NODE_PREFIX)?;
    links.address(BRIDGE, API_SERVICE, 32)?;
    links.up(BRIDGE)?;
    here.sysctl("net.ipv4.ip_forward", "1")?;

    let port = listener.local_addr()?.port();
    let pki = certificates(&state.pki())?;
    let outside = format!("https://127.0.0.1:{port}");
    let server = format!("https://{CONTROL_PLANE}:{API_PORT}");
    for user in ["admin", "nobody"] {
        write(&state.kubeconfig(user), &kubeconfig(&pki, user, &outside))?;
    }
    for user in ["admin", "controller-manager", "scheduler"] {
        write(&state.inner_kubeconfig(user), &kubeconfig(&pki, user, &server))?;
    }

    let programs = Programs::new(&state.logs(), &tools.bin(), None)?;
    for program in control_plane(state, &pki) {
        programs.start(&program, true)?;
        if program.name == "kube-apiserver" {
            wait_for_api(&programs, state)?;
        }
    }
    forward::serve(listener, (CONTROL_PLANE, API_PORT));
    let known = Arc::clone(&programs);
    let tools = tools.root().to_owned();
    control::serve(&state.socket(), move |request| {
        answer(&known, &pki, &tools, request)
    })?;
    let ready = json!({ "event": "ready", "supervisor": world.supervisor(), "rootless": world.rootless() });
    printer::line(&ready.to_string());
    programs.watch()
}

fn answer(programs: &Programs, pki: &Pki, tools: &Path, request: Request) -> anyhow::Result<Reply> {
    match request {
        Request::Run { argv } => return programs.run(&argv),
        Request::Start(program) => programs.start(&program, false)?,
        Request::Stop { name } => programs.stop(&name)?,
        Request::AddNode(spec) => {
            node::certificate(pki, &spec)?;
            add_node(programs, tools, &spec)?;
        }
    }
    Ok(Reply::default())
}

/// Starts a node's holder and waits until its programs run.
fn add_node(programs: &Programs, tools: &Path, spec: &NodeSpec) -> anyhow::Result<()> {
    let log = spec.folder.join("holder.log");
    let mut child = Command::new("/proc/self/exe")
        .args(["kube", "hold-node", "--tools"])
        .arg(tools)
        .arg("--spec")
        .arg(serde_json::to_string(spec)?)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(fs::File::create(&log).with_context(|| format!("make {}", log.display()))?)
        .spawn()
        .context("start the node's holder")?;
    let stdout = child.stdout.take().context("the holder's output is a pipe")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    if line.is_empty() {
        let status = child.wait()?;
        bail!(
            "node {} did not start ({status}): {}",
            spec.name,
            super::process::tail(&log, 5)
        );
    }
    programs.keep(&node::key(&spec.name), child, false);
    Ok(())
}

fn certificates(folder: &Path) -> anyhow::Result<Pki> {
    let pki = Pki::create(folder)?;
    let (own, service) = (CONTROL_PLANE.to_string(), API_SERVICE.to_string());
    let names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "127.0.0.1",
        &own,
        &service,
    ];
    let masters = Some("system:masters");
    pki.issue("apiserver", "kube-apiserver", None, Usage::Server, &names)?;
    pki.issue(
        "kubelet-client",
        "kube-apiserver-kubelet-client",
        masters,
        Usage::Client,
        &[],
    )?;
    pki.issue("admin", "admin", masters, Usage::Client, &[])?;
    pki.issue("nobody", "nobody", None, Usage::Client, &[])?;
    for part in ["controller-manager", "scheduler"] {
        pki.issue(part, &format!("system:kube-{part}"), None, Usage::Client, &[])?;
    }
    Ok(pki)
}

/// etcd, then the API server, then the rest.
fn control_plane(state: &State, pki: &Pki) -> [Program; 4] {
    let path = |file: &str| pki.path(file).display().to_string();
    let [client, peer] = ETCD_PORTS.map(|port| format!("http://127.0.0.1:{port}"));
    let program = |name: &str, arguments: &[(&str, &str)]| Program {
        name: name.to_owned(),
        argv: std::iter::once(name.to_owned())
            .chain(arguments.iter().map(|(flag, value)| format!("--{flag}={value}")))
            .collect(),
        ..Program::default()
    };
    let etcd = program(
        "etcd",
        &[
            ("name", "one"),
            ("data-dir", &state.etcd().display().to_string()),
            ("unsafe-no-fsync", "true"),
            ("log-level", "warn"),
            ("listen-client-urls", &client),
            ("advertise-client-urls", &client),
            ("listen-peer-urls", &peer),
            ("initial-advertise-peer-urls", &peer),
            ("initial-cluster", &format!("one={peer}")),
        ],
    );
    let issuer = "https://kubernetes.default.svc.cluster.local";
    let api_server = program(
        "kube-apiserver",
        &[
            ("etcd-servers", &client),
            ("bind-address", "0.0.0.0"),
            ("secure-port", &API_PORT.to_string()),
            ("advertise-address", &CONTROL_PLANE.to_string()),
            ("tls-cert-file", &path("apiserver.crt")),
            ("tls-private-key-file", &path("apiserver.key")),
            ("client-ca-file", &path("ca.crt")),
            ("authorization-mode", "Node,RBAC"),
            ("enable-admission-plugins", "NodeRestriction"),
            ("service-account-issuer", issuer),
            ("service-account-key-file", &path("sa.pub")),
            ("service-account-signing-key-file", &path("sa.key")),
            ("service-cluster-ip-range", SERVICES),
            ("allow-privileged", "true"),
            ("kubelet-client-certificate", &path("kubelet-client.crt")),
            ("kubelet-client-key", &path("kubelet-client.key")),
            ("kubelet-certificate-authority", &path("ca.crt")),
            ("kubelet-preferred-address-types", "InternalIP"),
            ("profiling", "false"),
        ],
    );
    let inner = |user: &str| state.inner_kubeconfig(user).display().to_string();
    let controllers = program(
        "kube-controller-manager",
        &[
            ("kubeconfig", &inner("controller-manager")),
            ("leader-elect", "false"),
            ("use-service-account-credentials", "true"),
            ("service-account-private-key-file", &path("sa.key")),
            ("root-ca-file", &path("ca.crt")),
            ("cluster-signing-cert-file", &path("ca.crt")),
            ("cluster-signing-key-file", &path("ca.key")),
            ("bind-address", "127.0.0.1"),
            ("cluster-cidr", PODS),
            ("profiling", "false"),
            ("kube-api-qps", "200"),
            ("kube-api-burst", "400"),
        ],
    );
    let scheduler = program(
        "kube-scheduler",
        &[
            ("kubeconfig", &inner("scheduler")),
            ("leader-elect", "false"),
            ("bind-address", "127.0.0.1"),
            ("kube-api-qps", "200"),
            ("kube-api-burst", "400"),
        ],
    );
    [etcd, api_server, controllers, scheduler]
}

fn wait_for_api(programs: &Programs, state: &State) -> anyhow::Result<()> {
    let config = format!("--kubeconfig={}", state.inner_kubeconfig("admin").display());
    let argv = ["kubectl", &config, "--request-timeout=2s", "get", "--raw=/readyz"].map(str::to_owned);
    let ready = || {
        programs
            .run(&argv)
            .is_ok_and(|reply| reply.code == 0 && reply.stdout == "ok")
    };
    if wait_until(Duration::from_mins(1), ready) {
        return Ok(());
    }
    bail!(
        "the API server was not ready after 60 s:\n{}\netcd:\n{}",
        super::process::tail(&state.logs().join("kube-apiserver.log"), 10),
        super::process::tail(&state.logs().join("etcd.log"), 10)
    )
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
