//! `podid list` and `podid exception list`: the profile's entries, each with what became of it.

use std::collections::BTreeMap;

use clap::Args;
use kube::Api;
use podid_api::profile::{
    EntryError, EntryStatus, PodIdentity, PodIdentityException, PodIdentityProfile, ProvisioningState,
};
use serde::Serialize;

use crate::edit::{self, Entry, Kind};
use crate::error::CliError;
use crate::output::{Format, Listing, labels};
use crate::printer::Printer;

/// How to show a list.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// Only this namespace
    #[arg(short, long, value_name = "NS")]
    pub namespace: Option<String>,
    /// Format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Format,
}

/// An entry with what became of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WithState<E> {
    #[serde(flatten)]
    entry: E,
    #[serde(skip_serializing_if = "Option::is_none")]
    provisioning_state: Option<ProvisioningState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<EntryError>,
}

impl ListArgs {
    pub(crate) async fn run(
        self,
        api: &Api<PodIdentityProfile>,
        kind: Kind,
        printer: &mut Printer,
    ) -> Result<(), CliError> {
        let Self { namespace, output } = self;
        let profile = edit::read(api).await?.unwrap_or_default();
        let here = |entry: &Name<'_>| {
            namespace
                .as_deref()
                .is_none_or(|namespace| namespace == entry.namespace)
        };
        match kind {
            Kind::Identity => identities(&profile, here).print(output, printer)?,
            Kind::Exception => exceptions(&profile, here).print(output, printer)?,
        }
        if !profile.spec.enabled {
            printer.hint("pod identity is not enabled; `podid enable` switches it on");
        }
        Ok(())
    }
}

/// An entry's name, for choosing some.
pub(crate) struct Name<'e> {
    namespace: &'e str,
    name: &'e str,
}

impl Name<'_> {
    /// Whether it is this one.
    pub(crate) fn is(&self, namespace: &str, name: &str) -> bool {
        self.namespace == namespace && self.name == name
    }
}

/// The pod identities that `wanted` chooses.
pub(crate) fn identities(
    profile: &PodIdentityProfile,
    wanted: impl Fn(&Name<'_>) -> bool,
) -> Listing<Vec<WithState<PodIdentity>>> {
    let status = profile.status.as_ref();
    let states = status.map_or(&[][..], |status| &status.user_assigned_identities);
    let entries = with_states(profile.spec.identities(), states, wanted);
    let rows = entries.iter().map(|item| {
        let entry = &item.entry;
        vec![
            entry.name.clone(),
            entry.namespace.clone(),
            entry.selector().to_owned(),
            entry.identity.client_id.clone().unwrap_or_default(),
            item.state(),
        ]
    });
    Listing {
        what: Kind::Identity.many(),
        titles: vec!["NAME", "NAMESPACE", "SELECTOR", "CLIENTID", "STATE"],
        rows: rows.collect(),
        names: entries.iter().map(|item| item.entry.name.clone()).collect(),
        data: entries,
    }
}

/// The exceptions that `wanted` chooses.
pub(crate) fn exceptions(
    profile: &PodIdentityProfile,
    wanted: impl Fn(&Name<'_>) -> bool,
) -> Listing<Vec<WithState<PodIdentityException>>> {
    let status = profile.status.as_ref();
    let states = status.map_or(&[][..], |status| &status.user_assigned_identity_exceptions);
    let entries = with_states(profile.spec.exceptions(), states, wanted);
    let rows = entries.iter().map(|item| {
        let entry = &item.entry;
        vec![
            entry.name.clone(),
            entry.namespace.clone(),
            labels(&entry.pod_labels),
            item.state(),
        ]
    });
    Listing {
        what: Kind::Exception.many(),
        titles: vec!["NAME", "NAMESPACE", "PODLABELS", "STATE"],
        rows: rows.collect(),
        names: entries.iter().map(|item| item.entry.name.clone()).collect(),
        data: entries,
    }
}

fn with_states<E: Entry + Clone>(
    entries: &[E],
    states: &[EntryStatus],
    wanted: impl Fn(&Name<'_>) -> bool,
) -> Vec<WithState<E>> {
    let states: BTreeMap<_, _> = states
        .iter()
        .map(|state| ((state.namespace.as_str(), state.name.as_str()), state))
        .collect();
    let name = |entry: &E| {
        wanted(&Name {
            namespace: entry.namespace(),
            name: entry.name(),
        })
    };
    entries
        .iter()
        .filter(|entry| name(entry))
        .map(|entry| {
            let state = states.get(&(entry.namespace(), entry.name()));
            WithState {
                entry: entry.clone(),
                provisioning_state: state.map(|state| state.provisioning_state),
                error: state.and_then(|state| state.error.clone()),
            }
        })
        .collect()
}

impl<E> WithState<E> {
    fn state(&self) -> String {
        let state = self
            .provisioning_state
            .map_or_else(|| "Pending".to_owned(), |state| format!("{state:?}"));
        match &self.error {
            Some(error) => format!("{state}: {}", error.message),
            None => state,
        }
    }
}
