//! The cluster's world as its agents see it, one for each node, read once: what `podid get pods` and `podid explain`
//! decide on, with core's own function. It watches nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::Object;
use kube::{Api, Client, Resource, ResourceExt};
use podid_api::pod::{NodePod, PodMetadata, PodSpec, PodStatus};
use podid_api::{
    AzureAssignedIdentity, AzureIdentity, AzureIdentityBinding, AzurePodIdentityException, ResourceError,
    convert,
};
use podid_core::decide::{Ambiguous, ExceptionMatch as Match, Mode, Question, Record};
use podid_core::{Caller, Decision, Identity, Index, Pod, Policy, Selector, TokenRequest, World, decide};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::CliError;
use crate::get::{ScopeArgs, fetch};
use crate::printer::Printer;

/// How the agents decide. They do not publish their flags, so whoever changed one says so here; names and defaults are theirs.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "How the agents decide (their own flags)")]
pub struct PolicyArgs {
    /// Where the identities of a pod come from: bindings of its namespace, or AzureAssignedIdentity
    #[arg(
        long,
        env = "PODID_OPERATION_MODE",
        hide_env_values = true,
        value_enum,
        value_name = "MODE",
        ignore_case = true,
        default_value = "managed"
    )]
    pub operation_mode: OperationMode,

    /// Which identity a request without selector gets when the pod has several and none is marked default
    #[arg(
        long,
        env = "PODID_AMBIGUOUS_IDENTITY",
        hide_env_values = true,
        value_enum,
        value_name = "WHICH",
        default_value = "first"
    )]
    pub ambiguous_identity: AmbiguousIdentity,

    /// Whether a pod needs all labels of an exception or, as in the original, any one
    #[arg(
        long,
        env = "PODID_EXCEPTION_MATCH",
        hide_env_values = true,
        value_enum,
        value_name = "HOW",
        default_value = "all"
    )]
    pub exception_match: ExceptionMatch,
}

/// Where the identities of a pod come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OperationMode {
    /// From AzureIdentity and AzureIdentityBinding of the pod's namespace.
    Managed,
    /// From AzureAssignedIdentity.
    Standard,
}

/// Which of several identities a request without selector gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AmbiguousIdentity {
    /// The first by name.
    First,
    /// None.
    Refuse,
}

/// How an exception's labels are compared with a pod's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExceptionMatch {
    /// All of them.
    All,
    /// Any one.
    Any,
}

impl From<PolicyArgs> for Policy {
    fn from(args: PolicyArgs) -> Self {
        let PolicyArgs {
            operation_mode,
            ambiguous_identity,
            exception_match,
        } = args;
        Self {
            mode: match operation_mode {
                OperationMode::Managed => Mode::Managed,
                OperationMode::Standard => Mode::Standard { namespaced: false },
            },
            ambiguous: match ambiguous_identity {
                AmbiguousIdentity::First => Ambiguous::First,
                AmbiguousIdentity::Refuse => Ambiguous::Refuse,
            },
            exception_match: match exception_match {
                ExceptionMatch::All => Match::All,
                ExceptionMatch::Any => Match::Any,
            },
            ..Self::default()
        }
    }
}

/// A pod as the API server has it, reduced.
type RawPod = Object<RawSpec, PodStatus>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawSpec {
    #[serde(flatten)]
    known: PodSpec,
    node_name: Option<String>,
}

/// A pod in its node's world.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) pod: Pod,
    /// Its node; empty before it has one.
    pub(crate) node: String,
    /// As the API server has it.
    pub(crate) phase: String,
    /// Where it would ask from. One that has no address yet is lent one, so as to say what it would get with one.
    address: IpAddr,
}

/// The pods that were asked for, and the worlds that they are in.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) pods: Vec<Placed>,
    worlds: BTreeMap<String, World>,
    /// Of a node that none of the pods is on.
    empty: World,
    policy: Policy,
    /// Names that were asked for and are not there.
    pub(crate) missing: Vec<String>,
}

/// Reads what is declared, and the pods asked for.
pub(crate) async fn read(
    client: &Client,
    scope: &ScopeArgs,
    names: &[String],
    params: &ListParams,
    policy: PolicyArgs,
    printer: &mut Printer,
) -> Result<Seen, CliError> {
    let resource = ApiResource {
        group: String::new(),
        version: "v1".to_owned(),
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        plural: "pods".to_owned(),
    };
    let api: Api<RawPod> = scope.api(client.clone(), &resource);
    let (raw, missing) = fetch(&api, "pods", names, params).await?;
    let pods: Vec<Placed> = raw.into_iter().zip(0..).map(placed).collect();

    let declared = Declared {
        client,
        scope,
        printer,
    };
    let worlds = declared.worlds(&pods, policy.operation_mode).await?;
    Ok(Seen {
        pods,
        worlds,
        empty: World::default(),
        policy: policy.into(),
        missing,
    })
}

