//! A Kubernetes of a chosen size, filled through its API: an emulated one in this process, or a real one by its
//! kubeconfig. Pods are addresses of the loopback interface, 127.1.0.1 and so on, unless they are given others.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::ApiResource;
use podid_api::{AzureIdentity, AzureIdentityBinding};
use podid_kube_emulator::{App, Config};
use podid_rt::stop::Stop;
use podid_rt::tasks::Tasks;
use serde_json::{Value, json};

/// The node whose pods are looked at, the first one.
pub(crate) const NODE: &str = "node-0";
/// Requests to the API server at a time while it is filled.
const AT_A_TIME: usize = 32;

/// A running API server.
pub(crate) struct Cluster {
    pub(crate) client: kube::Client,
    /// A kubeconfig of an administrator.
    pub(crate) kubeconfig: String,
    /// Whether this is one that has admission: pods need an account.
    real: bool,
    _tasks: Tasks,
}

/// What is put there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) namespaces: usize,
    /// Nodes; ours is the first, and the pods are spread evenly.
    pub(crate) nodes: usize,
    /// Pods, in all.
    pub(crate) pods: usize,
    /// Bindings in all, each with an identity of its own. The first ones bind the pods, one each.
    pub(crate) bindings: usize,
}

/// The namespace of pod or binding `n`.
pub(crate) fn namespace(size: Size, n: usize) -> String {
    format!("team-{}", n % size.namespaces)
}

/// The name of node `n`.
fn node(n: usize) -> String {
    format!("node-{n}")
}

/// The client id of identity `n`.
pub(crate) fn client_id(n: usize) -> String {
    format!("{n:08x}-0000-4000-8000-000000000000")
}

/// The address of pod `n`.
pub(crate) fn address(n: usize) -> IpAddr {
    let [.., high, low] = u32::try_from(n + 1).unwrap_or_default().to_be_bytes();
    Ipv4Addr::new(127, 1, high, low).into()
}

impl Cluster {
    /// With our CRDs and everything that `size` says: pod `n` has selector `app-n`, bound to identity `id-n`.
    pub(crate) async fn start(size: Size) -> anyhow::Result<Self> {
        let mut tasks = Tasks::new(Stop::new());
        let emulator = App::bind(Config::default())?.spawn(&mut tasks);
        let kubeconfig = emulator.kubeconfig().to_string();
        Self::filled(kubeconfig, false, tasks, size).await
    }

    /// The same on an empty cluster that runs already.
    pub(crate) async fn real(kubeconfig: String, size: Size) -> anyhow::Result<Self> {
        Self::filled(kubeconfig, true, Tasks::new(Stop::new()), size).await
    }

    async fn filled(kubeconfig: String, real: bool, tasks: Tasks, size: Size) -> anyhow::Result<Self> {
        let config = kube::Config::from_custom_kubeconfig(
            Kubeconfig::from_yaml(&kubeconfig)?,
            &KubeConfigOptions::default(),
        )
        .await?;
        let cluster = Self {
            client: kube::Client::try_from(config)?,
            kubeconfig,
            real,
            _tasks: tasks,
        };
        cluster.fill(size).await.context("fill the cluster")?;
        Ok(cluster)
    }

