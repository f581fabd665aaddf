//! The decision: may this caller have what it asks for, of which identity, and why (not). Pure; the agent runs it
//! without recording, everybody who wants to know why runs the same function with it.
//!
//! caller ─▶ pod ─▶ exception? pass ─▶ bound identities ─▶ the one asked for, else the default ─▶ Issue
//!    └──────────────┴─────────────────────┴────────────────────────┴─▶ Refuse(reason)

use std::net::IpAddr;
use std::sync::Arc;

use crate::ask::{PathGroup, Selector, TokenRequest};
use crate::identity::{Exception, Identity};
use crate::pod::{Phase, Pod};
use crate::reason::Reason;
use crate::world::{Bound, Lookup, NamespaceView, World};

mod steps;

pub use steps::{Record, Steps};

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller<'a> {
    /// Whoever has this address now.
    Address(IpAddr),
    /// The pod of this uid, which owned the connection when it was opened from this address. It must still have it.
    Proven {
        /// The pod's uid.
        uid: &'a str,
        /// The connection's source address.
        address: IpAddr,
    },
    /// The pod of this uid, named by a node agent that may ask for it. It needs no address yet.
    Vouched {
        /// The pod's uid.
        uid: &'a str,
    },
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Question<'a> {
    /// A token.
    Token(&'a TokenRequest<'a>),
    /// Another path of the metadata service.
    Path(PathGroup),
}

/// What the operator decided for all pods of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Where the identities of a pod come from.
    pub mode: Mode,
    /// Which identity a request gets that names none of several.
    pub ambiguous: Ambiguous,
    /// When an exception matches.
    pub exception_match: ExceptionMatch,
    /// Tokens of the node itself. Never open: [`Access::Open`] means [`Access::Excepted`]; with [`Access::Blocked`] pods with
    /// an exception need a binding like all others.
    pub token: Access,
    /// `/metadata/instance`.
    pub instance: Access,
    /// `/metadata/attested`.
    pub attested: Access,
    /// `/metadata/scheduledevents`.
    pub scheduled_events: Access,
    /// Everything else but `/metadata/identity`.
    pub other: Access,
}

/// Where the identities of a pod come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// From AzureIdentity and AzureIdentityBinding of the pod's namespace.
    Managed,
    /// From AzureAssignedIdentity.
    Standard {
        /// Whether identities of other namespaces are left out.
        namespaced: bool,
    },
}

/// Which of several identities a request without selector gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ambiguous {
    /// The one marked default, else the first by namespace and name.
    First,
    /// The one marked default, else none.
    Refuse,
}

/// How an exception's labels are compared with a pod's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExceptionMatch {
    /// All of them, exactly.
    All,
    /// Any one, its value without case. Source: aad-pod-identity v1.8.17, `pkg/pod`.
    Any,
}

/// Who may reach a path of the metadata service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody; the pod does not matter.
    Open,
    /// Pods with an exception.
    Excepted,
    /// Nobody.
    Blocked,
}

impl Default for Policy {
    /// Managed mode, deterministic, closed but for `/metadata/instance`, which the tutorial reads.
    fn default() -> Self {
        Self {
            mode: Mode::Managed,
            ambiguous: Ambiguous::First,
            exception_match: ExceptionMatch::All,
            token: Access::Excepted,
            instance: Access::Open,
            attested: Access::Excepted,
            scheduled_events: Access::Excepted,
            other: Access::Excepted,
        }
    }
}

impl Policy {
    /// Who may reach `group`.
    pub fn access(&self, group: PathGroup) -> Access {
        match group {
            PathGroup::Instance => self.instance,
            PathGroup::Attested => self.attested,
            PathGroup::ScheduledEvents => self.scheduled_events,
            // Never open: nothing below `/metadata/identity` is passed on for a pod without an exception.
            PathGroup::Identity if self.token == Access::Blocked => Access::Blocked,
            PathGroup::Identity => Access::Excepted,
            PathGroup::Other => self.other,
        }
    }
}

/// What was decided.
#[derive(Clone, Debug)]
pub enum Decision<'w> {
    /// A token of this identity for this pod.
    Issue {
        /// Who gets it.
        pod: &'w Arc<Pod>,
        /// Whose it is.
        identity: &'w Arc<Identity>,
    },
    /// The node's metadata service answers.
    PassThrough {
        /// Who asked, where that mattered.
        pod: Option<&'w Arc<Pod>>,
        /// The exception that opened the way, where one did.
        exception: Option<&'w Arc<Exception>>,
    },
    /// No.
    Refuse(Refusal<'w>),
}

/// Why not.
#[derive(Clone, Debug)]
pub struct Refusal<'w> {
    /// The reason.
    pub reason: Reason,
    /// The pod, where it was known by then.
    pub pod: Option<&'w Arc<Pod>>,
    /// What was looked for, in a few words that tell nothing of other pods; may be empty.
    pub looked_for: String,
}

