//! Watches: a stream of events from a version on, with bookmarks. Each watch reads the store's history when woken; it
//! holds no copy of any object, and one that is too slow gets 410.
//!
//! changed ─▶ since(cursor) ─▶ selector (appears, changes, disappears) ─▶ lines ─▶ client

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::Stream;
use jiff::Timestamp;
use podid_rt::stop::Stop;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::json as fields;
use crate::list::{View, matches};
use crate::request::{Form, Params};
use crate::selector::Selector;
use crate::status::ApiError;
use crate::store::{Event, Object};

/// How often an idle watch is told the current version. Source: about a minute in a real API server.
const BOOKMARK_INTERVAL: Duration = Duration::from_mins(1);
/// How long a watch lives when the client does not say: between this and twice this, in a real API server.
const DEFAULT_TIMEOUT: Duration = Duration::from_mins(30);

/// A watch that was accepted.
pub(crate) struct Watch {
    cluster: Cluster,
    view: View,
    namespace: String,
    /// The only object that is watched, when the path names one.
    name: String,
    selector: Selector,
    bookmarks: bool,
    cursor: u64,
    /// Lines that are ready to be sent.
    pending: BytesMut,
    first: bool,
    changes: watch::Receiver<u64>,
    deadline: Instant,
    next_bookmark: Instant,
    stop: Stop,
    ended: bool,
}

