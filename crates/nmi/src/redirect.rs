//! Keeps the interception in place: put there before anything is served, looked at when the kernel says that rules or
//! routes changed and on a timer, mended, and proven through an interface of a pod's kind. It never takes it away;
//! `uninstall` does.
//!
//! install ─▶ self-test ─▶ ready ─▶ (change | timer) ─▶ check ─┬─ intact ─▶ ready
//!                                                             ├─ missing ─▶ install, counted ─▶ self-test ─▶ ready
//!                                                             └─ taken by others ─▶ not ready

use std::sync::Arc;
use std::time::Duration;

use podid_kernel::redirect::{LocalRoute, RedirectError, SelfTest, Watch};
use podid_rt::readiness::Guard;
use podid_rt::stop::Stop;

use crate::metrics::Metrics;

/// How soon to look again when something is wrong.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// The interception of this node.
#[derive(Debug)]
pub(crate) struct Redirect {
    pub(crate) route: LocalRoute,
    pub(crate) self_test: SelfTest,
    pub(crate) interval: Duration,
    pub(crate) guard: Guard,
    pub(crate) metrics: Arc<Metrics>,
}

impl Redirect {
    /// Watches over it until told to stop. What is in place then stays.
    pub(crate) async fn run(self, stop: Stop) {
        let mut watch = match self.route.watch() {
            Ok(watch) => Some(watch),
            Err(error) => {
                say("changes cannot be watched, looking on the timer only", &error);
                None
            }
        };
        let mut test = true;
        loop {
            let well = match self.look(test).await {
                Ok(()) => {
                    self.guard.ready();
                    true
                }
                Err(error) => {
                    self.guard.not_ready();
                    say("the interception does not work", &error);
                    false
                }
            };
            let pause = if well { self.interval } else { AGAIN_AFTER };
            test = tokio::select! {
                () = stop.requested() => return,
                () = changed(&mut watch) => !well,
                () = tokio::time::sleep(pause) => true,
            };
        }
    }

    async fn look(&self, test: bool) -> Result<(), RedirectError> {
        let (route, self_test) = (self.route, self.self_test.clone());
        // Netlink answers within the call and the test waits for this very process: neither may hold up the runtime.
        let looked = tokio::task::spawn_blocking(move || {
            let missing = route.install()?;
            if test || !missing.is_empty() {
                self_test.run()?;
            }
            Ok::<_, RedirectError>(missing)
        })
        .await;
        let missing = match looked {
            Ok(outcome) => outcome?,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down.
                Err(_) => return Ok(()),
            },
        };
        if !missing.is_empty() {
            self.metrics.repairs.inc();
            let parts: Vec<String> = missing.iter().map(ToString::to_string).collect();
            tracing::warn!(
                parts = parts.join(", "),
                "the interception was changed by somebody; put right"
            );
        }
        Ok(())
    }
}

/// Returns when something changed; never without a watch, or when it fails (the timer goes on).
async fn changed(watch: &mut Option<Watch>) {
    if let Some(open) = watch {
        match open.changed().await {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(%error, "changes cannot be watched any more, looking on the timer only");
                *watch = None;
            }
        }
    }
    std::future::pending::<()>().await;
}

fn say(what: &str, error: &RedirectError) {
    tracing::error!(
        code = error.code(),
        error = error as &dyn std::error::Error,
        "{what}"
    );
}
