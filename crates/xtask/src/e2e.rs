//! End-to-end suites: real programs against the sandbox. Each says what it needs when that is missing; none is part of
//! `cargo test`, which needs nothing but Rust and a C compiler.

use clap::Subcommand;

mod az;
mod guide;
pub(crate) mod kube;
mod mgmt;
mod sandbox;
pub(crate) mod sdk;
mod tutorial;

/// A suite.
#[derive(Debug, Subcommand)]
pub(crate) enum Suite {
    /// The AKS tutorial (docs/guides/aks.md), line by line, with the real az and kubectl
    Az(az::AzArgs),
    /// podid's own tutorial (docs/guides/tutorial.md), line by line
    Tutorial(az::AzArgs),
    /// Real Azure SDKs, each as a pod of the sandbox: DefaultAzureCredential and a named identity, cold and warm
    Sdk(sdk::SdkArgs),
    /// Management SDKs of four languages against azure-emulator: identities, roles, machines, federated credentials
    Mgmt(mgmt::MgmtArgs),
    /// podid on real nodes, installed by its chart: the tutorial, refusals, restarts, removal
    Kube(kube::KubeArgs),
    /// The contract of the embedded Kubernetes API, against a real API server
    KubeContract,
    /// The guide to podid on Kubernetes, every command of it as it stands
    KubeGuide,
}

impl Suite {
    /// Runs it; an error when anything in it failed.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Az(args) => az::run(&args),
            Self::Tutorial(args) => tutorial::run(&args),
            Self::Sdk(args) => sdk::run(&args),
            Self::Mgmt(args) => mgmt::run(&args),
            Self::Kube(args) => kube::run(&args),
            Self::KubeContract => kube::contract(),
            Self::KubeGuide => kube::guide(),
        }
    }
}
