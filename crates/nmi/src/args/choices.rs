//! What the agent's flags let one choose from, as clap reads and shows it.

use clap::ValueEnum;

/// How pods' requests get here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Interception {
    /// The first of local-route+nft and local-route that passes the self-test
    Auto,
    /// Policy rules and a local route; takes port 80 of the node from programs on 0.0.0.0:80
    LocalRoute,
    /// The same, and nf_tables rewrites the port, so that port 80 stays free
    #[value(name = "local-route+nft")]
    LocalRouteNft,
    /// Policy rules, and nf_tables leads to an address of the node's own, which --listen names
    Nft,
    /// Not at all; --listen names the address
    None,
}

/// What happens with connections that the kernel does not confirm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Attestation {
    /// Refuse them
    Enforce,
    /// Let them through and count them
    Audit,
    /// Trust the source address
    Off,
}

/// Where tokens of managed identities come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MsiSource {
    /// The node's metadata service
    Imds,
    /// An exchange of the pod's service-account token at Entra
    Federation,
}

/// Where the identities of a pod come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OperationMode {
    /// AzureIdentity and AzureIdentityBinding of the pod's namespace
    Managed,
    /// AzureAssignedIdentity, which a controller writes
    Standard,
}

/// Which of several identities a request without selector gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AmbiguousIdentity {
    /// The first by namespace and name
    First,
    /// None; the real service's 400
    Refuse,
}

/// How refusals are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ErrorStyle {
    /// JSON in the real service's shape, with statuses that no SDK takes for something else
    Podid,
    /// The original's status codes and texts
    AadPodIdentity,
}

/// How an exception's labels are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExceptionMatch {
    /// All labels, exactly
    All,
    /// Any one label, its value without case
    Any,
}
