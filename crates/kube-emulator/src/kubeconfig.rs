//! Kubeconfig files, as `az aks get-credentials` writes them: one cluster, one user with a client certificate.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use zeroize::Zeroizing;

use crate::authority::{Authority, Identity};

/// The kubeconfig of a user for a server's URL. JSON is YAML, so every client reads it.
pub(crate) fn render(
    cluster: &str,
    user: &str,
    server: &str,
    authority: &Authority,
    identity: &Identity,
) -> Zeroizing<String> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": cluster,
            "cluster": {
                "server": server,
                "certificate-authority-data": STANDARD.encode(authority.certificate_pem()),
            },
        }],
        "users": [{
            "name": user,
            "user": {
                "client-certificate-data": STANDARD.encode(&identity.certificate_pem),
                "client-key-data": STANDARD.encode(identity.key_pem.as_bytes()),
            },
        }],
        "contexts": [{ "name": cluster, "context": { "cluster": cluster, "user": user } }],
        "current-context": cluster,
    });
    Zeroizing::new(serde_json::to_string_pretty(&config).unwrap_or_default())
}
