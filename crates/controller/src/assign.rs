//! The profile's identities on the nodes' scale sets, through ARM. Level-triggered; it takes off only what it has put on.
//!
//! ```text
//! world, time ─▶ read every scale set ─▶ record in the status what will be added ─▶ change ─▶ record what is left ─▶ Placement
//! ```
//! The record comes before the change: a crash in between leaves an identity that is known to be ours, never one that
//! nobody takes off.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use podid_api::PodIdentityProfile;
use podid_api::names::{MANAGED_BY, PROFILE_NAME};
use podid_api::profile::ScaleSetAssignment;
use podid_azure::arm::{Arm, ArmError, Host, IdentityChange};
use podid_core::{IdentityResourceId, Retry};
use podid_rt::stop::Stop;
use serde_json::json;
use tokio::sync::watch;

use crate::code::{self, Obstacle};
use crate::desired::{Entry, wanted};
use crate::report::Placement;
use crate::scale_set::{Change, there};
use crate::world::{State, World};

/// How often the scale sets are looked at without any event. Source: aad-pod-identity v1.8.17, `--identity-assignment-reconcile-interval`.
const EVERY: Duration = Duration::from_mins(3);
/// First and longest wait after a round with trouble.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(2));
/// Scale sets that are read or changed at a time.
const CONCURRENCY: usize = 8;

pub(crate) struct Assigner {
    pub(crate) client: Client,
    pub(crate) world: World,
    pub(crate) arm: Arm,
    pub(crate) placement: watch::Sender<Placement>,
}

/// Scale set → ids in lower case.
type Ours = BTreeMap<Host, BTreeSet<String>>;

/// What one round starts from.
#[derive(PartialEq)]
struct Goal {
    profile: bool,
    /// The profile's own uid, so that another profile is another goal.
    uid: Option<String>,
    hosts: BTreeSet<Host>,
    wanted: BTreeSet<String>,
    recorded: Ours,
}

