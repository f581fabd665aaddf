//! The commands against an API server in memory that keeps one PodIdentityProfile and refuses stale writes.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test helpers")]

use std::io::Write;
use std::sync::Arc;

use clap::Parser;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use podid_cli::printer::Printer;
use podid_cli::{Args, CliError, Cluster};
use serde_json::{Value, json};

const ID: &str =
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/Web";

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
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

/// The API server: one profile, a list to get, and how many writes it answers with a conflict.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<World>>);

#[derive(Default)]
struct World {
    profile: Option<Value>,
    list: Option<Value>,
    conflicts: u32,
    writes: u32,
}

impl Server {
    fn enabled() -> Self {
        let server = Self::default();
        server.0.lock().profile = Some(json!({
            "apiVersion": "podid.dev/v1alpha1", "kind": "PodIdentityProfile",
            "metadata": { "name": "cluster", "resourceVersion": "1" },
            "spec": { "enabled": true },
        }));
        server
    }

    fn answer(&self, method: &Method, path: &str, body: &[u8]) -> (u16, Value) {
        let mut world = self.0.lock();
        match (method, path) {
            (&Method::GET, "/apis/podid.dev/v1alpha1/podidentityprofiles/cluster") => match &world.profile {
                Some(profile) => (200, profile.clone()),
                None => status(404, "NotFound"),
            },
            (&Method::POST, "/apis/podid.dev/v1alpha1/podidentityprofiles") => {
                world.writes += 1;
                let mut new: Value = serde_json::from_slice(body).unwrap();
                new["metadata"]["resourceVersion"] = json!("1");
                world.profile = Some(new.clone());
                (201, new)
            }
            (&Method::PUT, "/apis/podid.dev/v1alpha1/podidentityprofiles/cluster") => {
                world.writes += 1;
                if world.conflicts > 0 {
                    world.conflicts -= 1;
                    return status(409, "Conflict");
                }
                let mut new: Value = serde_json::from_slice(body).unwrap();
                let old = world.profile.as_ref().unwrap();
                assert_eq!(
                    new["metadata"]["resourceVersion"], old["metadata"]["resourceVersion"],
                    "a blind write"
                );
                new["metadata"]["resourceVersion"] = json!(format!(
                    "{}0",
                    old["metadata"]["resourceVersion"].as_str().unwrap()
                ));
                world.profile = Some(new.clone());
                (200, new)
            }
            (&Method::GET, _) => match &world.list {
                Some(list) => (200, list.clone()),
                None => status(404, "NotFound"),
            },
            _ => status(405, "MethodNotAllowed"),
        }
    }

    fn spec(&self) -> Value {
        self.0.lock().profile.as_ref().unwrap()["spec"].clone()
    }
}

fn status(code: u16, reason: &str) -> (u16, Value) {
    (
        code,
        json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason, "reason": reason, "code": code }),
    )
}

/// Runs a command line; gives its result, its data and its words.
async fn podid(server: &Server, line: &str) -> (Result<(), CliError>, String, String) {
    let (data, words) = (Text::default(), Text::default());
    // Whoever runs the tests may be logged in.
    let no_azure = line
        .contains("--identity-resource-id")
        .then_some("--azure-login=none");
    let line = std::iter::once("podid")
        .chain(line.split_whitespace())
        .chain(no_azure);
    let args = Cli::try_parse_from(line).unwrap().args;
    let server = server.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let server = server.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let (code, answer) = server.answer(&parts.method, parts.uri.path(), &body);
            let answer = Body::from(serde_json::to_vec(&answer).unwrap());
            Ok::<_, std::convert::Infallible>(Response::builder().status(code).body(answer).unwrap())
        }
    });
    let client = Client::new(service, "default");
    let mut printer = Printer::new(data.clone(), words.clone());
    let result = args.command.run(&Cluster::At(client), &mut printer).await;
    let result = result.map_err(|error| error.downcast().unwrap());
    let text = |text: Text| String::from_utf8(text.0.lock().clone()).unwrap();
    (result, text(data), text(words))
}

#[tokio::test]
async fn add_then_list_then_delete_leaves_the_profile_as_it_was() {
    let server = Server::enabled();
    let line = format!(
        "add --namespace my-app --name web --identity-resource-id {ID} --binding-selector foo --client-id 11111111-2222-3333-4444-555555555555"
    );
    let (result, data, words) = podid(&server, &line).await;
    result.unwrap();
    assert_eq!(data, "");
    let lines: Vec<&str> = words.lines().collect();
    assert_eq!(
        lines[..2],
        [
            "pod identity my-app/web added",
            "hint: pods of my-app get it with the label aadpodidbinding=foo"
        ]
    );
    assert!(
        lines[2].contains("az role assignment create --role \"Managed Identity Operator\"")
            && lines[2].ends_with(&format!("--scope {ID}")),
        "{words}"
    );
    assert_eq!(
        server.spec()["userAssignedIdentities"],
        json!([{ "name": "web", "namespace": "my-app", "bindingSelector": "foo",
                 "identity": { "resourceId": ID, "clientId": "11111111-2222-3333-4444-555555555555" } }])
    );

    let (result, data, _) = podid(&server, "list").await;
    result.unwrap();
    assert_eq!(
        data,
        "NAME   NAMESPACE   SELECTOR   CLIENTID                               STATE\n\
         web    my-app      foo        11111111-2222-3333-4444-555555555555   Pending\n"
    );

    let (result, _, words) = podid(&server, "delete --namespace my-app --name web").await;
    result.unwrap();
    assert_eq!(words, "pod identity my-app/web deleted\n");
    assert_eq!(server.spec()["userAssignedIdentities"], json!([]));
}

