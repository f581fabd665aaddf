//! The emulated Azure as all doors share it: the world behind one lock, keys, log, faults, operations, settings.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use parking_lot::RwLock;
use podid_rt::clock::Clock;
use tokio::sync::watch;

use crate::entra::issuer::Issuers;
use crate::fault::Faults;
use crate::imds::cache::TokenCache;
use crate::imds::quota::Quotas;
use crate::keys::SigningKey;
use crate::log::RequestLog;
use crate::operation::Operations;
use crate::world::World;

/// What happens to a caller without the right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Authorization {
    /// It passes; the request log says which right was missing.
    #[default]
    Audit,
    /// It is refused as ARM refuses.
    Enforce,
}

/// What does not change while the emulator runs.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) tenant: String,
    pub(crate) subscription: String,
    pub(crate) authorization: Authorization,
    /// Life of a managed identity's token.
    pub(crate) identity_token_lifetime: Duration,
    /// Life of other tokens.
    pub(crate) token_lifetime: Duration,
    /// How long operations run.
    pub(crate) operation_delay: Duration,
    /// Added to each IMDS token request.
    pub(crate) imds_latency: Duration,
    /// Requests a second and at a time for a machine; none switches the quota off.
    pub(crate) imds_quota: Option<(usize, usize)>,
    /// Pod identity needs the feature flag.
    pub(crate) require_features: bool,
    /// Client id of the built-in service principal.
    pub(crate) client_id: String,
    /// What the control API wants in `x-emulator-key`.
    pub(crate) control_key: String,
    /// Kubernetes of the first cluster.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The same for people, where they reach it by another address.
    pub(crate) user_kubeconfig: Option<PathBuf>,
    /// Kubernetes of certain clusters, by `group/name` in lower case.
    pub(crate) kubeconfigs: HashMap<String, PathBuf>,
    /// Key of the machine that callers of IMDS are when their address is no node's.
    pub(crate) fallback_machine: Option<String>,
}

/// The emulated Azure.
pub(crate) struct Cloud {
    pub(crate) settings: Settings,
    pub(crate) key: SigningKey,
    pub(crate) ca_pem: String,
    pub(crate) clock: Clock,
    pub(crate) log: RequestLog,
    pub(crate) faults: Faults,
    pub(crate) operations: Operations,
    pub(crate) quotas: Quotas,
    pub(crate) tokens: TokenCache,
    pub(crate) issuers: Issuers,
    world: RwLock<World>,
    revision: watch::Sender<u64>,
}

/// Its handle.
pub(crate) type SharedCloud = Arc<Cloud>;

impl Cloud {
    /// Puts it together.
    pub(crate) fn new(
        settings: Settings,
        key: SigningKey,
        ca_pem: String,
        clock: Clock,
        world: World,
        issuers: Issuers,
    ) -> Self {
        let revision = watch::channel(world.revision()).0;
        let quotas = Quotas::new(settings.imds_quota);
        Self {
            settings,
            key,
            ca_pem,
            clock,
            log: RequestLog::default(),
            faults: Faults::default(),
            operations: Operations::default(),
            quotas,
            tokens: TokenCache::default(),
            issuers,
            world: RwLock::new(world),
            revision,
        }
    }

    /// Looks at the world.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        look(&self.world.read())
    }

    /// Changes the world, and tells those who follow it.
    pub(crate) fn write<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let (result, revision) = {
            let mut world = self.world.write();
            let result = change(&mut world);
            (result, world.revision())
        };
        self.revision
            .send_if_modified(|seen| std::mem::replace(seen, revision) != revision);
        result
    }

    /// Follows the world's changes.
    pub(crate) fn revisions(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Now, RFC 3339.
    pub(crate) fn now_text(&self) -> String {
        time_text(self.clock.unix_secs())
    }
}

/// A time, RFC 3339.
pub(crate) fn time_text(unix_secs: u64) -> String {
    i64::try_from(unix_secs)
        .ok()
        .and_then(|secs| jiff::Timestamp::from_second(secs).ok())
        .map(|time| time.to_string())
        .unwrap_or_default()
}
