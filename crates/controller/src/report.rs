//! The profile's status, from the plan's outcome. Pure; the controller writes it only when it says something new.

use std::collections::BTreeMap;

use podid_api::PodIdentityProfile;
use podid_api::profile::{Condition, EntryError, EntryStatus, PodIdentityProfileStatus, ProvisioningState};

use crate::code::{self, Obstacle};
use crate::desired::{Entry, in_force};

/// Whether the identities are on the scale sets, by lower-case ARM id of the identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Nobody asked for it.
    Off,
    /// As the last round of assignments left it; an identity that is absent has not been looked at yet.
    Known(BTreeMap<String, Result<(), Obstacle>>),
}

/// The type of the one condition.
const READY: &str = "Ready";

/// The status that `profile` should have.
pub(crate) fn report(
    profile: &PodIdentityProfile,
    obstacles: &BTreeMap<Entry, Obstacle>,
    placement: &Placement,
    now: &str,
) -> PodIdentityProfileStatus {
    let before = profile.status.clone().unwrap_or_default();
    let in_force = in_force(profile);
    let mut status = PodIdentityProfileStatus {
        observed_generation: profile.metadata.generation,
        // Written by the assignments alone.
        scale_set_assignments: before.scale_set_assignments.clone(),
        ..PodIdentityProfileStatus::default()
    };
    if in_force {
        for (at, entry) in profile.spec.identities().iter().enumerate() {
            let obstacle = obstacles.get(&Entry::Identity(at));
            let placed = placed(placement, &entry.identity.resource_id);
            let (state, error) = match (obstacle, &placed) {
                (Some(obstacle), _) | (None, Some(Err(obstacle))) => failed(obstacle),
                (None, Some(Ok(()))) => (ProvisioningState::Assigned, None),
                (None, None) => (ProvisioningState::Updating, None),
            };
            status.user_assigned_identities.push(EntryStatus {
                name: entry.name.clone(),
                namespace: entry.namespace.clone(),
                provisioning_state: state,
                error,
            });
        }
        for (at, entry) in profile.spec.exceptions().iter().enumerate() {
            let (state, error) = obstacles
                .get(&Entry::Exception(at))
                .map_or((ProvisioningState::Succeeded, None), failed);
            status.user_assigned_identity_exceptions.push(EntryStatus {
                name: entry.name.clone(),
                namespace: entry.namespace.clone(),
                provisioning_state: state,
                error,
            });
        }
    }
    let ready = ready(profile, in_force, &status, obstacles);
    status.conditions = vec![stamped(ready, &before, now)];
    status
}

fn placed(placement: &Placement, resource_id: &str) -> Option<Result<(), Obstacle>> {
    match placement {
        Placement::Off => Some(Ok(())),
        Placement::Known(known) => known.get(&resource_id.to_ascii_lowercase()).cloned(),
    }
}

fn failed(obstacle: &Obstacle) -> (ProvisioningState, Option<EntryError>) {
    let state = if obstacle.code.passing {
        ProvisioningState::Updating
    } else {
        ProvisioningState::Failed
    };
    (state, Some(obstacle.into()))
}

