//! What the commands refuse and how they fail: each with an exit code and what could help.

use std::process::ExitCode;

use podid_api::names::PROFILE_NAME;

use crate::agent::AgentError;
use crate::azure::AzureError;
use crate::edit::Kind;

/// Exit code of what was refused or failed.
const FAILED: u8 = 1;
/// Exit code of what is not there; that of `az`.
const NOT_FOUND: u8 = 3;
/// Exit code of a wait that took too long.
const TIMED_OUT: u8 = 4;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// No way to the cluster.
    #[error("no way to the cluster: {0}")]
    Kubeconfig(String),
    /// The API server answered with an error.
    #[error("the API server refused to {what}: {message}")]
    Refused {
        /// What was tried.
        what: String,
        /// The API server's own words.
        message: String,
        /// Its HTTP status.
        code: u16,
    },
    /// The API server gave no answer.
    #[error("cannot {what}")]
    Unreachable {
        /// What was tried.
        what: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// The profile changed again and again while we edited it.
    #[error(
        "PodIdentityProfile `{PROFILE_NAME}` was changed by others {tries} times in a row while it was being edited"
    )]
    Contended {
        /// How often it was tried.
        tries: u32,
    },
    /// Kubenet without consent. The text is that of `az` with its preview extension.
    #[error(
        "--enable-pod-identity-with-kubenet is required for enabling pod identity addon when using Kubenet network plugin"
    )]
    Kubenet,
    /// There is no profile or it is switched off. The text is that of `az` with its preview extension.
    #[error("The pod identity addon is not enabled for this managed cluster yet")]
    NotEnabled,
    /// An entry of this name exists.
    #[error("{what} {namespace}/{name} exists already")]
    Duplicate {
        /// Which list.
        what: Kind,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// No entry of this name exists. For an exception the text is that of `az` with its preview extension.
    #[error("{what} {namespace}/{name} not found")]
    Missing {
        /// Which list.
        what: Kind,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Where an entry of this name is.
        elsewhere: Vec<String>,
    },
    /// Somebody else has the place that was asked for. The sentence says who, and what to remove.
    #[error("{0}")]
    Occupied(String),
    /// The cluster did not do in time what was asked for.
    #[error("{what} was not done within {secs} s{}", also(late))]
    Unfinished {
        /// What was awaited.
        what: String,
        /// How long.
        secs: u64,
        /// What is late, and why.
        late: Vec<String>,
    },
    /// What was built into this program cannot be read.
    #[error("the objects built into this program cannot be read")]
    Unreadable {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The list is full.
    #[error("a cluster has at most {most} {}", .what.many())]
    Full {
        /// Which list.
        what: Kind,
        /// How many it takes.
        most: u32,
    },
    /// Objects asked for by name are not there.
    #[error("{plural} not found: {}", .names.join(", "))]
    NoSuchObjects {
        /// What kind, as the API server calls many of them.
        plural: String,
        /// Which ones.
        names: Vec<String>,
    },
    /// The name that would be taken cannot be the name of an entry.
    #[error("`{name}` cannot be the name of a {what}")]
    NameNeeded {
        /// Which list.
        what: Kind,
        /// What would have been the name.
        name: String,
    },
    /// What was waited for failed.
    #[error("{what} is not in force: {message} ({code})")]
    Failed {
        /// What was waited for.
        what: String,
        /// The status's code.
        code: String,
        /// The status's words.
        message: String,
    },
    /// What was waited for was taken away by somebody else.
    #[error("{what} was taken away by somebody else meanwhile")]
    Vanished {
        /// What was waited for.
        what: String,
    },
    /// What was waited for did not come.
    #[error("{what} is not done after {after}: {last}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        after: String,
        /// What was seen last.
        last: String,
    },
    /// Azure could not be asked, or said no.
    #[error(transparent)]
    Azure(#[from] Box<AzureError>),
    /// The agent of this node gave no answer, or said no.
    #[error(transparent)]
    Agent(#[from] Box<AgentError>),
    /// Kept tokens could not be fetched anew.
    #[error("{failed} of the kept tokens could not be fetched anew; the old ones are kept")]
    NotRefreshed {
        /// How many.
        failed: usize,
    },
    /// The result cannot be written in the format that was asked for.
    #[error("the result cannot be written as {format}")]
    Unwritable {
        /// `json` or `yaml`.
        format: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What is late, behind a sentence.
fn also(late: &[String]) -> String {
    if late.is_empty() {
        String::new()
    } else {
        format!(": {}", late.join("; "))
    }
}

impl From<AzureError> for CliError {
    fn from(error: AzureError) -> Self {
        Self::Azure(Box::new(error))
    }
}

impl From<AgentError> for CliError {
    fn from(error: AgentError) -> Self {
        Self::Agent(Box::new(error))
    }
}

impl CliError {
    /// What the API server, or the way to it, did to the attempt to `what`.
    pub(crate) fn from_kube(what: impl Into<String>, error: kube::Error) -> Self {
        let what = what.into();
        match error {
            kube::Error::Api(status) => {
                let message = if status.message.is_empty() {
                    status.reason.clone()
                } else {
                    status.message.clone()
                };
                Self::Refused {
                    what,
                    message,
                    code: status.code,
                }
            }
            other => Self::Unreachable {
                what,
                source: Box::new(other),
            },
        }
    }

    /// The program's exit code: 1 for what was refused or failed, 3 for what is not there, 4 for a wait that took too long.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Missing { .. } | Self::NoSuchObjects { .. } => NOT_FOUND,
            Self::Azure(error) if error.is_not_found() => NOT_FOUND,
            Self::Agent(error) if error.is_not_found() => NOT_FOUND,
            Self::TimedOut { .. } | Self::Unfinished { .. } => TIMED_OUT,
            _ => FAILED,
        })
    }

    /// What could be done about it, when we know.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Kubeconfig(_) => Some("name one with --kubeconfig PATH or in KUBECONFIG".to_owned()),
            Self::Refused { code: 404, .. } => Some(
                "are podid's custom resources installed? `kubectl get crd | grep -e podid -e aadpodidentity`"
                    .to_owned(),
            ),
            Self::Refused { code: 401 | 403, .. } => {
                Some("`kubectl auth whoami` shows who you are for this cluster".to_owned())
            }
            Self::Unreachable { .. } => {
                Some("is the cluster up? `kubectl version` asks it the same way; --context NAME takes another".to_owned())
            }
            Self::Refused { code: 422, .. } => Some("nothing was changed; mend what the message names".to_owned()),
            Self::Kubenet => Some(
                "on kubenet a pod with NET_RAW can forge another pod's address: prefer Azure CNI, or drop NET_RAW by policy"
                    .to_owned(),
            ),
            Self::NotEnabled => Some("to enable, run `podid enable`".to_owned()),
            Self::Duplicate { .. } => Some("delete it first, or choose another --name".to_owned()),
            Self::Missing { elsewhere, .. } if !elsewhere.is_empty() => {
                Some(format!("there is one in {}", elsewhere.join(", ")))
            }
            Self::Missing { what, .. } => {
                let command = match what {
                    Kind::Identity => "podid list",
                    Kind::Exception => "podid exception list",
                };
                Some(format!("`{command}` shows what is there"))
            }
            Self::Full { what, .. } => Some(format!("delete {} that nobody needs any more", what.many())),
            Self::NoSuchObjects { plural, .. } => {
                Some(format!("`podid get {} -A` shows what is there", short(plural)))
            }
            Self::NameNeeded { .. } => Some("give one with --name".to_owned()),
            Self::Failed { code, .. } => crate::wait::fix(code).map(str::to_owned),
            Self::Vanished { .. } => Some("`podid list` shows what is there now".to_owned()),
            Self::TimedOut { .. } => Some(
                "nothing was undone; is podid-controller running? `kubectl get pods -A -l app.kubernetes.io/component=controller`"
                    .to_owned(),
            ),
            Self::Azure(error) => error.hint(),
            Self::Agent(error) => error.hint(),
            Self::NotRefreshed { .. } => Some("the agent's log says more".to_owned()),
            Self::Contended { .. } => Some("try again".to_owned()),
            Self::Unfinished { .. } => Some("the same command goes on where this one stopped; --timeout-secs gives it longer".to_owned()),
            // The API server's own words say it all.
            Self::Refused { .. } | Self::Occupied(_) | Self::Unreadable { .. } | Self::Unwritable { .. } => None,
        }
    }
}

/// What `podid get` calls a kind.
fn short(plural: &str) -> &str {
    match plural {
        "azureidentities" => "identities",
        "azureidentitybindings" => "bindings",
        "azurepodidentityexceptions" => "exceptions",
        other => other,
    }
}
