//! The configuration files of the components, as text. Nothing here touches the disk.

use std::path::Path;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::addresses::{PODS, pods};
use super::pki::Pki;

/// How a node's pods are wired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Cni {
    /// A pair of interfaces for each pod (Azure CNI, Calico and Cilium look like this)
    Ptp,
    /// A bridge (kubenet, flannel)
    Bridge,
}

/// Who makes Services work on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Proxy {
    /// Nobody: only the `kubernetes` Service is reached, by routing
    None,
    /// kube-proxy with iptables (the nf_tables backend)
    Iptables,
    /// kube-proxy with nftables
    Nftables,
}

/// A kubeconfig with a client certificate.
pub(super) fn kubeconfig(pki: &Pki, certificate: &str, server: &str) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "podid",
        "contexts": [{ "name": "podid", "context": { "cluster": "podid", "user": certificate } }],
        "clusters": [{
            "name": "podid",
            "cluster": { "server": server, "certificate-authority": pki.path("ca.crt") },
        }],
        "users": [{
            "name": certificate,
            "user": {
                "client-certificate": pki.path(&format!("{certificate}.crt")),
                "client-key": pki.path(&format!("{certificate}.key")),
            },
        }],
    })
    .to_string()
}

/// The kubelet's configuration.
pub(super) fn kubelet(pki: &Path, name: &str, cgroup: &str, provider_id: Option<&str>) -> String {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        // Machines with the old hierarchy still exist; 1.37 takes it when told to.
        "failCgroupV1": false,
        "failSwapOn": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{cgroup}"),
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "tlsCertFile": pki.join(format!("{name}.crt")),
        "tlsPrivateKeyFile": pki.join(format!("{name}.key")),
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": pki.join("ca.crt") },
        },
        "authorization": { "mode": "Webhook" },
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "providerID": provider_id.unwrap_or_default(),
        // A full disk of the machine is not this cluster's business.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "10Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
            "imagefs.available": "0%", "imagefs.inodesFree": "0%",
        },
        "nodeStatusUpdateFrequency": "5s",
        "serializeImagePulls": false,
    })
    .to_string()
}

/// containerd's configuration.
pub(super) fn containerd(plugins: &Path, runc: &Path, root: &Path, snapshotter: &str) -> String {
    format!(
        r#"version = 2
root = "{root}"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.tracing"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  # Where root lacks CAP_SYS_RESOURCE, runc cannot lower oom_score_adj, and dies.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "{runc}"
        SystemdCgroup = false
"#,
        root = root.display(),
        plugins = plugins.display(),
        runc = runc.display(),
    )
}

/// The CNI network of node `number`.
pub(super) fn cni(kind: Cni, number: u8) -> String {
    let (network, prefix) = pods(number);
    let ipam = json!({
        "type": "host-local",
        "ranges": [[{ "subnet": format!("{network}/{prefix}") }]],
        "routes": [{ "dst": "0.0.0.0/0" }],
    });
    let plugin = match kind {
        Cni::Ptp => json!({ "type": "ptp", "ipMasq": false, "ipam": ipam }),
        Cni::Bridge => json!({
            "type": "bridge", "bridge": "cbr0", "isGateway": true, "ipMasq": false, "hairpinMode": true, "ipam": ipam,
        }),
    };
    json!({ "cniVersion": "0.4.0", "name": "pods", "plugins": [plugin] }).to_string()
}

/// kube-proxy's arguments; none when nobody is to run.
pub(super) fn proxy(kind: Proxy, node: &str, kubeconfig: &Path) -> Option<Vec<String>> {
    let mode = match kind {
        Proxy::None => return None,
        Proxy::Iptables => "iptables",
        Proxy::Nftables => "nftables",
    };
    Some(vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--proxy-mode={mode}"),
        format!("--hostname-override={node}"),
        format!("--cluster-cidr={PODS}"),
        // The kernel's connection table is the machine's.
        "--conntrack-max-per-core=0".to_owned(),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_has_a_pod_network_of_its_own() {
        let one = cni(Cni::Ptp, 1);
        let two = cni(Cni::Bridge, 2);
        assert!(
            one.contains(r#""subnet":"10.244.1.0/24""#) && one.contains(r#""type":"ptp""#),
            "{one}"
        );
        assert!(
            two.contains(r#""subnet":"10.244.2.0/24""#) && two.contains(r#""bridge":"cbr0""#),
            "{two}"
        );
    }

    #[test]
    fn no_proxy_is_no_command() {
        assert_eq!(proxy(Proxy::None, "n", Path::new("k")), None);
        assert!(
            proxy(Proxy::Nftables, "n", Path::new("k"))
                .is_some_and(|a| a.contains(&"--proxy-mode=nftables".to_owned()))
        );
    }
}
