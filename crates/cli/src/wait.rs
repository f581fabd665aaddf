//! Waiting until the controller has done what the profile says: by a watch of the one object, with a bound.
//!
//! watch ─▶ judge(profile, generation written) ─▶ done | refused, with the status's own words | not yet, and why

use std::time::Duration;

use futures::{StreamExt, pin_mut};
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use podid_api::entry_code::{self, EntryCode};
use podid_api::names::PROFILE_NAME;
use podid_api::profile::{
    EntryStatus, PodIdentityProfile, PodIdentityProfileSpec, PodIdentityProfileStatus, ProvisioningState,
};

use crate::edit::{Entry, Kind};
use crate::error::CliError;
use crate::printer::Printer;
use crate::write::span;

/// What is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until<'a> {
    /// The entry of this namespace and name is in force.
    InForce(Kind, &'a str, &'a str),
    /// The pod identity of this namespace and name is in force; its grant is so new that ARM may refuse it for a while.
    Granted(&'a str, &'a str),
    /// All that it had made is removed.
    Gone(Kind, &'a str, &'a str),
    /// Pod identity is on.
    On,
    /// Pod identity is off, and all that it had made is removed.
    Off,
}

/// How far it is.
#[derive(Debug)]
enum Verdict {
    Done,
    Refused(CliError),
    NotYet(String),
}

impl std::fmt::Display for Until<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InForce(kind, namespace, name) | Self::Gone(kind, namespace, name) => {
                write!(f, "{kind} {namespace}/{name}")
            }
            Self::Granted(namespace, name) => write!(f, "{} {namespace}/{name}", Kind::Identity),
            Self::On | Self::Off => f.write_str("pod identity"),
        }
    }
}

impl Until<'_> {
    /// How it is called when it has come to pass.
    fn done(self, profile: Option<&PodIdentityProfile>) -> String {
        match self {
            Self::InForce(kind, namespace, name) => {
                let state = profile
                    .and_then(|profile| profile.status.as_ref())
                    .and_then(|status| entry(status, kind, namespace, name))
                    .map_or(ProvisioningState::Assigned, |entry| entry.provisioning_state);
                format!("{self}: {state:?}")
            }
            Self::Granted(namespace, name) => Until::InForce(Kind::Identity, namespace, name).done(profile),
            Self::Gone(..) => format!("{self}: gone, with the objects made from it"),
            Self::On => "pod identity: in force".to_owned(),
            Self::Off => "pod identity: off, and everything made from it is gone".to_owned(),
        }
    }
}

/// Waits for `until`, at most `bound`, in a profile of at least this generation; gives the profile as it is then.
pub(crate) async fn wait(
    api: &Api<PodIdentityProfile>,
    generation: i64,
    until: Until<'_>,
    bound: Duration,
    printer: &mut Printer,
) -> Result<Option<PodIdentityProfile>, CliError> {
    let mut last = "the cluster has not told yet".to_owned();
    let followed = tokio::time::timeout(bound, follow(api, generation, until, &mut last, printer)).await;
    printer.finish();
    match followed {
        Ok(ended) => {
            let profile = ended?;
            printer.say(&until.done(profile.as_ref()));
            Ok(profile)
        }
        Err(_elapsed) => Err(CliError::TimedOut {
            what: until.to_string(),
            after: span(bound),
            last,
        }),
    }
}

async fn follow(
    api: &Api<PodIdentityProfile>,
    generation: i64,
    until: Until<'_>,
    last: &mut String,
    printer: &mut Printer,
) -> Result<Option<PodIdentityProfile>, CliError> {
    let watch = watcher::watch_object(api.clone(), PROFILE_NAME).default_backoff();
    pin_mut!(watch);
    while let Some(event) = watch.next().await {
        *last = match event {
            Ok(profile) => match judge(profile.as_ref(), generation, until) {
                Verdict::Done => return Ok(profile),
                Verdict::Refused(error) => return Err(error),
                Verdict::NotYet(why) => why,
            },
            Err(error) => missed(error)?,
        };
        printer.progress(&format!("{until}: {last}"));
    }
    // A watch goes on for ever; only the bound ends it.
    std::future::pending().await
}

