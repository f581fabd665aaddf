//! The one place where the agent's parts are put together; it reads as a list and decides nothing.

use std::collections::BTreeSet;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::Path;

use anyhow::Context as _;
use podid_kernel::privileges::{self, Capability};
use podid_kernel::redirect::Interception;
use podid_rt::logging;
use podid_rt::readiness::Readiness;
use podid_rt::stop::Stop;
use podid_rt::tasks::Tasks;

use crate::admin::{AdminSocket, AdminSocketError, DEFAULT_ADMIN_SOCKET};
use crate::app::App;
use crate::args::OperationMode;
use crate::args::{Command, Nmi, NmiArgs, UninstallArgs, placed};
use crate::kubenet;
use crate::server::Limits;

impl Nmi {
    /// Does what was asked for. To be called from `main`, before there is a runtime.
    pub fn start(self) -> anyhow::Result<()> {
        match self.command {
            None => self.run.start(),
            Some(Command::Run(args)) => args.start(),
            Some(Command::Uninstall(args)) => {
                lessen(&BTreeSet::from([Capability::NetAdmin]))?;
                args.run()
            }
            Some(Command::Admin(args)) => tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(args.run()),
        }
    }
}

impl NmiArgs {
    /// Gives up what is not needed, and runs in a runtime of its own. To be called while there is one thread: each has
    /// capabilities of its own.
    pub fn start(self) -> anyhow::Result<()> {
        logging::init(&self.logging())?;
        lessen(&self.capabilities())?;
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?
            .block_on(self.run())
    }

    /// Serves until told to stop, then drains. The interception stays.
    pub async fn run(self) -> anyhow::Result<()> {
        logging::init(&self.logging())?;
        // What is said from here on in the original's words is what its guides tell people to look for.
        tracing::info!("starting nmi process. Version: {}.", env!("CARGO_PKG_VERSION"));
        let namespaced = self.force_namespaced || self.operation_mode == OperationMode::Managed;
        tracing::info!("running NMI in namespaced mode: {namespaced}");
        tracing::info!(
            "initializing in {} mode",
            match self.operation_mode {
                OperationMode::Managed => "managed",
                OperationMode::Standard => "standard",
            }
        );
        // A second installation changes nothing.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let stop = Stop::on_signals().context("listen to signals")?;
        for legacy in self.legacy.notices() {
            tracing::warn!(
                given = legacy.written(),
                "this setting of aad-pod-identity means nothing here: {}",
                legacy.instead
            );
        }
        kubenet::check(
            self.kubelet_config.as_deref(),
            self.allow_network_plugin_kubenet,
            self.attestation,
        )?;
        let node = self
            .node
            .clone()
            .context("the node's name is needed to know its pods: --node (or PODID_NODE)")?;
        let mut cluster = podid_rt::cluster::config(self.kubeconfig.as_deref()).await?;
        let agent = [
            Some(concat!("podid-nmi/", env!("CARGO_PKG_VERSION"))),
            self.custom_user_agent.as_deref(),
        ];
        let agent = agent.into_iter().flatten().collect::<Vec<_>>().join(" ");
        let agent = agent
            .try_into()
            .context("make the User-Agent (--custom-user-agent)")?;
        cluster.headers.push((http::header::USER_AGENT, agent));
        let client = podid_rt::cluster::client_of(cluster).context("make a client of the cluster")?;
        let drain_deadline = self.drain_deadline;
        let admin = admin(self.admin_socket.as_deref()).await?;
        let mut config = self.config(client, node)?;
        config.limits = fitting(config.limits);
        let mut app = App::bind(config).await?;
        if let Some(socket) = admin {
            app = app.with_admin(socket);
        }
        tracing::info!("initialized health probe on port {}", app.probe_address().port());
        tracing::info!("listening on {}", app.address());
        let mut tasks = Tasks::new(stop.clone());
        let (listen, probes, readiness) = (app.address(), app.probe_address(), app.readiness());
        app.spawn(&mut tasks);
        // Only now has every part said what it waits for.
        announce(listen, probes, readiness, stop, &tasks);
        tasks.run(drain_deadline).await?;
        tracing::info!("stopped");
        Ok(())
    }
}

/// As many connections as this process may have files for, which is raised to what the system allows.
fn fitting(limits: Limits) -> Limits {
    match podid_kernel::open_files::raise() {
        Ok(files) => {
            let fitting = limits.within(files);
            if fitting.connections < limits.connections {
                tracing::warn!(
                    open_files = files,
                    connections = fitting.connections,
                    "fewer connections than usual: this process may not have more files open (RLIMIT_NOFILE)"
                );
            }
            fitting
        }
        Err(error) => {
            tracing::warn!(%error, "the limit of open files could not be raised (RLIMIT_NOFILE)");
            limits
        }
    }
}

impl UninstallArgs {
    /// Removes the interception from this node. What was not there is no error.
    pub fn run(self) -> anyhow::Result<()> {
        let Self {
            metadata_ip,
            route_table,
            rule_preference,
            log,
        } = self;
        logging::init(&log)?;
        // Removing takes whatever any way of interception put in place; the port does not matter.
        let any = Interception::local_route(SocketAddrV4::new(metadata_ip, 80));
        let removed = placed(any, route_table, rule_preference)
            .remove()
            .context("remove the interception")?;
        let parts: Vec<String> = removed.iter().map(ToString::to_string).collect();
        tracing::info!(
            parts = parts.join(", "),
            "the metadata address is not intercepted any more"
        );
        Ok(())
    }
}

/// Keeps only these capabilities, and says so.
fn lessen(needed: &BTreeSet<Capability>) -> anyhow::Result<()> {
    let kept = privileges::keep(needed).context("give up the privileges that are not needed")?;
    let names = |all: &BTreeSet<Capability>| {
        let names: Vec<_> = all.iter().map(|one| one.name()).collect();
        names.join(", ")
    };
    if !kept.missing.is_empty() {
        tracing::warn!(
            missing = names(&kept.missing),
            "capabilities are missing that these flags need; docs/reference/privileges.md says for what"
        );
    }
    tracing::info!(
        capabilities = names(&kept.held),
        bounded = kept.bounded,
        "everything else was given up"
    );
    Ok(())
}

/// The admin's socket: the one that was named, else the usual one where it can be had; none when none is wanted.
async fn admin(path: Option<&Path>) -> Result<Option<AdminSocket>, AdminSocketError> {
    match path {
        Some(path) if path.as_os_str().is_empty() => Ok(None),
        Some(path) => AdminSocket::bind(path).await.map(Some),
        None => Ok(AdminSocket::bind(Path::new(DEFAULT_ADMIN_SOCKET))
            .await
            .inspect_err(|error| {
                let error = error as &dyn std::error::Error;
                tracing::warn!(error, "there is no admin socket");
            })
            .ok()),
    }
}

/// Writes the ready line once everything is, unless told to stop before.
fn announce(listen: SocketAddr, probes: SocketAddr, readiness: Readiness, stop: Stop, tasks: &Tasks) {
    let line = serde_json::json!({
        "event": "ready",
        "listen": listen,
        "probes": probes,
    });
    tasks.group().spawn(async move {
        tokio::select! {
            () = stop.requested() => {}
            () = readiness.wait() => podid_rt::ready::announce(&line.to_string()),
        }
    });
}
