//! What the API server is told of a pod: phase, conditions, container statuses. Plain data, no IO.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value, json};

/// When containers are started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restart {
    /// Whenever they end.
    Always,
    /// When they fail.
    OnFailure,
    /// Not at all.
    Never,
}

impl Restart {
    /// The pod's policy.
    pub(super) fn of(pod: &Pod) -> Self {
        match pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }

    /// Whether a container that ended with this code runs again. Init containers are done once they succeed.
    pub(super) fn again(self, init: bool, code: i32) -> bool {
        match self {
            Self::Always => !init || code != 0,
            Self::OnFailure => code != 0,
            Self::Never => false,
        }
    }
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// Exit code; 128 + signal when killed by one.
    pub code: i32,
    /// `Completed`, `Error`, or why it could not start.
    pub reason: String,
    /// For people.
    pub message: String,
    /// When it began, RFC 3339.
    pub started: String,
    /// When it ended.
    pub finished: String,
}

/// What a container does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It does not run (yet, or again).
    Waiting {
        /// One word.
        reason: String,
        /// For people.
        message: String,
    },
    /// It runs since then.
    Running(String),
    /// It has ended, and stays so unless it is started again.
    Ended(Ended),
}

/// A container, for its status.
#[derive(Clone, Debug)]
pub(super) struct Container {
    /// Its name in the pod.
    pub name: String,
    /// As the pod wrote it.
    pub image: String,
    /// Whether it is an init container.
    pub init: bool,
    /// What it does.
    pub state: State,
    /// How the run before ended.
    pub last: Option<Ended>,
    /// How often it was started again.
    pub restarts: u32,
}

impl Container {
    /// One that was not started yet.
    pub(super) fn new(name: &str, image: &str, init: bool) -> Self {
        Self {
            name: name.to_owned(),
            image: image.to_owned(),
            init,
            state: waiting(
                if init {
                    "PodInitializing"
                } else {
                    "ContainerCreating"
                },
                "",
            ),
            last: None,
            restarts: 0,
        }
    }

    fn status(&self, uid: &str) -> Value {
        let running = matches!(self.state, State::Running(_));
        let succeeded = matches!(&self.state, State::Ended(ended) if ended.code == 0);
        let mut status = json!({
            "name": self.name,
            "image": self.image,
            "imageID": "",
            "ready": if self.init { succeeded } else { running },
            "started": running,
            "restartCount": self.restarts,
            "state": match &self.state {
                State::Waiting { reason, message } if message.is_empty() => json!({ "waiting": { "reason": reason } }),
                State::Waiting { reason, message } => json!({ "waiting": { "reason": reason, "message": message } }),
                State::Running(started) => json!({ "running": { "startedAt": started } }),
                State::Ended(ended) => json!({ "terminated": ended.status() }),
            },
            "lastState": self.last.as_ref().map_or_else(|| json!({}), |ended| json!({ "terminated": ended.status() })),
        });
        if !matches!(self.state, State::Waiting { .. })
            && let Some(status) = status.as_object_mut()
        {
            let id = format!("podid-sandbox://{uid}/{}/{}", self.name, self.restarts);
            status.insert("containerID".to_owned(), json!(id));
        }
        status
    }
}

impl Ended {
    fn status(&self) -> Value {
        let mut status = json!({
            "exitCode": self.code, "reason": self.reason, "startedAt": self.started, "finishedAt": self.finished,
        });
        if let (false, Some(status)) = (self.message.is_empty(), status.as_object_mut()) {
            status.insert("message".to_owned(), json!(self.message));
        }
        status
    }
}

/// A container waits for that.
pub(super) fn waiting(reason: &str, message: &str) -> State {
    State::Waiting {
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}

/// The pod's phase.
pub(super) fn phase(containers: &[Container], restart: Restart) -> &'static str {
    let failed = |container: &Container| matches!(&container.state, State::Ended(ended) if ended.code != 0);
    let done = |container: &Container| matches!(&container.state, State::Ended(ended) if !restart.again(container.init, ended.code));
    if containers
        .iter()
        .any(|container| container.init && failed(container) && done(container))
    {
        return "Failed";
    }
    let mut main = containers.iter().filter(|container| !container.init).peekable();
    if main.peek().is_some() && main.clone().all(done) {
        return if main.any(failed) { "Failed" } else { "Succeeded" };
    }
    let begun = |container: &Container| {
        container.restarts > 0
            || container.last.is_some()
            || !matches!(container.state, State::Waiting { .. })
    };
    if main.any(begun) { "Running" } else { "Pending" }
}

/// When conditions last changed, so that their times stay.
#[derive(Debug, Default)]
pub(super) struct Conditions(Map<String, Value>);

