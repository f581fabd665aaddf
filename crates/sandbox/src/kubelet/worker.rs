//! One pod on its node, from network to end: init containers, containers, restarts, status, deletion with grace.
//!
//! connect ─▶ init containers, one by one ─▶ containers ─▶ all ended ─▶ network freed
//!        └─ deleted ─▶ SIGTERM ─▶ grace ─▶ SIGKILL ─▶ object removed ─▶ network freed

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::{Container as Spec, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use nix::sys::signal::Signal;
use podid_kernel::Room;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use super::attach::{Attachment, End};
use super::container::{Group, Surroundings};
use super::environment::{EnvironmentError, Place};
use super::image::UnknownImage;
use super::logs::now;
use super::status::{self, Addresses, Conditions, Container, Ended, Restart, State, waiting};
use super::{Kubelet, event};
use crate::fabric::{NodeNetwork, PodNetwork};
use crate::failure::chain;
use crate::{identity, layout};

/// Pause before the second restart of a container; doubled each time. The first is at once. A kubelet begins with 10 s;
/// here somebody looks on.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause. Source: Kubernetes, pod lifecycle, container restarts.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// How long pods may take to end when the world does.
const LAST_GRACE: Duration = Duration::from_secs(1);

/// What shall become of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// It runs on.
    Run,
    /// It was deleted and may take so long to end.
    Delete(Duration),
    /// Its object is gone: it ends at once.
    Gone,
    /// The world ends.
    World,
}

impl Wish {
    /// What the object says.
    pub(super) fn of(pod: &Pod) -> Self {
        if pod.metadata.deletion_timestamp.is_none() {
            return Self::Run;
        }
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(30);
        Self::Delete(Duration::from_secs(u64::try_from(grace).unwrap_or_default()))
    }
}

/// What happened in a pod.
enum Happened {
    /// Container number … ended with this code.
    Ended(usize, i32),
    /// Container number … may be started (again).
    Due(usize),
}

type Events = FuturesUnordered<BoxFuture<'static, Happened>>;

/// A pod's worker.
pub(super) struct Worker {
    kubelet: Arc<Kubelet>,
    node: Arc<NodeNetwork>,
    pod: Arc<Pod>,
    wishes: watch::Receiver<Wish>,
    namespace: String,
    name: String,
    uid: String,
    restart: Restart,
    specs: Vec<Spec>,
    containers: Vec<Container>,
    groups: BTreeMap<usize, Group>,
    conditions: Conditions,
    begun: String,
    attachment: Option<Attachment>,
}

/// A pod's network with what lies in folders for it.
struct Connected {
    network: PodNetwork,
    room: Room,
    link: Option<PathBuf>,
    folder: PathBuf,
}

impl Worker {
    pub(super) fn new(
        kubelet: Arc<Kubelet>,
        node: Arc<NodeNetwork>,
        pod: Arc<Pod>,
        wishes: watch::Receiver<Wish>,
    ) -> Self {
        let spec = pod.spec.clone().unwrap_or_default();
        let init = spec.init_containers.unwrap_or_default();
        let made = |init: bool| {
            move |spec: &Spec| Container::new(&spec.name, spec.image.as_deref().unwrap_or_default(), init)
        };
        let containers = init
            .iter()
            .map(made(true))
            .chain(spec.containers.iter().map(made(false)))
            .collect();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (namespace, name) = (text(&pod.metadata.namespace), text(&pod.metadata.name));
        Self {
            attachment: kubelet.attachments.take(&namespace, &name),
            uid: text(&pod.metadata.uid),
            restart: Restart::of(&pod),
            specs: init.into_iter().chain(spec.containers).collect(),
            containers,
            groups: BTreeMap::new(),
            conditions: Conditions::default(),
            begun: stamp(&kubelet),
            kubelet,
            node,
            pod,
            wishes,
            namespace,
            name,
        }
    }

    pub(super) async fn run(mut self) {
        let connected = match self.connect().await {
            Ok(connected) => Some(connected),
            Err(error) => {
                let why = chain(error.as_ref());
                event::warn(&self.kubelet, &self.pod, "FailedCreatePodSandBox", &why).await;
                self.give_up(why);
                None
            }
        };
        self.publish(connected.as_ref()).await;
        if let Some(connected) = &connected {
            self.live(connected).await;
        } else {
            other(&mut self.wishes, Wish::Run).await;
        }
        self.give_up("the pod has ended without starting it".to_owned());
        let wish = *self.wishes.borrow();
        if let Wish::Delete(_) = wish {
            self.remove().await;
        }
        if let Some(connected) = connected {
            // Interfaces go by netlink, which blocks a little.
            let freed = tokio::task::spawn_blocking(move || connected.free()).await;
            if let Err(error) = freed {
                tracing::warn!(%error, "a pod's network was not freed");
            }
        }
    }

