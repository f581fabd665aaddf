//! What `podid add` does in Azure when a login is at hand: it reads the identity's ids, and sees to the one grant without
//! which nobody can put the identity on a node. Without a login it says what is missing, as the command of az.
//!
//! login (environment, else az) ─▶ ARM ─▶ the identity's ids ─▶ who assigns it? ─▶ has it the role? ─▶ give it

mod login;

use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use podid_azure::arm::role::MANAGED_IDENTITY_OPERATOR;
use podid_azure::arm::{Arm, ArmError};
use podid_core::{Guid, IdentityResourceId};
use podid_rt::clock::Clock;

pub(crate) use self::login::LoginArgs;
use self::login::{Login, LoginError};
use crate::error::CliError;
use crate::printer::Printer;

/// Pauses between tries of a grant, in seconds: a principal that is new is not known everywhere at once.
/// Source: azure-cli-extensions, aks-preview, `_ensure_managed_identity_operator_permission` has as many and as long ones.
const GRANT_PAUSES: [u64; 9] = [2, 4, 6, 8, 10, 12, 14, 16, 18];
/// How long a grant may take to be seen by readers, which az sits out blindly.
const SEEN_WITHIN: Duration = Duration::from_secs(30);
/// Pause between two looks for it.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Flags about Azure.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Azure")]
pub struct AzureArgs {
    /// Resource group of the managed cluster
    #[arg(short = 'g', long, value_name = "GROUP", requires = "cluster_name")]
    pub resource_group: Option<String>,

    /// Managed cluster whose identity is granted Managed Identity Operator over the identity
    #[arg(long, value_name = "NAME", requires = "resource_group")]
    pub cluster_name: Option<String>,

    /// Who puts identities on the nodes, and is granted the role: an object id, or with --cluster-name `control-plane` (as
    /// az does) or `kubelet` (what podid-controller uses on AKS unless told otherwise)
    #[arg(long, value_name = "WHO")]
    pub cluster_identity: Option<Assigner>,

    /// Subscription of the managed cluster; that of the login when not given
    #[arg(
        long,
        env = "AZURE_SUBSCRIPTION_ID",
        hide_env_values = true,
        value_name = "ID"
    )]
    pub subscription: Option<String>,

    #[command(flatten)]
    pub login: LoginArgs,
}

/// Who puts identities on the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assigner {
    /// This principal, by its object id.
    Principal(Guid),
    /// The managed cluster's control plane.
    ControlPlane,
    /// The nodes of the managed cluster.
    Kubelet,
}

impl FromStr for Assigner {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "control-plane" => Ok(Self::ControlPlane),
            "kubelet" => Ok(Self::Kubelet),
            other => Guid::parse(other).map(Self::Principal).ok_or_else(|| {
                format!("`{other}` is neither an object id, nor `control-plane` or `kubelet`")
            }),
        }
    }
}

/// What became known of the identity.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) client_id: Option<Guid>,
    pub(crate) object_id: Option<Guid>,
    /// Whether the grant is so new that Azure may not know it everywhere.
    pub(crate) fresh_grant: bool,
}

/// Whether Azure may be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grants {
    /// Give what is missing.
    Give,
    /// Only say what is missing.
    Say,
}

/// Why Azure could not be asked, or said no.
#[derive(Debug, thiserror::Error)]
pub enum AzureError {
    /// A login was needed.
    #[error("no Azure login: {0}")]
    Login(#[from] LoginError),
    /// The identity is not there. The text is that of `az` with its preview extension.
    #[error("Identity {0} not found.")]
    NoIdentity(IdentityResourceId),
    /// An id that was given is another identity's.
    #[error("{what} of {identity} is {is}, not {given}")]
    OtherId {
        /// `the client id` or `the object id`.
        what: &'static str,
        /// The identity.
        identity: String,
        /// What ARM says.
        is: Guid,
        /// What was given.
        given: Guid,
    },
    /// The managed cluster has no identity that could be granted anything. The text is that of `az`'s preview extension.
    #[error("unable to resolve cluster identity")]
    NoClusterIdentity {
        /// What kind it has.
        kind: String,
    },
    /// A question to ARM failed.
    #[error("cannot {what}")]
    Arm {
        /// What was tried.
        what: String,
        /// What ARM said.
        #[source]
        source: ArmError,
    },
    /// The grant was refused. The text begins as that of `az`'s preview extension.
    #[error("Could not grant Managed Identity Operator permission for cluster")]
    Grant {
        /// The command with which somebody else can give it.
        command: String,
        /// What ARM said.
        #[source]
        source: ArmError,
    },
}

impl AzureError {
    fn arm(what: impl Into<String>) -> impl FnOnce(ArmError) -> Self {
        let what = what.into();
        move |source| Self::Arm { what, source }
    }

