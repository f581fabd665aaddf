//! What all commands that change the profile have in common: dry runs, waiting, and what they print in the end.

use std::time::Duration;

use clap::{Args, ValueEnum};
use kube::Api;
use podid_api::names::PROFILE_NAME;
use podid_api::profile::PodIdentityProfile;

use crate::edit::{Edited, Editor, Kind};
use crate::error::CliError;
use crate::flags::Span;
use crate::list;
use crate::output::{self, Format, Listing};
use crate::printer::Printer;
use crate::wait::{self, Until};

/// How an edit is made, and how it ends.
#[derive(Args, Clone, Debug)]
pub struct WriteArgs {
    /// Wait until it is in force, or say why it is not
    #[arg(long, conflicts_with = "dry_run")]
    pub wait: bool,

    /// Do not wait; so it is without --wait, and az has a flag for it
    #[arg(long, hide = true, conflicts_with = "wait")]
    pub no_wait: bool,

    /// How long --wait may take, as `90s`, `5m` or `1h`
    #[arg(long, value_name = "DURATION", default_value = "5m", requires = "wait")]
    pub timeout: Span,

    /// Change nothing: `client` says what would be sent, `server` lets the API server check it as well
    #[arg(
        long,
        value_enum,
        value_name = "HOW",
        num_args = 0..=1,
        require_equals = true,
        default_value = "none",
        default_missing_value = "client",
        hide_possible_values = true
    )]
    pub dry_run: DryRun,

    /// Print the PodIdentityProfile as it is then (or, with --dry-run, would be)
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<Format>,
}

/// What of an edit is only played, in kubectl's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DryRun {
    /// Nothing: it is done.
    #[default]
    None,
    /// All of it: nothing is sent but reads.
    Client,
    /// The writing: the API server checks it, and keeps nothing.
    Server,
}

impl DryRun {
    /// What follows the sentence that says what was done.
    fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Client => " (dry run)",
            Self::Server => " (server dry run)",
        }
    }
}

/// What an edit was about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Subject<'a> {
    /// An entry that is to be there.
    Entry(Kind, &'a str, &'a str),
    /// An entry that is to go.
    NoEntry(Kind, &'a str, &'a str),
    /// Pod identity as a whole, which is to be on (or off).
    Whole(bool),
}

impl WriteArgs {
    /// What edits `api`'s profile this way.
    pub(crate) fn editor<'a>(&self, api: &'a Api<PodIdentityProfile>) -> Editor<'a> {
        Editor {
            api,
            dry_run: self.dry_run,
        }
    }

    /// Says `what was done`.
    pub(crate) fn say(&self, done: &str, printer: &mut Printer) {
        printer.say(&format!("{done}{}", self.dry_run.suffix()));
    }

    /// Waits where that was asked for, then prints the profile where that was.
    pub(crate) async fn end(
        &self,
        api: &Api<PodIdentityProfile>,
        edited: Edited,
        subject: Subject<'_>,
        printer: &mut Printer,
    ) -> Result<(), CliError> {
        self.end_patiently(api, edited, subject, false, printer).await
    }

    /// The same; with a grant that is `fresh`, a refusal for want of it is waited out as well.
    pub(crate) async fn end_patiently(
        &self,
        api: &Api<PodIdentityProfile>,
        edited: Edited,
        subject: Subject<'_>,
        fresh: bool,
        printer: &mut Printer,
    ) -> Result<(), CliError> {
        let Edited { profile, changed: _ } = edited;
        let Some(mut profile) = profile else { return Ok(()) };
        if self.wait {
            let until = match subject {
                Subject::Entry(_, namespace, name) if fresh => Until::Granted(namespace, name),
                Subject::Entry(kind, namespace, name) => Until::InForce(kind, namespace, name),
                Subject::NoEntry(kind, namespace, name) => Until::Gone(kind, namespace, name),
                Subject::Whole(true) => Until::On,
                Subject::Whole(false) => Until::Off,
            };
            let generation = profile.metadata.generation.unwrap_or_default();
            let Span(bound) = self.timeout;
            let last = wait::wait(api, generation, until, bound, printer).await?;
            profile = last.unwrap_or(profile);
        }
        match self.output {
            None => Ok(()),
            Some(format) => print(profile, format, subject, self.dry_run, printer),
        }
    }
}

/// Prints the profile; as a table, what of it the edit was about.
fn print(
    mut profile: PodIdentityProfile,
    format: Format,
    subject: Subject<'_>,
    dry_run: DryRun,
    printer: &mut Printer,
) -> Result<(), CliError> {
    if format == Format::Table {
        return match subject {
            Subject::Entry(Kind::Identity, namespace, name) => {
                list::identities(&profile, |entry| entry.is(namespace, name)).print(format, printer)
            }
            Subject::Entry(Kind::Exception, namespace, name) => {
                list::exceptions(&profile, |entry| entry.is(namespace, name)).print(format, printer)
            }
            Subject::NoEntry(Kind::Identity, ..) => {
                list::identities(&profile, |_| true).print(format, printer)
            }
            Subject::NoEntry(Kind::Exception, ..) => {
                list::exceptions(&profile, |_| true).print(format, printer)
            }
            Subject::Whole(_) => whole(&profile).print(format, printer),
        };
    }
    profile.metadata.managed_fields = None;
    if dry_run == DryRun::Client {
        // As it would be sent: the status is the controller's.
        profile.status = None;
    }
    output::object(
        &profile,
        &format!("podidentityprofile.podid.dev/{PROFILE_NAME}"),
        format,
        printer,
    )
}

/// The profile in one row.
fn whole(profile: &PodIdentityProfile) -> Listing<&PodIdentityProfile> {
    let condition = profile
        .status
        .as_ref()
        .and_then(|status| status.conditions.first());
    Listing {
        what: "PodIdentityProfile",
        titles: vec!["NAME", "ENABLED", "IDENTITIES", "EXCEPTIONS", "READY"],
        rows: vec![vec![
            PROFILE_NAME.to_owned(),
            profile.spec.enabled.to_string(),
            profile.spec.identities().len().to_string(),
            profile.spec.exceptions().len().to_string(),
            condition.map_or_else(String::new, |condition| condition.reason.clone()),
        ]],
        names: vec![PROFILE_NAME.to_owned()],
        data: profile,
    }
}

/// A duration as a person reads it.
pub(crate) fn span(duration: Duration) -> String {
    Span(duration).to_string()
}
