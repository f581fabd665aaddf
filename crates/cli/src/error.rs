//! What the commands refuse and how they fail, each with what could help.

use podid_api::names::PROFILE_NAME;

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
    /// Kubenet without consent. The text is that of `az` with its preview extension, with our flag.
    #[error("--with-kubenet is required for enabling pod identity addon when using Kubenet network plugin")]
    Kubenet,
    /// There is no profile or it is switched off.
    #[error("pod identity is not enabled for this cluster")]
    NotEnabled,
    /// An entry of this name exists.
    #[error("{what} {namespace}/{name} exists already")]
    Duplicate {
        /// `pod identity` or `pod identity exception`.
        what: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// No entry of this name exists.
    #[error("{what} {namespace}/{name} not found")]
    Missing {
        /// `pod identity` or `pod identity exception`.
        what: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Where an entry of this name is.
        elsewhere: Vec<String>,
    },
    /// The identity's name cannot be the name of a pod identity.
    #[error("the identity's name `{0}` cannot be the name of a pod identity")]
    NameNeeded(String),
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
            Self::NotEnabled => Some("`podid enable` switches it on".to_owned()),
            Self::Duplicate { .. } => Some("delete it first, or choose another --name".to_owned()),
            Self::Missing { elsewhere, .. } if !elsewhere.is_empty() => {
                Some(format!("there is one in {}", elsewhere.join(", ")))
            }
            Self::Missing { what, .. } => {
                let command = if *what == crate::edit::EXCEPTION { "podid exception list" } else { "podid list" };
                Some(format!("`{command}` shows what is there"))
            }
            Self::NameNeeded(_) => Some("give one with --name".to_owned()),
            Self::Contended { .. } => Some("try again".to_owned()),
            Self::Unfinished { .. } => Some("the same command goes on where this one stopped; --timeout-secs gives it longer".to_owned()),
            // The API server's own words say it all.
            Self::Refused { .. } | Self::Occupied(_) | Self::Unreadable { .. } | Self::Unwritable { .. } => None,
        }
    }
}
