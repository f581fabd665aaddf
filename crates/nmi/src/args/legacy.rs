//! Flags and variables of the original NMI that mean nothing here any more. Manifests that give them go on working; each
//! that is given gets one line in the log that says what replaces it. Source: aad-pod-identity v1.8.17, `cmd/nmi`, and
//! klog 2.30.

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

/// A flag or variable that is accepted and not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Legacy {
    /// Its name, without dashes.
    pub name: &'static str,
    /// How it is given.
    pub form: Form,
    /// The value that asks for what is done anyway; it is no news.
    usual: Option<&'static str>,
    /// What replaces it.
    pub instead: &'static str,
}

/// How something of the original is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `--name VALUE`, `--name=VALUE`.
    Value,
    /// `--name`, `--name=true`.
    Switch,
    /// A variable of the environment.
    Variable,
}

const WAITING: &str = "requests wait for the watch event itself, see --wait-timeout";
const STDERR: &str = "logs always go to standard error";
const LEVELS: &str = "see --log, which takes target=level";
const LINES: &str = "see --log-format for how lines look";

/// The one that still counts with `--error-style=aad-pod-identity`.
const RETRY_AFTER: &str = "set-retry-after-header";

/// All of them.
pub const LEGACY: [Legacy; 27] = [
    value(
        "MICNamespace",
        None,
        "no pod is trusted for its name; write an AzurePodIdentityException",
    ),
    value(
        "nmi-listen-address",
        None,
        "the agent listens where --interception leads; see --listen",
    ),
    value("retry-attempts-for-created", None, WAITING),
    value("retry-attempts-for-assigned", None, WAITING),
    value("find-identity-retry-interval", None, WAITING),
    switch("enableProfile", "false", "there is no profiling server"),
    switch(
        "enableScaleFeatures",
        "true",
        "only this node's objects are watched",
    ),
    switch(
        "metadata-header-required",
        "true",
        "the header is always required",
    ),
    switch(
        RETRY_AFTER,
        "false",
        "Retry-After is sent where a retry can help; as the original did it with --error-style=aad-pod-identity",
    ),
    switch(
        "enable-conntrack-deletion",
        "false",
        "connections that are older than the interception are ended where there can be any",
    ),
    switch("logtostderr", "true", STDERR),
    switch("alsologtostderr", "false", STDERR),
    value("stderrthreshold", Some("2"), STDERR),
    value("log_dir", None, STDERR),
    value("log_file", None, STDERR),
    value("log_file_max_size", Some("1800"), STDERR),
    value("vmodule", None, LEVELS),
    value("log_backtrace_at", None, LEVELS),
    switch("add_dir_header", "false", LINES),
    switch("skip_headers", "false", LINES),
    switch("skip_log_headers", "false", LINES),
    switch("one_output", "false", STDERR),
    variable("MSI_ENDPOINT", "see --imds-endpoint"),
    variable(
        "MSI_SECRET",
        "see --imds-endpoint; no other protocol than the metadata service's is spoken",
    ),
    variable(
        "HTTP_PROXY",
        "the metadata service is one hop away and asked directly; authorities are asked through HTTPS_PROXY",
    ),
    variable(
        "AZURE_GO_SDK_LOG_LEVEL",
        "see --log; credentials are never logged",
    ),
    variable("AZURE_GO_SDK_LOG_FILE", STDERR),
];

const fn value(name: &'static str, usual: Option<&'static str>, instead: &'static str) -> Legacy {
    Legacy {
        name,
        form: Form::Value,
        usual,
        instead,
    }
}

const fn switch(name: &'static str, usual: &'static str, instead: &'static str) -> Legacy {
    Legacy {
        name,
        form: Form::Switch,
        usual: Some(usual),
        instead,
    }
}

const fn variable(name: &'static str, instead: &'static str) -> Legacy {
    Legacy {
        name,
        form: Form::Variable,
        usual: Some(""),
        instead,
    }
}

impl Legacy {
    /// As it is written on a command line or in a manifest.
    pub fn written(&self) -> String {
        match self.form {
            Form::Value | Form::Switch => format!("--{}", self.name),
            Form::Variable => self.name.to_owned(),
        }
    }

    fn arg(&self) -> Arg {
        let arg = Arg::new(self.name).long(self.name).hide(true);
        match self.form {
            Form::Value => arg.num_args(1),
            Form::Switch => arg
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
            // clap is the one that reads the environment; as a flag nobody knows it.
            Form::Variable => arg.num_args(1).env(self.name).hide_env_values(true),
        }
    }
}

/// Which of [`LEGACY`] were given. Values are not kept: they are of no use, and one is a secret.
#[derive(Clone, Debug, Default)]
pub struct LegacyArgs {
    given: Vec<&'static Legacy>,
}

impl LegacyArgs {
    /// Whether refusals for lack of an identity are to be 503 with `Retry-After`; counts with the original's error style.
    pub(crate) fn retry_after(&self) -> bool {
        self.given.iter().any(|legacy| legacy.name == RETRY_AFTER)
    }

    /// What was given and asks for something else than what is done anyway.
    pub(crate) fn notices(&self) -> impl Iterator<Item = &'static Legacy> {
        self.given.iter().copied()
    }
}

impl FromArgMatches for LegacyArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let news = |legacy: &&Legacy| {
            let given = matches.get_one::<String>(legacy.name);
            given.is_some_and(|given| Some(given.as_str()) != legacy.usual)
        };
        Ok(Self {
            given: LEGACY.iter().filter(news).collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for LegacyArgs {
    fn augment_args(cmd: Command) -> Command {
        cmd.args(LEGACY.iter().map(Legacy::arg))
    }

    fn augment_args_for_update(cmd: Command) -> Command {
        Self::augment_args(cmd)
    }
}