/// What a broken watch means: an error that will not pass, or one to sit out.
fn missed(error: watcher::Error) -> Result<String, CliError> {
    let (watcher::Error::InitialListFailed(source)
    | watcher::Error::WatchStartFailed(source)
    | watcher::Error::WatchFailed(source)) = error
    else {
        return Ok("the watch ended; it is started again".to_owned());
    };
    match source {
        kube::Error::Api(status) if matches!(status.code, 401 | 403) => Err(CliError::from_kube(
            "watch the PodIdentityProfile",
            kube::Error::Api(status),
        )),
        other => Ok(format!(
            "the API server does not answer ({other}); it is asked again"
        )),
    }
}

/// Whether what is waited for has come to pass. A status of an older profile says nothing.
fn judge(profile: Option<&PodIdentityProfile>, generation: i64, until: Until<'_>) -> Verdict {
    let Some(profile) = profile else {
        return match until {
            Until::Gone(..) | Until::Off => Verdict::Done,
            Until::InForce(..) | Until::Granted(..) | Until::On => Verdict::Refused(CliError::Vanished {
                what: until.to_string(),
            }),
        };
    };
    let unseen = PodIdentityProfileStatus::default();
    let status = profile.status.as_ref().unwrap_or(&unseen);
    if status.observed_generation.unwrap_or_default() < generation {
        return Verdict::NotYet("the controller has not looked at it yet".to_owned());
    }
    let condition = status.conditions.first();
    let reason = condition
        .map(|condition| condition.reason.as_str())
        .unwrap_or_default();
    let message = condition
        .map(|condition| condition.message.clone())
        .unwrap_or_default();
    match until {
        Until::InForce(kind, namespace, name) => match entry(status, kind, namespace, name) {
            Some(entry) => of_entry(entry, until),
            None if !declared(&profile.spec, kind, namespace, name) || !profile.spec.enabled => {
                Verdict::Refused(CliError::Vanished {
                    what: until.to_string(),
                })
            }
            None => Verdict::NotYet("the controller has not looked at it yet".to_owned()),
        },
        Until::Granted(namespace, name) => {
            match judge(
                Some(profile),
                generation,
                Until::InForce(Kind::Identity, namespace, name),
            ) {
                Verdict::Refused(CliError::Failed { code, message, .. })
                    if code == entry_code::ASSIGNMENT_REFUSED.code =>
                {
                    Verdict::NotYet(format!("the grant is new, and not known everywhere: {message}"))
                }
                other => other,
            }
        }
        Until::Gone(kind, namespace, name) => match entry(status, kind, namespace, name) {
            Some(entry) => Verdict::NotYet(format!("{:?}", entry.provisioning_state)),
            None => Verdict::Done,
        },
        Until::On => match reason {
            "" | "Disabled" => Verdict::NotYet(message),
            "KubenetNotAllowed" | "AddonExceptionNotOurs" | "AddonExceptionFailed" => {
                Verdict::Refused(CliError::Failed {
                    what: until.to_string(),
                    code: reason.to_owned(),
                    message,
                })
            }
            // An entry that has failed is another command's business.
            _ => Verdict::Done,
        },
        Until::Off if reason == "Disabled" => Verdict::Done,
        Until::Off => Verdict::NotYet(message),
    }
}

fn of_entry(entry: &EntryStatus, until: Until<'_>) -> Verdict {
    let error = entry.error.as_ref();
    match entry.provisioning_state {
        ProvisioningState::Assigned | ProvisioningState::Succeeded => Verdict::Done,
        ProvisioningState::Failed | ProvisioningState::Canceled => Verdict::Refused(CliError::Failed {
            what: until.to_string(),
            code: error.map_or_else(|| "unknown".to_owned(), |error| error.code.clone()),
            message: error.map_or_else(
                || "the controller does not say why".to_owned(),
                |error| error.message.clone(),
            ),
        }),
        state @ (ProvisioningState::Updating | ProvisioningState::Deleting) => Verdict::NotYet(match error {
            Some(error) => format!("{state:?}: {}", error.message),
            None => format!("{state:?}"),
        }),
    }
}

