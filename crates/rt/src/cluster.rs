//! The client of the Kubernetes API, as every podid process has it: no request waits for ever, and a connection whose
//! other end is gone is noticed.
//!
//! ```text
//! kubeconfig | service account ─▶ Config ─▶ base URI ─▶ authorization ─▶ deadline of the head ─▶ TLS ─▶ TCP
//! ```
//! A load balancer or a lost node can swallow a connection without a word. kube's own client then waits for as long as
//! a watch may be idle (about five minutes), and for a plain request without end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt as _};
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use tower::{BoxError, ServiceBuilder};

/// Until the head of an answer must be there; bodies (watches) may go on. A little more than an API server gives itself,
/// so that its own word is heard first. Source: kube-apiserver, `--request-timeout`, default one minute.
const HEAD_DEADLINE: Duration = Duration::from_secs(65);
/// Silence after which the other end is asked for a sign of life, between two such questions, and how many.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The file cannot be read or is no kubeconfig.
    #[error("cannot use the kubeconfig {}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KubeconfigError,
    },
    /// No file was given and this is no pod.
    #[error("not in a cluster, and no --kubeconfig (or KUBECONFIG) was given")]
    Outside(#[source] InClusterError),
    /// The certificates or credentials are of no use.
    #[error("cannot make a client of the cluster")]
    Client(#[from] kube::Error),
}

/// A client of the cluster that `kubeconfig` names, or of the cluster that this process is a pod of. Nothing is sent yet.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, ClusterError> {
    Ok(client_of(config(kubeconfig).await?)?)
}

/// How to reach that cluster. As for every Kubernetes client, an empty `KUBECONFIG` is none.
pub async fn config(kubeconfig: Option<&Path>) -> Result<Config, ClusterError> {
    match kubeconfig.filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => {
            let failed = |source| ClusterError::Kubeconfig {
                path: path.to_owned(),
                source,
            };
            // A local file of a few kilobytes, read once at start.
            let file = Kubeconfig::read_from(path).map_err(failed)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .map_err(failed)
        }
        None => Config::incluster().map_err(ClusterError::Outside),
    }
}

/// A client as `config` says. Nothing is sent yet.
pub fn client_of(config: Config) -> kube::Result<Client> {
    patient(config, HEAD_DEADLINE)
}

fn patient(config: Config, head: Duration) -> kube::Result<Client> {
    let mut tcp = HttpConnector::new();
    // https:// goes through the connector of TLS around it.
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(config.connect_timeout);
    let (after, interval, retries) = KEEPALIVE;
    tcp.set_keepalive(Some(after));
    tcp.set_keepalive_interval(Some(interval));
    tcp.set_keepalive_retries(Some(retries));
    // The same for what was sent and is not acknowledged.
    tcp.set_tcp_user_timeout(Some(after + interval * retries));
    let tls = config.rustls_https_connector_with_connector(tcp)?;
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build::<_, Body>(tls);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .timeout(head)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace))
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use k8s_openapi::api::core::v1::Pod;
    use kube::Api;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_server_that_says_nothing_does_not_hold_a_request_for_ever() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap())
            .parse()
            .unwrap();
        let client = patient(Config::new(url), Duration::from_millis(50)).unwrap();
        let error = Api::<Pod>::default_namespaced(client).get("p").await.unwrap_err();
        let mut cause = error.source();
        while let Some(now) = cause.filter(|cause| !cause.is::<tower::timeout::error::Elapsed>()) {
            cause = now.source();
        }
        assert!(cause.is_some(), "{error:?}");
    }

    #[tokio::test]
    async fn a_missing_kubeconfig_is_named() {
        let error = client(Some(Path::new("/nowhere/config"))).await.err().unwrap();
        assert_eq!(error.to_string(), "cannot use the kubeconfig /nowhere/config");
    }
}
