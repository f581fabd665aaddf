//! Secrets of service principals, read from the API server by name whenever a token is fetched, and kept nowhere.

use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1 as core_v1;
use kube::{Api, Client};
use podid_azure::ClientCertificate;
use podid_azure::entra::CertificateError;
use podid_core::{Retry, Secret, SecretName, SourceError, TroubleKind};
use tokio::sync::Semaphore;

use crate::metrics::Metrics;

/// The key under which the original's guide puts a client secret. Source: aad-pod-identity v1.8.17, service principal demo.
const CLIENT_SECRET: &str = "clientSecret";
/// Keys of a certificate: the original's, and those of a Secret of type kubernetes.io/tls.
const CERTIFICATE: &str = "certificate";
const TLS: [&str; 2] = ["tls.crt", "tls.key"];
/// What is in every PEM file, perhaps not at its beginning.
const PEM: &[u8] = b"-----BEGIN ";

/// Password of a certificate in PKCS#12. Source: aad-pod-identity v1.8.17, `pkg/nmi`.
const PASSWORD: &str = "password";

/// Where Secrets are read.
#[derive(Clone)]
pub(crate) struct Secrets {
    client: Client,
    /// One PKCS#12 file at a time, so that opening them never takes more than one core.
    opening: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

impl Secrets {
    pub(crate) fn new(client: Client, metrics: Arc<Metrics>) -> Self {
        Self {
            client,
            opening: Arc::new(Semaphore::new(1)),
            metrics,
        }
    }

    /// The client secret in Secret `name`: under `clientSecret`, else the only value there is.
    pub(crate) async fn client_secret(&self, name: &SecretName) -> Result<Secret, SourceError> {
        let data = self.read(name).await?.data.unwrap_or_default();
        let value = match (data.get(CLIENT_SECRET), data.len()) {
            (Some(value), _) => Some(value),
            (None, 1) => data.values().next(),
            (None, _) => None,
        };
        let Some(ByteString(bytes)) = value else {
            return Err(unusable(
                name,
                format!("it has no key {CLIENT_SECRET}, and not just one key either"),
            ));
        };
        match std::str::from_utf8(bytes).map(str::trim_end) {
            Ok("") => Err(unusable(name, "the client secret in it is empty".to_owned())),
            Ok(text) => Ok(Secret::new(text.to_owned())),
            Err(_) => Err(unusable(name, "the client secret in it is not text".to_owned())),
        }
    }

    /// The certificate with its key in Secret `name`: `tls.crt` and `tls.key`, or both in `certificate`, there as PEM or as
    /// PKCS#12 with `password`.
    pub(crate) async fn certificate(&self, name: &SecretName) -> Result<ClientCertificate, SourceError> {
        let mut data = self.read(name).await?.data.unwrap_or_default();
        let [crt, key] = TLS.map(|key| data.get(key));
        let read = if let (Some(ByteString(crt)), Some(ByteString(key))) = (crt, key) {
            ClientCertificate::from_pem(&[crt.as_slice(), b"\n", key].concat())
        } else {
            let Some(ByteString(file)) = data.remove(CERTIFICATE) else {
                let why = "it has neither tls.crt and tls.key nor certificate";
                return Err(unusable(name, why.to_owned()));
            };
            if file.windows(PEM.len()).any(|part| part == PEM) {
                ClientCertificate::from_pem(&file)
            } else {
                let ByteString(password) = data.remove(PASSWORD).unwrap_or_default();
                let Ok(password) = String::from_utf8(password) else {
                    return Err(unusable(name, "the password in it is not text".to_owned()));
                };
                self.opened(file, Secret::new(password)).await
            }
        };
        read.map_err(|error| unusable(name, error.to_string()))
    }

    /// A PKCS#12 file, opened beside the runtime.
    async fn opened(&self, file: Vec<u8>, password: Secret) -> Result<ClientCertificate, CertificateError> {
        let turn = Arc::clone(&self.opening).acquire_owned().await.ok();
        let opened = tokio::task::spawn_blocking(move || {
            let opened = ClientCertificate::from_pkcs12(&file, password.expose());
            drop(turn);
            opened
        });
        match opened.await {
            Ok(opened) => opened,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down.
                Err(_) => Err(CertificateError::Certificate),
            },
        }
    }

    async fn read(&self, name: &SecretName) -> Result<core_v1::Secret, SourceError> {
        let api: Api<core_v1::Secret> = Api::namespaced(self.client.clone(), &name.namespace);
        let read = api.get(&name.name).await;
        if read.is_err() {
            self.metrics.kubernetes_error("get_secret");
        }
        read.map_err(|error| match &error {
            kube::Error::Api(status) if status.code == 404 => unusable(name, "it is not there".to_owned()),
            kube::Error::Api(status) if status.code == 403 => {
                unusable(name, "the agent may not read it; see its ClusterRole".to_owned())
            }
            _ => SourceError {
                source: Some(Box::new(error)),
                ..SourceError::new(
                    "secret_unread",
                    TroubleKind::Unavailable,
                    Retry::Backoff,
                    format!("Secret {name} cannot be read at the moment"),
                )
            },
        })
    }
}

/// What a pod is told names the Secret: it is of the pod's own namespace.
fn unusable(name: &SecretName, why: String) -> SourceError {
    SourceError::new(
        "secret_unusable",
        TroubleKind::InvalidCredential,
        Retry::Never,
        format!("Secret {name} cannot be used: {why}"),
    )
}