fn entry<'s>(
    status: &'s PodIdentityProfileStatus,
    kind: Kind,
    namespace: &str,
    name: &str,
) -> Option<&'s EntryStatus> {
    let list = match kind {
        Kind::Identity => &status.user_assigned_identities,
        Kind::Exception => &status.user_assigned_identity_exceptions,
    };
    list.iter()
        .find(|entry| entry.namespace == namespace && entry.name == name)
}

fn declared(spec: &PodIdentityProfileSpec, kind: Kind, namespace: &str, name: &str) -> bool {
    fn has<E: Entry>(list: &[E], namespace: &str, name: &str) -> bool {
        list.iter()
            .any(|entry| entry.namespace() == namespace && entry.name() == name)
    }
    match kind {
        Kind::Identity => has(spec.identities(), namespace, name),
        Kind::Exception => has(spec.exceptions(), namespace, name),
    }
}

/// What would help against a state with this code, where podid knows it.
pub(crate) fn fix(code: &str) -> Option<&'static str> {
    let known = match code {
        "KubenetNotAllowed" => Some(&entry_code::KUBENET),
        "AddonExceptionNotOurs" => Some(&entry_code::NOT_OURS),
        other => EntryCode::of(other),
    };
    known.map(|known| known.fix).filter(|fix| !fix.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const IN_FORCE: Until<'_> = Until::InForce(Kind::Identity, "a", "x");

    /// A profile of generation 2 with an entry `a/x`, about which the status says this.
    fn profile(observed: i64, entry: Value) -> PodIdentityProfile {
        let entries: Vec<Value> = if entry.is_null() { Vec::new() } else { vec![entry] };
        serde_json::from_value(json!({
            "apiVersion": "podid.dev/v1alpha1", "kind": "PodIdentityProfile",
            "metadata": { "name": "cluster", "generation": 2 },
            "spec": { "enabled": true, "userAssignedIdentities": [
                { "name": "x", "namespace": "a", "identity": { "resourceId": "r" } }] },
            "status": { "observedGeneration": observed, "userAssignedIdentities": entries },
        }))
        .unwrap()
    }

    fn entry(state: &str, error: Value) -> Value {
        json!({ "name": "x", "namespace": "a", "provisioningState": state, "error": error })
    }

    #[test]
    fn the_status_of_an_older_profile_says_nothing() {
        let old = profile(1, entry("Assigned", Value::Null));
        assert!(matches!(judge(Some(&old), 2, IN_FORCE), Verdict::NotYet(_)));
        let new = profile(2, entry("Assigned", Value::Null));
        assert!(matches!(judge(Some(&new), 2, IN_FORCE), Verdict::Done));
    }

    #[test]
    fn what_failed_is_said_in_the_statuss_words_with_what_helps() {
        let failed = entry(
            "Failed",
            json!({ "code": "object_not_ours", "message": "it is theirs" }),
        );
        let Verdict::Refused(error) = judge(Some(&profile(2, failed)), 2, IN_FORCE) else {
            panic!("not refused");
        };
        assert_eq!(
            error.to_string(),
            "pod identity a/x is not in force: it is theirs (object_not_ours)"
        );
        assert_eq!(
            error.hint().unwrap(),
            "delete that object, or choose another name"
        );
    }

    #[test]
    fn a_passing_trouble_is_waited_out_and_an_entry_taken_away_is_not() {
        let passing = entry("Updating", json!({ "code": "c", "message": "not there yet" }));
        let Verdict::NotYet(why) = judge(Some(&profile(2, passing)), 2, IN_FORCE) else {
            panic!("not waited out");
        };
        assert_eq!(why, "Updating: not there yet");
        let refused = entry(
            "Failed",
            json!({ "code": "assignment_refused", "message": "no role" }),
        );
        let refused = profile(2, refused);
        assert!(matches!(judge(Some(&refused), 2, IN_FORCE), Verdict::Refused(_)));
        assert!(matches!(
            judge(Some(&refused), 2, Until::Granted("a", "x")),
            Verdict::NotYet(_)
        ));
        let mut gone = profile(2, Value::Null);
        gone.spec.user_assigned_identities = None;
        assert!(matches!(judge(Some(&gone), 2, IN_FORCE), Verdict::Refused(_)));
        assert!(matches!(
            judge(Some(&gone), 2, Until::Gone(Kind::Identity, "a", "x")),
            Verdict::Done
        ));
    }
}
