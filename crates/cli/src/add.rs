//! `podid add`: a managed identity for the pods of a namespace, as `az aks pod-identity add` has it.

use clap::Args;
use kube::Api;
use podid_api::PodIdentityProfile;
use podid_api::profile::{PodIdentity, UserAssignedIdentity};
use podid_core::{Guid, IdentityResourceId};

use crate::edit::{self, Kind};
use crate::error::CliError;
use crate::flags::{Name, Selector};
use crate::printer::Printer;
use crate::write::{Subject, WriteArgs};

/// Flags of `podid add`; the names are those of `az aks pod-identity add`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Examples:
  podid add --namespace my-app --name my-pod-identity \\
    --identity-resource-id \"$(az identity show -g my-group -n my-identity --query id -o tsv)\" --wait

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
    /// Client id of the managed identity
    #[arg(long, value_name = "GUID")]
    pub client_id: Option<Guid>,
    /// Object id (principal id) of the managed identity
    #[arg(long, value_name = "GUID")]
    pub object_id: Option<Guid>,
    #[command(flatten)]
    pub write: WriteArgs,
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
        } = self;
        let name = name.map_or_else(|| identity_resource_id.name().to_lowercase(), |name| name.0);
        if !Name::fits(&name) {
            return Err(CliError::NameNeeded {
                what: Kind::Identity,
                name,
            });
        }
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
        let edited = write
            .editor(api)
            .change(|spec| edit::add(&mut spec.user_assigned_identities, entry.clone()))
            .await?;
        let PodIdentity { namespace, name, .. } = &entry;
        write.say(&format!("{} {namespace}/{name} added", Kind::Identity), printer);
        let subject = Subject::Entry(Kind::Identity, namespace, name);
        write.end(api, edited, subject, printer).await?;
        printer.hint(&format!(
            "pods of {namespace} get it with the label aadpodidbinding={}",
            entry.selector()
        ));
        if client_id.is_none() {
            printer.hint("without --client-id pods can name this identity by its resource id only");
        }
        Ok(())
    }
}