#[tokio::test]
async fn without_a_name_the_identitys_own_is_taken() {
    let server = Server::enabled();
    podid(
        &server,
        &format!("add --namespace my-app --identity-resource-id {ID}"),
    )
    .await
    .0
    .unwrap();
    assert_eq!(server.spec()["userAssignedIdentities"][0]["name"], "web");
    let (result, ..) = podid(
        &server,
        &format!("add --namespace my-app --identity-resource-id {ID}_1"),
    )
    .await;
    let error = result.unwrap_err();
    assert_eq!(error.to_string(), "`web_1` cannot be the name of a pod identity");
    assert_eq!(error.hint().unwrap(), "give one with --name");
}

#[tokio::test]
async fn a_duplicate_is_refused_and_nothing_is_written() {
    let server = Server::enabled();
    let line = format!("add --namespace my-app --name web --identity-resource-id {ID}");
    podid(&server, &line).await.0.unwrap();
    let error = podid(&server, &line).await.0.unwrap_err();
    assert_eq!(error.to_string(), "pod identity my-app/web exists already");
    assert_eq!(server.0.lock().writes, 1);
}

#[tokio::test]
async fn a_miss_fails_unless_it_may() {
    let server = Server::enabled();
    let error = podid(&server, "delete --namespace my-app --name web")
        .await
        .0
        .unwrap_err();
    assert_eq!(error.to_string(), "pod identity my-app/web not found");
    let (result, _, words) = podid(&server, "delete --namespace my-app --name web --ignore-not-found").await;
    result.unwrap();
    assert_eq!(words, "pod identity my-app/web not found\n");
    assert_eq!(server.0.lock().writes, 0);
}

#[tokio::test]
async fn somebody_elses_change_is_read_again_and_kept() {
    let server = Server::enabled();
    server.0.lock().conflicts = 2;
    podid(
        &server,
        "exception add --namespace my-app --name ex --pod-labels app=web tier=front",
    )
    .await
    .0
    .unwrap();
    assert_eq!(server.0.lock().writes, 3);
    assert_eq!(
        server.spec()["userAssignedIdentityExceptions"],
        json!([{ "name": "ex", "namespace": "my-app", "podLabels": { "app": "web", "tier": "front" } }])
    );
    server.0.lock().conflicts = 1000;
    let error = podid(&server, "exception delete --namespace my-app --name ex")
        .await
        .0
        .unwrap_err();
    assert_eq!(error.hint().unwrap(), "try again");
}

#[tokio::test]
async fn an_exceptions_labels_are_replaced_by_update() {
    let server = Server::enabled();
    podid(
        &server,
        "exception add --namespace my-app --name ex --pod-labels app=web",
    )
    .await
    .0
    .unwrap();
    podid(
        &server,
        "exception update --namespace my-app --name ex --pod-labels app=api",
    )
    .await
    .0
    .unwrap();
    assert_eq!(
        server.spec()["userAssignedIdentityExceptions"][0]["podLabels"],
        json!({ "app": "api" })
    );
    let (_, data, _) = podid(&server, "exception list -o name").await;
    assert_eq!(data, "ex\n");
    let error = podid(
        &server,
        "exception update --namespace other --name ex --pod-labels app=api",
    )
    .await
    .0
    .unwrap_err();
    assert_eq!(error.hint().unwrap(), "there is one in my-app");
}

#[tokio::test]
async fn a_cluster_without_pod_identity_is_told_apart() {
    let server = Server::default();
    let line = format!("add --namespace my-app --name web --identity-resource-id {ID}");
    let error = podid(&server, &line).await.0.unwrap_err();
    assert_eq!(
        error.to_string(),
        "The pod identity addon is not enabled for this managed cluster yet"
    );
    assert_eq!(error.hint().unwrap(), "to enable, run `podid enable`");
}

#[tokio::test]
async fn enable_makes_the_profile_once_and_disable_drops_all_that_was_in_it() {
    let server = Server::default();
    let (result, _, words) = podid(&server, "enable").await;
    result.unwrap();
    assert!(words.starts_with("pod identity is on\n"), "{words}");
    assert_eq!(server.spec(), json!({ "enabled": true }));
    let (result, _, words) = podid(&server, "enable").await;
    result.unwrap();
    assert_eq!(words, "pod identity was on already\n");
    assert_eq!(server.0.lock().writes, 1);

    let line = format!("add --namespace my-app --name web --identity-resource-id {ID}");
    podid(&server, &line).await.0.unwrap();
    let (result, _, words) = podid(&server, "disable").await;
    result.unwrap();
    assert_eq!(
        words,
        "pod identity is off; dropped with it: 1 pod identities, 0 exceptions\n"
    );
    assert_eq!(server.spec(), json!({ "enabled": false }));
    let (_, _, words) = podid(&server, "disable").await;
    assert_eq!(words, "pod identity was off already\n");
}