fn ready(
    profile: &PodIdentityProfile,
    in_force: bool,
    status: &PodIdentityProfileStatus,
    obstacles: &BTreeMap<Entry, Obstacle>,
) -> Condition {
    let all = || {
        status
            .user_assigned_identities
            .iter()
            .chain(&status.user_assigned_identity_exceptions)
    };
    let count = |state| all().filter(|entry| entry.provisioning_state == state).count();
    let failed = count(ProvisioningState::Failed);
    let updating = count(ProvisioningState::Updating);
    let first = || {
        let entry = all().find(|entry| entry.error.is_some());
        entry.and_then(|entry| {
            let error = entry.error.as_ref()?;
            Some(format!("; {}/{}: {}", entry.namespace, entry.name, error.message))
        })
    };
    let (value, reason, message) = if !in_force {
        (
            "False",
            "Disabled",
            "pod identity is off; all that the profile had made is removed".to_owned(),
        )
    } else if profile.spec.kubenet_refused() {
        (
            "False",
            "KubenetNotAllowed",
            crate::desired::KUBENET_TEXT.to_owned(),
        )
    } else if failed > 0 {
        (
            "False",
            "EntriesFailed",
            format!("{failed} failed{}", first().unwrap_or_default()),
        )
    } else if updating > 0 {
        (
            "False",
            "EntriesUpdating",
            format!("{updating} on the way{}", first().unwrap_or_default()),
        )
    } else if let Some(obstacle) = obstacles.get(&Entry::Addon) {
        let reason = if obstacle.code == code::NOT_OURS {
            "AddonExceptionNotOurs"
        } else {
            "AddonExceptionFailed"
        };
        ("False", reason, obstacle.message.clone())
    } else {
        let (identities, exceptions) = (
            status.user_assigned_identities.len(),
            status.user_assigned_identity_exceptions.len(),
        );
        (
            "True",
            "Assigned",
            format!("pod identities: {identities}, exceptions: {exceptions}"),
        )
    };
    Condition {
        kind: READY.to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: profile.metadata.generation,
        last_transition_time: String::new(),
    }
}

/// The condition with the time of its last change of status.
fn stamped(mut condition: Condition, before: &PodIdentityProfileStatus, now: &str) -> Condition {
    let same = before
        .conditions
        .iter()
        .find(|old| old.kind == condition.kind && old.status == condition.status);
    condition.last_transition_time =
        same.map_or_else(|| now.to_owned(), |old| old.last_transition_time.clone());
    condition
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ID: &str =
        "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/App";

    fn profile() -> PodIdentityProfile {
        serde_json::from_value(json!({
            "apiVersion": "podid.dev/v1alpha1", "kind": "PodIdentityProfile",
            "metadata": { "name": "cluster", "uid": "p", "generation": 7 },
            "spec": { "enabled": true, "userAssignedIdentities": [
                { "name": "a", "namespace": "n", "identity": { "resourceId": ID } }] },
        }))
        .unwrap()
    }

    #[test]
    fn an_entry_is_assigned_only_when_its_identity_is_on_the_scale_sets() {
        let state = |placement: &Placement| {
            report(&profile(), &BTreeMap::new(), placement, "t").user_assigned_identities[0].clone()
        };
        assert_eq!(
            state(&Placement::Off).provisioning_state,
            ProvisioningState::Assigned
        );
        assert_eq!(
            state(&Placement::Known(BTreeMap::new())).provisioning_state,
            ProvisioningState::Updating
        );
        let on = BTreeMap::from([(ID.to_ascii_lowercase(), Ok(()))]);
        assert_eq!(
            state(&Placement::Known(on)).provisioning_state,
            ProvisioningState::Assigned
        );
        let bad = BTreeMap::from([(ID.to_ascii_lowercase(), Err(Obstacle::new(code::REFUSED, "no")))]);
        let failed = state(&Placement::Known(bad));
        assert_eq!(failed.provisioning_state, ProvisioningState::Failed);
        assert_eq!(failed.error.unwrap().code, "write_refused");
    }

    #[test]
    fn the_status_names_the_generation_and_keeps_the_time_of_the_last_change() {
        let mut profile = profile();
        let first = report(&profile, &BTreeMap::new(), &Placement::Off, "t1");
        assert_eq!(
            (first.observed_generation, first.conditions[0].reason.as_str()),
            (Some(7), "Assigned")
        );
        profile.status = Some(first.clone());
        assert_eq!(report(&profile, &BTreeMap::new(), &Placement::Off, "t2"), first);
        profile.spec.enabled = false;
        let off = report(&profile, &BTreeMap::new(), &Placement::Off, "t3");
        assert_eq!(off.conditions[0].last_transition_time, "t3");
        assert!(off.user_assigned_identities.is_empty());
    }
}