    /// Network, files and view of the pod.
    async fn connect(&self) -> anyhow::Result<Connected> {
        let spec = self.pod.spec.as_ref();
        let host = spec.and_then(|spec| spec.host_network) == Some(true);
        let hostname = spec
            .and_then(|spec| spec.hostname.clone())
            .unwrap_or_else(|| self.name.clone());
        let folder = self.kubelet.pods.join("files").join(&self.uid);
        let links = self.kubelet.netns.join(self.node.plan().name());
        let (node, uid) = (Arc::clone(&self.node), self.uid.clone());
        let made = tokio::task::spawn_blocking(move || {
            let network = if host { node.host() } else { node.join()? };
            fs::create_dir_all(&folder).context("a folder cannot be made")?;
            let hosts = folder.join("hosts");
            fs::write(&hosts, layout::hosts(Some((&hostname, network.address()))))
                .context("hosts cannot be written")?;
            let mut room = Room::default().hosts(hosts);
            if fs::metadata("/etc/resolv.conf").is_ok() {
                let resolv = folder.join("resolv.conf");
                // Nobody answers there, so that an unknown name is refused at once.
                fs::write(&resolv, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
                    .context("resolv.conf cannot be written")?;
                room = room.resolv_conf(resolv);
            }
            if !host {
                // A host name has at most 63 bytes, a pod's name 253.
                room = room.hostname(hostname.chars().take(63).collect::<String>());
            }
            // A pod in the node's own network cannot be told from others by it.
            let link = (!host).then(|| links.join(&uid));
            if let Some(link) = &link {
                std::os::unix::fs::symlink(network.namespace().path(), link)
                    .context("its namespace cannot be linked")?;
            }
            anyhow::Ok(Connected {
                network,
                room,
                link,
                folder,
            })
        });
        made.await.context("the thread that connects it has ended")?
    }

    /// Runs the containers until they have all ended for good or the pod shall end.
    async fn live(&mut self, connected: &Connected) {
        let mut events: Events = FuturesUnordered::new();
        self.advance(connected, &mut events).await;
        let wish = loop {
            if matches!(
                status::phase(&self.containers, self.restart),
                "Succeeded" | "Failed"
            ) && self.groups.is_empty()
            {
                return;
            }
            let mut wishes = self.wishes.clone();
            tokio::select! {
                wish = other(&mut wishes, Wish::Run) => break wish,
                Some(happened) = events.next(), if !events.is_empty() => match happened {
                    Happened::Ended(number, code) => {
                        self.ended(number, code, &mut events);
                        self.advance(connected, &mut events).await;
                    }
                    Happened::Due(number) => self.start(number, connected, &mut events).await,
                },
            }
            self.publish(Some(connected)).await;
        };
        self.end(wish, connected, &mut events).await;
    }

    /// Starts what may be started now for the first time.
    async fn advance(&mut self, connected: &Connected, events: &mut Events) {
        let done = |container: &Container| matches!(&container.state, State::Ended(ended) if ended.code == 0);
        let new = |container: &Container| {
            container.restarts == 0
                && container.last.is_none()
                && matches!(&container.state, State::Waiting { reason, .. }
                    if reason == "PodInitializing" || reason == "ContainerCreating")
        };
        let init = self
            .containers
            .iter()
            .position(|container| container.init && !done(container));
        let due: Vec<usize> = match init {
            Some(number) => vec![number],
            None => (0..self.containers.len()).collect(),
        };
        for number in due {
            let first = self
                .containers
                .get(number)
                .is_some_and(|container| new(container) && !self.groups.contains_key(&number));
            if first
                && (init.is_some()
                    || self
                        .containers
                        .get(number)
                        .is_some_and(|container| !container.init))
            {
                self.start(number, connected, events).await;
            }
        }
        self.publish(Some(connected)).await;
    }

    async fn start(&mut self, number: usize, connected: &Connected, events: &mut Events) {
        let (Some(spec), Some(container)) = (self.specs.get(number).cloned(), self.containers.get(number))
        else {
            return;
        };
        let log = Kubelet::logs(&self.kubelet.pods)
            .join(format!("{}_{}_{}", self.namespace, self.name, self.uid))
            .join(&container.name)
            .join(format!("{}.log", container.restarts));
        let environment = identity::environment(&self.kubelet.client, &self.pod).await;
        let surroundings = Surroundings {
            kubelet: &self.kubelet,
            pod: &self.pod,
            namespace: connected.network.namespace(),
            room: &connected.room,
            place: Place {
                pod_ip: connected.network.address(),
                host_ip: connected.network.node().plan().address(),
            },
            environment: &environment,
        };
        let (given, waiter) = match self.attachment.take() {
            Some(Attachment { given, end }) => (Some(given), Some(end)),
            None => (None, None),
        };
        let started = surroundings.start(&spec, log, given).await;
        let state = match started {
            Ok(started) => {
                self.groups.insert(number, started.group);
                let end = started.end;
                events.push(Box::pin(async move {
                    let code = end.await;
                    if let Some(waiter) = waiter {
                        let code = u8::try_from(code & 0xff).unwrap_or(u8::MAX);
                        // Nobody may be waiting any more.
                        let _nobody = waiter.send(End::Exited(code));
                    }
                    Happened::Ended(number, code)
                }));
                event::tell(
                    &self.kubelet,
                    &self.pod,
                    "Started",
                    &format!("Started container {}", spec.name),
                )
                .await;
                State::Running(stamp(&self.kubelet))
            }
            Err(error) => {
                let why = chain(error.as_ref());
                if let Some(waiter) = waiter {
                    let _nobody = waiter.send(End::NotStarted(why.clone()));
                }
                if error.is::<UnknownImage>() {
                    event::warn(
                        &self.kubelet,
                        &self.pod,
                        "Failed",
                        &format!("Failed to pull image: {why}"),
                    )
                    .await;
                    event::warn(&self.kubelet, &self.pod, "Failed", "Error: ErrImagePull").await;
                    waiting("ErrImagePull", &why)
                } else if error.is::<EnvironmentError>() {
                    event::warn(&self.kubelet, &self.pod, "Failed", &format!("Error: {why}")).await;
                    waiting("CreateContainerConfigError", &why)
                } else {
                    event::warn(&self.kubelet, &self.pod, "Failed", &format!("Error: {why}")).await;
                    // As container runtimes report a program that is not there.
                    let time = stamp(&self.kubelet);
                    let ended = Ended {
                        code: 127,
                        reason: "StartError".to_owned(),
                        message: why,
                        started: time.clone(),
                        finished: time,
                    };
                    if self.restart.again(
                        self.containers
                            .get(number)
                            .is_some_and(|container| container.init),
                        127,
                    ) {
                        events.push(Box::pin(std::future::ready(Happened::Ended(number, 127))));
                        self.set(number, State::Ended(ended));
                        return;
                    }
                    State::Ended(ended)
                }
            }
        };
        self.set(number, state);
    }

    fn set(&mut self, number: usize, state: State) {
        if let Some(container) = self.containers.get_mut(number) {
            container.state = state;
        }
    }

    /// Notes an end, and when the container is started again.
    fn ended(&mut self, number: usize, code: i32, events: &mut Events) {
        self.groups.remove(&number);
        let finished = stamp(&self.kubelet);
        let restart = self.restart;
        let Some(container) = self.containers.get_mut(number) else {
            return;
        };
        let ended = match &container.state {
            State::Ended(ended) => ended.clone(),
            state => Ended {
                code,
                reason: if code == 0 { "Completed" } else { "Error" }.to_owned(),
                message: String::new(),
                started: match state {
                    State::Running(started) => started.clone(),
                    _ => finished.clone(),
                },
                finished,
            },
        };
        if !restart.again(container.init, code) {
            container.state = State::Ended(ended);
            return;
        }
        let pause = pause(container.restarts);
        container.last = Some(ended.clone());
        container.restarts = container.restarts.saturating_add(1);
        container.state = if pause.is_zero() {
            State::Ended(ended)
        } else {
            waiting(
                "CrashLoopBackOff",
                &format!(
                    "back-off {}s restarting failed container={} pod={}",
                    pause.as_secs(),
                    container.name,
                    self.name
                ),
            )
        };
        events.push(Box::pin(async move {
            tokio::time::sleep(pause).await;
            Happened::Due(number)
        }));
    }

    /// Ends what runs, with as much patience as the wish has. A shorter patience may be wished meanwhile.
    async fn end(&mut self, mut wish: Wish, connected: &Connected, events: &mut Events) {
        let start = Instant::now();
        for group in self.groups.values() {
            group.signal(Signal::SIGTERM);
        }
        let mut killed = false;
        while !self.groups.is_empty() {
            let grace = match wish {
                Wish::Run | Wish::Gone => Duration::ZERO,
                Wish::Delete(grace) => grace,
                Wish::World => LAST_GRACE,
            };
            let mut wishes = self.wishes.clone();
            let known = wish;
            tokio::select! {
                () = tokio::time::sleep_until(start + grace), if !killed => {
                    for group in self.groups.values() {
                        group.signal(Signal::SIGKILL);
                    }
                    killed = true;
                }
                changed = other(&mut wishes, known), if !killed => wish = changed,
                happened = events.next() => match happened {
                    Some(Happened::Ended(number, code)) => {
                        self.groups.remove(&number);
                        let finished = stamp(&self.kubelet);
                        self.set(number, State::Ended(Ended {
                            code,
                            reason: if code == 0 { "Completed" } else { "Error" }.to_owned(),
                            message: String::new(),
                            started: self.begun.clone(),
                            finished,
                        }));
                    }
                    Some(Happened::Due(_)) => {}
                    None => break,
                },
            }
        }
        if wish != Wish::World {
            self.publish(Some(connected)).await;
        }
    }

    /// Tells who waits for this pod that it will not run.
    fn give_up(&mut self, why: String) {
        if let Some(attachment) = self.attachment.take() {
            let _nobody = attachment.end.send(End::NotStarted(why));
        }
    }

    async fn publish(&mut self, connected: Option<&Connected>) {
        let addresses = connected.map(|connected| Addresses {
            pod: connected.network.address(),
            host: connected.network.node().plan().address(),
        });
        let time = stamp(&self.kubelet);
        let status = status::status(
            &self.uid,
            &self.containers,
            self.restart,
            addresses,
            &mut self.conditions,
            (&self.begun, &time),
        );
        // The uid keeps this from touching a new pod of the same name.
        let patch = json!({ "metadata": { "uid": self.uid }, "status": status });
        match self
            .api()
            .patch_status(&self.name, &PatchParams::default(), &Patch::Merge(patch))
            .await
        {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => tracing::warn!(%error, pod = self.name, "the pod's status cannot be written"),
        }
    }

    /// Lets the object go: the node is done with the pod.
    async fn remove(&self) {
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: Some(self.uid.clone()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match self.api().delete(&self.name, &params).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => tracing::warn!(%error, pod = self.name, "the pod cannot be removed"),
        }
    }

    fn api(&self) -> Api<Pod> {
        Api::namespaced(self.kubelet.client.clone(), &self.namespace)
    }
}

impl Connected {
    /// Takes the network apart. Its address is free afterwards.
    fn free(self) {
        if let Some(link) = &self.link
            && let Err(error) = fs::remove_file(link)
        {
            tracing::warn!(%error, link = %link.display(), "a link to a pod's namespace cannot be removed");
        }
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tracing::warn!(%error, folder = %self.folder.display(), "a pod's files cannot be removed");
        }
        drop(self.network);
    }
}

/// The first wish that is another one than `known`.
async fn other(wishes: &mut watch::Receiver<Wish>, known: Wish) -> Wish {
    wishes
        .wait_for(|wish| *wish != known)
        .await
        .map_or(Wish::World, |wish| *wish)
}

fn stamp(kubelet: &Kubelet) -> String {
    now(&kubelet.clock).strftime("%FT%TZ").to_string()
}

/// The pause before restart number `restarts` (from 0).
fn pause(restarts: u32) -> Duration {
    match restarts.checked_sub(1) {
        None => Duration::ZERO,
        Some(doubled) => FIRST_PAUSE
            .saturating_mul(1_u32.checked_shl(doubled).unwrap_or(u32::MAX))
            .min(LONGEST_PAUSE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_five_minutes() {
        let pauses: Vec<u64> = (0..5).map(|restarts| pause(restarts).as_secs()).collect();
        assert_eq!(pauses, [0, 1, 2, 4, 8]);
        assert_eq!(pause(40), LONGEST_PAUSE);
    }
}
