//! The networks of a world: Azure (this process's own namespace), the nodes, and the pods as they come and go.
//! It runs nothing in them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use podid_kernel::{Namespace, NamespaceError, cni};

use crate::layout::{self, NodeCount, NodePlan, Wiring};

/// The node's interface to Azure, and the bridge of its pods.
const UPLINK: &str = "eth0";
const BRIDGE: &str = "cni0";

/// All networks of a world.
#[derive(Debug)]
pub(crate) struct Fabric {
    azure: Namespace,
    nodes: BTreeMap<String, Arc<NodeNetwork>>,
}

/// A node's network.
#[derive(Debug)]
pub(crate) struct NodeNetwork {
    plan: NodePlan,
    namespace: Namespace,
    taken: Mutex<BTreeSet<u8>>,
    links: AtomicU32,
}

/// A pod's network; its address is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct PodNetwork {
    namespace: Namespace,
    node: Arc<NodeNetwork>,
    /// Its interface on the node and the last byte of its address; none for a pod in the node's own network.
    own: Option<(String, u8)>,
}

/// A pod cannot be connected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FabricError {
    /// The node's addresses are used up.
    #[error("node {0} has no free pod address left")]
    Full(String),
    /// The kernel says no.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
}

impl Fabric {
    /// Turns this process's own network namespace into Azure and connects the nodes to it.
    pub(crate) fn build(count: NodeCount) -> Result<Self, NamespaceError> {
        let azure = Namespace::current()?;
        let links = azure.links()?;
        for address in [layout::METADATA, layout::KUBERNETES, layout::AZURE] {
            links.address("lo", address, 32)?;
        }
        let mut nodes = BTreeMap::new();
        for plan in count.plans() {
            let namespace = Namespace::create()?;
            // As distributions have it, and what would break a path that is not symmetrical.
            namespace.sysctl("net.ipv4.conf.all.rp_filter", "1")?;
            namespace.sysctl("net.ipv4.conf.default.rp_filter", "1")?;
            cni::forward(&namespace)?;
            cni::cable(
                (&namespace, UPLINK, plan.address()),
                (&azure, &plan.uplink_name(), plan.uplink()),
                24,
            )?;
            let on_node = namespace.links()?;
            on_node.route_via(Ipv4Addr::UNSPECIFIED, 0, plan.uplink(), UPLINK)?;
            // Named, so that nothing between a node and its metadata service is left to the default route.
            on_node.route_via(layout::METADATA, 32, plan.uplink(), UPLINK)?;
            links.route_via(plan.pods(), 24, plan.address(), &plan.uplink_name())?;
            if plan.wiring() == Wiring::Bridge {
                cni::bridge(&namespace, BRIDGE, plan.gateway(), 24)?;
            }
            let node = NodeNetwork {
                plan,
                namespace,
                taken: Mutex::default(),
                links: AtomicU32::new(0),
            };
            nodes.insert(plan.name(), Arc::new(node));
        }
        Ok(Self { azure, nodes })
    }

    /// Where the emulators are.
    pub(crate) fn azure(&self) -> &Namespace {
        &self.azure
    }

    /// The nodes, by name.
    pub(crate) fn nodes(&self) -> &BTreeMap<String, Arc<NodeNetwork>> {
        &self.nodes
    }
}

impl NodeNetwork {
    /// Its addresses and wiring.
    pub(crate) fn plan(&self) -> NodePlan {
        self.plan
    }

    /// Its namespace.
    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Connects a new pod: the lowest free address, so that addresses are reused as soon as they can be.
    pub(crate) fn join(self: &Arc<Self>) -> Result<PodNetwork, FabricError> {
        let plan = self.plan;
        let host = {
            let mut taken = self.taken.lock();
            let free = plan.pod_hosts().find(|host| !taken.contains(host));
            let host = free.ok_or_else(|| FabricError::Full(plan.name()))?;
            taken.insert(host);
            host
        };
        // From here on dropping it frees the address.
        let number = self.links.fetch_add(1, Ordering::Relaxed);
        let link = match plan.wiring() {
            Wiring::PointToPoint => format!("azv{number}"),
            Wiring::Bridge => format!("veth{number}"),
        };
        let pod = PodNetwork {
            namespace: Namespace::create().inspect_err(|_| {
                self.taken.lock().remove(&host);
            })?,
            node: Arc::clone(self),
            own: Some((link.clone(), host)),
        };
        let address = plan.pod(host);
        match plan.wiring() {
            Wiring::PointToPoint => {
                cni::join_point_to_point(&self.namespace, &link, &pod.namespace, address)?;
            }
            Wiring::Bridge => {
                let gateway = plan.gateway();
                cni::join_bridge(
                    &self.namespace,
                    BRIDGE,
                    &link,
                    &pod.namespace,
                    address,
                    24,
                    gateway,
                )?;
            }
        }
        Ok(pod)
    }

    /// A pod that uses the node's own network.
    pub(crate) fn host(self: &Arc<Self>) -> PodNetwork {
        PodNetwork {
            namespace: self.namespace.clone(),
            node: Arc::clone(self),
            own: None,
        }
    }
}

impl PodNetwork {
    /// Its namespace.
    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Its node.
    pub(crate) fn node(&self) -> &NodeNetwork {
        &self.node
    }

    /// Its address.
    pub(crate) fn address(&self) -> Ipv4Addr {
        match &self.own {
            Some((_, host)) => self.node.plan.pod(*host),
            None => self.node.plan.address(),
        }
    }
}

impl Drop for PodNetwork {
    fn drop(&mut self) {
        let Some((link, host)) = &self.own else { return };
        // The interface would go with the namespace, but later: its route must be gone before the address is reused.
        match self.node.namespace.links().and_then(|links| links.remove(link)) {
            Ok(()) => {}
            // It was never made.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, link, "a pod's interface could not be removed"),
        }
        self.node.taken.lock().remove(host);
    }
}