impl Refusal<'_> {
    fn new(reason: Reason) -> Self {
        Self {
            reason,
            pod: None,
            looked_for: String::new(),
        }
    }

    /// What happened, what was looked for and what would fix it, as a pod may read it; without end stop.
    pub fn describe(&self) -> String {
        let mut text = self.reason.text().to_owned();
        if !self.looked_for.is_empty() {
            text = format!("{text} ({})", self.looked_for);
        }
        if !self.reason.fix().is_empty() {
            text = format!("{text}; {}", self.reason.fix());
        }
        text
    }
}

impl Decision<'_> {
    /// The outcome's reason.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Issue { .. } => Reason::TokenIssued,
            Self::PassThrough { .. } => Reason::PassedThrough,
            Self::Refuse(refusal) => refusal.reason,
        }
    }
}

/// Who asks, as the world knows it.
pub fn identify<'w>(world: &'w World, caller: Caller<'_>) -> Result<&'w Arc<Pod>, Refusal<'w>> {
    let refuse = |reason, pod| {
        Err(Refusal {
            reason,
            pod,
            looked_for: String::new(),
        })
    };
    let alive = |uid: &str| match world.pod(uid) {
        None => refuse(Reason::PodGone, None),
        Some(pod) if pod.phase == Phase::Finished => refuse(Reason::PodFinished, Some(pod)),
        Some(pod) => Ok(pod),
    };
    let (address, uid) = match caller {
        Caller::Vouched { uid } => return alive(uid),
        Caller::Address(address) => (address, None),
        Caller::Proven { uid, address } => {
            alive(uid)?;
            (address, Some(uid))
        }
    };
    match (world.at(address), uid) {
        (Lookup::Pod(pod), None) => Ok(pod),
        (Lookup::Pod(pod), Some(uid)) if *pod.id.uid == *uid => Ok(pod),
        // The address is another pod's by now.
        (Lookup::Pod(_) | Lookup::Nobody, Some(_)) => refuse(Reason::PodGone, None),
        (Lookup::Nobody, None) => Err(Refusal {
            looked_for: format!("address {}", address.to_canonical()),
            ..Refusal::new(Reason::PodNotFound)
        }),
        (Lookup::Several, _) => refuse(Reason::AddressAmbiguous, None),
        (Lookup::Node, _) => refuse(Reason::HostNetwork, None),
    }
}

/// Decides. `steps` is told each step; `&mut ()` records nothing and costs nothing.
pub fn decide<'w>(
    world: &'w World,
    policy: Policy,
    caller: Caller<'_>,
    question: Question<'_>,
    steps: &mut impl Record,
) -> Decision<'w> {
    if let Question::Path(group) = question {
        match policy.access(group) {
            Access::Open => {
                steps.step("path", format_args!("{group:?} is open to everybody"));
                return Decision::PassThrough {
                    pod: None,
                    exception: None,
                };
            }
            Access::Blocked => {
                steps.step("path", format_args!("{group:?} is closed to everybody"));
                return Decision::Refuse(Refusal::new(Reason::PathBlocked));
            }
            Access::Excepted => {}
        }
    }
    let pod = match identify(world, caller) {
        Ok(pod) => pod,
        Err(refusal) => {
            steps.step("pod", format_args!("{}", refusal.describe()));
            return Decision::Refuse(refusal);
        }
    };
    steps.step("pod", format_args!("{} (uid {})", pod.id.object, pod.id.uid));
    let view = world.namespace(pod.namespace());
    let exception = match caller {
        // The metadata service is asked by the pod itself or not at all.
        // Source: aad-pod-identity v1.8.17, `pkg/nmi/server`: no exceptions at `/host/token`.
        Caller::Vouched { .. } => None,
        Caller::Address(_) | Caller::Proven { .. } => view.and_then(|view| excepted(view, policy, pod)),
    };
    match (exception, question) {
        (Some(exception), Question::Token(_)) if policy.token == Access::Blocked => steps.step(
            "exception",
            format_args!(
                "{} matches, but tokens of the node are for nobody",
                exception.object
            ),
        ),
        (Some(exception), _) => {
            steps.step("exception", format_args!("{} matches", exception.object));
            return Decision::PassThrough {
                pod: Some(pod),
                exception: Some(exception),
            };
        }
        (None, _) => steps.step("exception", format_args!("none matches")),
    }
    let request = match question {
        Question::Token(request) => request,
        Question::Path(_) => {
            return Decision::Refuse(Refusal {
                pod: Some(pod),
                ..Refusal::new(Reason::PathClosed)
            });
        }
    };
    match choose(view, policy, pod, request, steps) {
        Ok(identity) => {
            steps.step("identity", format_args!("{}", identity.object));
            Decision::Issue { pod, identity }
        }
        Err((reason, looked_for)) => {
            let refusal = Refusal {
                reason,
                pod: Some(pod),
                looked_for,
            };
            steps.step("identity", format_args!("{}", refusal.describe()));
            Decision::Refuse(refusal)
        }
    }
}

