//! Watch → index: a watch of one kind feeds a plain synchronous index, which one task owns.
//!
//! list ─▶ reset(all) ─▶ event ─▶ apply / delete ─▶ … ─▶ connection lost ─▶ list ─▶ reset(all)
//! A restarted watch replaces the view in one step, so nobody sees half a list.

use std::fmt::Debug;

use futures::StreamExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use serde::de::DeserializeOwned;

use crate::readiness::Guard;
use crate::stop::Stop;

/// What an index of `K` does with a watch's events. It must not block.
pub trait Index<K>: Send {
    /// The object is new or changed.
    fn apply(&mut self, object: K);
    /// The object is gone; `object` is its last known form.
    fn delete(&mut self, object: K);
    /// These are all objects there are.
    fn reset(&mut self, objects: Vec<K>);
}

/// Follows `api` into `index` until told to stop; lifts `synced` after the first whole list. Errors are logged and
/// retried with back-off, the index keeps what it has meanwhile.
pub async fn follow<K>(
    api: kube::Api<K>,
    config: watcher::Config,
    mut index: impl Index<K>,
    synced: Guard,
    stop: Stop,
) where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut events = std::pin::pin!(watcher::watcher(api, config).default_backoff());
    let mut listed = Vec::new();
    loop {
        let event = tokio::select! {
            () = stop.requested() => return,
            event = events.next() => event,
        };
        match event {
            Some(Ok(Event::Init)) => listed.clear(),
            Some(Ok(Event::InitApply(object))) => listed.push(object),
            Some(Ok(Event::InitDone)) => {
                index.reset(std::mem::take(&mut listed));
                synced.ready();
            }
            Some(Ok(Event::Apply(object))) => index.apply(object),
            Some(Ok(Event::Delete(object))) => index.delete(object),
            Some(Err(error)) => tracing::warn!(%error, "the watch was interrupted, retrying"),
            // watcher() never ends; if it did, Tasks would notice this task's end.
            None => return,
        }
    }
}