    async fn fill(&self, size: Size) -> anyhow::Result<()> {
        let kind = ApiResource {
            group: "apiextensions.k8s.io".to_owned(),
            version: "v1".to_owned(),
            api_version: "apiextensions.k8s.io/v1".to_owned(),
            kind: "CustomResourceDefinition".to_owned(),
            plural: "customresourcedefinitions".to_owned(),
        };
        let crds: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind);
        for crd in podid_api::crd::all() {
            let made = crds
                .create(&PostParams::default(), &serde_json::from_value(crd)?)
                .await?;
            let name = made.metadata.name.unwrap_or_default();
            kube::runtime::wait::await_condition(crds.clone(), &name, established).await?;
        }
        for n in 0..size.nodes {
            let object: Node = serde_json::from_value(json!({ "metadata": { "name": node(n) } }))?;
            Api::all(self.client.clone())
                .create(&PostParams::default(), &object)
                .await?;
        }
        for n in 0..size.namespaces {
            let object: Namespace =
                serde_json::from_value(json!({ "metadata": { "name": namespace(size, n) } }))?;
            Api::all(self.client.clone())
                .create(&PostParams::default(), &object)
                .await?;
            if self.real {
                // Nobody else makes it where no controllers run.
                let account: ServiceAccount =
                    serde_json::from_value(json!({ "metadata": { "name": "default" } }))?;
                Api::<ServiceAccount>::namespaced(self.client.clone(), &namespace(size, n))
                    .create(&PostParams::default(), &account)
                    .await?;
            }
        }
        let bound = (0..size.bindings).map(|n| async move {
            let namespace = namespace(size, n);
            self.identity(&namespace, &format!("id-{n}"), &client_id(n))
                .await?;
            self.bind(
                &namespace,
                &format!("binding-{n}"),
                &format!("app-{n}"),
                &format!("id-{n}"),
            )
            .await
        });
        all(bound).await?;
        let each = size.pods.div_ceil(size.nodes.max(1));
        let pods = (0..size.pods).map(|n| async move {
            let labels = json!({ "aadpodidbinding": format!("app-{}", n % size.bindings.max(1)) });
            let at = (node(n / each), address(n));
            self.pod_at(at, &namespace(size, n), &format!("pod-{n}"), labels)
                .await
                .map(drop)
        });
        all(pods).await
    }

    /// A running pod of our node; its uid.
    pub(crate) async fn pod(
        &self,
        namespace: &str,
        name: &str,
        address: IpAddr,
        labels: Value,
    ) -> anyhow::Result<String> {
        self.pod_at((NODE.to_owned(), address), namespace, name, labels)
            .await
    }

    /// A running pod of a node, at an address; its uid.
    async fn pod_at(
        &self,
        (node, address): (String, IpAddr),
        namespace: &str,
        name: &str,
        labels: Value,
    ) -> anyhow::Result<String> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        // As large as pods are: what the agent does not need must not stay with it.
        let container = |n: usize| {
            json!({
                "name": format!("container-{n}"), "image": "registry.example/team/service:1.2.3",
                "env": (0..12).map(|n| json!({ "name": format!("VARIABLE_{n}"), "value": "x".repeat(40) })).collect::<Vec<_>>(),
                "resources": { "requests": { "cpu": "100m", "memory": "128Mi" }, "limits": { "memory": "256Mi" } },
            })
        };
        let object = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": labels, "annotations": { "note": "x".repeat(300) } },
            "spec": { "nodeName": node, "automountServiceAccountToken": false, "containers": [container(0), container(1)] },
        }))?;
        let made = pods.create(&PostParams::default(), &object).await?;
        let status = json!({ "status": {
            "phase": "Running", "podIP": address.to_string(), "podIPs": [{ "ip": address.to_string() }],
        } });
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
            .await?;
        made.metadata.uid.context("a pod that was made has a uid")
    }

    /// An AzureIdentity.
    pub(crate) async fn identity(&self, namespace: &str, name: &str, client_id: &str) -> anyhow::Result<()> {
        let object: AzureIdentity = serde_json::from_value(json!({
            "apiVersion": "aadpodidentity.k8s.io/v1", "kind": "AzureIdentity",
            "metadata": { "name": name }, "spec": { "type": 0, "clientID": client_id },
        }))?;
        Api::<AzureIdentity>::namespaced(self.client.clone(), namespace)
            .create(&PostParams::default(), &object)
            .await?;
        Ok(())
    }

    /// An AzureIdentityBinding.
    pub(crate) async fn bind(
        &self,
        namespace: &str,
        name: &str,
        selector: &str,
        identity: &str,
    ) -> anyhow::Result<()> {
        let object: AzureIdentityBinding = serde_json::from_value(json!({
            "apiVersion": "aadpodidentity.k8s.io/v1", "kind": "AzureIdentityBinding",
            "metadata": { "name": name }, "spec": { "azureIdentity": identity, "selector": selector },
        }))?;
        Api::<AzureIdentityBinding>::namespaced(self.client.clone(), namespace)
            .create(&PostParams::default(), &object)
            .await?;
        Ok(())
    }

    /// Removes an AzureIdentityBinding.
    pub(crate) async fn unbind(&self, namespace: &str, name: &str) -> anyhow::Result<()> {
        Api::<AzureIdentityBinding>::namespaced(self.client.clone(), namespace)
            .delete(name, &DeleteParams::default())
            .await?;
        Ok(())
    }
}

/// Whether a definition is served.
fn established(crd: Option<&DynamicObject>) -> bool {
    let conditions = crd.and_then(|crd| crd.data.pointer("/status/conditions")?.as_array());
    conditions.is_some_and(|all| {
        all.iter()
            .any(|one| one["type"] == "Established" && one["status"] == "True")
    })
}

async fn all(work: impl Iterator<Item = impl Future<Output = anyhow::Result<()>>>) -> anyhow::Result<()> {
    futures::stream::iter(work)
        .buffer_unordered(AT_A_TIME)
        .try_collect::<()>()
        .await
}
