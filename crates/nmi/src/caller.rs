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
use podid_core::pod::Phase;
use podid_core::reason::Waits;
use podid_core::{Caller, Pod, Reason, Refusal, World};
use podid_kernel::attest::{AttestError, Attestor};
use tokio::sync::Semaphore;

use crate::args::Attestation;
use crate::hosts::HostCaller;
use crate::metrics::{Metrics, Recent};
use crate::rate::{Bucket, Rates};

/// A pod's connection.
#[derive(Debug)]
pub(crate) struct Connection {
    peer: SocketAddr,
    local: SocketAddr,
    /// It came in where node agents on the node's network ask.
    host: bool,
    /// One more than its address may have: only probes are answered.
    crowded: bool,
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
            host: false,
            crowded: false,
            proof: OnceLock::new(),
            recent: Recent::default(),
        }
    }

    /// One that is known to be of pod `uid`, for who asks in its name; `bucket` says how often.
    pub(crate) fn of_pod(peer: SocketAddr, local: SocketAddr, uid: Arc<str>, bucket: Arc<Bucket>) -> Self {
        let connection = Self::new(peer, local);
        // Nothing can be there yet.
        let _first = connection.proof.set(Proof { uid, bucket });
        connection
    }

    /// A connection of somebody on the node's network, accepted where node agents ask.
    pub(crate) fn of_host(peer: SocketAddr, local: SocketAddr) -> Self {
        Self {
            host: true,
            ..Self::new(peer, local)
        }
    }

    /// The same connection, as one more than its address may have.
    pub(crate) fn crowded(self) -> Self {
        Self {
            crowded: true,
            ..self
        }
    }

    /// Whether only probes are answered.
    pub(crate) fn is_crowded(&self) -> bool {
        self.crowded
    }

    /// Whether it came in where node agents on the node's network ask.
    pub(crate) fn is_host(&self) -> bool {
        self.host
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
    /// Uid of the pod.
    pub(crate) fn uid(&self) -> &str {
        &self.uid
    }

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
    /// Nothing is known but why.
    pub(crate) fn because(reason: Reason) -> Self {
        Self {
            reason,
            waits: reason.waits(),
            pod: None,
            looked_for: String::new(),
        }
    }

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
    /// Who may ask for other pods' tokens.
    hosts: Vec<HostCaller>,
    /// One search of the node's processes at a time.
    search: Semaphore,
    rates: Rates,
    metrics: Arc<Metrics>,
}

impl Callers {
    /// Asks `kernel`, unless it is none or `mode` is off.
    pub(crate) fn new(
        mode: Attestation,
        kernel: Option<Arc<Attestor>>,
        hosts: Vec<HostCaller>,
        rates: Rates,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            mode,
            kernel,
            hosts,
            search: Semaphore::new(1),
            rates,
            metrics,
        }
    }

    /// Whether anybody may ask for other pods' tokens.
    pub(crate) fn serves_hosts(&self) -> bool {
        !self.hosts.is_empty()
    }

    /// Finds out whether `connection` is of a node agent that may ask for other pods' tokens, and keeps whose it is. Only what
    /// the kernel confirms counts, whatever `--attestation` says.
    pub(crate) async fn prove_host<'c>(
        &self,
        world: &World,
        connection: &'c Connection,
    ) -> Result<&'c Proof, NotGranted> {
        let proof = match (connection.proof(), &self.kernel) {
            (Some(proof), _) => proof,
            (None, Some(kernel)) if connection.host => self.prove_on_host(world, connection, kernel).await?,
            (None, Some(_)) if self.mode == Attestation::Enforce => self.prove(world, connection).await?,
            (None, _) => return Err(NotGranted::because(Reason::HostCallerRefused)),
        };
        match proof.pod(world) {
            None => Err(NotGranted::because(Reason::PodGone)),
            Some(pod) if self.is_allowed(pod) => Ok(proof),
            Some(pod) => Err(NotGranted {
                looked_for: format!("pod {}, service account {}", pod.id.object, pod.service_account),
                ..NotGranted::because(Reason::HostCallerRefused)
            }),
        }
    }

    /// Of which allowed pod on the node's network the connection is.
    async fn prove_on_host<'c>(
        &self,
        world: &World,
        connection: &'c Connection,
        kernel: &Arc<Attestor>,
    ) -> Result<&'c Proof, NotGranted> {
        let among: Vec<String> = world
            .pods()
            .filter(|pod| pod.host_network && pod.phase == Phase::Active && self.is_allowed(pod))
            .map(|pod| pod.id.uid.to_string())
            .collect();
        let refused = || NotGranted::because(Reason::HostCallerRefused);
        if among.is_empty() {
            return Err(refused());
        }
        let _one_at_a_time = self.search.acquire().await.map_err(|_closed| refused())?;
        let (peer, local) = (connection.peer, connection.local);
        match kernel.holder(among, peer, local).await {
            Ok(uid) => Ok(connection.proof.get_or_init(|| {
                let uid = Arc::from(uid);
                let bucket = self.rates.bucket(&uid);
                Proof { uid, bucket }
            })),
            Err(error) => {
                let chain = &error as &dyn std::error::Error;
                tracing::debug!(%peer, code = error.code(), error = chain, "not proven to be a node agent");
                Err(refused())
            }
        }
    }

    fn is_allowed(&self, pod: &Pod) -> bool {
        self.hosts.iter().any(|caller| caller.is(pod))
    }

    /// Takes one request to a path that is open to everybody out of the address' bucket, if there is one. By address, and not out of
    /// the bucket of the pod that has it, which somebody with a borrowed address could empty.
    pub(crate) fn may_pass(&self, connection: &Connection) -> bool {
        self.rates.of_address(connection.peer.ip()).take()
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