#[tokio::test]
async fn kubenet_is_refused_without_consent_and_nothing_is_written() {
    let server = Server::default();
    let error = podid(&server, "enable --network-plugin kubenet")
        .await
        .0
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "--enable-pod-identity-with-kubenet is required for enabling pod identity addon when using Kubenet network plugin"
    );
    assert!(server.0.lock().profile.is_none());
    podid(
        &server,
        "enable --network-plugin kubenet --enable-pod-identity-with-kubenet",
    )
    .await
    .0
    .unwrap();
    assert_eq!(
        server.spec(),
        json!({ "enabled": true, "allowNetworkPluginKubenet": true, "networkPlugin": "kubenet" })
    );
}

#[tokio::test]
async fn a_malformed_object_hides_no_other_and_old_spellings_are_shown() {
    let server = Server::default();
    server.0.lock().list = Some(json!({
        "kind": "AzureIdentityList", "apiVersion": "aadpodidentity.k8s.io/v1", "metadata": { "resourceVersion": "1" },
        "items": [
            { "metadata": { "name": "b", "namespace": "n" }, "spec": { "type": "zero" } },
            { "metadata": { "name": "a", "namespace": "n" }, "spec": { "type": 0, "ClientID": "c", "ResourceID": "r" } },
        ],
    }));
    let (result, data, words) = podid(&server, "get identities -A").await;
    result.unwrap();
    assert_eq!(
        data,
        "NAMESPACE   NAME   TYPE          CLIENTID   RESOURCEID\n\
         n           a      0             c          r\n\
         n           b      <malformed>\n"
    );
    assert!(
        words.starts_with("warning: AzureIdentity b is malformed: "),
        "{words}"
    );

    let (_, data, _) = podid(&server, "get identities -n n -o name").await;
    assert_eq!(
        data,
        "azureidentity.aadpodidentity.k8s.io/a\nazureidentity.aadpodidentity.k8s.io/b\n"
    );
    let (_, data, _) = podid(&server, "get identities -n n -o json").await;
    let list: Value = serde_json::from_str(&data).unwrap();
    assert_eq!(
        (&list["kind"], &list["items"][1]["spec"]["type"]),
        (&json!("List"), &json!("zero"))
    );
    let (_, data, _) = podid(&server, "get identities -n n -o yaml").await;
    assert!(data.contains("kind: AzureIdentity\n"), "{data}");
}

#[tokio::test]
async fn a_dry_run_on_the_client_reads_and_writes_nothing() {
    let server = Server::enabled();
    let line = format!("add --namespace my-app --name web --identity-resource-id {ID} --dry-run -o json");
    let (result, data, words) = podid(&server, &line).await;
    result.unwrap();
    assert!(
        words.starts_with("pod identity my-app/web added (dry run)\n"),
        "{words}"
    );
    let would: Value = serde_json::from_str(&data).unwrap();
    assert_eq!(would["kind"], "PodIdentityProfile");
    assert_eq!(would["spec"]["userAssignedIdentities"][0]["name"], "web");
    assert_eq!(server.0.lock().writes, 0);
    assert_eq!(server.spec(), json!({ "enabled": true }));
}

#[tokio::test]
async fn az_words_work_as_they_are() {
    let server = Server::enabled();
    let line = "pod-identity exception add --namespace my-app --pod-labels app=web tier=front";
    let (result, _, words) = podid(&server, line).await;
    result.unwrap();
    assert_eq!(words, "pod identity exception my-app/web-front added\n");
}

#[tokio::test]
async fn kinds_that_are_not_installed_get_a_hint() {
    let error = podid(&Server::default(), "get bindings").await.0.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the API server refused to list azureidentitybindings: NotFound"
    );
    assert!(error.hint().unwrap().contains("custom resources"));
}

#[test]
fn wrong_values_name_their_flag() {
    for (line, flag) in [
        (
            "add --namespace My_App --name x --identity-resource-id y",
            "--namespace",
        ),
        (
            "add --namespace a --name x --identity-resource-id y",
            "--identity-resource-id",
        ),
        (
            "exception add --namespace a --name x --pod-labels app",
            "--pod-labels",
        ),
        ("get identities -A -n x", "--namespace"),
        ("get pods web -A", "--all-namespaces"),
        ("disable --timeout 5m", "--wait"),
        ("disable --wait --dry-run=server", "--dry-run"),
        ("disable --wait --timeout 5y", "--timeout"),
    ] {
        let Err(error) = Cli::try_parse_from(std::iter::once("podid").chain(line.split_whitespace())) else {
            panic!("`{line}` was taken");
        };
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(flag), "{error}");
    }
}
