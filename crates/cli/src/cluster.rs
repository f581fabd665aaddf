//! The way to the cluster: `--kubeconfig` and `--context`, else what every Kubernetes client does. Gone only by
//! commands that need it.

use std::path::Path;

use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::error::CliError;

/// Which cluster.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Cluster")]
pub struct ConnectArgs {
    /// Kubeconfig file, or several as KUBECONFIG has them; else the one of the home folder, else the pod's own cluster
    #[arg(
        long,
        env = "KUBECONFIG",
        hide_env_values = true,
        value_name = "PATH",
        global = true
    )]
    pub kubeconfig: Option<std::ffi::OsString>,

    /// Context of the kubeconfig, in place of its current one
    #[arg(
        long,
        env = "PODID_CONTEXT",
        hide_env_values = true,
        value_name = "NAME",
        global = true
    )]
    pub context: Option<String>,
}

/// A cluster to be reached.
#[derive(Clone)]
pub enum Cluster {
    /// By the command line's flags, once it is needed.
    By(ConnectArgs),
    /// By this client.
    At(Client),
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::By(args) => f.debug_tuple("By").field(args).finish(),
            Self::At(_) => f.debug_tuple("At").finish_non_exhaustive(),
        }
    }
}

impl Cluster {
    /// A client of it. Nothing is sent yet.
    pub(crate) async fn client(&self) -> Result<Client, CliError> {
        match self {
            Self::By(args) => args.client().await,
            Self::At(client) => Ok(client.clone()),
        }
    }
}

impl ConnectArgs {
    async fn client(&self) -> Result<Client, CliError> {
        // kube's texts have their causes in them already.
        fn refused(error: impl ToString) -> CliError {
            CliError::Kubeconfig(error.to_string())
        }
        // Err means that a provider is there already, in a process that does more than this.
        let _already_there = rustls::crypto::ring::default_provider().install_default();
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        let config = match self.kubeconfig.as_ref().filter(|paths| !paths.is_empty()) {
            Some(paths) => {
                let merged = read_all(paths).map_err(refused)?;
                Config::from_custom_kubeconfig(merged, &options)
                    .await
                    .map_err(refused)?
            }
            None if self.context.is_some() => Config::from_kubeconfig(&options).await.map_err(refused)?,
            None => Config::infer().await.map_err(refused)?,
        };
        Client::try_from(config).map_err(refused)
    }
}

/// As kubectl does: the first file's word counts, files of a list may be missing, one alone may not.
fn read_all(paths: &std::ffi::OsStr) -> Result<Kubeconfig, kube::config::KubeconfigError> {
    let paths: Vec<_> = std::env::split_paths(paths)
        .filter(|path| !path.as_os_str().is_empty())
        .collect();
    if let [only] = paths.as_slice() {
        return Kubeconfig::read_from(only);
    }
    paths
        .iter()
        .filter(|path| Path::exists(path))
        .try_fold(Kubeconfig::default(), |merged, path| {
            merged.merge(Kubeconfig::read_from(path)?)
        })
}
