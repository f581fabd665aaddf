//! The loop: a change in the world, or time → plan → writes → status. Level-triggered: each round starts from the
//! whole view, so a lost event costs nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use podid_api::PodIdentityProfile;
use podid_api::names::MANAGED_BY;
use podid_api::profile::{PodIdentityProfileStatus, ProvisioningState};
use podid_rt::clock::Clock;
use podid_rt::readiness::Guard;
use podid_rt::stop::Stop;
use serde_json::json;
use tokio::sync::watch;

use crate::code::Obstacle;
use crate::desired::{Entry, wanted};
use crate::metrics::{ControllerMetrics, Round, Write};
use crate::plan::{Action, Plan, plan};
use crate::report::{Placement, report};
use crate::world::{State, World};
use crate::write::Writer;

/// Writes at a time.
const CONCURRENCY: usize = 16;
/// A round without any event, to repair what no event told. Source: the original's `syncRetryDuration` is an hour; ours
/// costs no request when there is nothing to do.
const EVERY: Duration = Duration::from_mins(5);
/// First and longest wait after a round with trouble, when nothing happens.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_mins(1));
/// Shortest time from one round to the next, after a clean one and after one with trouble: a burst of events is one
/// round, and a write that is refused is not tried at the pace of other people's events.
const PACE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

pub(crate) struct Reconciler {
    pub(crate) client: Client,
    pub(crate) world: World,
    pub(crate) placement: watch::Receiver<Placement>,
    pub(crate) metrics: ControllerMetrics,
    pub(crate) clock: Clock,
}

impl Reconciler {
    /// Runs until told to stop. `done` is lifted after the first round: an entry that
    /// cannot be had must not keep the others' controller from being ready.
    pub(crate) async fn run(mut self, watches: impl Future<Output = ()> + Send, done: Guard, stop: Stop) {
        // A half-filled view would look like deletions.
        tokio::select! {
            () = stop.requested() => return,
            () = watches => {}
        }
        let mut changes = self.world.changes();
        let mut wait = BACKOFF.0;
        loop {
            changes.mark_unchanged();
            self.placement.mark_unchanged();
            let clean = self.round().await;
            self.metrics
                .rounds
                .get_or_create(&Round {
                    result: if clean { "ok" } else { "trouble" },
                })
                .inc();
            done.ready();
            let (pace, pause) = if clean {
                wait = BACKOFF.0;
                (PACE.0, EVERY)
            } else {
                let now = wait;
                wait = (wait * 2).min(BACKOFF.1);
                (PACE.1, now)
            };
            tokio::select! {
                () = stop.requested() => return,
                () = tokio::time::sleep(pace) => {}
            }
            tokio::select! {
                () = stop.requested() => return,
                _ = changes.changed() => {}
                Ok(()) = self.placement.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One round; whether all went well.
    async fn round(&self) -> bool {
        let State { profile, cluster, .. } = self.world.state();
        let profile_uid = profile
            .as_ref()
            .and_then(|profile| profile.metadata.uid.clone())
            .unwrap_or_default();
        let Plan {
            stages,
            mut obstacles,
        } = plan(wanted(profile.as_ref()), &cluster, &profile_uid);
        let writer = Writer {
            client: self.client.clone(),
            profile_uid,
        };
        let mut clean = true;
        for stage in stages {
            let results: Vec<_> = futures::stream::iter(stage)
                .map(|action| self.write(&writer, action, &obstacles))
                .buffer_unordered(CONCURRENCY)
                .collect()
                .await;
            for (entries, obstacle) in results.into_iter().flatten() {
                clean = false;
                for entry in entries {
                    obstacles.entry(entry).or_insert_with(|| obstacle.clone());
                }
            }
        }
        if let Some(profile) = &profile {
            let placement = self.placement.borrow().clone();
            let now = self.now();
            let status = report(profile, &obstacles, &placement, &now);
            self.count(&status);
            clean &= self.tell(profile, &status).await;
        }
        clean
    }

    /// Carries out one action; on failure, the entries that it was for and what went wrong.
    async fn write(
        &self,
        writer: &Writer,
        action: Action,
        obstacles: &BTreeMap<Entry, Obstacle>,
    ) -> Option<(Vec<Entry>, Obstacle)> {
        let entries: Vec<Entry> = match &action {
            Action::CreateNamespace { entries, .. } => entries.iter().copied().collect(),
            Action::Create { desired, .. } | Action::Update { desired, .. } => vec![desired.entry],
            Action::Delete { .. } => Vec::new(),
        };
        // The first half of this entry failed in an earlier stage; a half is worse than nothing.
        if entries.len() == 1 && entries.iter().all(|entry| obstacles.contains_key(entry)) {
            return None;
        }
        let result = writer.write(&action).await;
        let (verb, kind) = (action.verb(), action.kind());
        let label = if result.is_ok() { "ok" } else { "error" };
        self.metrics
            .writes
            .get_or_create(&Write {
                verb,
                kind,
                result: label,
            })
            .inc();
        match result {
            Ok(()) => {
                tracing::info!(object = action.object(), verb, "written");
                None
            }
            Err(obstacle) => {
                tracing::warn!(
                    object = action.object(),
                    verb,
                    code = obstacle.code.code,
                    "{}",
                    obstacle.message
                );
                Some((entries, obstacle))
            }
        }
    }

    /// Writes the status when it says something new; whether that went well.
    async fn tell(&self, profile: &PodIdentityProfile, status: &PodIdentityProfileStatus) -> bool {
        if profile.status.as_ref() == Some(status) {
            return true;
        }
        // A merge patch, so that the assignments' own field stays as it is; empty lists are written out.
        let patch = json!({ "status": {
            "observedGeneration": status.observed_generation,
            "conditions": status.conditions,
            "userAssignedIdentities": status.user_assigned_identities,
            "userAssignedIdentityExceptions": status.user_assigned_identity_exceptions,
        }});
        let name = profile.metadata.name.as_deref().unwrap_or_default();
        let params = PatchParams {
            field_manager: Some(MANAGED_BY.to_owned()),
            ..PatchParams::default()
        };
        let api = Api::<PodIdentityProfile>::all(self.client.clone());
        match api.patch_status(name, &params, &Patch::Merge(&patch)).await {
            Ok(_) => true,
            // Deleted meanwhile: the watch tells.
            Err(kube::Error::Api(status)) if status.is_not_found() => true,
            Err(error) => {
                tracing::warn!(%error, "the profile's status could not be written");
                false
            }
        }
    }

    fn count(&self, status: &PodIdentityProfileStatus) {
        for (state, result) in [
            (ProvisioningState::Assigned, "assigned"),
            (ProvisioningState::Succeeded, "succeeded"),
            (ProvisioningState::Updating, "updating"),
            (ProvisioningState::Failed, "failed"),
        ] {
            let all = status
                .user_assigned_identities
                .iter()
                .chain(&status.user_assigned_identity_exceptions);
            let count = all.filter(|entry| entry.provisioning_state == state).count();
            self.metrics
                .entries
                .get_or_create(&Round { result })
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// The time in RFC 3339, in whole seconds.
    fn now(&self) -> String {
        let secs = i64::try_from(self.clock.unix_secs()).unwrap_or(i64::MAX);
        Timestamp::from_second(secs)
            .map(|time| time.to_string())
            .unwrap_or_default()
    }
}