impl Watch {
    /// Accepts a watch; what it begins with is decided by `resourceVersion` and `sendInitialEvents`.
    pub(crate) fn open(
        cluster: &Cluster,
        view: View,
        namespace: &str,
        name: &str,
        params: &Params,
        stop: Stop,
    ) -> Result<Self, ApiError> {
        let resource = Arc::clone(&view.resource);
        let selector = Selector::parse(
            params.text("labelSelector"),
            params.text("fieldSelector"),
            &resource.fields,
        )?;
        let bookmarks = params.flag("allowWatchBookmarks");
        let initial = match params.text("sendInitialEvents") {
            "" => None,
            _ => Some(params.flag("sendInitialEvents")),
        };
        if initial == Some(true) && params.text("resourceVersionMatch") != "NotOlderThan" {
            return Err(ApiError::invalid_list_options(
                "resourceVersionMatch",
                "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        let asked = params.number("resourceVersion")?.unwrap_or_default();
        let timeout = params.number("timeoutSeconds")?.filter(|seconds| *seconds > 0);
        let now = Instant::now();
        let mut watch = Self {
            // Before the state is read, so that no change between the two is missed.
            changes: cluster.changes(),
            cluster: cluster.clone(),
            view,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            selector,
            bookmarks,
            cursor: 0,
            pending: BytesMut::new(),
            first: true,
            deadline: now + timeout.map_or(DEFAULT_TIMEOUT, Duration::from_secs),
            next_bookmark: now + BOOKMARK_INTERVAL,
            stop,
            ended: false,
        };
        let list = initial.unwrap_or(asked == 0);
        let cluster = cluster.clone();
        cluster.read(|state| {
            let current = state.store.version();
            if asked > current {
                return Err(ApiError::too_large_version(asked, current));
            }
            watch.cursor = match asked {
                _ if list => current,
                0 => current,
                asked => asked,
            };
            if list {
                let key = resource.store_key();
                for (_, object) in state.store.list(&key, namespace, None) {
                    if watch.is_wanted(object) {
                        watch.line("ADDED", object, state.now);
                    }
                }
            } else if !state.store.remembers(watch.cursor) {
                // Told inside the stream, as everything that happens to a watch later.
                let error = ApiError::expired(format!("too old resource version: {asked} ({current})"));
                watch.push("ERROR", &fields::bytes(&error.to_status()));
                watch.ended = true;
            }
            Ok(())
        })?;
        if initial == Some(true) && bookmarks {
            watch.bookmark(true);
        }
        Ok(watch)
    }

    /// The lines, as they come.
    pub(crate) fn lines(self) -> impl Stream<Item = Bytes> + Send {
        futures::stream::unfold(self, |mut watch| async move {
            let line = watch.next().await?;
            Some((line, watch))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if !self.pending.is_empty() {
                return Some(self.pending.split().freeze());
            }
            if self.ended {
                return None;
            }
            self.collect();
            if !self.pending.is_empty() || self.ended {
                continue;
            }
            let wake = self.deadline.min(self.next_bookmark);
            tokio::select! {
                // The sender lives in the cluster, which this watch holds.
                _changed = self.changes.changed() => {}
                () = self.stop.requested() => self.ended = true,
                () = tokio::time::sleep_until(wake) => {
                    if self.bookmarks {
                        self.bookmark(false);
                    }
                    self.next_bookmark = Instant::now() + BOOKMARK_INTERVAL;
                    self.ended = Instant::now() >= self.deadline;
                }
            }
        }
    }

    /// Takes what has happened since the last look.
    fn collect(&mut self) {
        let key = self.view.resource.store_key();
        let cursor = self.cursor;
        let view = Arc::clone(&self.view.resource);
        let (events, version, now, served) = self.cluster.read(|state| {
            (
                state.store.since(cursor, &key),
                state.store.version(),
                state.now,
                state
                    .registry
                    .find(&view.group, &view.version, &view.plural)
                    .is_some(),
            )
        });
        let Some(events) = events else {
            let error = ApiError::expired(format!("too old resource version: {cursor} ({version})"));
            self.push("ERROR", &fields::bytes(&error.to_status()));
            self.ended = true;
            return;
        };
        self.cursor = version;
        for event in events {
            self.event(&event, now);
        }
        // The definition is gone, and so is what was watched.
        self.ended |= !served;
    }

    fn event(&mut self, event: &Event, now: Timestamp) {
        if !self.namespace.is_empty() && event.key.namespace != self.namespace {
            return;
        }
        let before = event.before.as_ref().is_some_and(|object| self.is_wanted(object));
        match (before, &event.before, &event.after) {
            (true, _, Some(after)) if self.is_wanted(after) => self.line("MODIFIED", after, now),
            (false, _, Some(after)) if self.is_wanted(after) => self.line("ADDED", after, now),
            // It no longer matches: the client sees it go, with the version at which it went.
            (true, Some(before), Some(after)) => {
                let mut last = (***before).clone();
                fields::carry(after, &mut last, &["metadata", "resourceVersion"]);
                self.line("DELETED", &Object::new(last), now);
            }
            (true, Some(before), None) => self.line("DELETED", before, now),
            _ => {}
        }
    }

    fn is_wanted(&self, object: &Value) -> bool {
        (self.name.is_empty() || fields::name(object) == self.name)
            && matches(&self.view.resource, &self.selector, object)
    }

    fn line(&mut self, kind: &str, object: &Object, now: Timestamp) {
        let text = self.view.render(object, now, self.first);
        self.first = false;
        self.push(kind, &text);
    }

    fn push(&mut self, kind: &str, object: &[u8]) {
        self.pending.put_slice(b"{\"type\":\"");
        self.pending.put_slice(kind.as_bytes());
        self.pending.put_slice(b"\",\"object\":");
        self.pending.put_slice(object);
        self.pending.put_slice(b"}\n");
    }

    fn bookmark(&mut self, initial_end: bool) {
        let resource = &self.view.resource;
        let mut metadata = json!({ "resourceVersion": self.cursor.to_string(), "creationTimestamp": null });
        if initial_end {
            fields::set(
                &mut metadata,
                &["annotations", "k8s.io/initial-events-end"],
                "true",
            );
        }
        let object = match self.view.form {
            Form::Table => json!({
                "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
                "columnDefinitions": null, "rows": [],
            }),
            Form::Partial => json!({
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
            }),
            Form::Plain => json!({
                "kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata,
            }),
        };
        self.push("BOOKMARK", &fields::bytes(&object));
    }
}
