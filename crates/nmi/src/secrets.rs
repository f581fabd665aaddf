//! Secrets of service principals, read from the API server by name whenever a token is fetched, and kept nowhere.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1 as core_v1;
use kube::{Api, Client};
use podid_azure::ClientCertificate;
use podid_core::{Retry, Secret, SecretName, SourceError, TroubleKind};

/// The key under which the original's guide puts a client secret. Source: aad-pod-identity v1.8.17, service principal demo.
const CLIENT_SECRET: &str = "clientSecret";
/// Keys of a certificate: the original's, and those of a Secret of type kubernetes.io/tls.
const CERTIFICATE: &str = "certificate";
const TLS: [&str; 2] = ["tls.crt", "tls.key"];

/// Where Secrets are read.
#[derive(Clone)]
pub(crate) struct Secrets(pub(crate) Client);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

impl Secrets {
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

    /// The certificate with its key in Secret `name`, in PEM: `tls.crt` and `tls.key`, or both in `certificate`.
    pub(crate) async fn certificate(&self, name: &SecretName) -> Result<ClientCertificate, SourceError> {
        let data = self.read(name).await?.data.unwrap_or_default();
        let [crt, key] = TLS.map(|key| data.get(key));
        let bundle = match (crt, key, data.get(CERTIFICATE)) {
            (Some(ByteString(crt)), Some(ByteString(key)), _) => [crt.as_slice(), b"\n", key].concat(),
            (_, _, Some(ByteString(bundle))) if bundle.starts_with(b"-----BEGIN") => bundle.clone(),
            (_, _, Some(_)) => {
                let why = "its certificate is not PEM; write it as PEM, or as tls.crt and tls.key, instead of PKCS#12";
                return Err(unusable(name, why.to_owned()));
            }
            _ => {
                return Err(unusable(
                    name,
                    "it has neither tls.crt and tls.key nor certificate".to_owned(),
                ));
            }
        };
        ClientCertificate::from_pem(&bundle).map_err(|error| unusable(name, error.to_string()))
    }

    async fn read(&self, name: &SecretName) -> Result<core_v1::Secret, SourceError> {
        let api: Api<core_v1::Secret> = Api::namespaced(self.0.clone(), &name.namespace);
        api.get(&name.name).await.map_err(|error| match &error {
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
