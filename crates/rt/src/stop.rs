//! Being told to stop: the first signal asks every task to drain, the second one leaves at once.

use tokio_util::sync::CancellationToken;

/// A shared wish to stop. Clones are the same wish.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    drain: CancellationToken,
    now: CancellationToken,
}

impl Stop {
    /// Nobody has asked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Listens to SIGINT and SIGTERM from now on. The second signal forces the end.
    pub fn on_signals() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let stop = Self::new();
        let told = stop.clone();
        let listen = async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if told.is_requested() {
                    tracing::warn!("second signal, leaving at once");
                    told.now.cancel();
                    break;
                }
                tracing::info!("told to stop, draining");
                told.request();
            }
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "it serves Tasks and cannot be one of them"
        )]
        let _detached = tokio::spawn(listen);
        Ok(stop)
    }

    /// Asks everybody to drain.
    pub fn request(&self) {
        self.drain.cancel();
    }

    /// Asks everybody to leave without draining.
    pub fn force(&self) {
        self.drain.cancel();
        self.now.cancel();
    }

    /// Whether somebody has asked.
    pub fn is_requested(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Returns when somebody has asked to drain.
    pub async fn requested(&self) {
        self.drain.cancelled().await;
    }

    /// Returns when the end must not wait any longer.
    pub async fn forced(&self) {
        self.now.cancelled().await;
    }
}
