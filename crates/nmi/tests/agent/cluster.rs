//! An emulated Kubernetes with our kinds, and what the tests put there.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Event, Namespace, Pod, Secret, ServiceAccount};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::ApiResource;
use podid_api::{AzureAssignedIdentity, AzureIdentity, AzureIdentityBinding, AzurePodIdentityException};
use podid_rt::stop::Stop;
use podid_rt::tasks::Tasks;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::imds::detach;

pub(crate) const NODE: &str = "n1";
pub(crate) const ONE: &str = "11111111-1111-4111-8111-111111111111";
pub(crate) const TWO: &str = "22222222-2222-4222-8222-222222222222";

/// A running API server.
pub(crate) struct Cluster {
    pub(crate) client: kube::Client,
    stop: Stop,
}

impl Cluster {
    /// With our CRDs and the namespaces `shop` and `bank`.
    pub(crate) async fn start() -> Self {
        let stop = Stop::new();
        let mut tasks = Tasks::new(stop.clone());
        let emulator = podid_kube_emulator::App::bind(podid_kube_emulator::Config::default())
            .unwrap()
            .spawn(&mut tasks);
        let kubeconfig = Kubeconfig::from_yaml(&emulator.kubeconfig()).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .unwrap();
        let client = kube::Client::try_from(config).unwrap();
        detach(tasks);
        let crds = ApiResource {
            group: "apiextensions.k8s.io".to_owned(),
            version: "v1".to_owned(),
            api_version: "apiextensions.k8s.io/v1".to_owned(),
            kind: "CustomResourceDefinition".to_owned(),
            plural: "customresourcedefinitions".to_owned(),
        };
        let crds: Api<DynamicObject> = Api::all_with(client.clone(), &crds);
        for crd in podid_api::crd::all() {
            let crd: DynamicObject = serde_json::from_value(crd).unwrap();
            crds.create(&PostParams::default(), &crd).await.unwrap();
        }
        let cluster = Self { client, stop };
        for name in ["shop", "bank"] {
            let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
            let namespace = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
            namespaces
                .create(&PostParams::default(), &namespace)
                .await
                .unwrap();
        }
        cluster
    }

    /// The API server is gone from now on.
    pub(crate) fn stop(&self) {
        self.stop.force();
    }

    /// A running pod of our node with this address, on it or on another node.
    pub(crate) async fn pod(&self, namespace: &str, name: &str, address: &str, labels: Value) {
        self.pod_on(NODE, namespace, name, address, labels).await;
    }

