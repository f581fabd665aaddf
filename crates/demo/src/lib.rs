//! The tutorial's sample workload: lists virtual machines with a managed identity, gets tokens without and with a
//! client id, reads instance metadata. It retries nothing by itself and never prints a token.
//!
//! round ─▶ ARM list ─▶ token ─▶ token by client id ─▶ instance metadata ─▶ wait a period ─▶ round …

mod arm;
mod door;
mod flags;
mod metadata;
pub mod printer;
mod round;

use std::num::NonZeroU32;

use anyhow::Context as _;
use clap::Args;
// The tutorial's manifest with a place left unfilled is told which one.
use clap::builder::NonEmptyStringValueParser as Given;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

pub use flags::{Endpoint, Period};

use crate::metadata::Metadata;
use crate::printer::Printer;
use crate::round::Round;

/// The flags of the sample workload.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// Subscription whose virtual machines are listed
    #[arg(long = "subscriptionid", alias = "subscription-id", env = "PODID_SUBSCRIPTION_ID", value_parser = Given::new(), value_name = "ID")]
    pub subscription_id: String,

    /// Client id of the managed identity
    #[arg(
        long = "clientid",
        aliases = ["client-id", "identity-client-id"],
        env = "PODID_CLIENT_ID",
        value_parser = Given::new(),
        value_name = "ID"
    )]
    pub client_id: String,

    /// Resource group whose virtual machines are listed
    #[arg(long = "resourcegroup", alias = "resource-group", env = "PODID_RESOURCE_GROUP", value_parser = Given::new(), value_name = "NAME")]
    pub resource_group: String,

    /// Resource that the tokens are for
    #[arg(long, default_value = "https://management.azure.com/", value_name = "URL")]
    pub resource_name: String,

    /// Time from the start of a round to the start of the next one
    #[arg(long, env = "PODID_PERIOD", default_value = "100s", value_name = "DURATION")]
    pub period: Period,

    /// Ends after this many rounds, with an error if a check failed; without it runs until it is told to stop
    #[arg(long, env = "PODID_ROUNDS", value_name = "N")]
    pub rounds: Option<NonZeroU32>,

    /// Where Azure Resource Manager is
    #[arg(
        long,
        env = "AZURE_RESOURCE_MANAGER_ENDPOINT",
        default_value = "https://management.azure.com",
        value_name = "URL"
    )]
    pub resource_manager: Endpoint,

    /// Where the metadata service is
    #[arg(
        long,
        env = "PODID_METADATA_ENDPOINT",
        default_value = "http://169.254.169.254",
        value_name = "URL",
        hide = true
    )]
    pub metadata: Endpoint,

    /// Certificate authorities to trust, a PEM file, in place of the system's
    #[arg(long, env = "SSL_CERT_FILE", value_name = "FILE", hide = true)]
    pub ca_file: Option<std::path::PathBuf>,

    /// Name of the pod, for the log
    #[arg(long, env = "MY_POD_NAME", default_value = "", hide = true)]
    pub pod_name: String,

    /// Namespace of the pod, for the log
    #[arg(long, env = "MY_POD_NAMESPACE", default_value = "", hide = true)]
    pub pod_namespace: String,

    /// Address of the pod, for the log
    #[arg(long, env = "MY_POD_IP", default_value = "", hide = true)]
    pub pod_ip: String,
}

impl DemoArgs {
    /// Runs until told to stop or until the rounds are over.
    pub async fn run(self) -> anyhow::Result<()> {
        self.run_with(Printer::to_terminal()).await
    }

    /// As [`Self::run`], with the output somewhere else.
    pub async fn run_with(self, mut printer: Printer) -> anyhow::Result<()> {
        let Self {
            subscription_id,
            client_id,
            resource_group,
            resource_name,
            period,
            rounds,
            resource_manager,
            metadata,
            ca_file,
            pod_name,
            pod_namespace,
            pod_ip,
        } = self;
        // Err means that a provider is there already, in a process that does more than this.
        let _already_there = rustls::crypto::ring::default_provider().install_default();
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen to SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen to SIGTERM")?;
        let http = door::client(ca_file.as_deref())?;

        printer.detail(&json!({
            "event": "start", "pod": pod_name, "namespace": pod_namespace, "ip": pod_ip,
            "subscription": subscription_id, "resourceGroup": resource_group, "clientId": client_id,
            "resourceManager": resource_manager, "period_secs": period.0.as_secs_f64(),
        }));
        let round = Round {
            metadata: Metadata::new(http.clone(), metadata),
            arm: arm::Arm::new(http, resource_manager),
            subscription_id,
            resource_group,
            client_id,
            resource: resource_name,
        };

        let mut failed: u32 = 0;
        let mut number: u32 = 0;
        let mut next = tokio::time::interval(period.0);
        next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
                failures = async { next.tick().await; round.run(&mut printer).await } => {
                    failed = failed.saturating_add(failures);
                }
            }
            number = number.saturating_add(1);
            if rounds.is_some_and(|rounds| number >= rounds.get()) {
                anyhow::ensure!(failed == 0, "{failed} checks failed in {number} rounds");
                break;
            }
        }
        printer.detail(&json!({ "event": "stop", "rounds": number, "failed": failed }));
        Ok(())
    }
}
