//! The real way: a pod's network namespace, the node's local route, the metadata address, and every connection confirmed
//! by the kernel. Needs namespaces, so it runs in a world of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::time::Duration;

use anyhow::Context as _;
use podid_kernel::{Namespace, cni};
use podid_testkit::bench::Row;
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::cluster::{Cluster, Size, namespace};
use crate::process::Agent;
use crate::standin::Standin;
use crate::warm::Way;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 2);
const PREFIX: u8 = 24;
/// Where pods ask.
const METADATA: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80);

/// The rows of a cached token, asked for by a pod on a bridge.
pub(crate) fn rows(
    runtime: &Runtime,
    cluster: &Cluster,
    size: Size,
    upstream: &Standin,
    lasts: Duration,
) -> anyhow::Result<Vec<Row>> {
    let (node, pod) = (Namespace::current()?, Namespace::create()?);
    cni::forward(&node)?;
    cni::bridge(&node, "cni0", GATEWAY, PREFIX)?;
    cni::join_bridge(&node, "cni0", "veth2", &pod, POD, PREFIX, GATEWAY)?;
    // One pod asks with a new connection each time, for longer than its ports would last.
    pod.sysctl("net.ipv4.ip_local_port_range", "1024 65535")?;
    let labels = json!({ "aadpodidbinding": "app-0" });
    let uid = runtime.block_on(cluster.pod(&namespace(size, 0), "in-a-namespace", POD.into(), labels))?;
    let places = TempDir::new()?;
    symlink(pod.path(), places.path().join(uid))?;
    let folder = format!("--pod-netns-dir={}", places.path().display());
    let flags = [
        "--interception=local-route",
        "--attestation=enforce",
        folder.as_str(),
    ];
    let agent = Agent::start(cluster, upstream, &[&flags, Agent::UNLIMITED])?;
    let way = Way {
        agent: &agent,
        to: METADATA,
        from: vec![POD.into()],
        within: Some(&pod),
        name: ", attested pod by local route",
        lasts,
    };
    way.rows(true)
        .with_context(|| format!("ask from a pod's namespace; the agent's log:\n{}", agent.log()))
}
