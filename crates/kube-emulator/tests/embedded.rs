//! Only of the emulator: starting it in a process, sockets and certificates, logs, who is refused.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, where a panic is how a fact fails"
)]

use std::net::{Ipv4Addr, TcpListener};

use futures::AsyncReadExt;
use http::{Request, StatusCode};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use kube::api::{ListParams, LogParams, Patch, PatchParams, PostParams};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use podid_kube_emulator::{App, Authority, Config, Emulator, Logs};
use podid_rt::clock::Clock;
use podid_rt::stop::Stop;
use podid_rt::tasks::Tasks;
use serde_json::{Value, json};

async fn config(kubeconfig: &str) -> kube::Config {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).unwrap();
    kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap()
}

async fn client(emulator: &Emulator) -> kube::Client {
    kube::Client::try_from(config(&emulator.kubeconfig()).await).unwrap()
}

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
        .list(&ListParams::default())
        .await
        .unwrap();
    assert!(
        namespaces
            .items
            .iter()
            .any(|one| one.metadata.name.as_deref() == Some("default"))
    );
}

#[tokio::test]
async fn who_is_unknown_is_refused_and_another_worlds_certificate_is_no_use() {
    let mut tasks = Tasks::new(Stop::new());
    let emulator = App::bind(Config::default()).unwrap().spawn(&mut tasks);
    let mut stranger = config(&emulator.kubeconfig()).await;
    stranger.auth_info = AuthInfo::default();
    let stranger = kube::Client::try_from(stranger).unwrap();
    let request = Request::get("/api/v1/namespaces")
        .body(kube::client::Body::empty())
        .unwrap();
    let refused = stranger.send(request).await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    let body: Value = serde_json::from_slice(&refused.into_body().collect_bytes().await.unwrap()).unwrap();
    assert_eq!(
        (&body["kind"], &body["reason"]),
        (&json!("Status"), &json!("Unauthorized"))
    );

    let other = App::bind(Config::default()).unwrap().spawn(&mut tasks);
    let mut foreign = config(&other.kubeconfig_for(&emulator.url())).await;
    foreign.accept_invalid_certs = true;
    let foreign = kube::Client::try_from(foreign).unwrap();
    Api::<Namespace>::all(foreign)
        .list(&ListParams::default())
        .await
        .unwrap_err();
}

#[tokio::test]
async fn a_given_authority_and_socket_are_used_and_other_users_are_known_by_name() {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let made = Authority::generate("a world", &Clock::system()).unwrap();
    let authority = Authority::from_pem(made.certificate_pem(), made.key_pem()).unwrap();
    let given = Config {
        listen: Vec::new(),
        listeners: vec![socket],
        names: vec!["api.world.internal".to_owned()],
        authority: Some(authority),
        ..Config::default()
    };
    let mut tasks = Tasks::new(Stop::new());
    let emulator = App::bind(given).unwrap().spawn(&mut tasks);
    assert_eq!(emulator.addresses(), [address]);
    assert_eq!(emulator.authority().certificate_pem(), made.certificate_pem());

    let user = emulator
        .kubeconfig_of("alice", &["devs"], &emulator.url())
        .unwrap();
    let client = kube::Client::try_from(config(&user).await).unwrap();
    let request = Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
        .header("content-type", "application/json")
        .body(b"{}".to_vec())
        .unwrap();
    let me: Value = client.request(request).await.unwrap();
    let info = &me["status"]["userInfo"];
    assert_eq!(info["username"], "alice");
    assert_eq!(info["groups"], json!(["devs", "system:authenticated"]));
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let error = App::bind(Config {
        listen: vec![address],
        ..Config::default()
    })
    .unwrap_err();
    assert_eq!(error.code(), "bind");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn logs_are_read_from_files_and_followed_until_the_container_ends() {
    let folder = tempfile::tempdir().unwrap();
    let mut tasks = Tasks::new(Stop::new());
    let emulator = App::bind(Config {
        logs: Logs::Folder(folder.path().to_owned()),
        ..Config::default()
    })
    .unwrap()
    .spawn(&mut tasks);
    let client = client(&emulator).await;
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n" } });
    let node = serde_json::from_value(node).unwrap();
    Api::<k8s_openapi::api::core::v1::Node>::all(client.clone())
        .create(&PostParams::default(), &node)
        .await
        .unwrap();
    let pods = Api::<Pod>::namespaced(client, "default");
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a" },
        "spec": { "nodeName": "n", "containers": [{ "name": "main", "image": "i" }] } });
    let pod = pods
        .create(&PostParams::default(), &serde_json::from_value(pod).unwrap())
        .await
        .unwrap();
    let status = |state: Value| {
        json!({ "status": { "containerStatuses": [{ "name": "main", "image": "i", "imageID": "i", "ready": true,
            "restartCount": 0, "state": state }] } })
    };
    let running = status(json!({ "running": {} }));
    pods.patch_status("a", &PatchParams::default(), &Patch::Merge(running))
        .await
        .unwrap();
    let uid = pod.metadata.uid.unwrap();
    let path = folder.path().join(format!("default_a_{uid}")).join("main");
    std::fs::create_dir_all(&path).unwrap();
    let path = path.join("0.log");
    let one = "2026-11-25T00:00:00Z stdout F one\n2026-11-25T00:00:01Z stderr P tw";
    std::fs::write(&path, format!("{one}\n2026-11-25T00:00:01Z stderr F o\n")).unwrap();

    let whole = pods.logs("a", &LogParams::default()).await.unwrap();
    assert_eq!(whole, "one\ntwo\n");
    let last = LogParams {
        tail_lines: Some(1),
        timestamps: true,
        ..LogParams::default()
    };
    assert_eq!(pods.logs("a", &last).await.unwrap(), "2026-11-25T00:00:01Z o\n");

    let follow = LogParams {
        follow: true,
        since_time: Some("2026-11-25T00:00:02Z".parse().unwrap()),
        ..LogParams::default()
    };
    let mut stream = Box::pin(pods.log_stream("a", &follow).await.unwrap());
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    std::io::Write::write_all(&mut file, b"2026-11-25T00:00:03Z stdout F three\n").unwrap();
    let ended = status(json!({ "terminated": { "exitCode": 0 } }));
    pods.patch_status("a", &PatchParams::default(), &Patch::Merge(ended))
        .await
        .unwrap();
    let mut followed = String::new();
    stream.read_to_string(&mut followed).await.unwrap();
    assert_eq!(followed, "three\n");
}
