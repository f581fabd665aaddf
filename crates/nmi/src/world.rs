//! The node's world: watches feed one index, requests read snapshots of it. A snapshot is swapped, never locked, and
//! whoever waits for a change is told.
//!
//! ```text
//! watch ─▶ Feed ─▶ index (a short lock between watches; no request takes it) ─▶ wake
//!                     └─ a whole list: at once ─┐                                 │ all that came meanwhile
//!                                               ▼                                 ▼
//!   requests ◀─ load() ◀────────────────── ArcSwap<World> ◀──────────────── publish ─▶ version ─▶ who waits
//! ```

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use podid_api::convert::object_name;
use podid_core::{Index, ObjectName, World};
use podid_rt::stop::Stop;
use podid_rt::watch;
use tokio::sync::Notify;
use tokio::sync::watch as latest;

use crate::metrics::Metrics;
use crate::seen::{Seen, Unusable, Watched};

/// Most unusable objects that are remembered, so as to log each once.
const MAX_UNUSABLE: usize = 4096;

/// A handle to the node's world.
#[derive(Clone)]
pub(crate) struct SharedWorld(Arc<Inner>);

/// Is told of each new snapshot, by the task that publishes it. It must not block.
pub(crate) type OnChange = Box<dyn Fn(&World) + Send + Sync>;

struct Inner {
    index: Mutex<Index>,
    unusable: Mutex<HashMap<(&'static str, ObjectName), String>>,
    current: ArcSwap<World>,
    /// Counts the snapshots.
    version: latest::Sender<u64>,
    wake: Notify,
    metrics: Arc<Metrics>,
    /// Watches that have not seen a whole list yet.
    awaited: AtomicU64,
}

impl fmt::Debug for SharedWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedWorld")
            .field("version", &*self.0.version.borrow())
            .finish_non_exhaustive()
    }
}

impl SharedWorld {
    /// An empty world, which nobody feeds yet.
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Inner {
            index: Mutex::new(Index::new()),
            unusable: Mutex::default(),
            current: ArcSwap::from_pointee(World::default()),
            version: latest::Sender::new(0),
            wake: Notify::new(),
            metrics,
            awaited: AtomicU64::new(0),
        }))
    }

    /// What a watch of `W` feeds.
    pub(crate) fn feed<W: Watched>(&self) -> Feed<W> {
        self.0.awaited.fetch_add(1, Ordering::AcqRel);
        Feed {
            world: self.clone(),
            listed: false,
            kind: PhantomData,
        }
    }

    /// The world as it is now.
    pub(crate) fn load(&self) -> Arc<World> {
        self.0.current.load_full()
    }

    /// Tells of each snapshot that comes after this call.
    pub(crate) fn changes(&self) -> latest::Receiver<u64> {
        self.0.version.subscribe()
    }

    /// Whether every watch has seen a whole list; before that, absence means nothing.
    pub(crate) fn is_synced(&self) -> bool {
        self.0.awaited.load(Ordering::Acquire) == 0
    }

    /// Publishes what the watches bring until `stop`, and tells `on_change`.
    pub(crate) async fn run(self, on_change: OnChange, stop: Stop) {
        let mut changes = self.changes();
        loop {
            tokio::select! {
                () = stop.requested() => return,
                () = self.0.wake.notified() => self.publish(),
                // The sender lives in self. A list is published by its feed, so this also hears of those.
                _ = changes.changed() => on_change(&self.load()),
            }
        }
    }

    fn publish(&self) {
        let mut index = self.0.index.lock();
        if index.is_dirty() {
            // Under the lock, so that an older snapshot never replaces a newer one.
            self.0.current.store(Arc::new(index.snapshot()));
            drop(index);
            self.0.version.send_modify(|version| *version += 1);
        }
    }

    /// The objects that count as absent, by kind and name, and why.
    pub(crate) fn unusable(&self) -> Vec<(&'static str, ObjectName, String)> {
        let unusable = self.0.unusable.lock();
        let mut all: Vec<_> = unusable
            .iter()
            .map(|((kind, object), why)| (*kind, object.clone(), why.clone()))
            .collect();
        drop(unusable);
        all.sort();
        all
    }

    /// Counts an unusable object and logs it once; a usable one may be logged again later.
    fn judge<W: Watched>(&self, seen: &Seen<W>) {
        let kind = W::KIND;
        let object = object_name(&seen.meta);
        let mut unusable = self.0.unusable.lock();
        let Err(error) = &seen.noun else {
            unusable.remove(&(kind, object));
            return;
        };
        self.0.metrics.unusable(kind, error.code());
        let text = error.to_string();
        if unusable.get(&(kind, object.clone())) == Some(&text) {
            return;
        }
        log(kind, &object, error);
        if unusable.len() < MAX_UNUSABLE {
            unusable.insert((kind, object), text);
        }
    }
}

fn log(kind: &'static str, object: &ObjectName, error: &Unusable) {
    tracing::warn!(kind, %object, %error, code = error.code(), "an object cannot be used and counts as absent");
}

/// Takes the events of one watch into the index.
pub(crate) struct Feed<W> {
    world: SharedWorld,
    listed: bool,
    kind: PhantomData<W>,
}

impl<W: Watched> watch::Index<Seen<W>> for Feed<W> {
    fn apply(&mut self, object: Seen<W>) {
        self.world.judge(&object);
        {
            let mut index = self.world.0.index.lock();
            match object.noun {
                Ok(Some(noun)) => W::apply(&mut index, noun),
                Ok(None) | Err(_) => W::delete(&mut index, &object.meta),
            }
        }
        self.world.0.wake.notify_one();
    }

    fn delete(&mut self, object: Seen<W>) {
        self.world
            .0
            .unusable
            .lock()
            .remove(&(W::KIND, object_name(&object.meta)));
        W::delete(&mut self.world.0.index.lock(), &object.meta);
        self.world.0.wake.notify_one();
    }

    fn reset(&mut self, objects: Vec<Seen<W>>) {
        for object in &objects {
            self.world.judge(object);
        }
        let nouns = objects
            .into_iter()
            .filter_map(|object| object.noun.ok().flatten())
            .collect();
        W::reset(&mut self.world.0.index.lock(), nouns);
        // At once: who waits for readiness must find what the list had.
        self.world.publish();
        if !std::mem::replace(&mut self.listed, true) {
            self.world.0.awaited.fetch_sub(1, Ordering::AcqRel);
            // Whoever waits must see that absence means something now, even if the list was empty.
            self.world.0.version.send_modify(|version| *version += 1);
        }
    }
}
