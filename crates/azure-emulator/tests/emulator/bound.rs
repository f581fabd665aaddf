//! A managed cluster with a Kubernetes behind it: what writers of both sides see when they write at once.

use std::collections::BTreeSet;

use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use podid_azure_emulator::Config;
use podid_kube_emulator::{App, Config as KubeConfig};
use podid_rt::stop::Stop;
use podid_rt::tasks::Tasks;
use podid_testkit::eventually;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Azure, CLUSTER, Reply, cluster};

/// Azure, a Kubernetes, and a managed cluster that is it.
struct Bound {
    azure: Azure,
    profiles: Api<DynamicObject>,
    _tasks: Tasks,
    _folder: TempDir,
}

fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

impl Bound {
    async fn new() -> Self {
        let mut tasks = Tasks::new(Stop::new());
        let emulator = App::bind(KubeConfig::default()).unwrap().spawn(&mut tasks);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        std::fs::write(&path, emulator.kubeconfig().as_bytes()).unwrap();
        let kubeconfig = Kubeconfig::from_yaml(&emulator.kubeconfig()).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .unwrap();
        let client = kube::Client::try_from(config).unwrap();
        let crds = resource(
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
            "customresourcedefinitions",
        );
        let crds: Api<DynamicObject> = Api::all_with(client.clone(), &crds);
        for crd in podid_api::crd::all() {
            let crd = serde_json::from_value(crd).unwrap();
            crds.create(&PostParams::default(), &crd).await.unwrap();
        }
        let azure = Azure::start(Config {
            kubeconfig: Some(path),
            ..Config::default()
        })
        .await;
        azure.group("g").await;
        azure
            .put(CLUSTER, cluster(Some("azure"), json!({ "enabled": true })))
            .await
            .expect(201);
        let profile = resource(
            "podid.dev",
            "v1alpha1",
            "PodIdentityProfile",
            "podidentityprofiles",
        );
        let bound = Self {
            azure,
            profiles: Api::all_with(client, &profile),
            _tasks: tasks,
            _folder: folder,
        };
        bound.in_cluster(&[]).await;
        bound
    }

    async fn entry(&self, name: &str) -> Value {
        let identity = self.azure.identity("g", &format!("identity-{name}")).await;
        json!({ "name": name, "namespace": "my-app", "identity": { "resourceId": identity["id"] } })
    }

    /// The write of a client that read `read` and adds one entry.
    async fn write(&self, read: &Value, entry: Value) -> Reply {
        let mut body = read.clone();
        body["properties"]["podIdentityProfile"]["userAssignedIdentities"] = json!([entry]);
        self.azure.put(CLUSTER, body).await
    }

    async fn in_arm(&self) -> BTreeSet<String> {
        let found = self.azure.get(CLUSTER).await.expect(200);
        names(&found["properties"]["podIdentityProfile"])
    }

    /// Waits until the cluster has exactly these.
    async fn in_cluster(&self, wanted: &[&str]) {
        let wanted: BTreeSet<String> = wanted.iter().map(|&name| name.to_owned()).collect();
        eventually("the cluster has what was written", || async {
            let found = self.profiles.get_opt("cluster").await.unwrap();
            let spec = found.map_or(Value::Null, |found| found.data["spec"].clone());
            if spec["enabled"] == json!(true) && names(&spec) == wanted {
                Ok(())
            } else {
                Err(spec)
            }
        })
        .await
        .unwrap();
    }
}

fn names(profile: &Value) -> BTreeSet<String> {
    let entries = profile["userAssignedIdentities"].as_array();
    let names = entries
        .into_iter()
        .flatten()
        .map(|entry| entry["name"].as_str().unwrap());
    names.map(str::to_owned).collect()
}

#[tokio::test]
async fn of_two_who_read_the_same_the_last_writer_wins_and_the_clusters_own_entries_stay() {
    let bound = Bound::new().await;
    let theirs = bound.entry("theirs").await;
    bound
        .profiles
        .patch(
            "cluster",
            &PatchParams::default(),
            &Patch::Merge(json!({ "spec": { "userAssignedIdentities": [theirs] } })),
        )
        .await
        .unwrap();
    let read = bound.azure.get(CLUSTER).await.expect(200);
    bound.write(&read, bound.entry("first").await).await.expect(200);
    bound.in_cluster(&["first", "theirs"]).await;
    bound.write(&read, bound.entry("last").await).await.expect(200);
    assert_eq!(bound.in_arm().await, BTreeSet::from(["last".to_owned()]));
    bound.in_cluster(&["last", "theirs"]).await;
}

#[tokio::test]
async fn many_writers_at_once_leave_one_whole_profile_and_the_cluster_follows_it() {
    let bound = Bound::new().await;
    let read = bound.azure.get(CLUSTER).await.expect(200);
    let mut entries = Vec::new();
    for number in 0..8 {
        entries.push(bound.entry(&format!("writer-{number}")).await);
    }
    let writes = entries.into_iter().map(|entry| bound.write(&read, entry));
    for reply in futures::future::join_all(writes).await {
        reply.expect(200);
    }
    let left = bound.in_arm().await;
    let left: Vec<&str> = left.iter().map(String::as_str).collect();
    assert_eq!(left.len(), 1, "{left:?}");
    bound.in_cluster(&left).await;
}

#[tokio::test]
async fn deleting_the_managed_cluster_takes_the_profile_out_of_the_cluster() {
    let bound = Bound::new().await;
    bound.azure.delete(CLUSTER).await.expect(202);
    eventually("the profile is gone", || async {
        match bound.profiles.get_opt("cluster").await.unwrap() {
            None => Ok(()),
            Some(there) => Err(there.data),
        }
    })
    .await
    .unwrap();
}
