//! Flags of the original NMI that mean nothing here any more. Manifests that give them go on working; each that is given
//! gets one line in the log that says what replaces it. Source: aad-pod-identity v1.8.17, `cmd/nmi`.

use clap::Args;

/// What is accepted and not used.
#[derive(Args, Clone, Debug, Default)]
pub struct LegacyArgs {
    #[arg(long = "MICNamespace", hide = true, value_name = "NAME")]
    mic_namespace: Option<String>,
    #[arg(long = "nmi-listen-address", hide = true, value_name = "ADDR")]
    nmi_listen_address: Option<String>,
    #[arg(long = "retry-attempts-for-created", hide = true, value_name = "N")]
    retry_created: Option<String>,
    #[arg(long = "retry-attempts-for-assigned", hide = true, value_name = "N")]
    retry_assigned: Option<String>,
    #[arg(long = "find-identity-retry-interval", hide = true, value_name = "N")]
    retry_interval: Option<String>,
    #[arg(long = "prometheus-port", hide = true, value_name = "PORT")]
    prometheus_port: Option<String>,
    #[arg(long = "custom-user-agent", hide = true, value_name = "TEXT")]
    custom_user_agent: Option<String>,
    #[arg(long = "enableProfile", hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_profile: Option<String>,
    #[arg(long = "enableScaleFeatures", hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_scale_features: Option<String>,
    #[arg(long = "metadata-header-required", hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    header_required: Option<String>,
    #[arg(long = "set-retry-after-header", hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    set_retry_after: Option<String>,
    #[arg(long = "enable-conntrack-deletion", hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    conntrack_deletion: Option<String>,
    #[arg(long = "logtostderr", hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    logtostderr: Option<String>,
    #[arg(long = "v", short = 'v', hide = true, value_name = "N")]
    verbosity: Option<String>,
}

impl LegacyArgs {
    /// Whether refusals for lack of an identity are to be 503 with `Retry-After`; counts with the original's error style.
    pub(crate) fn retry_after(&self) -> bool {
        self.set_retry_after.as_deref() == Some("true")
    }

    /// For each flag that was given: its name, and what replaces it.
    pub(crate) fn notices(&self) -> Vec<(&'static str, &'static str)> {
        let Self {
            mic_namespace,
            nmi_listen_address,
            retry_created,
            retry_assigned,
            retry_interval,
            prometheus_port,
            custom_user_agent,
            enable_profile,
            enable_scale_features,
            header_required,
            set_retry_after,
            conntrack_deletion,
            logtostderr,
            verbosity,
        } = self;
        let waiting = "requests wait for the watch event itself, see --wait-timeout";
        let told = |value: &Option<String>| value.is_some();
        // Values that ask for what is done anyway need no notice.
        let unusual =
            |value: &Option<String>, usual: &str| value.as_ref().is_some_and(|value| value != usual);
        [
            (
                "--MICNamespace",
                told(mic_namespace),
                "no pod is trusted for its name; write an AzurePodIdentityException",
            ),
            (
                "--nmi-listen-address",
                told(nmi_listen_address),
                "the agent listens where --interception leads; see --listen",
            ),
            ("--retry-attempts-for-created", told(retry_created), waiting),
            ("--retry-attempts-for-assigned", told(retry_assigned), waiting),
            ("--find-identity-retry-interval", told(retry_interval), waiting),
            (
                "--prometheus-port",
                told(prometheus_port),
                "metrics are beside the probes, see --http-probe-port",
            ),
            (
                "--custom-user-agent",
                told(custom_user_agent),
                "it never reached the token endpoints",
            ),
            (
                "--enableProfile",
                unusual(enable_profile, "false"),
                "there is no profiling server",
            ),
            (
                "--enableScaleFeatures",
                unusual(enable_scale_features, "true"),
                "only this node's objects are watched",
            ),
            (
                "--metadata-header-required",
                unusual(header_required, "true"),
                "the header is always required",
            ),
            (
                "--set-retry-after-header",
                told(set_retry_after),
                "Retry-After is sent where a retry can help; as the original did it with --error-style=aad-pod-identity",
            ),
            (
                "--enable-conntrack-deletion",
                told(conntrack_deletion),
                "nothing depends on connection tracking",
            ),
            (
                "--logtostderr",
                unusual(logtostderr, "true"),
                "logs always go to standard error",
            ),
            ("-v", told(verbosity), "see --log"),
        ]
        .into_iter()
        .filter(|(_, given, _)| *given)
        .map(|(flag, _, instead)| (flag, instead))
        .collect()
    }
}
