//! Keeps the interception in place: put there before anything is served, looked at when the kernel says that rules or
//! routes changed and on a timer, mended, and proven through an interface of a pod's kind. It never takes it away;
//! `uninstall` does.
//!
//! install ─▶ self-test ─▶ ready ─▶ (change | timer) ─▶ check ─┬─ intact ─▶ ready
//!                                                             ├─ missing ─▶ install, counted ─▶ self-test ─▶ ready
//!                                                             └─ taken by others, or aad-pod-identity is there ─▶ not ready

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use podid_kernel::redirect::{Interception, Original, RedirectError, SelfTest, Watch};
use podid_rt::readiness::Guard;
use podid_rt::stop::Stop;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use crate::metrics::Metrics;

/// How soon to look again when something is wrong.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Most connections that are kept while a way is tried out; more are closed.
const MAX_EARLY: usize = 256;

/// A way of interception that is in place, its socket's test of itself, and who came while it was tried out.
#[derive(Debug)]
pub(crate) struct Intercepted {
    pub(crate) way: Interception,
    pub(crate) self_test: SelfTest,
    pub(crate) early: Vec<(TcpStream, SocketAddr)>,
}

/// Puts the first way in place that works and gives the socket that it leads to. The last one is taken as it is: when
/// it does not work either, the way is closed, and the agent says what is wrong until it is mended.
pub(crate) async fn intercept(ways: &[Interception]) -> Result<(TcpListener, Intercepted), RedirectError> {
    refuse_beside_the_original()?;
    let mut early = Vec::new();
    let (last, others) = ways.split_last().expect("there is at least one way");
    for way in others {
        match try_out(*way, &mut early).await {
            Ok((listener, self_test)) => {
                return Ok((
                    listener,
                    Intercepted {
                        way: *way,
                        self_test,
                        early,
                    },
                ));
            }
            Err(error) => tracing::info!(
                code = error.code(),
                error = &error as &dyn std::error::Error,
                ?way,
                "this way of interception does not work here, trying the next"
            ),
        }
    }
    let listener = open(*last)?;
    Ok((
        listener,
        Intercepted {
            way: *last,
            self_test: SelfTest::new(last.asked()),
            early,
        },
    ))
}

/// Two interceptors never run beside each other: aad-pod-identity's would get the pods' packets, and take its rules away
/// when it stops, with pods on the way.
fn refuse_beside_the_original() -> Result<(), RedirectError> {
    match Original::find() {
        Ok(None) => Ok(()),
        Ok(Some(found)) => Err(RedirectError::Original(found)),
        Err(source) => Err(RedirectError::Kernel {
            what: "look for aad-pod-identity's chain in the nat table".to_owned(),
            source,
        }),
    }
}

fn open(way: Interception) -> Result<TcpListener, RedirectError> {
    way.install()?;
    let address = way.listens_on();
    TcpListener::from_std(way.listen()?).map_err(|source| RedirectError::Listen { address, source })
}

/// In place, listening, and proven. Pods that come meanwhile are kept for later.
async fn try_out(
    way: Interception,
    early: &mut Vec<(TcpStream, SocketAddr)>,
) -> Result<(TcpListener, SelfTest), RedirectError> {
    let listener = open(way)?;
    let self_test = SelfTest::new(way.asked());
    let test = self_test.clone();
    let mut tested = tokio::task::spawn_blocking(move || test.run());
    loop {
        tokio::select! {
            ended = &mut tested => {
                return match ended {
                    Ok(outcome) => outcome.map(|()| (listener, self_test)),
                    Err(ended) => std::panic::resume_unwind(ended.into_panic()),
                };
            }
            accepted = listener.accept() => {
                // A connection that broke before it was taken is nobody's.
                let Ok((mut stream, peer)) = accepted else { continue };
                match self_test.answer(peer) {
                    // Whoever tests says so when it gets no answer.
                    Some(nonce) => drop(stream.write_all(&nonce).await),
                    None if early.len() < MAX_EARLY => early.push((stream, peer)),
                    None => {}
                }
            }
        }
    }
}

/// The interception of this node.
#[derive(Debug)]
pub(crate) struct Redirect {
    pub(crate) way: Interception,
    pub(crate) self_test: SelfTest,
    pub(crate) interval: Duration,
    pub(crate) guard: Guard,
    pub(crate) metrics: Arc<Metrics>,
}

impl Redirect {
    /// Watches over it until told to stop. What is in place then stays.
    pub(crate) async fn run(self, stop: Stop) {
        let mut watch = match self.way.watch() {
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
        let (way, self_test) = (self.way, self.self_test.clone());
        // Netlink answers within the call and the test waits for this very process: neither may hold up the runtime.
        let looked = tokio::task::spawn_blocking(move || {
            let missing = way.install()?;
            refuse_beside_the_original()?;
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
