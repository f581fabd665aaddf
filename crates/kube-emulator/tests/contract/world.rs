//! The API server that the tests talk to, and short ways to ask it. The only file that knows the emulator.

use http::{Request, StatusCode};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use podid_kube_emulator::{App, Config};
use podid_rt::stop::Stop;
use podid_rt::tasks::Tasks;
use serde_json::{Value, json};

/// The kubeconfig of a real API server, to hold it to the same contract: who asks for one names it here.
fn real() -> Option<std::ffi::OsString> {
    std::env::var_os("PODID_CONTRACT_KUBECONFIG")
}

/// A client of an API server, and a namespace of the test's own.
pub(crate) struct World {
    pub(crate) client: kube::Client,
    pub(crate) config: kube::Config,
    pub(crate) namespace: String,
    _tasks: Tasks,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: StatusCode,
    pub(crate) body: Value,
}

impl World {
    pub(crate) async fn new() -> Self {
        let mut tasks = Tasks::new(Stop::new());
        let kubeconfig = if let Some(path) = real() {
            Kubeconfig::read_from(path).unwrap()
        } else {
            let emulator = App::bind(Config::default()).unwrap().spawn(&mut tasks);
            Kubeconfig::from_yaml(&emulator.kubeconfig()).unwrap()
        };
        let options = KubeConfigOptions::default();
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .unwrap();
        // A refusal is what many tests want to see, at once.
        config.default_retry = false;
        let client = kube::Client::try_from(config.clone()).unwrap();
        let namespace = Namespace {
            metadata: ObjectMeta {
                generate_name: Some("contract-".to_owned()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        let namespace = Api::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await
            .unwrap();
        let world = Self {
            client,
            config,
            namespace: namespace.metadata.name.unwrap(),
            _tasks: tasks,
        };
        // A real cluster gives them to a namespace a moment later.
        for path in ["serviceaccounts/default", "configmaps/kube-root-ca.crt"] {
            let there = |answer: &Answer| answer.code == StatusCode::OK;
            world
                .until(&world.core(path), "the namespace is furnished", there)
                .await;
        }
        world
    }

    /// The path of a resource of the core group in the test's namespace.
    pub(crate) fn core(&self, rest: &str) -> String {
        format!("/api/v1/namespaces/{}/{rest}", self.namespace)
    }

    /// The same in another group and version.
    pub(crate) fn group(&self, group: &str, rest: &str) -> String {
        format!("/apis/{group}/namespaces/{}/{rest}", self.namespace)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", Vec::new(), "").await
    }

    pub(crate) async fn get_as(&self, path: &str, accept: &str) -> Answer {
        self.send("GET", path, "", Vec::new(), accept).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(
            "POST",
            path,
            "application/json",
            body.to_string().into_bytes(),
            "",
        )
        .await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send("PUT", path, "application/json", body.to_string().into_bytes(), "")
            .await
    }

    pub(crate) async fn delete(&self, path: &str, options: &Value) -> Answer {
        self.send(
            "DELETE",
            path,
            "application/json",
            options.to_string().into_bytes(),
            "",
        )
        .await
    }

    pub(crate) async fn patch(&self, path: &str, kind: &str, body: &Value) -> Answer {
        let content = match kind {
            "apply" => "application/apply-patch+yaml".to_owned(),
            kind => format!("application/{kind}-patch+json"),
        };
        self.send("PATCH", path, &content, body.to_string().into_bytes(), "")
            .await
    }

    /// Applies as `manager`.
    pub(crate) async fn apply(&self, path: &str, manager: &str, force: bool, body: &Value) -> Answer {
        self.patch(
            &format!("{path}?fieldManager={manager}&force={force}"),
            "apply",
            body,
        )
        .await
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        content: &str,
        body: Vec<u8>,
        accept: &str,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !content.is_empty() {
            request = request.header("content-type", content);
        }
        if !accept.is_empty() {
            request = request.header("accept", accept);
        }
        let request = request.body(kube::client::Body::from(body)).unwrap();
        let response = self.client.send(request).await.unwrap();
        let code = response.status();
        let bytes = response.into_body().collect_bytes().await.unwrap();
        Answer {
            code,
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        }
    }

    /// A config map, created.
    pub(crate) async fn config_map(&self, name: &str, data: Value) -> Value {
        let body = json!({ "metadata": { "name": name }, "data": data });
        self.post(&self.core("configmaps"), &body).await.expect(201)
    }

    /// Looks until a path answers so.
    pub(crate) async fn until(
        &self,
        path: &str,
        what: &str,
        holds: impl Fn(&Answer) -> bool + Sync,
    ) -> Answer {
        podid_testkit::eventually(what, || async {
            let answer = self.get(path).await;
            if holds(&answer) { Ok(answer) } else { Err(answer) }
        })
        .await
        .unwrap()
    }

    /// Looks until a path is not found.
    pub(crate) async fn gone(&self, path: &str) {
        self.until(path, "it is gone", |answer| answer.code == StatusCode::NOT_FOUND)
            .await;
    }
}

impl Answer {
    /// The body, if the code is this one.
    #[track_caller]
    pub(crate) fn expect(self, code: u16) -> Value {
        assert_eq!(self.code.as_u16(), code, "{:#}", self.body);
        self.body
    }

    /// The reason and message of a failure, if the code is this one.
    #[track_caller]
    pub(crate) fn refused(self, code: u16) -> (String, String) {
        let body = self.expect(code);
        assert_eq!(body["kind"], "Status", "{body:#}");
        assert_eq!(body["status"], "Failure");
        assert_eq!(body["code"], code);
        let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
        (text("reason"), text("message"))
    }
}
