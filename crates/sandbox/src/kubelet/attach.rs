//! Pods that somebody waits for: `run` gives them its own standard streams, environment and folder, sends them
//! signals and learns how they ended.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

/// How many signals may wait.
const SIGNALS: usize = 16;

/// Who is waited for, by namespace and name. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Attachments(Arc<Mutex<HashMap<(String, String), Attachment>>>);

/// A pod's container that is waited for.
#[derive(Debug)]
pub struct Attachment {
    /// What it gets.
    pub given: Given,
    /// How it ended.
    pub end: oneshot::Sender<End>,
}

/// What a waited-for container gets.
#[derive(Debug)]
pub struct Given {
    /// stdin, stdout, stderr.
    pub streams: [OwnedFd; 3],
    /// Its environment, under the sandbox's own variables.
    pub environment: BTreeMap<String, OsString>,
    /// Where it runs.
    pub folder: PathBuf,
    /// Signals for it, by number.
    pub signals: mpsc::Receiver<i32>,
}

/// How a waited-for program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With this exit code; 128 + signal when killed by one.
    Exited(u8),
    /// It could not be started.
    NotStarted(String),
}

/// The other side of an attachment.
#[derive(Debug)]
pub struct Waiter {
    /// To send signals.
    pub signals: mpsc::Sender<i32>,
    /// How it ended; an error when the pod went without having started it.
    pub end: oneshot::Receiver<End>,
}

impl Attachments {
    /// Says who is waited for, before the pod is made.
    pub fn expect(
        &self,
        namespace: &str,
        name: &str,
        streams: [OwnedFd; 3],
        environment: BTreeMap<String, OsString>,
        folder: PathBuf,
    ) -> Waiter {
        let (send_signal, signals) = mpsc::channel(SIGNALS);
        let (end, ended) = oneshot::channel();
        let given = Given {
            streams,
            environment,
            folder,
            signals,
        };
        let attachment = Attachment { given, end };
        self.0
            .lock()
            .insert((namespace.to_owned(), name.to_owned()), attachment);
        Waiter {
            signals: send_signal,
            end: ended,
        }
    }

    /// The pod is there (or will never be).
    pub fn take(&self, namespace: &str, name: &str) -> Option<Attachment> {
        self.0.lock().remove(&(namespace.to_owned(), name.to_owned()))
    }
}
