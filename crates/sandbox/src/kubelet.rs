//! Scheduler and kubelet of all nodes of a world, as an ordinary client of the Kubernetes API: gives each pod a node,
//! a network and processes, and reports what becomes of them. It knows nothing of identities.
//!
//! watch ─▶ pods ─┬─ without node ─▶ scheduler ─▶ binding
//!                └─ on one of our nodes ─▶ one worker a pod ─▶ status, events, logs

pub(crate) mod attach;
mod container;
pub(crate) mod environment;
pub(crate) mod event;
pub(crate) mod image;
mod logs;
mod scheduler;
mod status;
mod worker;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher;
use kube::{Api, Client};
use parking_lot::Mutex;
use podid_rt::clock::Clock;
use podid_rt::readiness::Readiness;
use podid_rt::tasks::Tasks;
use podid_rt::watch::{Index, follow};
use tokio::sync::{Notify, watch};

use crate::fabric::NodeNetwork;
use crate::programs::Programs;
use attach::Attachments;
pub(crate) use scheduler::{arch, labels};
use worker::{Wish, Worker};

/// What is the same for all pods.
pub(crate) struct Kubelet {
    /// The cluster.
    pub client: Client,
    /// The nodes, by name.
    pub nodes: BTreeMap<String, Arc<NodeNetwork>>,
    /// What images of ours stand for.
    pub programs: Programs,
    /// Folder of pods' files: hosts, logs.
    pub pods: PathBuf,
    /// Folder of nodes' files: links to their pods' network namespaces.
    pub netns: PathBuf,
    /// Variables that every container gets.
    pub environment: BTreeMap<String, OsString>,
    /// Pods that somebody waits for with his own standard streams.
    pub attachments: Attachments,
    /// The time of day.
    pub clock: Clock,
}

impl Kubelet {
    /// Folder of logs, as the API server looks for them.
    pub(crate) fn logs(pods: &std::path::Path) -> PathBuf {
        pods.join("logs")
    }

    /// Starts it.
    pub(crate) fn spawn(self, tasks: &mut Tasks) {
        let kubelet = Arc::new(self);
        let seen = Arc::new(Seen::default());
        let synced = Readiness::new();
        let pods = Api::<Pod>::all(kubelet.client.clone());
        let watch = follow(
            pods,
            watcher::Config::default(),
            Pods(Arc::clone(&seen)),
            synced.guard("pods"),
            tasks.stop().clone(),
        );
        tasks.spawn("watch-pods", watch);
        let (group, stop) = (tasks.group(), tasks.stop().clone());
        tasks.spawn("kubelet", async move {
            let mut workers: HashMap<String, watch::Sender<Wish>> = HashMap::new();
            let mut complained = BTreeSet::new();
            loop {
                tokio::select! {
                    () = stop.requested() => break,
                    () = seen.changed.notified() => {}
                }
                let now: HashMap<String, Arc<Pod>> = seen.pods.lock().clone();
                workers.retain(|_, wish| !wish.is_closed());
                complained.retain(|uid| now.contains_key(uid));
                for (uid, wish) in &workers {
                    let wanted = now.get(uid).map_or(Wish::Gone, |pod| Wish::of(pod));
                    wish.send_if_modified(|known| {
                        let changed = *known != wanted;
                        *known = wanted;
                        changed
                    });
                }
                for (uid, pod) in &now {
                    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
                    match node.filter(|node| !node.is_empty()) {
                        None => scheduler::schedule(&kubelet, pod, &now, &mut complained).await,
                        Some(node) => {
                            let Some(network) = kubelet.nodes.get(node) else {
                                continue;
                            };
                            if workers.contains_key(uid) || is_over(pod) {
                                continue;
                            }
                            let (wish, wishes) = watch::channel(Wish::of(pod));
                            workers.insert(uid.clone(), wish);
                            let worker = Worker::new(
                                Arc::clone(&kubelet),
                                Arc::clone(network),
                                Arc::clone(pod),
                                wishes,
                            );
                            group.spawn(worker.run());
                        }
                    }
                }
            }
            // What pods still run ends as if they had been deleted with little patience.
            for wish in workers.values() {
                wish.send_replace(Wish::World);
            }
            for wish in workers.values() {
                wish.closed().await;
            }
        });
    }
}

impl std::fmt::Debug for Kubelet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kubelet")
            .field("pods", &self.pods)
            .finish_non_exhaustive()
    }
}

/// Whether a pod has ended for good.
fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// The pods there are, by uid.
#[derive(Debug, Default)]
struct Seen {
    pods: Mutex<HashMap<String, Arc<Pod>>>,
    changed: Notify,
}

struct Pods(Arc<Seen>);

impl Index<Pod> for Pods {
    fn apply(&mut self, object: Pod) {
        if let Some(uid) = object.metadata.uid.clone() {
            self.0.pods.lock().insert(uid, Arc::new(object));
            self.0.changed.notify_one();
        }
    }

    fn delete(&mut self, object: Pod) {
        if let Some(uid) = &object.metadata.uid {
            self.0.pods.lock().remove(uid);
            self.0.changed.notify_one();
        }
    }

    fn reset(&mut self, objects: Vec<Pod>) {
        let all = objects
            .into_iter()
            .filter_map(|pod| Some((pod.metadata.uid.clone()?, Arc::new(pod))));
        *self.0.pods.lock() = all.collect();
        self.0.changed.notify_one();
    }
}
