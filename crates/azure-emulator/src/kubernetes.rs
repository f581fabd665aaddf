//! Managed clusters that are real: the pod identity profile goes to the cluster's `PodIdentityProfile` and its status
//! comes back; kubeconfigs for `get-credentials`; the keys of the cluster's service accounts. The only file that talks
//! to Kubernetes, and it shares no type with the controller.
//!
//! world changes ─▶ follow ─▶ one worker a cluster ─▶ write the profile ─▶ watch it ─▶ progress in the world

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use kube::api::{Api, DeleteParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use podid_rt::stop::Stop;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cloud::{Cloud, SharedCloud};
use crate::world::cluster::{Cluster, EXCEPTIONS, EntryProgress, IDENTITIES, Kubernetes, place};

/// The one object. Source: design section 7.
const NAME: &str = "cluster";
/// Pause after a failed write; grows to the second one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Tries of a write that others' writes overtake.
const CONFLICT_TRIES: usize = 8;
/// For one look at a cluster's keys.
const KEYS_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a cluster cannot be talked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KubernetesError {
    #[error("the kubeconfig {} cannot be used: {source}", .path.display())]
    Kubeconfig {
        path: PathBuf,
        #[source]
        source: kube::config::KubeconfigError,
    },
    #[error("{0}")]
    Api(#[from] kube::Error),
    #[error("the file {} cannot be read: {source}", .path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the kubeconfig has no context")]
    NoContext,
    #[error("the kubeconfig cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("others change the profile all the time")]
    Conflict,
}

/// The kubeconfig of a managed cluster, if it has a Kubernetes.
pub(crate) fn kubeconfig_of(cloud: &Cloud, cluster: &Cluster) -> Option<PathBuf> {
    match cluster.kubernetes.as_ref()? {
        Kubernetes::Default => cloud.settings.kubeconfig.clone(),
        Kubernetes::Own(path) => Some(path.clone()),
    }
}

/// What people get of it, who may reach it by another address than this program does.
pub(crate) fn user_kubeconfig_of(cloud: &Cloud, cluster: &Cluster) -> Option<PathBuf> {
    let own = kubeconfig_of(cloud, cluster)?;
    match cluster.kubernetes.as_ref()? {
        Kubernetes::Default => Some(cloud.settings.user_kubeconfig.clone().unwrap_or(own)),
        Kubernetes::Own(_) => Some(own),
    }
}

// === credentials ===

/// What `az aks get-credentials` calls things.
pub(crate) struct Names {
    pub(crate) cluster: String,
    pub(crate) context: String,
    pub(crate) user: String,
}

impl Names {
    /// A kubeconfig for a cluster that nobody serves.
    pub(crate) fn unbound(&self, fqdn: &str) -> String {
        self.config(
            json!({ "server": format!("https://{fqdn}:443") }),
            json!({ "token": "no-kubernetes-behind-this-cluster" }),
            None,
        )
    }

    /// JSON, which is YAML as well.
    fn config(&self, cluster: Value, user: Value, namespace: Option<String>) -> String {
        let mut context = json!({ "cluster": self.cluster, "user": self.user });
        if let (Some(namespace), Some(context)) = (namespace, context.as_object_mut()) {
            context.insert("namespace".to_owned(), json!(namespace));
        }
        json!({
            "apiVersion": "v1", "kind": "Config", "preferences": {}, "current-context": self.context,
            "clusters": [{ "name": self.cluster, "cluster": cluster }],
            "contexts": [{ "name": self.context, "context": context }],
            "users": [{ "name": self.user, "user": user }],
        })
        .to_string()
    }
}

/// The current context of a kubeconfig under AKS's names, with files put inside.
pub(crate) async fn credentials(path: &Path, names: &Names) -> Result<String, KubernetesError> {
    let config = read(path).await?;
    let current = config.current_context.as_deref();
    let context = config
        .contexts
        .iter()
        .find(|context| current.is_none_or(|current| context.name == current));
    let context = context
        .and_then(|named| named.context.clone())
        .ok_or(KubernetesError::NoContext)?;
    let cluster = config
        .clusters
        .iter()
        .find(|cluster| cluster.name == context.cluster)
        .and_then(|named| named.cluster.clone());
    let user = config
        .auth_infos
        .iter()
        .find(|user| context.user.as_ref() == Some(&user.name))
        .and_then(|named| named.auth_info.clone());
    let mut cluster = serde_json::to_value(cluster.ok_or(KubernetesError::NoContext)?)?;
    let mut user = serde_json::to_value(user.unwrap_or_default())?;
    for (value, members) in [
        (&mut cluster, &["certificate-authority"][..]),
        (&mut user, &["client-certificate", "client-key"][..]),
    ] {
        if let Some(value) = value.as_object_mut() {
            value.retain(|_, member| !member.is_null());
            inline(value, members).await?;
        }
    }
    Ok(names.config(cluster, user, context.namespace))
}

async fn inline(value: &mut Map<String, Value>, members: &[&str]) -> Result<(), KubernetesError> {
    use base64::Engine as _;
    for member in members {
        if let Some(Value::String(path)) = value.remove(*member) {
            let path = PathBuf::from(path);
            let bytes = tokio::fs::read(&path)
                .await
                .map_err(|source| KubernetesError::File { path, source })?;
            value.insert(
                format!("{member}-data"),
                json!(base64::engine::general_purpose::STANDARD.encode(bytes)),
            );
        }
    }
    Ok(())
}

async fn read(path: &Path) -> Result<Kubeconfig, KubernetesError> {
    let owned = path.to_owned();
    let read = tokio::task::spawn_blocking(move || Kubeconfig::read_from(owned)).await;
    let failed = |source| KubernetesError::Kubeconfig {
        path: path.to_owned(),
        source,
    };
    match read {
        Ok(read) => read.map_err(failed),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

async fn client(path: &Path) -> Result<kube::Client, KubernetesError> {
    let file = read(path).await?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .map_err(|source| KubernetesError::Kubeconfig {
            path: path.to_owned(),
            source,
        })?;
    Ok(podid_rt::cluster::client_of(config)?)
}

// === keys ===

/// The published keys of an issuer that is one of the bound clusters.
pub(crate) async fn published_keys(cloud: &Cloud, issuer: &str) -> Option<Value> {
    let own = cloud.settings.kubeconfigs.values();
    for path in cloud.settings.kubeconfig.iter().chain(own) {
        match tokio::time::timeout(KEYS_TIMEOUT, keys_of(path, issuer)).await {
            Ok(Ok(Some(keys))) => return Some(keys),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, kubeconfig = %path.display(), "the cluster's keys cannot be read");
            }
            Err(_) => {
                tracing::warn!(kubeconfig = %path.display(), "the cluster does not say its keys in time");
            }
        }
    }
    None
}

async fn keys_of(path: &Path, issuer: &str) -> Result<Option<Value>, KubernetesError> {
    let client = client(path).await?;
    let get = |path: &str| {
        http::Request::get(path)
            .body(Vec::new())
            .map_err(kube::Error::HttpError)
    };
    let document: Value = client.request(get("/.well-known/openid-configuration")?).await?;
    if document.get("issuer").and_then(Value::as_str) != Some(issuer) {
        return Ok(None);
    }
    Ok(Some(client.request(get("/openid/v1/jwks")?).await?))
}

// === profile ===

/// What a worker is to bring about.
#[derive(Clone, Debug, PartialEq)]
enum Wanted {
    /// This profile, of that version.
    Profile { version: u64, spec: Map<String, Value> },
    /// The managed cluster is deleted.
    Gone,
}

/// Keeps the clusters' profiles in step with ARM until told to stop.
pub(crate) async fn follow(cloud: SharedCloud, stop: Stop) {
    let mut revisions = cloud.revisions();
    let mut workers: HashMap<String, watch::Sender<Wanted>> = HashMap::new();
    let mut running: JoinSet<String> = JoinSet::new();
    loop {
        let wanted = cloud.read(|world| {
            let bound = world.clusters_within("").filter_map(|cluster| {
                let path = kubeconfig_of(&cloud, cluster)?;
                Some((
                    crate::path::key(&cluster.id),
                    path,
                    Wanted::Profile {
                        version: cluster.profile_version,
                        spec: spec(cluster)?,
                    },
                ))
            });
            bound.collect::<Vec<_>>()
        });
        workers.retain(|key, worker| {
            let there = wanted.iter().any(|(wanted, ..)| wanted == key);
            if !there {
                worker.send_replace(Wanted::Gone);
            }
            there
        });
        for (key, path, target) in wanted {
            if let Some(worker) = workers.get(&key) {
                worker.send_if_modified(|now| {
                    let new = *now != target;
                    *now = target;
                    new
                });
            } else {
                let (sender, receiver) = watch::channel(target);
                workers.insert(key.clone(), sender);
                running.spawn(
                    Worker {
                        cloud: cloud.clone(),
                        key,
                        path,
                        client: None,
                        events: None,
                    }
                    .run(receiver, stop.clone()),
                );
            }
        }
        tokio::select! {
            () = stop.requested() => return,
            changed = revisions.changed() => if changed.is_err() { return },
            Some(ended) = running.join_next() => match ended {
                Ok(key) => tracing::debug!(%key, "the managed cluster's profile is taken away"),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
        }
    }
}

/// The spec of the `PodIdentityProfile`; none while pod identity was never asked for.
fn spec(cluster: &Cluster) -> Option<Map<String, Value>> {
    let mut spec = cluster.profile()?.clone();
    if let Some(plugin) = cluster
        .properties
        .get("networkProfile")
        .and_then(|network| network.get("networkPlugin"))
    {
        spec.insert("networkPlugin".to_owned(), plugin.clone());
    }
    Some(spec)
}

struct Worker {
    cloud: SharedCloud,
    key: String,
    path: PathBuf,
    client: Option<kube::Client>,
    events: Option<BoxStream<'static, Result<Event<DynamicObject>, watcher::Error>>>,
}

impl Worker {
    /// Gives its key when there is nothing left to do.
    async fn run(mut self, mut wanted: watch::Receiver<Wanted>, stop: Stop) -> String {
        let mut pause = FIRST_PAUSE;
        loop {
            let target = wanted.borrow_and_update().clone();
            let done = match &target {
                Wanted::Profile { version, spec } => self.bring(*version, spec).await,
                Wanted::Gone => match self.remove().await {
                    Ok(()) => return self.key,
                    Err(error) => Err(error),
                },
            };
            let generation = match done {
                Ok(generation) => {
                    pause = FIRST_PAUSE;
                    generation
                }
                Err(error) => {
                    tracing::warn!(%error, cluster = %self.key, "the pod identity profile cannot be written, retrying");
                    self.client = None;
                    self.events = None;
                    self.trouble(Some(error.to_string()));
                    tokio::select! {
                        () = stop.requested() => return self.key,
                        () = tokio::time::sleep(pause) => {}
                        _ = wanted.changed() => {}
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    continue;
                }
            };
            let Wanted::Profile { version, .. } = target else {
                continue;
            };
            while let Some(events) = self.events.as_mut() {
                tokio::select! {
                    () = stop.requested() => return self.key,
                    changed = wanted.changed() => {
                        if changed.is_err() {
                            return self.key;
                        }
                        break;
                    }
                    event = events.next() => match event {
                        Some(Ok(Event::Apply(object) | Event::InitApply(object))) => self.report(version, generation, &object),
                        Some(Ok(Event::Delete(_))) => break,
                        Some(Ok(Event::Init | Event::InitDone)) => {}
                        Some(Err(error)) => tracing::debug!(%error, cluster = %self.key, "the watch was interrupted, retrying"),
                        None => self.events = None,
                    }
                }
            }
        }
    }

    async fn connect(&mut self) -> Result<Api<DynamicObject>, KubernetesError> {
        let client = match &self.client {
            Some(client) => client.clone(),
            None => client(&self.path).await?,
        };
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource());
        if self.events.is_none() {
            let config = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
            self.events = Some(watcher::watcher(api.clone(), config).default_backoff().boxed());
        }
        self.client = Some(client);
        Ok(api)
    }

    /// Writes the profile; gives the generation that has it. Entries of others stay.
    async fn bring(&mut self, version: u64, spec: &Map<String, Value>) -> Result<i64, KubernetesError> {
        let api = self.connect().await?;
        let (identities, exceptions) = self.written();
        for _try in 0..CONFLICT_TRIES {
            let result = match api.get_opt(NAME).await? {
                None => {
                    let mut object: DynamicObject = DynamicObject::new(NAME, &resource());
                    object.data = json!({ "spec": spec });
                    api.create(&PostParams::default(), &object).await
                }
                Some(mut object) => {
                    let before = object
                        .data
                        .get("spec")
                        .and_then(Value::as_object)
                        .cloned()
                        .unwrap_or_default();
                    let merged = merged(&before, spec, &identities, &exceptions);
                    if before == merged {
                        Ok(object)
                    } else if let Some(data) = object.data.as_object_mut() {
                        data.insert("spec".to_owned(), Value::Object(merged));
                        api.replace(NAME, &PostParams::default(), &object).await
                    } else {
                        Ok(object)
                    }
                }
            };
            match result {
                Ok(object) => {
                    self.wrote(spec);
                    let generation = object.metadata.generation.unwrap_or_default();
                    // It may be so already, and then no event comes.
                    self.report(version, generation, &object);
                    return Ok(generation);
                }
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(KubernetesError::Conflict)
    }

    async fn remove(&mut self) -> Result<(), KubernetesError> {
        let api = self.connect().await?;
        match api.delete(NAME, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn written(&self) -> (Places, Places) {
        self.cloud.read(|world| {
            world.cluster(&self.key).map_or_else(Default::default, |cluster| {
                (
                    cluster.progress.identities_written.clone(),
                    cluster.progress.exceptions_written.clone(),
                )
            })
        })
    }

    fn wrote(&self, spec: &Map<String, Value>) {
        let places = |list: &str| entries(spec, list).iter().map(owned_place).collect::<Places>();
        self.change(|progress| {
            progress.identities_written = places(IDENTITIES);
            progress.exceptions_written = places(EXCEPTIONS);
            progress.trouble = None;
        });
    }

    fn trouble(&self, text: Option<String>) {
        self.change(|progress| progress.trouble = text);
    }

    /// Takes over what the cluster says, once it says it of what we wrote.
    fn report(&self, version: u64, generation: i64, object: &DynamicObject) {
        let Some(status) = object.data.get("status") else {
            return;
        };
        let observed = status
            .get("observedGeneration")
            .and_then(Value::as_i64)
            .unwrap_or_default();
        if observed < generation {
            return;
        }
        let text =
            |entry: &Value, pointer: &str| entry.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let entries: Vec<EntryProgress> = status
            .get(IDENTITIES)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|entry| {
                let (namespace, name) = owned_place(entry);
                EntryProgress {
                    namespace,
                    name,
                    state: text(entry, "/provisioningState").unwrap_or_else(|| "Updating".to_owned()),
                    error: text(entry, "/error/code").zip(text(entry, "/error/message")),
                }
            })
            .collect();
        self.change(|progress| {
            progress.version = progress.version.max(version);
            progress.entries = entries;
        });
    }

    fn change(&self, edit: impl FnOnce(&mut crate::world::cluster::Progress)) {
        self.cloud.write(|world| {
            let Some(now) = world.cluster(&self.key).map(|cluster| cluster.progress.clone()) else {
                return;
            };
            let mut next = now.clone();
            edit(&mut next);
            if now != next
                && let Some(cluster) = world.cluster_mut(&self.key)
            {
                cluster.progress = next;
            }
        });
    }
}

type Places = Vec<(String, String)>;

fn resource() -> ApiResource {
    let kind = GroupVersionKind::gvk("podid.dev", "v1alpha1", "PodIdentityProfile");
    ApiResource::from_gvk_with_plural(&kind, "podidentityprofiles")
}

fn owned_place(entry: &Value) -> (String, String) {
    let (namespace, name) = place(entry);
    (namespace.to_owned(), name.to_owned())
}

fn entries<'a>(spec: &'a Map<String, Value>, list: &str) -> &'a [Value] {
    spec.get(list)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// ARM's profile, with the entries of others, which are those that ARM did not write before and does not write now.
fn merged(
    before: &Map<String, Value>,
    spec: &Map<String, Value>,
    identities: &Places,
    exceptions: &Places,
) -> Map<String, Value> {
    let mut merged = spec.clone();
    for (list, ours) in [(IDENTITIES, identities), (EXCEPTIONS, exceptions)] {
        let now: Places = entries(spec, list).iter().map(owned_place).collect();
        let others = entries(before, list).iter().filter(|entry| {
            let at = owned_place(entry);
            !ours.contains(&at) && !now.contains(&at)
        });
        let all: Vec<Value> = entries(spec, list).iter().chain(others).cloned().collect();
        if all.is_empty() {
            merged.remove(list);
        } else {
            merged.insert(list.to_owned(), Value::Array(all));
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn entries_of_others_stay_and_ours_follow_arm() {
        let entry = |name: &str| json!({ "namespace": "n", "name": name });
        let before = object(
            json!({ "enabled": true, IDENTITIES: [entry("ours-old"), entry("ours"), entry("theirs")] }),
        );
        let spec = object(json!({ "enabled": true, IDENTITIES: [entry("ours"), entry("new")] }));
        let ours = vec![
            ("n".to_owned(), "ours-old".to_owned()),
            ("n".to_owned(), "ours".to_owned()),
        ];
        let merged = merged(&before, &spec, &ours, &Vec::new());
        let names: Vec<_> = entries(&merged, IDENTITIES)
            .iter()
            .map(|entry| place(entry).1)
            .collect();
        assert_eq!(names, ["ours", "new", "theirs"]);
        assert!(!merged.contains_key(EXCEPTIONS));
    }
}
