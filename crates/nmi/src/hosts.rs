//! Node agents that may ask for other pods' tokens at `/host/token`, as who runs the agent names them. Whether a
//! connection is of such a pod is found out by the caller module.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use podid_core::Pod;

/// Where node agents on the node's network looked for the original. Source: aad-pod-identity v1.8.17, `--nmi-port`.
pub(crate) const HOST_TOKEN_LISTEN: &str = "127.0.0.1:2579";

/// Pods that may ask for other pods' tokens: those of one service account, or of a whole namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostCaller {
    namespace: Arc<str>,
    /// None for all.
    service_account: Option<Arc<str>>,
}

/// Tokens for node agents.
#[derive(Clone, Debug)]
pub struct HostTokens {
    /// Who may ask; never empty.
    pub callers: Vec<HostCaller>,
    /// Where those on the node's network ask; of the loopback interface.
    pub listen: SocketAddr,
}

impl HostCaller {
    /// Whether `pod` is one of them.
    pub(crate) fn is(&self, pod: &Pod) -> bool {
        *pod.namespace() == self.namespace
            && self
                .service_account
                .as_ref()
                .is_none_or(|account| *account == pod.service_account)
    }
}

impl FromStr for HostCaller {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Source: Kubernetes, names of namespaces (RFC 1123 label) and service accounts (subdomain).
        let is_name = |name: &str, most: usize| {
            let plain =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
            !name.is_empty() && name.len() <= most && name.bytes().all(plain)
        };
        match text.split_once('/') {
            Some((namespace, account))
                if is_name(namespace, 63) && (account == "*" || is_name(account, 253)) =>
            {
                Ok(Self {
                    namespace: namespace.into(),
                    service_account: (account != "*").then(|| account.into()),
                })
            }
            _ => Err(format!(
                "`{text}` is not of the form NAMESPACE/SERVICEACCOUNT or NAMESPACE/*"
            )),
        }
    }
}

impl fmt::Display for HostCaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}",
            self.namespace,
            self.service_account.as_deref().unwrap_or("*")
        )
    }
}

/// An address of the loopback interface; no other node may ask.
pub(crate) fn loopback(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().to_canonical().is_loopback() => Ok(address),
        _ => Err(format!(
            "`{text}` is not an address of the loopback interface, as {HOST_TOKEN_LISTEN}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_named_in_full() {
        for text in ["kube-system/csi-secrets-store-provider-azure", "kube-system/*"] {
            assert_eq!(text.parse::<HostCaller>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "kube-system",
            "/x",
            "kube-system/",
            "*/x",
            "*/*",
            "kube-*/x",
            "a/b/c",
            "A/b",
        ] {
            assert!(text.parse::<HostCaller>().is_err(), "{text}");
        }
        assert!(
            loopback("0.0.0.0:2579").is_err()
                && loopback("[::1]:0").is_ok()
                && loopback(HOST_TOKEN_LISTEN).is_ok()
        );
    }
}
