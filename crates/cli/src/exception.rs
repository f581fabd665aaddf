//! `podid exception`: pods that reach the real metadata service, as `az aks pod-identity exception` has it.

use clap::{Args, Subcommand};
use kube::Api;
use podid_api::PodIdentityProfile;
use podid_api::profile::PodIdentityException;

use crate::delete::DeleteArgs;
use crate::edit::{self, Kind};
use crate::error::CliError;
use crate::flags::{Label, Name};
use crate::list::ListArgs;
use crate::printer::Printer;
use crate::write::{Subject, WriteArgs};

/// What `podid exception` does.
#[derive(Subcommand, Clone, Debug)]
pub enum ExceptionCommand {
    /// Let pods with these labels reach the real metadata service
    Add(ExceptionArgs),
    /// Change the labels of an exception
    Update(UpdateArgs),
    /// Show the exceptions
    List(ListArgs),
    /// Take an exception away
    Delete(DeleteArgs),
}

/// Flags of `podid exception add`; the names are those of `az aks pod-identity exception add`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
A pod needs all the labels. Its requests then go to the node's metadata service untouched: it gets tokens of any identity
of the node. `aks-addon-exception` in kube-system is there by itself while pod identity is on.

Examples:
  podid exception add --namespace monitoring --name agents --pod-labels app=agent tier=node --wait")]
pub struct ExceptionArgs {
    /// Namespace of the pods
    #[arg(long, value_name = "NS")]
    pub namespace: Name,
    /// Name of the exception; made from the labels' values when not given
    #[arg(long)]
    pub name: Option<Name>,
    /// Labels of the pods; a pod needs all of them
    #[arg(long, value_name = "KEY=VALUE", num_args = 1.., required = true)]
    pub pod_labels: Vec<Label>,
    #[command(flatten)]
    pub write: WriteArgs,
}

/// Flags of `podid exception update`; the names are those of `az aks pod-identity exception update`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Examples:
  podid exception update --namespace monitoring --name agents --pod-labels app=agent")]
pub struct UpdateArgs {
    /// Its namespace
    #[arg(long, value_name = "NS")]
    pub namespace: Name,
    /// Its name
    #[arg(long)]
    pub name: Name,
    /// Labels of the pods, in place of those that it has; a pod needs all of them
    #[arg(long, value_name = "KEY=VALUE", num_args = 1.., required = true)]
    pub pod_labels: Vec<Label>,
    #[command(flatten)]
    pub write: WriteArgs,
}

impl ExceptionCommand {
    pub(crate) async fn run(
        self,
        api: &Api<PodIdentityProfile>,
        printer: &mut Printer,
    ) -> Result<(), CliError> {
        match self {
            Self::Add(args) => args.run(api, printer).await,
            Self::Update(args) => args.run(api, printer).await,
            Self::List(args) => args.run(api, Kind::Exception, printer).await,
            Self::Delete(args) => args.run(api, Kind::Exception, printer).await,
        }
    }
}

impl ExceptionArgs {
    async fn run(self, api: &Api<PodIdentityProfile>, printer: &mut Printer) -> Result<(), CliError> {
        let Self {
            namespace,
            name,
            pod_labels,
            write,
        } = self;
        let name = match name {
            Some(Name(name)) => name,
            None => name_of(&pod_labels)?,
        };
        let entry = entry(namespace, name, pod_labels);
        let edited = write
            .editor(api)
            .change(|spec| edit::add(&mut spec.user_assigned_identity_exceptions, entry.clone()))
            .await?;
        let PodIdentityException { namespace, name, .. } = &entry;
        write.say(&format!("{} {namespace}/{name} added", Kind::Exception), printer);
        let subject = Subject::Entry(Kind::Exception, namespace, name);
        write.end(api, edited, subject, printer).await
    }
}

impl UpdateArgs {
    async fn run(self, api: &Api<PodIdentityProfile>, printer: &mut Printer) -> Result<(), CliError> {
        let Self {
            namespace,
            name: Name(name),
            pod_labels,
            write,
        } = self;
        let entry = entry(namespace, name, pod_labels);
        let PodIdentityException {
            namespace,
            name,
            pod_labels,
        } = &entry;
        let edited = write
            .editor(api)
            .change(|spec| {
                let list = &mut spec.user_assigned_identity_exceptions;
                edit::find(list, namespace, name)?
                    .pod_labels
                    .clone_from(pod_labels);
                Ok(())
            })
            .await?;
        let done = if edited.changed {
            "updated"
        } else {
            "has these labels already"
        };
        write.say(&format!("{} {namespace}/{name} {done}", Kind::Exception), printer);
        let subject = Subject::Entry(Kind::Exception, namespace, name);
        write.end(api, edited, subject, printer).await
    }
}

fn entry(Name(namespace): Name, name: String, labels: Vec<Label>) -> PodIdentityException {
    PodIdentityException {
        name,
        namespace,
        pod_labels: labels.into_iter().map(|label| (label.key, label.value)).collect(),
    }
}

/// A name for an exception that was given none: az leaves that to its server, which makes one up; this one can be guessed.
fn name_of(labels: &[Label]) -> Result<String, CliError> {
    let words = labels.iter().map(|label| {
        let word = if label.value.is_empty() {
            &label.key
        } else {
            &label.value
        };
        word.to_lowercase().replace(['.', '_', '/'], "-")
    });
    let name = words.collect::<Vec<_>>().join("-");
    if Name::fits(&name) {
        Ok(name)
    } else {
        Err(CliError::NameNeeded {
            what: Kind::Exception,
            name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_labels_values_make_the_name() {
        let name = |labels: &[&str]| {
            name_of(
                &labels
                    .iter()
                    .map(|label| label.parse().unwrap())
                    .collect::<Vec<Label>>(),
            )
        };
        assert_eq!(
            name(&["app=Web_1", "example.com/tier="]).unwrap(),
            "web-1-example-com-tier"
        );
        let long = format!("app={}", "x".repeat(60));
        name(&[&long, "tier=front"]).unwrap_err();
    }
}
