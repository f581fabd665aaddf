//! `podid add`: a managed identity for the pods of a namespace, as `az aks pod-identity add` has it.

use clap::Args;
use kube::Api;
use podid_api::PodIdentityProfile;
use podid_api::profile::{PodIdentity, PodIdentityProfileSpec, UserAssignedIdentity};
use podid_core::{Guid, IdentityResourceId};

use crate::azure::{self, AzureArgs, Grants, Known};
use crate::edit::{self, Editor, Kind};
use crate::error::CliError;
use crate::flags::{Name, Selector};
use crate::printer::Printer;
use crate::write::{DryRun, Subject, WriteArgs};

/// Flags of `podid add`; the names are those of `az aks pod-identity add`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
With an Azure login at hand (az, or AZURE_CLIENT_ID and its kin) the identity's ids are read from ARM, and whoever puts it
on the nodes is granted Managed Identity Operator over it: the managed cluster's identity with --cluster-name, as az does,
or anybody by --cluster-identity. Without a login give the ids as flags; the grant is then said as the command of az.

Examples:
  podid add --namespace my-app --name my-pod-identity \\
    --identity-resource-id \"$(az identity show -g my-group -n my-identity --query id -o tsv)\" \\
    --resource-group my-cluster-group --cluster-name my-cluster --wait

  # Several identities under one selector: pods name the one they want by its client id
  podid add --namespace my-app --name a --binding-selector foo \\
    --identity-resource-id \"$ID_A\" --client-id \"$CLIENT_ID_A\"
  podid add --namespace my-app --name b --binding-selector foo \\
    --identity-resource-id \"$ID_B\" --client-id \"$CLIENT_ID_B\"")]
pub struct AddArgs {
    /// Namespace of the pods; made if it is missing
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
    /// Client id of the managed identity; ARM is asked for it when not given
    #[arg(long, value_name = "GUID")]
    pub client_id: Option<Guid>,
    /// Object id (principal id) of the managed identity; ARM is asked for it when not given
    #[arg(long, value_name = "GUID")]
    pub object_id: Option<Guid>,
    #[command(flatten)]
    pub write: WriteArgs,
    #[command(flatten)]
    pub azure: AzureArgs,
}

impl AddArgs {
    pub(crate) async fn run(
        self,
        api: &Api<PodIdentityProfile>,
        printer: &mut Printer,
    ) -> Result<(), CliError> {
        let Self {
            namespace,
            name,
            identity_resource_id,
            binding_selector,
            client_id,
            object_id,
            write,
            azure,
        } = self;
        let name = name.map_or_else(|| identity_resource_id.name().to_lowercase(), |name| name.0);
        if !Name::fits(&name) {
            return Err(CliError::NameNeeded {
                what: Kind::Identity,
                name,
            });
        }
        let mut entry = PodIdentity {
            name,
            namespace: namespace.0,
            binding_selector: binding_selector.map(|selector| selector.0),
            identity: UserAssignedIdentity {
                resource_id: identity_resource_id.to_string(),
                client_id: client_id.map(|id| id.to_string()),
                object_id: object_id.map(|id| id.to_string()),
            },
        };
        let unseen = !azure.sees_to_grant();
        // First whether it may be added at all, so that nothing is changed in Azure for nothing.
        let add = |entry: &PodIdentity| {
            let entry = entry.clone();
            move |spec: &mut PodIdentityProfileSpec| {
                edit::add(&mut spec.user_assigned_identities, entry.clone())
            }
        };
        let rehearsal = Editor {
            api,
            dry_run: DryRun::Client,
        };
        rehearsal.change(add(&entry)).await?;

        let grants = if write.dry_run == DryRun::None {
            Grants::Give
        } else {
            Grants::Say
        };
        let given = Known {
            client_id,
            object_id,
            fresh_grant: false,
        };
        let known = azure.see_to(&identity_resource_id, given, grants, printer);
        let Known {
            client_id,
            object_id,
            fresh_grant,
        } = Box::pin(known).await?;
        entry.identity.client_id = client_id.map(|id| id.to_string());
        entry.identity.object_id = object_id.map(|id| id.to_string());

        let edited = write.editor(api).change(add(&entry)).await?;
        let PodIdentity { namespace, name, .. } = &entry;
        write.say(&format!("{} {namespace}/{name} added", Kind::Identity), printer);
        let subject = Subject::Entry(Kind::Identity, namespace, name);
        write
            .end_patiently(api, edited, subject, fresh_grant, printer)
            .await?;
        printer.hint(&format!(
            "pods of {namespace} get it with the label aadpodidbinding={}",
            entry.selector()
        ));
        if client_id.is_none() {
            printer.hint("without --client-id pods can name this identity by its resource id only");
        }
        if unseen {
            printer.hint(&format!(
                "whoever puts it on the nodes needs a role over it: --cluster-identity OBJECT_ID grants it, or {}",
                azure::command(&identity_resource_id, "OBJECT_ID")
            ));
        }
        Ok(())
    }
}
