//! A running emulator and a client of it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use podid_azure_emulator::{App, Config, SharedEmulator};
use podid_rt::stop::Stop;
use podid_rt::tasks::Tasks;
use reqwest::{Client, Method};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde_json::{Value, json};

pub(crate) const ARM: &str = "https://management.azure.com/";
pub(crate) const OPERATOR: &str = "Managed Identity Operator";

/// A running emulator; dropping it stops it.
pub(crate) struct Azure {
    pub(crate) emulator: SharedEmulator,
    pub(crate) http: Client,
    tasks: Tasks,
    token: String,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Reply {
    pub(crate) fn text(&self, pointer: &str) -> &str {
        self.body
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("no {pointer} in {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .unwrap_or_else(|| panic!("no header {name} in {self:?}"))
            .to_str()
            .unwrap()
    }

    /// The body, of an answer with that status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    /// ARM's code, of a refusal with that status.
    #[track_caller]
    pub(crate) fn refused(self, status: u16) -> String {
        self.expect(status)
            .pointer("/error/code")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    }
}

impl Azure {
    pub(crate) async fn start(config: Config) -> Self {
        let app = App::bind(config).await.unwrap();
        let emulator = app.handle();
        let mut tasks = Tasks::new(Stop::new());
        app.spawn(&mut tasks);
        let roots = reqwest::Certificate::from_pem_bundle(emulator.ca_pem().as_bytes()).unwrap();
        let http = Client::builder()
            .no_proxy()
            .tls_certs_only(roots)
            .build()
            .unwrap();
        let mut azure = Self {
            emulator,
            http,
            tasks,
            token: String::new(),
        };
        let own = (
            azure.emulator.client_id().to_owned(),
            azure.emulator.client_secret().to_owned(),
        );
        let signed_in = azure.sign_in(&own.0, &own.1, ARM).await;
        signed_in.text("/access_token").clone_into(&mut azure.token);
        azure
    }

    pub(crate) async fn default() -> Self {
        Self::start(Config::default()).await
    }

    /// Stops it as a signal would, and waits for the state to be kept.
    pub(crate) async fn stop(self) {
        self.tasks.stop().request();
        drop(self.http);
        self.tasks.run(std::time::Duration::from_secs(30)).await.unwrap();
    }

    /// The built-in principal's, for ARM.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    pub(crate) fn arm(&self) -> &str {
        &self.emulator.endpoints().arm[0]
    }

    pub(crate) fn imds(&self) -> &str {
        &self.emulator.endpoints().imds[0]
    }

    pub(crate) fn sub(&self) -> String {
        format!("/subscriptions/{}", self.emulator.subscription_id())
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Reply {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.bytes().await.unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| {
            if bytes.is_empty() {
                Value::Null
            } else {
                json!(String::from_utf8_lossy(&bytes))
            }
        });
        Reply {
            status,
            headers,
            body,
        }
    }

    /// An ARM call as the built-in principal. `path` is under the subscription unless it starts with `https:`.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Reply {
        self.call_as(&self.token, method, path, body).await
    }