impl Conditions {
    /// The list, with what holds now.
    fn list(&mut self, now: &str, holds: &[(&str, bool, &str)]) -> Vec<Value> {
        holds
            .iter()
            .map(|(kind, holds, reason)| {
                let status = if *holds { "True" } else { "False" };
                let same = self
                    .0
                    .get(*kind)
                    .is_some_and(|known| known.get("status") == Some(&json!(status)));
                if !same {
                    let mut condition = json!({ "type": kind, "status": status, "lastTransitionTime": now });
                    if let (false, Some(condition)) = (holds, condition.as_object_mut()) {
                        condition.insert("reason".to_owned(), json!(reason));
                    }
                    self.0.insert((*kind).to_owned(), condition);
                }
                self.0.get(*kind).cloned().unwrap_or_default()
            })
            .collect()
    }
}

/// Where a pod is, once it is somewhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    /// The pod's.
    pub pod: Ipv4Addr,
    /// The node's.
    pub host: Ipv4Addr,
}

/// The whole status.
pub(super) fn status(
    uid: &str,
    containers: &[Container],
    restart: Restart,
    addresses: Option<Addresses>,
    conditions: &mut Conditions,
    (started, now): (&str, &str),
) -> Value {
    let phase = phase(containers, restart);
    let done = matches!(phase, "Succeeded" | "Failed");
    let completed = if phase == "Succeeded" {
        "PodCompleted"
    } else {
        "PodFailed"
    };
    let initialized = containers
        .iter()
        .filter(|container| container.init)
        .all(|container| matches!(&container.state, State::Ended(ended) if ended.code == 0));
    let ready = !done
        && containers
            .iter()
            .filter(|container| !container.init)
            .all(|container| matches!(container.state, State::Running(_)));
    let not_ready = if done { completed } else { "ContainersNotReady" };
    let of = |init: bool| -> Vec<Value> {
        containers
            .iter()
            .filter(|container| container.init == init)
            .map(|container| container.status(uid))
            .collect()
    };
    let mut status = json!({
        "phase": phase,
        "startTime": started,
        "qosClass": "BestEffort",
        "conditions": conditions.list(now, &[
            ("PodScheduled", true, ""),
            ("Initialized", initialized, "ContainersNotInitialized"),
            ("ContainersReady", ready, not_ready),
            ("Ready", ready, not_ready),
        ]),
        "containerStatuses": of(false),
    });
    if let Some(object) = status.as_object_mut() {
        let init = of(true);
        if !init.is_empty() {
            object.insert("initContainerStatuses".to_owned(), init.into());
        }
        if let Some(Addresses { pod, host }) = addresses {
            object.insert("hostIP".to_owned(), json!(host));
            object.insert("hostIPs".to_owned(), json!([{ "ip": host }]));
            object.insert("podIP".to_owned(), json!(pod));
            object.insert("podIPs".to_owned(), json!([{ "ip": pod }]));
        }
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(init: bool, state: State) -> Container {
        Container {
            state,
            ..Container::new("c", "busybox", init)
        }
    }

    fn ended(code: i32) -> State {
        State::Ended(Ended {
            code,
            reason: "Error".to_owned(),
            message: String::new(),
            started: "2026-01-01T00:00:00Z".to_owned(),
            finished: "2026-01-01T00:00:01Z".to_owned(),
        })
    }

    fn running() -> State {
        State::Running("2026-01-01T00:00:00Z".to_owned())
    }

    #[test]
    fn the_phase_follows_from_the_containers_and_the_policy() {
        let wait = || waiting("ContainerCreating", "");
        for (containers, restart, expected) in [
            (vec![(false, wait())], Restart::Always, "Pending"),
            (
                vec![(true, running()), (false, wait())],
                Restart::Always,
                "Pending",
            ),
            (
                vec![(true, ended(0)), (false, running())],
                Restart::Always,
                "Running",
            ),
            (
                vec![(false, ended(0)), (false, running())],
                Restart::Never,
                "Running",
            ),
            (vec![(false, ended(0))], Restart::Always, "Running"),
            (
                vec![(false, ended(0)), (false, ended(0))],
                Restart::Never,
                "Succeeded",
            ),
            (
                vec![(false, ended(0)), (false, ended(3))],
                Restart::Never,
                "Failed",
            ),
            (vec![(false, ended(3))], Restart::OnFailure, "Running"),
            (vec![(true, ended(1)), (false, wait())], Restart::Never, "Failed"),
            (
                vec![(true, ended(1)), (false, wait())],
                Restart::OnFailure,
                "Pending",
            ),
        ] {
            let made: Vec<_> = containers
                .into_iter()
                .map(|(init, state)| container(init, state))
                .collect();
            assert_eq!(phase(&made, restart), expected, "{made:?} {restart:?}");
        }
    }

    #[test]
    fn a_condition_keeps_its_time_until_it_changes() {
        let mut conditions = Conditions::default();
        let mut at = |state: State, now: &str| {
            let made = [container(false, state)];
            let status = status("u", &made, Restart::Always, None, &mut conditions, (now, now));
            status["conditions"][3].clone()
        };
        assert_eq!(at(running(), "1")["lastTransitionTime"], "1");
        assert_eq!(at(running(), "2")["lastTransitionTime"], "1");
        let changed = at(ended(0), "3");
        assert_eq!(
            (&changed["lastTransitionTime"], &changed["status"]),
            (&json!("3"), &json!("False"))
        );
    }
}
