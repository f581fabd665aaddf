//! The commands: what each takes, and the one place where they are put together with a cluster.

use std::collections::BTreeMap;

use clap::{Args as ClapArgs, Subcommand};
use kube::{Api, Client};
use podid_api::profile::{
    PodIdentity, PodIdentityException, PodIdentityProfile, ProvisioningState, UserAssignedIdentity,
};
use podid_core::{Guid, IdentityResourceId};
use serde::Serialize;

use crate::connect::ConnectArgs;
use crate::edit;
use crate::error::CliError;
use crate::flags::{Label, Name, Selector};
use crate::get::GetArgs;
use crate::install::{InstallArgs, UninstallArgs};
use crate::output::{Format, Listing};
use crate::printer::Printer;

/// Everything that can follow `podid`.
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// Which cluster.
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `podid` does.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Switch pod identity on for the cluster
    Enable(EnableArgs),
    /// Switch pod identity off and drop all pod identities and exceptions
    Disable,
    /// Show identities, bindings or exceptions of the cluster
    Get(GetArgs),
    /// Give the pods of a namespace a managed identity
    Add(AddArgs),
    /// Show the pod identities
    List(ListArgs),
    /// Take a pod identity away
    Delete(DeleteArgs),
    /// Manage pods that reach the real metadata service
    #[command(subcommand)]
    Exception(ExceptionCommand),
    /// Put podid into the cluster, as the chart does by default
    Install(InstallArgs),
    /// Take podid out of the cluster: first off every node, then its objects; yours stay
    Uninstall(UninstallArgs),
}

/// What `podid exception` does.
#[derive(Subcommand, Clone, Debug)]
pub enum ExceptionCommand {
    /// Let pods with these labels reach the real metadata service
    Add(ExceptionArgs),
    /// Change the labels of an exception
    Update(ExceptionArgs),
    /// Show the exceptions
    List(ListArgs),
    /// Take an exception away
    Delete(DeleteArgs),
}

/// Network plugins of a cluster, as ARM names them.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkPlugin {
    /// Azure CNI.
    Azure,
    /// Kubenet, on which pod identity needs consent.
    Kubenet,
    /// Brought along by the cluster's owner.
    None,
}

/// Flags of `podid enable`.
#[derive(ClapArgs, Clone, Debug)]
pub struct EnableArgs {
    /// Network plugin of the cluster; what the profile says when not given
    #[arg(long, value_enum, value_name = "PLUGIN")]
    pub network_plugin: Option<NetworkPlugin>,
    /// Accept that on kubenet a pod with NET_RAW can forge another pod's address
    #[arg(long, alias = "enable-pod-identity-with-kubenet")]
    pub with_kubenet: bool,
}

/// Flags of `podid add`; the names are those of `az aks pod-identity add`.
#[derive(ClapArgs, Clone, Debug)]
pub struct AddArgs {
    /// Namespace of the pods
    #[arg(long, value_name = "NS")]
    pub namespace: Name,
    /// Name of the pod identity; the identity's own name when not given
    #[arg(long)]
    pub name: Option<Name>,
    /// ARM id of the managed identity
    #[arg(long, value_name = "ID")]
    pub identity_resource_id: IdentityResourceId,
    /// Value of the pods' label `aadpodidbinding`; the name when not given
    #[arg(long, value_name = "VALUE")]
    pub binding_selector: Option<Selector>,
    /// Client id of the managed identity
    #[arg(long, value_name = "GUID")]
    pub client_id: Option<Guid>,
    /// Object id (principal id) of the managed identity
    #[arg(long, value_name = "GUID")]
    pub object_id: Option<Guid>,
}

/// Flags of `podid exception add` and `update`; the names are those of `az aks pod-identity exception`.
#[derive(ClapArgs, Clone, Debug)]
pub struct ExceptionArgs {
    /// Namespace of the pods
    #[arg(long, value_name = "NS")]
    pub namespace: Name,
    /// Name of the exception
    #[arg(long)]
    pub name: Name,
    /// Labels of the pods; a pod needs all of them
    #[arg(long, value_name = "KEY=VALUE", num_args = 1.., required = true)]
    pub pod_labels: Vec<Label>,
}

/// Which entry.
#[derive(ClapArgs, Clone, Debug)]
pub struct DeleteArgs {
    /// Its namespace
    #[arg(long, value_name = "NS")]
    pub namespace: Name,
    /// Its name
    #[arg(long)]
    pub name: Name,
    /// Succeed when it is not there
    #[arg(long)]
    pub ignore_not_found: bool,
}

