//! The control socket of a world: what other runs of this program ask of it. One request a connection; a `run` goes on
//! with signals from one side and the end from the other.
//!
//! client ─▶ Request (with files for `run`) ─▶ Reply ─▶ (Signal … ─▶ Reply::Exited)

pub mod client;
pub mod server;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "want", rename_all = "snake_case")]
pub enum Request {
    /// To know how to reach the world.
    Info,
    /// That the world ends.
    Down,
    /// To run a program as a pod; its three standard streams come with the request.
    Run(RunRequest),
    /// A managed identity, made if missing, that is on all nodes.
    Identity {
        /// Its resource group.
        group: String,
        /// Its name.
        name: String,
    },
    /// That a managed identity is taken away.
    DeleteIdentity {
        /// Its resource group.
        group: String,
        /// Its name.
        name: String,
    },
    /// That the agents are killed and stay down.
    HoldAgents,
    /// That the agents run again.
    ReleaseAgents,
}

/// A program to run as a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRequest {
    /// Namespace of the pod.
    pub namespace: String,
    /// Labels of the pod.
    pub labels: BTreeMap<String, String>,
    /// Managed identities that it may use, made if missing.
    pub identities: Vec<String>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Its environment.
    pub environment: BTreeMap<String, String>,
    /// Where it runs.
    pub folder: PathBuf,
}

/// What a client says later on: a signal for its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendSignal {
    /// Its number.
    pub signal: i32,
}

/// What the world says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// How to reach it.
    Info(Box<Info>),
    /// A managed identity.
    Identity(Identity),
    /// It is done, or (for `Down`) begun.
    Done,
    /// The program's pod is made.
    Started {
        /// Its name.
        pod: String,
    },
    /// The program has ended.
    Exited {
        /// Exit code; 128 + signal when killed by one.
        code: u8,
    },
    /// The program could not be started.
    NotStarted {
        /// Why, in one sentence.
        why: String,
    },
    /// It cannot be.
    Refused {
        /// Why, in one sentence.
        why: String,
    },
}

/// A managed identity, in Azure's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Its resource group.
    pub group: String,
    /// Its name.
    pub name: String,
    /// ARM id.
    pub resource_id: String,
    /// Client id.
    pub client_id: String,
    /// Object id.
    pub object_id: String,
}

/// How to reach a world.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Info {
    /// Its name.
    pub world: String,
    /// The process by which the machine knows it; when that is killed the world ends.
    pub supervisor: u32,
    /// Its folder.
    pub folder: PathBuf,
    /// An administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// The authority that signs for all its endpoints (PEM).
    pub ca_file: PathBuf,
    /// Where its services are for people.
    pub endpoints: Endpoints,
    /// Entra's tenant.
    pub tenant_id: String,
    /// The subscription.
    pub subscription_id: String,
    /// An application that may do everything.
    pub client_id: String,
    /// Its nodes.
    pub nodes: Vec<NodeInfo>,
}

/// URLs on the loopback address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// The Kubernetes API.
    pub kubernetes: String,
    /// ARM.
    pub resource_manager: String,
    /// Entra.
    pub authority: String,
    /// IMDS.
    pub metadata: String,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeInfo {
    /// Its name.
    pub name: String,
    /// Its address in the world.
    pub address: Ipv4Addr,
}
