//! `cargo xtask kube azure`: azure-emulator in Azure's place beside a cluster that runs, with one managed identity on its
//! nodes, as an operator would have put it there. For who follows the guide.

use std::collections::BTreeMap;

use anyhow::Context as _;

use super::azure::{Azure, SUBSCRIPTION};
use super::story::World;
use super::workload::Kubectl;
use crate::image::{self, IMAGES};
use crate::kube::cluster::Cluster;

const GROUP: &str = "myIdentityResourceGroup";
const IDENTITY: &str = "application-identity";

/// Starts it, and gives what the guide's commands need to know, by the names that they use.
pub(crate) fn start(cluster: &Cluster) -> anyhow::Result<BTreeMap<&'static str, String>> {
    let folder = cluster.kubeconfig("admin");
    let folder = folder
        .parent()
        .context("a kubeconfig lies in a folder")?
        .to_owned();
    let nodes = cluster.addresses()?;
    let callers: Vec<_> = nodes
        .iter()
        .map(|(name, address)| (name.as_str(), *address))
        .collect();
    let azure = Azure::start(cluster, &callers, &folder)?;
    azure.create_plain_cluster(callers.len())?;
    azure.create_group(GROUP)?;
    let identity = azure.create_identity(GROUP, IDENTITY)?;
    azure.put_on_nodes(&identity)?;
    let world = World {
        cluster,
        kubectl: Kubectl(cluster),
        azure,
        folder,
    };
    let programs = image::build_for_this_machine()?;
    for image in IMAGES.into_iter().filter(|image| image.name == "podid-demo") {
        world.load_image(&programs, image)?;
    }
    Ok(BTreeMap::from([
        ("SUBSCRIPTION_ID", SUBSCRIPTION.to_owned()),
        ("IDENTITY_RESOURCE_GROUP", GROUP.to_owned()),
        ("IDENTITY_RESOURCE_ID", identity.id),
        ("IDENTITY_CLIENT_ID", identity.client_id),
    ]))
}