    pub(crate) async fn call_as(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Reply {
        let mut url = match path {
            _ if path.starts_with("https:") => path.to_owned(),
            _ if path.starts_with("//") => format!("{}{}", self.arm(), &path[1..]),
            _ if path.starts_with("/subscriptions/") => format!("{}{path}", self.arm()),
            _ => format!("{}{}{path}", self.arm(), self.sub()),
        };
        if !url.contains("api-version=") {
            url.push_str(if url.contains('?') { "&" } else { "?" });
            url.push_str("api-version=2024-01-01");
        }
        let mut request = self.http.request(method, url).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        self.send(request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.call(Method::GET, path, None).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Reply {
        self.call(Method::PUT, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.call(Method::DELETE, path, None).await
    }

    /// The control API.
    pub(crate) async fn control(&self, method: Method, path: &str, body: Option<Value>) -> Reply {
        let url = format!("{}/_emulator/{path}", self.arm());
        let mut request = self
            .http
            .request(method, url)
            .header("x-emulator-key", self.emulator.client_secret());
        if let Some(body) = body {
            request = request.json(&body);
        }
        self.send(request).await
    }

    /// A form to a token endpoint, given by its path after the tenant.
    pub(crate) async fn form(&self, path: &str, fields: &[(&str, &str)]) -> Reply {
        let url = format!("{}/{}/{path}", self.arm(), self.emulator.tenant_id());
        let mut form = reqwest::Url::parse("https://form.invalid/").unwrap();
        form.query_pairs_mut().extend_pairs(fields);
        let body = form.query().unwrap_or_default().to_owned();
        self.send(
            self.http
                .post(url)
                .header("content-type", "application/x-www-form-urlencoded")
                .body(body),
        )
        .await
    }

    pub(crate) async fn sign_in(&self, client_id: &str, secret: &str, resource: &str) -> Reply {
        let scope = format!("{resource}/.default");
        let fields = [
            ("client_id", client_id),
            ("client_secret", secret),
            ("grant_type", "client_credentials"),
            ("scope", scope.as_str()),
        ];
        self.form("oauth2/v2.0/token", &fields).await
    }

    /// A request to the metadata service; the path has its query.
    pub(crate) async fn metadata(&self, path: &str) -> Reply {
        self.send(
            self.http
                .get(format!("{}{path}", self.imds()))
                .header("Metadata", "true"),
        )
        .await
    }

    /// A token of this machine; `selector` is `&name=value` or nothing.
    pub(crate) async fn machine_token(&self, selector: &str) -> Reply {
        self.metadata(&format!(
            "/metadata/identity/oauth2/token?api-version=2018-02-01&resource={ARM}{selector}"
        ))
        .await
    }

    pub(crate) async fn group(&self, name: &str) {
        self.put(
            &format!("/resourcegroups/{name}"),
            json!({ "location": "eastus" }),
        )
        .await
        .expect(201);
    }

    /// A managed identity in a group.
    pub(crate) async fn identity(&self, group: &str, name: &str) -> Value {
        let path = format!(
            "/resourceGroups/{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
        );
        self.put(&path, json!({ "location": "eastus" })).await.expect(201)
    }

    pub(crate) async fn grant(&self, role: &str, principal: &str, scope: &str) -> Reply {
        let found = self
            .get(&format!(
                "{scope}/providers/Microsoft.Authorization/roleDefinitions?$filter=roleName%20eq%20'{role}'"
            ))
            .await;
        let definition = found.text("/value/0/id").to_owned();
        let name = uuid::Uuid::new_v4();
        let body = json!({ "properties": { "roleDefinitionId": definition, "principalId": principal, "principalType": "ServicePrincipal" } });
        self.put(
            &format!("{scope}/providers/Microsoft.Authorization/roleAssignments/{name}"),
            body,
        )
        .await
    }

    /// Follows an operation to its end, as azure-core does; gives its last status.
    pub(crate) async fn finish(&self, reply: &Reply) -> String {
        let url = reply.header("azure-asyncoperation").to_owned();
        // azure-core takes 0 for "not said", and would ask again after 30 s.
        assert_eq!(reply.header("retry-after"), "1");
        podid_testkit::eventually("the operation ends", || async {
            let seen = self.get(&url).await;
            match seen.text("/status") {
                "InProgress" => Err(seen),
                end => Ok(end.to_owned()),
            }
        })
        .await
        .unwrap()
    }

    /// The claims of a token that one of the published keys signed.
    pub(crate) async fn verified(&self, token: &str) -> Value {
        let url = format!("{}/{}/discovery/v2.0/keys", self.arm(), self.emulator.tenant_id());
        let keys = self.send(self.http.get(url)).await.expect(200);
        let parts: Vec<&str> = token.split('.').collect();
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
        let header: Value = serde_json::from_slice(&decode(parts[0])).unwrap();
        assert_eq!(header["alg"], "RS256");
        let key = keys["keys"]
            .as_array()
            .unwrap()
            .iter()
            .find(|key| key["kid"] == header["kid"])
            .unwrap();
        let (n, e) = (
            decode(key["n"].as_str().unwrap()),
            decode(key["e"].as_str().unwrap()),
        );
        RsaPublicKeyComponents { n: &n, e: &e }
            .verify(
                &RSA_PKCS1_2048_8192_SHA256,
                format!("{}.{}", parts[0], parts[1]).as_bytes(),
                &decode(parts[2]),
            )
            .unwrap();
        serde_json::from_slice(&decode(parts[1])).unwrap()
    }
}

/// The body of a managed cluster.
pub(crate) fn cluster(plugin: Option<&str>, profile: Value) -> Value {
    let mut properties = json!({
        "kubernetesVersion": "", "dnsPrefix": "c-g",
        "agentPoolProfiles": [{ "name": "nodepool1", "count": 3, "vmSize": "", "mode": "System", "orchestratorVersion": "" }],
        "podIdentityProfile": profile,
    });
    if let Some(plugin) = plugin {
        properties["networkProfile"] = json!({ "networkPlugin": plugin });
    }
    json!({ "location": "eastus", "identity": { "type": "SystemAssigned" }, "properties": properties })
}

pub(crate) const CLUSTER: &str = "/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/c";
