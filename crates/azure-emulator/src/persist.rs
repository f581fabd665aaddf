//! The state folder: certificate authority, signing key and the world. One emulator at a time has it.
//!
//! change ─▶ a pause to collect others, longer when there is much to write ─▶ write beside ─▶ rename over `state.json`

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use podid_rt::stop::Stop;
use tokio::time::Instant;

use crate::cloud::SharedCloud;
use crate::world::World;

/// Changes that come within this time are written together.
const COLLECT: Duration = Duration::from_millis(100);
/// The pause is so many times as long as the last writing took: a large world costs a tenth of a core, not all of it.
const PAUSE_FOR_WRITING: u32 = 9;
/// But no longer than this; it is what a crash may lose.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A state folder that is ours until it is dropped.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    _lock: File,
}

/// Why a state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error("the state folder {} is in use by another emulator", .0.display())]
    InUse(PathBuf),
    #[error("cannot {what} {}", .path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the state in {} cannot be read; move it away to start anew", .path.display())]
    Broken {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

impl StateDir {
    /// Opens or makes it.
    pub(crate) fn open(path: &Path) -> Result<Self, StateError> {
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Io { what, path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io("make", path))?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(io("open", &lock_path))?;
        lock.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => StateError::InUse(path.to_owned()),
            std::fs::TryLockError::Error(source) => StateError::Io {
                what: "lock",
                path: lock_path,
                source,
            },
        })?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// The certificate authority's file.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.path.join("ca.pem")
    }

    /// A file's bytes; none when there is no such file.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        let path = self.path.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateError::Io {
                what: "read",
                path,
                source,
            }),
        }
    }

    /// Replaces a file in one step; only the owner may read it.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        replace(&self.path.join(name), bytes, 0o600)
    }

    /// The world as it was kept, or an empty one.
    pub(crate) fn world(&self) -> Result<World, StateError> {
        let Some(bytes) = self.read(STATE)? else {
            return Ok(World::default());
        };
        let mut world: World = serde_json::from_slice(&bytes).map_err(|source| StateError::Broken {
            path: self.path.join(STATE),
            source,
        })?;
        world.reindex();
        Ok(world)
    }

    /// Keeps the world until told to stop, and once more then.
    pub(crate) async fn keep(self, cloud: SharedCloud, stop: Stop) {
        let this = std::sync::Arc::new(self);
        let mut revisions = cloud.revisions();
        let mut pause = COLLECT;
        loop {
            tokio::select! {
                () = stop.requested() => break,
                changed = revisions.changed() => if changed.is_err() { break },
            }
            tokio::select! {
                () = stop.requested() => break,
                () = tokio::time::sleep(pause) => {}
            }
            revisions.mark_unchanged();
            let begun = Instant::now();
            this.save(&cloud).await;
            pause = (begun.elapsed() * PAUSE_FOR_WRITING).clamp(COLLECT, LONGEST_PAUSE);
        }
        this.save(&cloud).await;
    }

    async fn save(self: &std::sync::Arc<Self>, cloud: &SharedCloud) {
        let (this, cloud) = (self.clone(), cloud.clone());
        let saved = tokio::task::spawn_blocking(move || {
            let json = cloud.read(serde_json::to_vec);
            let path = this.path.join(STATE);
            let json = json.map_err(|source| StateError::Broken { path, source })?;
            this.write(STATE, &json)
        });
        match saved.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the state is not kept");
            }
            Err(error) => tracing::error!(%error, "the state is not kept"),
        }
    }
}

const STATE: &str = "state.json";

/// Replaces a file that everybody may read, such as a certificate.
pub(crate) fn write_public(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    replace(path, bytes, 0o644)
}

/// Writes beside and renames.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StateError> {
    let beside = path.with_extension("new");
    let io = |what, path: &Path| {
        let path = path.to_owned();
        move |source| StateError::Io { what, path, source }
    };
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(mode)
        .open(&beside)
        .map_err(io("write", &beside))?;
    file.write_all(bytes).map_err(io("write", &beside))?;
    std::fs::rename(&beside, path).map_err(io("write", path))
}
