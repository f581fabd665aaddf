//! From a question to what is granted: whose connection it is, whether it may ask again already, what is decided, and
//! the wait for a watch event that may change it.

use std::sync::Arc;

use podid_broker::Source;
use podid_core::decide::Question;
use podid_core::identity::ObjectName;
use podid_core::reason::Waits;
use podid_core::{Caller, Decision, Identity, Pod, Reason, World, decide};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Ended, Handler};
use crate::answer::Refusal;
use crate::caller::{Connection, NotGranted};
use crate::patience::version_for;

/// For whom is asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum For<'a> {
    /// For the pod that asks.
    Itself,
    /// For this pod, by a node agent.
    Named(&'a ObjectName),
}

/// What was decided, without the world it was decided in.
pub(super) enum Granted {
    Token { pod: Arc<Pod>, identity: Arc<Identity> },
    Passage { pod: Arc<Pod> },
}

impl<S: Source> Handler<S> {
    /// Whose connection it is, and what was decided; waits for the watches as long as that may help.
    pub(super) async fn granted(
        &self,
        connection: &Connection,
        asked_for: For<'_>,
        question: Question<'_>,
        deadline: Instant,
    ) -> Result<Granted, Box<Ended>> {
        let mut counted = false;
        let mut changes: Option<watch::Receiver<u64>> = None;
        loop {
            let world = self.world.load();
            let not = match self
                .look(&world, connection, asked_for, question, &mut counted)
                .await
            {
                Ok(granted) => return Ok(granted),
                Err(not) => not,
            };
            let pod = not.pod.as_ref();
            let Some(version) = version_for(not.waits, &world, pod) else {
                return Err(Box::new(self.not_granted(not)));
            };
            let selector = match question {
                Question::Token(request) => request.selector.as_ref(),
                Question::Path(_) => None,
            };
            let named = match asked_for {
                For::Itself => None,
                For::Named(object) => Some(object),
            };
            let asked = self.patience.asked(pod, named, connection.peer().ip(), selector);
            if self.world.is_synced() && self.patience.is_in_vain(&asked, version) {
                return Err(Box::new(self.not_granted(not)));
            }
            let Some(changes) = &mut changes else {
                // What happened between the look and now must not be missed: look once more.
                changes = Some(self.world.changes());
                continue;
            };
            tokio::select! {
                changed = changes.changed() => if changed.is_err() {
                    return Err(Box::new(self.not_granted(not)));
                },
                () = tokio::time::sleep_until(deadline) => {
                    if self.world.is_synced() {
                        self.patience.ran_out(asked, version);
                    }
                    return Err(Box::new(self.not_granted(not)));
                }
            }
        }
    }

    /// One look: whose is it, may it ask again already, what is decided.
    async fn look(
        &self,
        world: &World,
        connection: &Connection,
        asked_for: For<'_>,
        question: Question<'_>,
        counted: &mut bool,
    ) -> Result<Granted, NotGranted> {
        let proof = match asked_for {
            For::Itself => self.callers.prove(world, connection).await?,
            For::Named(_) => self.callers.prove_host(world, connection).await?,
        };
        if !std::mem::replace(counted, true) && !proof.bucket.take() {
            return Err(NotGranted {
                pod: proof.pod(world).cloned(),
                ..NotGranted::because(Reason::RateLimited)
            });
        }
        let caller = match asked_for {
            For::Itself => proof.caller(connection),
            For::Named(object) => Caller::Vouched {
                uid: match world.pod_named(object) {
                    Some(pod) => &pod.id.uid,
                    None => {
                        return Err(NotGranted {
                            looked_for: format!("pod {object}"),
                            ..NotGranted::because(Reason::NamedPodNotFound)
                        });
                    }
                },
            },
        };
        match decide(world, self.policy, caller, question, &mut ()) {
            Decision::Issue { pod, identity } => Ok(Granted::Token {
                pod: Arc::clone(pod),
                identity: Arc::clone(identity),
            }),
            Decision::PassThrough { pod: Some(pod), .. } => Ok(Granted::Passage { pod: Arc::clone(pod) }),
            Decision::PassThrough { pod: None, .. } => Err(NotGranted::because(Reason::PathClosed)),
            Decision::Refuse(refusal) => Err(NotGranted::of(refusal)),
        }
    }

    /// Before the watches have seen everything, absence is no reason to refuse for good.
    fn not_granted(&self, not: NotGranted) -> Ended {
        let reason = if not.waits != Waits::Never && !self.world.is_synced() {
            Reason::NotSynced
        } else {
            not.reason
        };
        Ended {
            outcome: Err(Refusal::because(reason, not.looked_for)),
            reason: Some(reason),
            pod: not.pod,
        }
    }
}