    /// Whether something is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        match self {
            Self::NoIdentity(_) => true,
            Self::Arm { source, .. } => source.is_not_found(),
            _ => false,
        }
    }

    /// What could be done about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Login(error) => Some(error.hint().to_owned()),
            Self::NoIdentity(_) => {
                Some("`az identity list --query [].id -o tsv` shows which there are".to_owned())
            }
            Self::OtherId { .. } => Some("leave the flag out: ARM knows the ids".to_owned()),
            Self::NoClusterIdentity { kind } => Some(format!(
                "the cluster's identity is of kind `{kind}`; name who puts identities on its nodes by --cluster-identity OBJECT_ID"
            )),
            Self::Arm { source, .. } if source.code() == "arm_forbidden" => Some(
                "give the ids by --client-id and --object-id, and --azure-login none, if you may not read this".to_owned(),
            ),
            Self::Arm { .. } => None,
            Self::Grant { command, .. } => Some(format!("somebody who may grant roles can run: {command}")),
        }
    }
}

impl AzureArgs {
    /// Whether it was said who puts identities on the nodes.
    pub(crate) fn sees_to_grant(&self) -> bool {
        self.cluster_name.is_some() || self.cluster_identity.is_some()
    }

    /// Finds out what is not given, and sees to the grant.
    pub(crate) async fn see_to(
        self,
        identity: &IdentityResourceId,
        given: Known,
        grants: Grants,
        printer: &mut Printer,
    ) -> Result<Known, CliError> {
        let Self {
            resource_group,
            cluster_name,
            cluster_identity,
            subscription,
            login,
        } = self;
        let cluster = resource_group.zip(cluster_name);
        let assigner = match (cluster_identity, &cluster) {
            (None, None) => None,
            (None, Some(_)) => Some(Assigner::ControlPlane),
            (Some(who), _) => Some(who),
        };
        let complete = given.client_id.is_some() && given.object_id.is_some();
        if complete && assigner.is_none() {
            // Nothing needs Azure, so nobody need be logged in.
            return Ok(given);
        }
        let (login, clock) = (login.find(subscription.as_deref()).await, Clock::system());
        let login = match login.and_then(|login| Ok((login.arm(&clock)?, login))) {
            Ok(login) => Some(login),
            // It was not asked for by name, and the flags may do without.
            Err(LoginError::Off) => None,
            Err(error @ LoginError::Nobody(_)) => {
                printer.say(&format!("no Azure login: {error}"));
                None
            }
            Err(error) => return Err(AzureError::from(error).into()),
        };
        let Some((arm, login)) = login else {
            let principal = match assigner {
                Some(Assigner::Principal(principal)) => principal.to_string(),
                _ => "OBJECT_ID_OF_WHO_PUTS_IT_ON_NODES".to_owned(),
            };
            if assigner.is_some() {
                printer.hint(&format!(
                    "the grant is yours to see to: {}",
                    command(identity, &principal)
                ));
            }
            return Ok(given);
        };
        let mut known = resolve(&arm, identity, &given).await?;
        if let Some(assigner) = assigner {
            let principal = principal(&arm, &login, assigner, subscription, cluster, identity).await?;
            known.fresh_grant = grant(&arm, identity, principal, grants, printer).await?;
        }
        Ok(known)
    }
}