/// The first exception, by name, that matches.
fn excepted<'w>(view: &'w NamespaceView, policy: Policy, pod: &Pod) -> Option<&'w Arc<Exception>> {
    view.exceptions.iter().find(|exception| {
        let mut labels = exception.labels.iter();
        match policy.exception_match {
            // One without labels matches nothing, in either way.
            ExceptionMatch::All => {
                !exception.labels.is_empty() && labels.all(|(key, value)| pod.labels.get(key) == Some(value))
            }
            ExceptionMatch::Any => labels.any(|(key, value)| {
                pod.labels
                    .get(key)
                    .is_some_and(|own| own.eq_ignore_ascii_case(value))
            }),
        }
    })
}

type NotChosen = (Reason, String);

fn choose<'w>(
    view: Option<&'w NamespaceView>,
    policy: Policy,
    pod: &Pod,
    request: &TokenRequest<'_>,
    steps: &mut impl Record,
) -> Result<&'w Arc<Identity>, NotChosen> {
    let (bound, removed): (Option<&Bound>, &[Arc<Identity>]) = match policy.mode {
        Mode::Managed => {
            let selector = pod
                .selector()
                .ok_or_else(|| (Reason::NoBindingLabel, of_pod(pod)))?;
            steps.step(
                "binding",
                format_args!("selector {selector:?} in namespace {}", pod.namespace()),
            );
            (
                view.and_then(|view| view.bound.get(selector)),
                view.and_then(|view| view.removed.get(selector))
                    .map(Vec::as_slice)
                    .unwrap_or_default(),
            )
        }
        Mode::Standard { .. } => {
            steps.step("assignment", format_args!("for pod {}", pod.id.object));
            // Without label no assignment will ever come, so there is nothing to wait for.
            let assigned = view.and_then(|view| view.assigned.get(&pod.id.object.name));
            if assigned.is_none() && pod.selector().is_none() {
                return Err((Reason::NoBindingLabel, of_pod(pod)));
            }
            (assigned, &[])
        }
    };
    let Some(bound) = bound.filter(|bound| !bound.is_empty()) else {
        let reason = if removed.is_empty() {
            Reason::NoBinding
        } else {
            Reason::BindingRemoved
        };
        return Err((reason, of_pod(pod)));
    };
    let may_use = |identity: &Identity| match policy.mode {
        Mode::Managed => true,
        Mode::Standard { namespaced } => {
            !(namespaced || identity.namespaced) || identity.object.namespace == *pod.namespace()
        }
    };
    let Some(selector) = &request.selector else {
        return unnamed(bound, policy, pod, may_use, removed);
    };
    if let Some(identity) = bound.named(selector).filter(|identity| may_use(identity)) {
        return Ok(identity);
    }
    let named = |identities: &[Arc<Identity>]| identities.iter().any(|identity| selector.names(identity));
    let reason = if named(&bound.pending) {
        Reason::IdentityNotAssigned
    } else if named(removed) {
        Reason::BindingRemoved
    } else if matches!(selector, Selector::Malformed(_)) || bound.missing.is_empty() {
        Reason::IdentityNotBound
    } else {
        // It may be one of those that are not there yet.
        Reason::IdentityMissing
    };
    Err((reason, format!("{}, {selector}", of_pod(pod))))
}

/// The identity for a request that names none.
fn unnamed<'w>(
    bound: &'w Bound,
    policy: Policy,
    pod: &Pod,
    may_use: impl Fn(&Identity) -> bool,
    removed: &[Arc<Identity>],
) -> Result<&'w Arc<Identity>, NotChosen> {
    if let Some(identity) = bound
        .default
        .and_then(|at| bound.identities.get(at))
        .filter(|identity| may_use(identity))
    {
        return Ok(identity);
    }
    let mut usable = bound.identities.iter().filter(|identity| may_use(identity));
    match (usable.next(), usable.next(), policy.ambiguous) {
        (Some(first), None, _) | (Some(first), Some(_), Ambiguous::First) => Ok(first),
        (Some(_), Some(_), Ambiguous::Refuse) => Err((Reason::IdentityAmbiguous, String::new())),
        (None, ..) => {
            let reason = if !bound.pending.is_empty() {
                Reason::IdentityNotAssigned
            } else if !removed.is_empty() {
                Reason::BindingRemoved
            } else if !bound.missing.is_empty() {
                Reason::IdentityMissing
            } else {
                // All that is bound belongs to other namespaces.
                Reason::IdentityNotBound
            };
            Err((reason, of_pod(pod)))
        }
    }
}

/// The pod and its selector, which the pod may know.
fn of_pod(pod: &Pod) -> String {
    match pod.selector() {
        Some(selector) => format!("pod {}, selector {selector}", pod.id.object),
        None => format!("pod {}", pod.id.object),
    }
}

#[cfg(test)]
mod tests;
