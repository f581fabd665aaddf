//! Whose connection is this: asked once a connection, of the kernel where that is wanted, and kept for its life. Each
//! request then only looks whether that pod is still there and still has the address.
//!
//! ```text
//! connection (peer, local) ─▶ world: who has the address ─▶ kernel: is it a socket of that pod ─▶ Proof (uid)
//!                                     └─ nobody yet: may come      └─ no: refused (enforce), counted (audit)
//! ```

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use podid_core::decide::identify;
use podid_core::reason::Waits;
use podid_core::{Caller, Pod, Reason, Refusal, World};
use podid_kernel::attest::{AttestError, Attestor};

use crate::args::Attestation;
use crate::metrics::{Metrics, Recent};
use crate::rate::{Bucket, Rates};

/// A pod's connection.
#[derive(Debug)]
pub(crate) struct Connection {
    peer: SocketAddr,
    local: SocketAddr,
    proof: OnceLock<Proof>,
    recent: Recent,
}

/// Which pod opened the connection, and what it may still ask for.
#[derive(Debug)]
pub(crate) struct Proof {
    uid: Arc<str>,
    pub(crate) bucket: Arc<Bucket>,
}

impl Connection {
    /// A connection accepted from `peer` at `local`; nothing is known about it yet.
    pub(crate) fn new(peer: SocketAddr, local: SocketAddr) -> Self {
        Self {
            peer,
            local,
            proof: OnceLock::new(),
            recent: Recent::default(),
        }
    }

    /// The other end.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// What was counted last.
    pub(crate) fn recent(&self) -> &Recent {
        &self.recent
    }

    /// Whose it is, once that was found out.
    pub(crate) fn proof(&self) -> Option<&Proof> {
        self.proof.get()
    }
}

impl Proof {
    /// The caller, for a decision about a request on `connection`.
    pub(crate) fn caller<'p>(&'p self, connection: &Connection) -> Caller<'p> {
        Caller::Proven {
            uid: &self.uid,
            address: connection.peer.ip(),
        }
    }

    /// The pod, while it is there.
    pub(crate) fn pod<'w>(&self, world: &'w World) -> Option<&'w Arc<Pod>> {
        world.pod(&self.uid)
    }
}

/// Why a request is not granted, from its decision or from finding out whose it is.
#[derive(Debug)]
pub(crate) struct NotGranted {
    pub(crate) reason: Reason,
    pub(crate) waits: Waits,
    /// The pod that has the address, where there is one.
    pub(crate) pod: Option<Arc<Pod>>,
    /// What was looked for, as a pod may read it.
    pub(crate) looked_for: String,
}

impl NotGranted {
    /// Core's refusal, without the world it was decided in.
    pub(crate) fn of(refusal: Refusal<'_>) -> Self {
        Self {
            reason: refusal.reason,
            waits: refusal.reason.waits(),
            pod: refusal.pod.cloned(),
            looked_for: refusal.looked_for,
        }
    }
}

/// Finds out whose connections are.
#[derive(Debug)]
pub(crate) struct Callers {
    mode: Attestation,
    kernel: Option<Arc<Attestor>>,
    rates: Rates,
    metrics: Arc<Metrics>,
}

impl Callers {
    /// Asks `kernel`, unless it is none or `mode` is off.
    pub(crate) fn new(
        mode: Attestation,
        kernel: Option<Arc<Attestor>>,
        rates: Rates,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            mode,
            kernel,
            rates,
            metrics,
        }
    }

    /// Finds out whose `connection` is, and keeps it.
    pub(crate) async fn prove<'c>(
        &self,
        world: &World,
        connection: &'c Connection,
    ) -> Result<&'c Proof, NotGranted> {
        if let Some(proof) = connection.proof() {
            return Ok(proof);
        }
        let pod = identify(world, Caller::Address(connection.peer.ip())).map_err(NotGranted::of)?;
        if let Some(kernel) = self.kernel.as_ref().filter(|_| self.mode != Attestation::Off)
            && let Err(error) = kernel
                .confirm(&pod.id.uid, connection.peer, connection.local)
                .await
        {
            self.disagreed(pod, connection, error)?;
        }
        Ok(connection.proof.get_or_init(|| Proof {
            uid: Arc::clone(&pod.id.uid),
            bucket: self.rates.bucket(&pod.id.uid),
        }))
    }

    fn disagreed(
        &self,
        pod: &Arc<Pod>,
        connection: &Connection,
        error: AttestError,
    ) -> Result<(), NotGranted> {
        let (code, peer) = (error.code(), connection.peer);
        let chain = &error as &dyn std::error::Error;
        if self.mode == Attestation::Audit {
            tracing::debug!(pod = %pod.id.object, %peer, code, error = chain, "not confirmed, let through (audit)");
            self.metrics.audited(code);
            return Ok(());
        }
        tracing::debug!(pod = %pod.id.object, %peer, code, error = chain, "not confirmed");
        let waits = match error {
            // The pod that had this address is going; the watch will say so, and who has it now.
            AttestError::NotFound(_) => Waits::ForPod,
            _ => Waits::Never,
        };
        Err(NotGranted {
            reason: Reason::AttestationFailed,
            waits,
            pod: None,
            looked_for: String::new(),
        })
    }

    /// Lets go of what is kept for pods that are gone.
    pub(crate) fn retain(&self, world: &World) {
        let there = |uid: &str| world.pod(uid).is_some();
        if let Some(kernel) = &self.kernel {
            kernel.retain(there);
        }
        self.rates.retain(there);
    }
}