    pub(crate) async fn pod_on(&self, node: &str, namespace: &str, name: &str, address: &str, labels: Value) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let pod = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": labels },
            "spec": { "nodeName": node, "containers": [{ "name": "c", "image": "i" }] },
        }));
        pods.create(&PostParams::default(), &pod.unwrap()).await.unwrap();
        let status =
            json!({ "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }] } });
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
            .await
            .unwrap();
    }

    /// A pod of our node on the node's network, of a service account; its uid.
    pub(crate) async fn host_pod(&self, namespace: &str, name: &str, service_account: &str) -> String {
        if service_account != "default" {
            let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
            let account = serde_json::from_value(json!({ "metadata": { "name": service_account } }));
            accounts
                .create(&PostParams::default(), &account.unwrap())
                .await
                .unwrap();
        }
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let pod = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": {
                "nodeName": NODE, "hostNetwork": true, "serviceAccountName": service_account,
                "containers": [{ "name": "c", "image": "i" }],
            },
        }));
        let made = pods.create(&PostParams::default(), &pod.unwrap()).await.unwrap();
        let status = json!({ "status": { "phase": "Running", "podIP": "127.0.0.1" } });
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
            .await
            .unwrap();
        made.metadata.uid.unwrap()
    }

    /// A pod of our node with these finalizers and this status.
    pub(crate) async fn pod_with(&self, name: &str, label: &str, finalizers: Value, status: Value) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), "shop");
        let pod = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { "aadpodidbinding": label }, "finalizers": finalizers },
            "spec": { "nodeName": NODE, "containers": [{ "name": "c", "image": "i" }] },
        }));
        pods.create(&PostParams::default(), &pod.unwrap()).await.unwrap();
        pods.patch_status(
            name,
            &PatchParams::default(),
            &Patch::Merge(&json!({ "status": status })),
        )
        .await
        .unwrap();
    }

    /// An AzureAssignedIdentity for a pod of `shop`, as the original's controller writes them.
    pub(crate) async fn assigned(&self, pod: &str, node: &str, identity: Value, state: &str) {
        let object = json!({
            "apiVersion": "aadpodidentity.k8s.io/v1", "kind": "AzureAssignedIdentity",
            "metadata": {
                "name": format!("{pod}-shop-{}", identity["metadata"]["name"].as_str().unwrap()),
                "namespace": "default", "labels": { "nodename": node },
            },
            "spec": { "azureIdentityRef": identity, "pod": pod, "podNamespace": "shop", "nodename": node },
            "status": { "status": state },
        });
        let object: AzureAssignedIdentity = serde_json::from_value(object).unwrap();
        let name = object.metadata.name.clone().unwrap();
        let api: Api<AzureAssignedIdentity> = Api::namespaced(self.client.clone(), "default");
        if api.get_opt(&name).await.unwrap().is_none() {
            api.create(&PostParams::default(), &object).await.unwrap();
        } else {
            let changed = json!({ "status": { "status": state } });
            api.patch(&name, &PatchParams::default(), &Patch::Merge(&changed))
                .await
                .unwrap();
        }
    }

    /// The assignment is gone.
    pub(crate) async fn unassign(&self, pod: &str, identity: &str) {
        let api: Api<AzureAssignedIdentity> = Api::namespaced(self.client.clone(), "default");
        let name = format!("{pod}-shop-{identity}");
        api.delete(&name, &DeleteParams::default()).await.unwrap();
    }

    /// A pod that is about to start: it has no address yet.
    pub(crate) async fn starting_pod(&self, namespace: &str, name: &str, labels: Value) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let pod = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": labels },
            "spec": { "nodeName": NODE, "containers": [{ "name": "c", "image": "i" }] },
        }));
        pods.create(&PostParams::default(), &pod.unwrap()).await.unwrap();
    }

    pub(crate) async fn delete_pod(&self, namespace: &str, name: &str) {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let now = DeleteParams {
            grace_period_seconds: Some(0),
            ..DeleteParams::default()
        };
        pods.delete(name, &now).await.unwrap();
    }

    pub(crate) async fn identity(&self, namespace: &str, name: &str, client_id: &str) {
        self.put::<AzureIdentity>(namespace, name, json!({ "clientID": client_id }))
            .await;
    }

    /// A service principal with a secret (type 1), and the Secret.
    pub(crate) async fn principal(&self, name: &str, client_id: &str, tenant: &str, secret: &str) {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), "shop");
        let object = json!({ "metadata": { "name": name }, "stringData": { "clientSecret": secret } });
        let object = serde_json::from_value(object).unwrap();
        secrets.create(&PostParams::default(), &object).await.unwrap();
        let spec = json!({ "type": 1, "clientID": client_id, "tenantID": tenant, "clientPassword": { "name": name } });
        self.put::<AzureIdentity>("shop", name, spec).await;
    }

    /// A service principal with a certificate in PKCS#12 (type 2), and the Secret.
    pub(crate) async fn certified(
        &self,
        name: &str,
        client_id: &str,
        tenant: &str,
        file: &[u8],
        password: &str,
    ) {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), "shop");
        let data = [("certificate", file), ("password", password.as_bytes())];
        let object = Secret {
            metadata: kube::core::ObjectMeta {
                name: Some(name.to_owned()),
                ..kube::core::ObjectMeta::default()
            },
            data: Some(
                data.map(|(key, value)| (key.to_owned(), ByteString(value.to_vec())))
                    .into(),
            ),
            ..Secret::default()
        };
        secrets.create(&PostParams::default(), &object).await.unwrap();
        let spec = json!({ "type": 2, "clientID": client_id, "tenantID": tenant, "clientPassword": { "name": name } });
        self.put::<AzureIdentity>("shop", name, spec).await;
    }

    pub(crate) async fn binding(&self, namespace: &str, name: &str, selector: &str, identity: &str) {
        let spec = json!({ "azureIdentity": identity, "selector": selector });
        self.put::<AzureIdentityBinding>(namespace, name, spec).await;
    }

    pub(crate) async fn exception(&self, namespace: &str, name: &str, labels: Value) {
        self.put::<AzurePodIdentityException>(namespace, name, json!({ "podLabels": labels }))
            .await;
    }

    /// What the owners of pods were told.
    pub(crate) async fn events(&self, namespace: &str) -> Vec<Value> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let events = events.list(&kube::api::ListParams::default()).await.unwrap();
        events
            .items
            .iter()
            .map(|event| serde_json::to_value(event).unwrap())
            .collect()
    }

    pub(crate) async fn delete_binding(&self, namespace: &str, name: &str) {
        let bindings: Api<AzureIdentityBinding> = Api::namespaced(self.client.clone(), namespace);
        bindings.delete(name, &DeleteParams::default()).await.unwrap();
    }

    async fn put<K>(&self, namespace: &str, name: &str, spec: Value)
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + Send
            + Sync
            + Serialize
            + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let object = json!({
            "apiVersion": K::api_version(&()), "kind": K::kind(&()),
            "metadata": { "name": name }, "spec": spec,
        });
        let object: K = serde_json::from_value(object).unwrap();
        api.create(&PostParams::default(), &object).await.unwrap();
    }
}
