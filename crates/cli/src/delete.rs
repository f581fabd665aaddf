//! `podid delete` and `podid exception delete`: an entry taken away, and a miss said.

use clap::Args;
use kube::Api;
use podid_api::PodIdentityProfile;

use crate::edit::{self, Kind};
use crate::error::CliError;
use crate::flags::Name;
use crate::printer::Printer;
use crate::write::{Subject, WriteArgs};

/// Which entry.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
With --wait it ends when the objects made from the entry are gone. Pods lose the identity at once, without a restart.

Examples:
  podid delete --namespace my-app --name my-pod-identity --wait
  podid exception delete --namespace monitoring --name agents --ignore-not-found")]
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
    #[command(flatten)]
    pub write: WriteArgs,
}

impl DeleteArgs {
    pub(crate) async fn run(
        self,
        api: &Api<PodIdentityProfile>,
        kind: Kind,
        printer: &mut Printer,
    ) -> Result<(), CliError> {
        let Self {
            namespace: Name(namespace),
            name: Name(name),
            ignore_not_found,
            write,
        } = self;
        let editor = write.editor(api);
        let edited = editor
            .change(|spec| match kind {
                Kind::Identity => edit::remove(&mut spec.user_assigned_identities, &namespace, &name),
                Kind::Exception => {
                    edit::remove(&mut spec.user_assigned_identity_exceptions, &namespace, &name)
                }
            })
            .await;
        let edited = match edited {
            Err(CliError::Missing { .. } | CliError::NotEnabled) if ignore_not_found => {
                printer.say(&format!("{kind} {namespace}/{name} not found"));
                return Ok(());
            }
            other => other?,
        };
        write.say(&format!("{kind} {namespace}/{name} deleted"), printer);
        let subject = Subject::NoEntry(kind, &namespace, &name);
        write.end(api, edited, subject, printer).await
    }
}
