//! A cluster with podid's kinds installed and a controller at work.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test helpers")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use podid_api::profile::EntryStatus;
use podid_api::{AzureIdentity, AzureIdentityBinding, AzurePodIdentityException, PodIdentityProfile};
use podid_azure::arm::Arm;
use podid_controller::{App, AppConfig, StartupTaint};
use podid_kube_emulator as kube_emulator;
use podid_rt::stop::Stop;
use podid_rt::tasks::Tasks;
use podid_testkit::eventually;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// The cluster. Dropping it stops everything in it.
pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) identities: Api<AzureIdentity>,
    pub(crate) bindings: Api<AzureIdentityBinding>,
    pub(crate) exceptions: Api<AzurePodIdentityException>,
    pub(crate) profiles: Api<PodIdentityProfile>,
    running: JoinSet<()>,
}

/// ARM id of an identity of that name.
pub(crate) fn id(name: &str) -> String {
    format!(
        "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
    )
}

pub(crate) const CLIENT_ID: &str = "11111111-2222-3333-4444-555555555555";
pub(crate) const OBJECT_ID: &str = "66666666-2222-3333-4444-555555555555";

/// The profile with this spec.
pub(crate) fn profile(spec: Value) -> PodIdentityProfile {
    serde_json::from_value(json!({
        "apiVersion": "podid.dev/v1alpha1", "kind": "PodIdentityProfile",
        "metadata": { "name": "cluster" }, "spec": spec,
    }))
    .unwrap()
}

/// An entry of the profile.
pub(crate) fn entry(namespace: &str, name: &str) -> Value {
    json!({ "name": name, "namespace": namespace, "identity": { "resourceId": id(name), "clientId": CLIENT_ID } })
}

impl World {
    /// A cluster with a controller in it.
    pub(crate) async fn new() -> Self {
        let world = Self::without_controller().await;
        world.start_controller(None).await
    }

    /// A cluster in which podid's kinds are installed.
    pub(crate) async fn without_controller() -> Self {
        let mut tasks = Tasks::new(Stop::new());
        let emulator = kube_emulator::App::bind(kube_emulator::Config::default())
            .unwrap()
            .spawn(&mut tasks);
        let mut running = JoinSet::new();
        running.spawn(async move { tasks.run(Duration::from_secs(1)).await.unwrap() });
        let kubeconfig = Kubeconfig::from_yaml(&emulator.kubeconfig()).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .unwrap();
        let client = Client::try_from(config).unwrap();
        let crds = Api::<CustomResourceDefinition>::all(client.clone());
        for crd in podid_api::crd::all() {
            let crd: CustomResourceDefinition = serde_json::from_value(crd).unwrap();
            crds.create(&PostParams::default(), &crd).await.unwrap();
        }
        Self {
            identities: Api::all(client.clone()),
            bindings: Api::all(client.clone()),
            exceptions: Api::all(client.clone()),
            profiles: Api::all(client.clone()),
            client,
            running,
        }
    }

    /// Starts a controller, which assigns identities by `arm` if there is one, and waits until it is ready.
    pub(crate) async fn start_controller(self, arm: Option<Arm>) -> Self {
        self.start_controller_with(arm, None).await
    }

    /// The same, with a start-up taint to look after.
    pub(crate) async fn start_controller_with(
        mut self,
        arm: Option<Arm>,
        startup: Option<StartupTaint>,
    ) -> Self {
        let app = App::bind(AppConfig {
            client: self.client.clone(),
            arm,
            startup,
            probe_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        })
        .await
        .unwrap();
        let readiness = app.readiness();
        let mut tasks = Tasks::new(Stop::new());
        app.spawn(&mut tasks);
        self.running
            .spawn(async move { tasks.run(Duration::from_secs(1)).await.unwrap() });
        readiness.wait().await;
        self
    }

    /// Writes the profile's spec, whether there is one or not.
    pub(crate) async fn set(&self, spec: Value) {
        let there = self.profiles.get_opt("cluster").await.unwrap();
        let mut new = profile(spec);
        if let Some(there) = there {
            new.metadata.resource_version = there.metadata.resource_version;
            self.profiles
                .replace("cluster", &PostParams::default(), &new)
                .await
                .unwrap();
        } else {
            self.profiles.create(&PostParams::default(), &new).await.unwrap();
        }
    }

    /// Waits until the status is about the profile as it is and `Ready` has this reason.
    pub(crate) async fn ready(&self, reason: &str) -> PodIdentityProfile {
        let what = format!("the profile is {reason}");
        let seen = eventually(&what, || async {
            let profile = self.profiles.get("cluster").await.unwrap();
            let status = profile.status.clone().unwrap_or_default();
            let now = status
                .conditions
                .first()
                .map(|condition| condition.reason.clone());
            if now.as_deref() == Some(reason) && status.observed_generation == profile.metadata.generation {
                Ok(profile)
            } else {
                Err(format!(
                    "{:?} {:?}",
                    status.observed_generation, status.conditions
                ))
            }
        });
        seen.await.unwrap_or_else(|why| panic!("{why}"))
    }

    /// Everything of podid's kinds that is in the cluster, as `Kind namespace/name`, in order.
    pub(crate) async fn objects(&self) -> Vec<String> {
        let list = ListParams::default();
        let mut names = Vec::new();
        let mut add = |kind: &str, metadata: &kube::core::ObjectMeta| {
            let namespace = metadata.namespace.clone().unwrap_or_default();
            names.push(format!(
                "{kind} {namespace}/{}",
                metadata.name.clone().unwrap_or_default()
            ));
        };
        for object in self.identities.list(&list).await.unwrap() {
            add("AzureIdentity", &object.metadata);
        }
        for object in self.bindings.list(&list).await.unwrap() {
            add("AzureIdentityBinding", &object.metadata);
        }
        for object in self.exceptions.list(&list).await.unwrap() {
            add("AzurePodIdentityException", &object.metadata);
        }
        names.sort();
        names
    }

    /// Waits until exactly these objects are there.
    pub(crate) async fn until_objects(&self, expected: &[&str]) {
        let same = eventually("these objects and no others", || async {
            let now = self.objects().await;
            if now == expected { Ok(()) } else { Err(now) }
        });
        same.await.unwrap_or_else(|why| panic!("{why}"));
    }

    /// A client of one namespace for a kind.
    pub(crate) fn within<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Makes a namespace.
    pub(crate) async fn namespace(&self, name: &str) {
        let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
        Api::all(self.client.clone())
            .create(&PostParams::default(), &namespace)
            .await
            .unwrap();
    }

    /// Deletes the profile.
    pub(crate) async fn delete_profile(&self) {
        self.profiles
            .delete("cluster", &DeleteParams::default())
            .await
            .unwrap();
    }
}

/// A merge patch by somebody else.
pub(crate) async fn meddle<K>(api: &Api<K>, name: &str, patch: Value)
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
}

/// State and error code of the entry of that name.
pub(crate) fn state(entries: &[EntryStatus], name: &str) -> (String, Option<String>) {
    let entry = entries
        .iter()
        .find(|entry| entry.name == name)
        .unwrap_or_else(|| panic!("no status of {name} in {entries:?}"));
    let code = entry.error.as_ref().map(|error| error.code.clone());
    (format!("{:?}", entry.provisioning_state), code)
}