/// Reads the identity; what was given must be its own.
async fn resolve(arm: &Arm, identity: &IdentityResourceId, given: &Known) -> Result<Known, AzureError> {
    let read = arm.managed_identity(identity).await.map_err(|error| {
        if error.is_not_found() {
            AzureError::NoIdentity(identity.clone())
        } else {
            AzureError::arm(format!("read the identity {}", identity.name()))(error)
        }
    })?;
    let pairs = [
        ("the client id", given.client_id, read.client_id),
        ("the object id", given.object_id, read.object_id),
    ];
    for (what, given, is) in pairs {
        if let Some(given) = given.filter(|given| *given != is) {
            return Err(AzureError::OtherId {
                what,
                identity: identity.name().to_owned(),
                is,
                given,
            });
        }
    }
    Ok(Known {
        client_id: Some(read.client_id),
        object_id: Some(read.object_id),
        fresh_grant: false,
    })
}

/// The object id of who puts identities on the nodes.
async fn principal(
    arm: &Arm,
    login: &Login,
    assigner: Assigner,
    subscription: Option<String>,
    cluster: Option<(String, String)>,
    identity: &IdentityResourceId,
) -> Result<Guid, AzureError> {
    if let Assigner::Principal(principal) = assigner {
        return Ok(principal);
    }
    let Some((group, name)) = cluster else {
        return Err(AzureError::NoClusterIdentity {
            kind: "unknown: no --cluster-name was given".to_owned(),
        });
    };
    let subscription = subscription
        .or_else(|| login.subscription().map(str::to_owned))
        .unwrap_or_else(|| identity.subscription().to_owned());
    let cluster = arm
        .managed_cluster(&subscription, &group, &name)
        .await
        .map_err(AzureError::arm(format!("read the managed cluster {name}")))?;
    let principal = match assigner {
        Assigner::Kubelet => cluster.kubelet,
        Assigner::ControlPlane | Assigner::Principal(_) => cluster.control_plane,
    };
    principal.ok_or(AzureError::NoClusterIdentity {
        kind: cluster.identity_type,
    })
}

/// Gives the role where it is missing; whether it is new.
async fn grant(
    arm: &Arm,
    identity: &IdentityResourceId,
    principal: Guid,
    grants: Grants,
    printer: &mut Printer,
) -> Result<bool, AzureError> {
    let role = MANAGED_IDENTITY_OPERATOR;
    let has = async || -> Result<bool, ArmError> {
        let roles = arm.roles_over(identity, principal).await?;
        Ok(roles.iter().any(|given| given.role == role.id))
    };
    let cannot_read = || AzureError::arm(format!("read the roles over {}", identity.name()));
    let what = format!("{} over {} for {principal}", role.name, identity.name());
    if has().await.map_err(cannot_read())? {
        printer.say(&format!("role: {what} is there already"));
        return Ok(false);
    }
    if grants == Grants::Say {
        printer.say(&format!("role: {what} would be granted"));
        return Ok(false);
    }
    printer.progress(&format!("role: granting {what}"));
    let mut pauses = GRANT_PAUSES.into_iter();
    let new = loop {
        let error = match arm.give_role(identity, role, principal).await {
            Ok(new) => break new,
            Err(error) => error,
        };
        // A principal or a scope that is new is seen late; who lacks the right today lacks it in a minute as well.
        let passing = error.is_not_found()
            || error.arm_code() == Some("PrincipalNotFound")
            || matches!(
                error.code(),
                "arm_unavailable" | "arm_throttled" | "arm_timeout" | "arm_conflict"
            );
        let Some(secs) = pauses.next().filter(|_secs| passing) else {
            printer.finish();
            return Err(AzureError::Grant {
                command: command(identity, &principal.to_string()),
                source: error,
            });
        };
        printer.progress(&format!("role: {error}; again in {secs} s"));
        tokio::time::sleep(Duration::from_secs(secs)).await;
    };
    let seen = async {
        while !has().await? {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok::<_, ArmError>(())
    };
    // Whether it is seen in time changes nothing here: the controller tries again by itself.
    if let Ok(seen) = tokio::time::timeout(SEEN_WITHIN, seen).await {
        seen.map_err(cannot_read())?;
    }
    printer.finish();
    printer.say(&format!("role: {what} granted"));
    Ok(new)
}

/// The grant, as the command of az.
pub(crate) fn command(identity: &IdentityResourceId, principal: &str) -> String {
    format!(
        "az role assignment create --role \"{}\" --assignee-object-id {principal} --assignee-principal-type ServicePrincipal --scope {identity}",
        MANAGED_IDENTITY_OPERATOR.name
    )
}