/// How to show a list.
#[derive(ClapArgs, Clone, Debug)]
pub struct ListArgs {
    /// Only this namespace
    #[arg(short, long, value_name = "NS")]
    pub namespace: Option<String>,
    /// Format
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

impl Args {
    /// Runs the command against the cluster.
    pub async fn run(self) -> anyhow::Result<()> {
        let Self { connect, command } = self;
        // Err means that a provider is there already, in a process that does more than this.
        let _already_there = rustls::crypto::ring::default_provider().install_default();
        let mut printer = Printer::to_terminal();
        if command.dry(&mut printer)? {
            return Ok(());
        }
        let client = connect.client().await?;
        Ok(command.run(client, &mut printer).await?)
    }
}

impl Command {
    /// What needs no cluster; true when that was all that was asked for.
    fn dry(&self, printer: &mut Printer) -> Result<bool, CliError> {
        match self {
            Self::Install(args) => args.dry(printer),
            Self::Uninstall(args) => args.dry(printer),
            _ => Ok(false),
        }
    }

    /// Runs the command with this client, printing there.
    pub async fn run(self, client: Client, printer: &mut Printer) -> Result<(), CliError> {
        let api = Api::all(client.clone());
        match self {
            Self::Enable(args) => args.run(&api, printer).await,
            Self::Disable => {
                let was_on = edit::disable(&api).await?;
                printer.say(if was_on {
                    "pod identity is off; all pod identities and exceptions are dropped"
                } else {
                    "pod identity was off already"
                });
                Ok(())
            }
            Self::Get(args) => args.run(client, printer).await,
            Self::Install(args) => args.run(client, printer).await,
            Self::Uninstall(args) => args.run(client, printer).await,
            Self::Add(args) => args.run(&api, printer).await,
            Self::List(args) => args.identities(&api, printer).await,
            Self::Delete(args) => {
                let found = edit::change(&api, |spec| {
                    edit::remove(
                        &mut spec.user_assigned_identities,
                        &args.namespace.0,
                        &args.name.0,
                    )
                })
                .await;
                args.said(edit::IDENTITY, found, printer)
            }
            Self::Exception(ExceptionCommand::Add(args)) => {
                let entry = args.entry();
                edit::change(&api, |spec| {
                    edit::add(&mut spec.user_assigned_identity_exceptions, entry.clone())
                })
                .await?;
                printer.say(&format!(
                    "{} {}/{} added",
                    edit::EXCEPTION,
                    entry.namespace,
                    entry.name
                ));
                Ok(())
            }
            Self::Exception(ExceptionCommand::Update(args)) => {
                let entry = args.entry();
                edit::change(&api, |spec| {
                    let list = &mut spec.user_assigned_identity_exceptions;
                    edit::find(list, &entry.namespace, &entry.name)?
                        .pod_labels
                        .clone_from(&entry.pod_labels);
                    Ok(())
                })
                .await?;
                printer.say(&format!(
                    "{} {}/{} updated",
                    edit::EXCEPTION,
                    entry.namespace,
                    entry.name
                ));
                Ok(())
            }
            Self::Exception(ExceptionCommand::List(args)) => args.exceptions(&api, printer).await,
            Self::Exception(ExceptionCommand::Delete(args)) => {
                let found = edit::change(&api, |spec| {
                    edit::remove(
                        &mut spec.user_assigned_identity_exceptions,
                        &args.namespace.0,
                        &args.name.0,
                    )
                })
                .await;
                args.said(edit::EXCEPTION, found, printer)
            }
        }
    }
}

impl EnableArgs {
    async fn run(self, api: &Api<PodIdentityProfile>, printer: &mut Printer) -> Result<(), CliError> {
        let Self {
            network_plugin,
            with_kubenet,
        } = self;
        let plugin = network_plugin.map(|plugin| match plugin {
            NetworkPlugin::Azure => "azure",
            NetworkPlugin::Kubenet => "kubenet",
            NetworkPlugin::None => "none",
        });
        let was_off = edit::enable(api, plugin, with_kubenet).await?;
        printer.say(if was_off {
            "pod identity is on"
        } else {
            "pod identity was on already"
        });
        if with_kubenet {
            printer.hint("drop NET_RAW by policy (requiredDropCapabilities: [NET_RAW])");
        } else if was_off {
            printer.hint("`podid add` gives the pods of a namespace an identity");
        }
        Ok(())
    }
}

impl AddArgs {
    async fn run(self, api: &Api<PodIdentityProfile>, printer: &mut Printer) -> Result<(), CliError> {
        let Self {
            namespace,
            name,
            identity_resource_id,
            binding_selector,
            client_id,
            object_id,
        } = self;
        let name = name.map_or_else(|| identity_resource_id.name().to_lowercase(), |name| name.0);
        if !Name::fits(&name) {
            return Err(CliError::NameNeeded(identity_resource_id.name().to_owned()));
        }
        let unnamed = client_id.is_none();
        let entry = PodIdentity {
            name,
            namespace: namespace.0,
            binding_selector: binding_selector.map(|selector| selector.0),
            identity: UserAssignedIdentity {
                resource_id: identity_resource_id.to_string(),
                client_id: client_id.map(|id| id.to_string()),
                object_id: object_id.map(|id| id.to_string()),
            },
        };
        edit::change(api, |spec| {
            edit::add(&mut spec.user_assigned_identities, entry.clone())
        })
        .await?;
        printer.say(&format!(
            "{} {}/{} added",
            edit::IDENTITY,
            entry.namespace,
            entry.name
        ));
        printer.hint(&format!(
            "pods of {} get it with the label aadpodidbinding={}",
            entry.namespace,
            entry.selector()
        ));
        if unnamed {
            printer.hint("without --client-id pods can name this identity by its resource id only");
        }
        Ok(())
    }
}

impl ExceptionArgs {
    fn entry(self) -> PodIdentityException {
        let Self {
            namespace,
            name,
            pod_labels,
        } = self;
        PodIdentityException {
            name: name.0,
            namespace: namespace.0,
            pod_labels: pod_labels
                .into_iter()
                .map(|label| (label.key, label.value))
                .collect(),
        }
    }
}

impl DeleteArgs {
    /// Says what became of the deletion.
    fn said(self, what: &str, found: Result<(), CliError>, printer: &mut Printer) -> Result<(), CliError> {
        let Self {
            namespace: Name(namespace),
            name: Name(name),
            ignore_not_found,
        } = self;
        match found {
            Ok(()) => printer.say(&format!("{what} {namespace}/{name} deleted")),
            Err(CliError::Missing { .. }) if ignore_not_found => {
                printer.say(&format!("{what} {namespace}/{name} not found"));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// An entry with what became of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WithState<E> {
    #[serde(flatten)]
    entry: E,
    #[serde(skip_serializing_if = "Option::is_none")]
    provisioning_state: Option<ProvisioningState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<podid_api::profile::EntryError>,
}

impl ListArgs {
    async fn identities(self, api: &Api<PodIdentityProfile>, printer: &mut Printer) -> Result<(), CliError> {
        let profile = edit::read(api).await?.unwrap_or_default();
        let states = profile.status.unwrap_or_default().user_assigned_identities;
        let entries = self.with_states(profile.spec.user_assigned_identities, states);
        let rows = entries.iter().map(|item| {
            let entry = &item.entry;
            let client = entry.identity.client_id.clone().unwrap_or_default();
            vec![
                entry.name.clone(),
                entry.namespace.clone(),
                entry.selector().to_owned(),
                client,
                item.state(),
            ]
        });
        let listing = Listing {
            what: "pod identities",
            titles: &["NAME", "NAMESPACE", "SELECTOR", "CLIENTID", "STATE"],
            rows: rows.collect(),
            names: entries.iter().map(|item| item.entry.name.clone()).collect(),
            data: &entries,
        };
        listing.print(self.output, printer)
    }

    async fn exceptions(self, api: &Api<PodIdentityProfile>, printer: &mut Printer) -> Result<(), CliError> {
        let profile = edit::read(api).await?.unwrap_or_default();
        let states = profile
            .status
            .unwrap_or_default()
            .user_assigned_identity_exceptions;
        let entries = self.with_states(profile.spec.user_assigned_identity_exceptions, states);
        let rows = entries.iter().map(|item| {
            let entry = &item.entry;
            vec![
                entry.name.clone(),
                entry.namespace.clone(),
                labels(&entry.pod_labels),
                item.state(),
            ]
        });
        let listing = Listing {
            what: "pod identity exceptions",
            titles: &["NAME", "NAMESPACE", "PODLABELS", "STATE"],
            rows: rows.collect(),
            names: entries.iter().map(|item| item.entry.name.clone()).collect(),
            data: &entries,
        };
        listing.print(self.output, printer)
    }

    /// The entries of the namespace asked for, each with its state.
    fn with_states<E: edit::Entry>(
        &self,
        entries: Option<Vec<E>>,
        states: Vec<podid_api::profile::EntryStatus>,
    ) -> Vec<WithState<E>> {
        let mut states: BTreeMap<_, _> = states
            .into_iter()
            .map(|state| ((state.namespace.clone(), state.name.clone()), state))
            .collect();
        let wanted = |entry: &E| {
            self.namespace
                .as_ref()
                .is_none_or(|namespace| namespace == entry.namespace())
        };
        entries
            .into_iter()
            .flatten()
            .filter(wanted)
            .map(|entry| {
                let state = states.remove(&(entry.namespace().to_owned(), entry.name().to_owned()));
                let (provisioning_state, error) = state.map_or((None, None), |state| {
                    (Some(state.provisioning_state), state.error)
                });
                WithState {
                    entry,
                    provisioning_state,
                    error,
                }
            })
            .collect()
    }
}

impl<E> WithState<E> {
    fn state(&self) -> String {
        let state = self
            .provisioning_state
            .map_or_else(|| "Pending".to_owned(), |state| format!("{state:?}"));
        match &self.error {
            Some(error) => format!("{state}: {}", error.message),
            None => state,
        }
    }
}

fn labels(labels: &BTreeMap<String, String>) -> String {
    labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(",")
}
