//! The commands: which there are, and what each needs to run.

use clap::{Args as ClapArgs, Parser, Subcommand};
use kube::Api;

use crate::add::AddArgs;
use crate::cluster::{Cluster, ConnectArgs};
use crate::delete::DeleteArgs;
use crate::edit::Kind;
use crate::enable::{DisableArgs, EnableArgs};
use crate::exception::ExceptionCommand;
use crate::explain::ExplainArgs;
use crate::get::GetArgs;
use crate::install::{InstallArgs, UninstallArgs};
use crate::list::ListArgs;
use crate::printer::Printer;
use crate::shell::{CompletionArgs, ManArgs, VersionArgs};
use crate::token::TokenCommand;

/// The program.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "podid",
    version,
    about = "Gives pods of a cluster their managed identities",
    after_help = "\
Exit codes:
  0  done
  1  refused or failed
  2  wrong usage
  3  not found
  4  --wait took longer than --timeout; what was written stays

Data goes to stdout, everything else to stderr; errors come with a hint.",
    after_long_help = "\
Examples:
  podid enable --network-plugin azure
  podid add --namespace my-app --name my-pod-identity --identity-resource-id \"$ID\" --wait
  podid list
  podid get pods --namespace my-app       # who would get what, and why not
  podid delete --namespace my-app --name my-pod-identity

`podid pod-identity …` does the same with the words of `az aks pod-identity …`.

Exit codes:
  0  done
  1  refused or failed
  2  wrong usage
  3  not found
  4  --wait took longer than --timeout; what was written stays

Data goes to stdout, everything else to stderr; errors come with a hint."
)]
pub struct Podid {
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would become the help's heading")]
    pub args: Args,
}

/// Everything that can follow `podid`.
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would become the help's heading")]
    pub connect: ConnectArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `podid` does.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Put podid into the cluster, as the chart does by default
    Install(InstallArgs),
    /// Take podid out of the cluster: first off every node, then its objects; yours stay
    Uninstall(UninstallArgs),
    /// Switch pod identity on for the cluster
    Enable(EnableArgs),
    /// Switch pod identity off and drop all pod identities and exceptions
    Disable(DisableArgs),
    /// Give the pods of a namespace a managed identity
    Add(Box<AddArgs>),
    /// Show the pod identities
    List(ListArgs),
    /// Take a pod identity away
    Delete(DeleteArgs),
    /// Manage pods that reach the real metadata service
    #[command(subcommand)]
    Exception(ExceptionCommand),
    /// Show identities, bindings, exceptions, or which pod would get what
    Get(GetArgs),
    /// Say step by step what a pod would get, and why (not)
    Explain(ExplainArgs),
    /// Get, refresh or list tokens at this node's agent: for tests, root only
    #[command(subcommand)]
    Token(TokenCommand),
    /// Write the completion script of a shell
    Completion(CompletionArgs),
    /// Write the manual pages
    Man(ManArgs),
    /// Say which version this is
    Version(VersionArgs),
    /// The same in the words of `az aks pod-identity`
    #[command(subcommand, hide = true)]
    PodIdentity(PodIdentityCommand),
}

/// `az aks pod-identity`, whose users need not learn where a word has gone.
#[derive(Subcommand, Clone, Debug)]
pub enum PodIdentityCommand {
    /// Give the pods of a namespace a managed identity
    Add(Box<AddArgs>),
    /// Show the pod identities
    List(ListArgs),
    /// Take a pod identity away
    Delete(DeleteArgs),
    /// Manage pods that reach the real metadata service
    #[command(subcommand)]
    Exception(ExceptionCommand),
}

impl Args {
    /// Runs the command against the cluster.
    pub async fn run(self) -> anyhow::Result<()> {
        let Self { connect, command } = self;
        command
            .run(&Cluster::By(connect), &mut Printer::to_terminal())
            .await
    }
}

impl Command {
    /// Runs the command against this cluster, printing there.
    pub async fn run(self, cluster: &Cluster, printer: &mut Printer) -> anyhow::Result<()> {
        let profile = async || anyhow::Ok(Api::all(cluster.client().await?));
        match self {
            // A dry run needs no cluster.
            Self::Install(args) => {
                if !args.dry(printer)? {
                    args.run(cluster.client().await?, printer).await?;
                }
            }
            Self::Uninstall(args) => {
                if !args.dry(printer)? {
                    args.run(cluster.client().await?, printer).await?;
                }
            }
            Self::Enable(args) => args.run(&profile().await?, printer).await?,
            Self::Disable(args) => args.run(&profile().await?, printer).await?,
            Self::Add(args) | Self::PodIdentity(PodIdentityCommand::Add(args)) => {
                args.run(&profile().await?, printer).await?;
            }
            Self::List(args) | Self::PodIdentity(PodIdentityCommand::List(args)) => {
                args.run(&profile().await?, Kind::Identity, printer).await?;
            }
            Self::Delete(args) | Self::PodIdentity(PodIdentityCommand::Delete(args)) => {
                args.run(&profile().await?, Kind::Identity, printer).await?;
            }
            Self::Exception(command) | Self::PodIdentity(PodIdentityCommand::Exception(command)) => {
                command.run(&profile().await?, printer).await?;
            }
            Self::Get(args) => args.run(cluster.client().await?, printer).await?,
            Self::Explain(args) => args.run(cluster, printer).await?,
            Self::Token(command) => command.run(printer).await?,
            Self::Completion(args) => args.run(printer),
            Self::Man(args) => args.run(printer)?,
            Self::Version(args) => args.run(printer)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_of_every_command_is_sound() {
        Podid::command().debug_assert();
    }
}
