//! Watch → index: a watch of one kind feeds a plain synchronous index, which one task owns.
//!
//! list ─▶ reset(all) ─▶ event ─▶ apply / delete ─▶ … ─▶ connection lost ─▶ list ─▶ reset(all)
//! A restarted watch replaces the view in one step, so nobody sees half a list.

use std::fmt::Debug;
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use serde::de::DeserializeOwned;

use crate::readiness::Guard;
use crate::stop::Stop;

/// What to wait before a watch begins anew, so that a server that refuses every watch is not asked without a pause.
const ANEW_AFTER: Duration = Duration::from_secs(1);

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
    let begin = || watcher::watcher(api.clone(), config.clone()).default_backoff();
    let mut events = std::pin::pin!(begin());
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
            Some(Err(error)) => {
                tracing::warn!(%error, "the watch was interrupted, retrying");
                if is_of_another_time(&error) {
                    tokio::select! {
                        () = stop.requested() => return,
                        () = tokio::time::sleep(ANEW_AFTER) => {}
                    }
                    events.set(begin());
                }
            }
            // watcher() never ends; if it did, Tasks would notice this task's end.
            None => return,
        }
    }
}

/// Whether the version from which the watch would go on means nothing to the server: too old, or of a future that a
/// restored backup does not know. The watcher would ask for it again and again when it is told so by a status.
fn is_of_another_time(error: &watcher::Error) -> bool {
    let watcher::Error::WatchStartFailed(kube::Error::Api(status)) = error else {
        return false;
    };
    status.code == 410
        || status.reason == "Expired"
        || (status.code == 504 && status.message.contains("Too large resource version"))
}