impl Seen {
    /// What `pod` would get for a request that names an identity so.
    pub(crate) fn decide<'s>(
        &'s self,
        pod: &'s Placed,
        selector: Option<Selector<'_>>,
        steps: &mut impl Record,
    ) -> Decision<'s> {
        let request = TokenRequest {
            resource: "https://management.azure.com/".into(),
            selector,
        };
        let caller = Caller::Proven {
            uid: &pod.pod.id.uid,
            address: pod.address,
        };
        decide(
            self.around(pod),
            self.policy,
            caller,
            Question::Token(&request),
            steps,
        )
    }

    /// The world of the pod's node.
    fn around(&self, pod: &Placed) -> &World {
        self.worlds.get(&pod.node).unwrap_or(&self.empty)
    }

    /// All identities that `pod` may name, each of which was decided on; by namespace and name.
    pub(crate) fn nameable<'s>(&'s self, pod: &'s Placed) -> Vec<&'s Arc<Identity>> {
        let mut found: BTreeMap<_, &Arc<Identity>> = BTreeMap::new();
        for candidate in self.around(pod).usable_identities() {
            let names = [
                candidate.client_id.map(Selector::ClientId),
                candidate.object_id.map(Selector::ObjectId),
                candidate
                    .resource_id
                    .as_ref()
                    .map(|id| Selector::ResourceId(id.as_str().into())),
            ];
            for name in names.into_iter().flatten() {
                if let Decision::Issue { identity, .. } = self.decide(pod, Some(name), &mut ()) {
                    found.insert(
                        (identity.object.namespace.clone(), identity.object.name.clone()),
                        identity,
                    );
                }
            }
        }
        found.into_values().collect()
    }
}

/// What the cluster declares, to be read.
struct Declared<'a> {
    client: &'a Client,
    scope: &'a ScopeArgs,
    printer: &'a mut Printer,
}

impl Declared<'_> {
    /// A world for each node on which one of the pods is. What is declared is the same in all; the pods are a node's own.
    async fn worlds(
        mut self,
        pods: &[Placed],
        mode: OperationMode,
    ) -> Result<BTreeMap<String, World>, CliError> {
        let (mut identities, mut bindings, mut assignments) = (Vec::new(), Vec::new(), Vec::new());
        match mode {
            OperationMode::Managed => {
                identities = self
                    .list::<AzureIdentity, _>(self.scope, convert::identity)
                    .await?;
                bindings = self
                    .list::<AzureIdentityBinding, _>(self.scope, convert::binding)
                    .await?;
            }
            OperationMode::Standard => {
                // Whoever assigns may keep them in a namespace of its own.
                let everywhere = ScopeArgs {
                    namespace: None,
                    all_namespaces: true,
                };
                let all = self.list::<AzureAssignedIdentity, _>(&everywhere, convert::assignment);
                assignments = all.await?.into_iter().flatten().collect();
            }
        }
        let exceptions = self
            .list::<AzurePodIdentityException, _>(self.scope, convert::exception)
            .await?;
        let mut by_node: BTreeMap<String, Vec<Pod>> = BTreeMap::new();
        for placed in pods {
            let mut pod = placed.pod.clone();
            if pod.addresses.is_empty() {
                pod.addresses.push(placed.address);
            }
            by_node.entry(placed.node.clone()).or_default().push(pod);
        }
        let world = |pods| {
            let mut index = Index::new();
            index.reset_identities(identities.clone());
            index.reset_bindings(bindings.clone());
            index.reset_exceptions(exceptions.clone());
            index.reset_assignments(assignments.clone());
            index.reset_pods(pods);
            index.snapshot()
        };
        Ok(by_node
            .into_iter()
            .map(|(node, pods)| (node, world(pods)))
            .collect())
    }

    /// Lists objects untyped and converts them; what cannot be used is said and counts as absent, as for the agent.
    async fn list<K, N>(
        &mut self,
        scope: &ScopeArgs,
        convert: impl Fn(&K) -> Result<N, ResourceError> + Send,
    ) -> Result<Vec<N>, CliError>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Send,
        N: Send,
    {
        let resource = ApiResource::erase::<K>(&());
        let api: Api<DynamicObject> = scope.api(self.client.clone(), &resource);
        let (items, _none) = fetch(&api, &resource.plural, &[], &ListParams::default()).await?;
        let mut nouns = Vec::with_capacity(items.len());
        for object in items {
            let name = format!(
                "{} {}/{}",
                resource.kind,
                object.namespace().unwrap_or_default(),
                object.name_any()
            );
            let typed = object.try_parse::<K>().map_err(|error| error.to_string());
            match typed.and_then(|typed| convert(&typed).map_err(|error| error.to_string())) {
                Ok(noun) => nouns.push(noun),
                Err(why) => {
                    let line = format!("warning: {name} cannot be used and counts as absent: {why}");
                    self.printer.say(&line);
                }
            }
        }
        Ok(nouns)
    }
}

fn placed((raw, number): (RawPod, u64)) -> Placed {
    let Object {
        types: _,
        metadata,
        spec: RawSpec { known, node_name },
        status,
    } = raw;
    let status = status.unwrap_or_default();
    let phase = status.phase.clone().unwrap_or_else(|| "Pending".to_owned());
    let pod = convert::pod(NodePod {
        metadata: PodMetadata {
            name: metadata.name.unwrap_or_default(),
            namespace: metadata.namespace.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            labels: metadata.labels.unwrap_or_default(),
        },
        spec: known,
        status,
    });
    let address = pod.addresses.first().copied().unwrap_or_else(|| lent(number));
    Placed {
        node: node_name.unwrap_or_default(),
        phase,
        address,
        pod,
    }
}

/// An address that nobody has. Source: RFC 6666, the discard prefix 100::/64.
fn lent(number: u64) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits((0x0100_u128 << 112) | u128::from(number)))
}