impl Assigner {
    /// Runs until told to stop. The watches must have synced: a half-filled view would look like identities to take off.
    pub(crate) async fn run(self, watches: impl Future<Output = ()> + Send, stop: Stop) {
        tokio::select! {
            () = stop.requested() => return,
            () = watches => {}
        }
        let mut changes = self.world.changes();
        // What the status said last: it goes with the profile, our identities on the scale sets do not.
        let mut ours = Ours::new();
        let mut wait = BACKOFF.0;
        loop {
            changes.mark_unchanged();
            let goal = Goal::of(&self.world.state(), &ours);
            let clean = tokio::select! {
                () = stop.requested() => return,
                clean = self.round(&goal, &mut ours) => clean,
            };
            let pause = if clean {
                wait = BACKOFF.0;
                EVERY
            } else {
                let now = wait;
                wait = (wait * 2).min(BACKOFF.1);
                now
            };
            let timer = tokio::time::sleep(pause);
            tokio::pin!(timer);
            loop {
                tokio::select! {
                    () = stop.requested() => return,
                    () = &mut timer => break,
                    _ = changes.changed() => {
                        // Most changes of the world are none here; each look at the scale sets costs requests.
                        if Goal::of(&self.world.state(), &ours) != goal {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// One round; whether all went well.
    async fn round(&self, goal: &Goal, ours: &mut Ours) -> bool {
        ours.clone_from(&goal.recorded);
        let hosts: BTreeSet<Host> = goal.hosts.iter().chain(goal.recorded.keys()).cloned().collect();
        let read: Vec<_> = futures::stream::iter(hosts)
            .map(|host| {
                let arm = self.arm.clone();
                async move {
                    let found = arm.host_identities(&host).await;
                    (host, found)
                }
            })
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        let mut failures: BTreeMap<String, Obstacle> = BTreeMap::new();
        let mut trouble = false;
        let mut to_do = Vec::new();
        for (host, found) in read {
            match found {
                Ok(identities) => {
                    let here = there(&identities);
                    let nothing = BTreeSet::new();
                    let wanted = if goal.hosts.contains(&host) {
                        &goal.wanted
                    } else {
                        &nothing
                    };
                    let recorded = ours.get(&host).unwrap_or(&nothing);
                    let change = Change::of(wanted, &here, recorded);
                    let mut record: BTreeSet<String> = recorded.intersection(&here).cloned().collect();
                    record.extend(change.add.iter().cloned());
                    ours.insert(host.clone(), record);
                    if !change.is_empty() {
                        to_do.push((host, change));
                    }
                }
                // Gone, and with it all that was on it.
                Err(error) if error.is_not_found() => {
                    ours.remove(&host);
                }
                Err(error) => {
                    trouble = true;
                    tracing::warn!(%host, code = error.code(), "the scale set cannot be read: {error}");
                    for id in &goal.wanted {
                        failures
                            .entry(id.clone())
                            .or_insert_with(|| obstacle(&host, &error));
                    }
                }
            }
        }
        if !self.record(goal, ours).await {
            return false;
        }
        let changed: Vec<_> = futures::stream::iter(to_do)
            .map(|(host, change)| {
                let arm = self.arm.clone();
                async move {
                    let outcome = carry_out(&arm, &host, change).await;
                    (host, outcome)
                }
            })
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        for (host, outcome) in changed {
            trouble |= !outcome.failed.is_empty() || outcome.not_removed;
            if let Some(record) = ours.get_mut(&host) {
                // What may have been done after all stays recorded; the next round looks whether it is there.
                let not_done = |id: &String| {
                    outcome
                        .failed
                        .get(id)
                        .is_some_and(|obstacle| !obstacle.code.passing)
                };
                record.retain(|id| !outcome.removed.contains(id) && !not_done(id));
            }
            failures.extend(outcome.failed);
        }
        ours.retain(|_, ids| !ids.is_empty());
        let recorded = self.record(goal, ours).await;
        let known = goal.wanted.iter().map(|id| {
            let result = failures.get(id).map_or(Ok(()), |obstacle| Err(obstacle.clone()));
            (id.clone(), result)
        });
        let placement = Placement::Known(known.collect());
        self.placement.send_if_modified(|before| {
            let news = *before != placement;
            *before = placement;
            news
        });
        recorded && !trouble
    }

    /// Writes what is ours into the profile's status; whether that went well. Without a profile there is no status.
    async fn record(&self, goal: &Goal, ours: &Ours) -> bool {
        if !goal.profile || *ours == goal.recorded && self.recorded_in_status(ours) {
            return true;
        }
        let list: Vec<ScaleSetAssignment> = ours
            .iter()
            .filter(|(_, ids)| !ids.is_empty())
            .map(|(host, ids)| ScaleSetAssignment {
                scale_set: host.id().to_owned(),
                identities: ids.iter().cloned().collect(),
            })
            .collect();
        let patch = json!({ "status": { "scaleSetAssignments": list } });
        let params = PatchParams {
            field_manager: Some(MANAGED_BY.to_owned()),
            ..PatchParams::default()
        };
        let api = Api::<PodIdentityProfile>::all(self.client.clone());
        match api
            .patch_status(PROFILE_NAME, &params, &Patch::Merge(&patch))
            .await
        {
            Ok(_) => true,
            // Deleted meanwhile: the watch tells, and the memory keeps what is ours.
            Err(kube::Error::Api(status)) if status.is_not_found() => true,
            Err(error) => {
                tracing::warn!(%error, "what was put on the scale sets cannot be recorded; nothing is changed there");
                false
            }
        }
    }

    /// Whether the status, as the watch has it, says the same.
    fn recorded_in_status(&self, ours: &Ours) -> bool {
        let profile = self.world.state().profile;
        profile.is_none_or(|profile| recorded(&profile) == *ours)
    }
}

/// What became of a change.
#[derive(Default)]
struct Outcome {
    removed: BTreeSet<String>,
    failed: BTreeMap<String, Obstacle>,
    not_removed: bool,
}

/// Changes one scale set. Identities that ARM blames are left out, and the others tried without them: one bad identity
/// never costs another its place, nor keeps one that must go.
async fn carry_out(arm: &Arm, host: &Host, mut change: Change) -> Outcome {
    let mut outcome = Outcome::default();
    while !change.is_empty() {
        let asked = IdentityChange {
            add: parsed(&change.add),
            remove: parsed(&change.remove),
        };
        let Err(error) = arm.change_host_identities(host, &asked).await else {
            let (added, removed) = (change.add.len(), change.remove.len());
            tracing::info!(%host, added, removed, "identities changed");
            outcome.removed.extend(change.remove);
            return outcome;
        };
        tracing::warn!(%host, code = error.code(), "identities cannot be changed: {error}");
        if change.add.is_empty() {
            outcome.not_removed = true;
            return outcome;
        }
        let blamed = error.blamed_identities();
        let mut failed: BTreeSet<String> = blamed.iter().map(|id| id.as_str().to_ascii_lowercase()).collect();
        failed.retain(|id| change.add.contains(id));
        if failed.is_empty() {
            failed.clone_from(&change.add);
        }
        for id in failed {
            change.add.remove(&id);
            outcome.failed.insert(id, obstacle(host, &error));
        }
    }
    outcome
}

impl Goal {
    /// From the view and from what is known to be ours.
    fn of(state: &State, ours: &Ours) -> Self {
        let profile = state.profile.as_ref();
        let obstacles = wanted(profile).obstacles;
        let entries = profile
            .filter(|profile| crate::desired::in_force(profile))
            .map(|profile| profile.spec.identities())
            .unwrap_or_default();
        let wanted = entries.iter().enumerate();
        let wanted = wanted
            .filter(|(at, _)| !obstacles.contains_key(&Entry::Identity(*at)))
            .map(|(_, entry)| entry.identity.resource_id.to_ascii_lowercase())
            .collect();
        let mut recorded = profile.map(recorded).unwrap_or_default();
        // Memory and status differ when a status was lost with its profile.
        for (host, ids) in ours {
            recorded
                .entry(host.clone())
                .or_default()
                .extend(ids.iter().cloned());
        }
        Self {
            profile: profile.is_some(),
            uid: profile.and_then(|profile| profile.metadata.uid.clone()),
            hosts: state.scale_sets.values().cloned().collect(),
            wanted,
            recorded,
        }
    }
}

/// What the status says is ours.
fn recorded(profile: &PodIdentityProfile) -> Ours {
    let list = profile
        .status
        .iter()
        .flat_map(|status| &status.scale_set_assignments);
    list.filter_map(|assignment| {
        let host: Host = assignment.scale_set.parse().ok()?;
        let ids = assignment
            .identities
            .iter()
            .map(|id| id.to_ascii_lowercase())
            .collect();
        Some((host, ids))
    })
    .collect()
}

fn parsed(ids: &BTreeSet<String>) -> Vec<IdentityResourceId> {
    ids.iter().filter_map(|id| id.parse().ok()).collect()
}

fn obstacle(host: &Host, error: &ArmError) -> Obstacle {
    let code = if error.retry() == Retry::Never || !error.blamed_identities().is_empty() {
        code::ASSIGNMENT_REFUSED
    } else {
        code::ASSIGNMENT_PENDING
    };
    Obstacle::new(code, format!("{host}: {error}"))
}
