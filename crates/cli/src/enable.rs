//! `podid enable` and `podid disable`: pod identity as a whole, as `az aks update --enable-pod-identity` has it.

use clap::{Args, ValueEnum};
use kube::Api;
use podid_api::PodIdentityProfile;

use crate::error::CliError;
use crate::printer::Printer;
use crate::write::{DryRun, Subject, WriteArgs};

/// Network plugins of a cluster, as ARM names them.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkPlugin {
    /// Azure CNI.
    Azure,
    /// Kubenet, on which pod identity needs consent.
    Kubenet,
    /// Brought along by the cluster's owner.
    None,
}

/// Flags of `podid enable`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Examples:
  # Azure CNI, or any other plugin where pods cannot forge addresses
  podid enable --network-plugin azure --wait

  # kubenet: only with consent, and with a policy that drops NET_RAW
  podid enable --network-plugin kubenet --enable-pod-identity-with-kubenet

  # What would be written, as YAML for a repository
  podid enable --dry-run=client -o yaml")]
pub struct EnableArgs {
    /// Network plugin of the cluster; what the profile says when not given
    #[arg(long, value_enum, value_name = "PLUGIN")]
    pub network_plugin: Option<NetworkPlugin>,

    /// Accept that on kubenet a pod with NET_RAW can forge another pod's address
    #[arg(long = "enable-pod-identity-with-kubenet", alias = "with-kubenet")]
    pub with_kubenet: bool,

    #[command(flatten)]
    pub write: WriteArgs,
}

/// Flags of `podid disable`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Examples:
  # See first what would go
  podid list; podid exception list

  podid disable --wait")]
pub struct DisableArgs {
    #[command(flatten)]
    pub write: WriteArgs,
}

impl EnableArgs {
    pub(crate) async fn run(
        self,
        api: &Api<PodIdentityProfile>,
        printer: &mut Printer,
    ) -> Result<(), CliError> {
        let Self {
            network_plugin,
            with_kubenet,
            write,
        } = self;
        let plugin = network_plugin.map(|plugin| match plugin {
            NetworkPlugin::Azure => "azure",
            NetworkPlugin::Kubenet => "kubenet",
            NetworkPlugin::None => "none",
        });
        let (was_off, edited) = write.editor(api).enable(plugin, with_kubenet).await?;
        write.say(
            match (was_off, edited.changed) {
                (true, _) => "pod identity is on",
                (false, true) => "pod identity was on already; its settings are changed",
                (false, false) => "pod identity was on already",
            },
            printer,
        );
        write.end(api, edited, Subject::Whole(true), printer).await?;
        if with_kubenet {
            printer.hint("drop NET_RAW by policy (requiredDropCapabilities: [NET_RAW])");
        } else if was_off && write.dry_run == DryRun::None {
            printer.hint("`podid add` gives the pods of a namespace an identity");
        }
        Ok(())
    }
}

impl DisableArgs {
    pub(crate) async fn run(
        self,
        api: &Api<PodIdentityProfile>,
        printer: &mut Printer,
    ) -> Result<(), CliError> {
        let Self { write } = self;
        let (was_on, edited) = write.editor(api).disable().await?;
        match was_on {
            Some((identities, exceptions)) => write.say(
                &format!(
                    "pod identity is off; dropped with it: {identities} pod identities, {exceptions} exceptions"
                ),
                printer,
            ),
            None => write.say("pod identity was off already", printer),
        }
        write.end(api, edited, Subject::Whole(false), printer).await
    }
}
