//! Only of the emulator: starting it in a process, certificates, what a real API server would not show.

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use podid_kube_emulator::{App, Config};
use podid_rt::stop::Stop;
use podid_rt::tasks::Tasks;

#[tokio::test]
async fn five_lines_start_an_api_for_a_test() {
    let mut tasks = Tasks::new(Stop::new());
    let emulator = App::bind(Config::default()).unwrap().spawn(&mut tasks);
    let kubeconfig = Kubeconfig::from_yaml(&emulator.kubeconfig()).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    let client = kube::Client::try_from(config).unwrap();

    let namespaces = Api::<Namespace>::all(client)
        .list(&kube::api::ListParams::default())
        .await
        .unwrap();
    assert!(
        namespaces
            .items
            .iter()
            .any(|one| one.metadata.name.as_deref() == Some("default"))
    );
}
