//! A cluster with podid's kinds installed, with or without a controller, and the command line pointed at it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test helpers")]

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use parking_lot::Mutex;
use podid_cli::printer::Printer;
use podid_cli::{CliError, Cluster, Podid};
use podid_controller::{App, AppConfig};
use podid_kube_emulator as kube_emulator;
use podid_rt::stop::Stop;
use podid_rt::tasks::Tasks;
use serde_json::Value;
use tokio::task::JoinSet;

pub(crate) const CLIENT_ID: &str = "11111111-2222-3333-4444-555555555555";

/// ARM id of an identity of that name.
pub(crate) fn id(name: &str) -> String {
    format!(
        "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
    )
}

/// The cluster. Dropping it stops everything in it.
pub(crate) struct World {
    pub(crate) client: Client,
    running: JoinSet<()>,
}

/// What a command printed, and how it ended.
pub(crate) struct Ran {
    pub(crate) result: Result<(), CliError>,
    /// Stdout.
    pub(crate) data: String,
    /// Stderr.
    pub(crate) words: String,
}

impl Ran {
    /// It must have succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        let Self { result, data, words } = self;
        result.unwrap_or_else(|error| panic!("{error}\n{words}"));
        Self {
            result: Ok(()),
            data,
            words,
        }
    }
}

#[derive(Clone, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl Write for Text {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl World {
    /// A cluster with a controller in it.
    pub(crate) async fn new() -> Self {
        Self::without_controller().await.start_controller().await
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
        Self { client, running }
    }

    /// Starts a controller and waits until it is ready.
    pub(crate) async fn start_controller(mut self) -> Self {
        let app = App::bind(AppConfig {
            client: self.client.clone(),
            arm: None,
            startup: None,
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

    /// Runs a command line.
    pub(crate) async fn podid(&self, line: &str) -> Ran {
        // Whoever runs the tests may be logged in.
        let adds = line.contains("--identity-resource-id") && line.starts_with("add ");
        let no_azure = (adds && !line.contains("--azure-login")).then_some("--azure-login=none");
        let words = std::iter::once("podid")
            .chain(line.split_whitespace())
            .chain(no_azure);
        let Podid { args } = Podid::try_parse_from(words).unwrap_or_else(|error| panic!("{error}"));
        let (data, words) = (Text::default(), Text::default());
        let mut printer = Printer::new(data.clone(), words.clone());
        let result = args
            .command
            .run(&Cluster::At(self.client.clone()), &mut printer)
            .await;
        let text = |text: Text| String::from_utf8(text.0.lock().clone()).unwrap();
        Ran {
            result: result.map_err(|error| error.downcast().unwrap()),
            data: text(data),
            words: text(words),
        }
    }

    /// Makes an object, with its status where it has one.
    pub(crate) async fn create(&self, object: Value) {
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let types = object.types.clone().unwrap();
        let (group, version) = types
            .api_version
            .split_once('/')
            .unwrap_or(("", &types.api_version));
        let kind = kube::core::GroupVersionKind::gvk(group, version, &types.kind);
        let resource = kube::discovery::pinned_kind(&self.client, &kind).await.unwrap().0;
        let namespace = object.metadata.namespace.clone();
        let api: Api<DynamicObject> = match &namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let made = api.create(&PostParams::default(), &object).await.unwrap();
        if let Some(status) = object.data.get("status") {
            let mut with_status = made;
            if let Some(data) = with_status.data.as_object_mut() {
                data.insert("status".to_owned(), status.clone());
            }
            let name = with_status.metadata.name.clone().unwrap();
            api.replace_status(&name, &PostParams::default(), &with_status)
                .await
                .unwrap();
        }
    }
}
