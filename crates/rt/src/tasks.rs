//! Named tasks. A task that ends or panics before the process was told to stop ends the process, so that no part
//! dies unseen. Short work (connections, fetches) goes into a `Group`, which is only waited for.
//!
//! spawn(name, future) ─▶ run ─┬─ stop requested ─▶ wait for all, at most the drain deadline ─▶ Ok
//!                             └─ one ends early ─▶ Err(its name), the rest is asked to stop

use std::collections::HashMap;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::task::TaskTracker;

use crate::stop::Stop;

/// The long-lived tasks of a process.
#[derive(Debug)]
pub struct Tasks {
    set: JoinSet<()>,
    names: HashMap<Id, &'static str>,
    groups: TaskTracker,
    stop: Stop,
}

/// Where short-lived work is spawned; waited for while draining. Clones are the same group.
#[derive(Clone, Debug)]
pub struct Group(TaskTracker);

/// Why the tasks ended other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum TasksError {
    /// A task returned although nobody had asked.
    #[error("task `{0}` ended although nobody had asked it to")]
    Ended(&'static str),
    /// A task panicked.
    #[error("task `{name}` panicked")]
    Panicked {
        /// Its name.
        name: &'static str,
        /// The panic.
        #[source]
        source: JoinError,
    },
    /// Draining took too long.
    #[error("{} did not stop within {deadline:?}", .names.join(", "))]
    Slow {
        /// Who was still running.
        names: Vec<&'static str>,
        /// The drain deadline.
        deadline: Duration,
    },
}

impl Tasks {
    /// No tasks yet; `stop` is what ends them.
    pub fn new(stop: Stop) -> Self {
        Self {
            set: JoinSet::new(),
            names: HashMap::new(),
            groups: TaskTracker::new(),
            stop,
        }
    }

    /// What ends these tasks.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Starts a task that runs until it is told to stop.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.set.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// Where to spawn short-lived work.
    pub fn group(&self) -> Group {
        Group(self.groups.clone())
    }

    /// Runs until told to stop, then waits for everybody, but no longer than `drain_deadline`.
    pub async fn run(mut self, drain_deadline: Duration) -> Result<(), TasksError> {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.requested() => {}
            ended = next(&mut self.set, &self.names) => {
                if !stop.is_requested() {
                    stop.request();
                    return Err(ended);
                }
            }
        }
        self.groups.close();
        let drained = async {
            while let Some(ended) = self.set.join_next_with_id().await {
                let (Ok((id, ())) | Err(id)) = ended.map_err(|error| error.id());
                self.names.remove(&id);
            }
            self.groups.wait().await;
        };
        tokio::select! {
            () = drained => Ok(()),
            () = stop.forced() => Ok(()),
            () = tokio::time::sleep(drain_deadline) => {
                let mut names: Vec<_> = self.names.into_values().collect();
                names.sort_unstable();
                if names.is_empty() {
                    names.push("open connections");
                }
                Err(TasksError::Slow { names, deadline: drain_deadline })
            }
        }
    }
}

/// The first task to end; never returns while there is none.
async fn next(set: &mut JoinSet<()>, names: &HashMap<Id, &'static str>) -> TasksError {
    let name = |id| names.get(&id).copied().unwrap_or("?");
    match set.join_next_with_id().await {
        None => std::future::pending().await,
        Some(Ok((id, ()))) => TasksError::Ended(name(id)),
        Some(Err(source)) => TasksError::Panicked {
            name: name(source.id()),
            source,
        },
    }
}

impl Group {
    /// Starts short-lived work.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let _tracked = self.0.spawn(work);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ends_early_ends_the_process_and_is_named() {
        let stop = Stop::new();
        let mut tasks = Tasks::new(stop.clone());
        tasks.spawn("steady", {
            let stop = stop.clone();
            async move { stop.requested().await }
        });
        tasks.spawn("watch-pods", async {});
        let error = tasks.run(Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "task `watch-pods` ended although nobody had asked it to"
        );
        assert!(stop.is_requested());
    }

    #[tokio::test(start_paused = true)]
    async fn draining_waits_for_groups_and_names_who_is_slow() {
        let stop = Stop::new();
        let mut tasks = Tasks::new(stop.clone());
        tasks.spawn("stuck", std::future::pending());
        stop.request();
        let error = tasks.run(Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error.to_string(), "stuck did not stop within 5s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_wish_to_stop_does_not_wait() {
        let stop = Stop::new();
        let mut tasks = Tasks::new(stop.clone());
        tasks.spawn("stuck", std::future::pending());
        stop.force();
        tasks.run(Duration::from_hours(1)).await.unwrap();
    }
}
