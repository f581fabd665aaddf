//! What a program sees that differs from its host: a few files bound over others, folders of its own, a host name.
//! It is no isolation: all else is the host's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::NamespaceError;

/// A private view of the file system and a host name, for programs started by
/// [`Namespace::spawn`](super::Namespace::spawn). It lives as long as they do.
#[derive(Clone, Debug, Default)]
pub struct Room {
    hostname: Option<String>,
    mounts: Vec<Mount>,
}

#[derive(Clone, Debug)]
enum Mount {
    /// The file or folder `source` is seen at `target`
    Bind { source: PathBuf, target: PathBuf },
    /// `target` is an empty folder in memory
    Empty { target: PathBuf },
}

impl Room {
    /// The program's host name.
    pub fn hostname(mut self, name: impl Into<String>) -> Self {
        self.hostname = Some(name.into());
        self
    }

    /// `source` instead of `/etc/hosts`.
    pub fn hosts(self, source: impl Into<PathBuf>) -> Self {
        self.bind(source, "/etc/hosts")
    }

    /// `source` instead of `/etc/resolv.conf`.
    pub fn resolv_conf(self, source: impl Into<PathBuf>) -> Self {
        self.bind(source, "/etc/resolv.conf")
    }

    /// The file or folder `source` at `target`, which must exist, unless it lies in a folder made by [`Self::empty`]
    /// before.
    pub fn bind(mut self, source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        self.mounts.push(Mount::Bind {
            source: source.into(),
            target: target.into(),
        });
        self
    }

    /// An empty folder in memory at `target`, which must exist.
    pub fn empty(mut self, target: impl Into<PathBuf>) -> Self {
        self.mounts.push(Mount::Empty {
            target: target.into(),
        });
        self
    }

    /// Moves the calling thread, and what it starts, into the room.
    pub(super) fn enter(&self) -> Result<(), NamespaceError> {
        if let Some(name) = &self.hostname {
            unshare(CloneFlags::CLONE_NEWUTS)
                .and_then(|()| nix::unistd::sethostname(name))
                .map_err(|errno| NamespaceError::new(format!("take the host name {name}"), errno))?;
        }
        if self.mounts.is_empty() {
            return Ok(());
        }
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        unshare(CloneFlags::CLONE_NEWNS)
            .and_then(|()| mount(None::<&str>, "/", None::<&str>, private, None::<&str>))
            .map_err(|errno| NamespaceError::new("make mounts of its own", errno))?;
        let mut ours: Vec<PathBuf> = Vec::new();
        for one in &self.mounts {
            match one {
                Mount::Bind { source, target } => {
                    bind(source, target, &ours).map_err(|error| {
                        let what = format!("show {} at {}", source.display(), target.display());
                        NamespaceError::new(what, error)
                    })?;
                }
                Mount::Empty { target } => {
                    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
                    let resolved = fs::canonicalize(target).and_then(|real| {
                        mount(Some("tmpfs"), &real, Some("tmpfs"), flags, Some("mode=0755"))?;
                        Ok(real)
                    });
                    ours.push(resolved.map_err(|error| {
                        NamespaceError::new(format!("empty {}", target.display()), error)
                    })?);
                }
            }
        }
        Ok(())
    }
}

/// Binds, and makes the target first where it lies in a folder of our own.
fn bind(source: &Path, target: &Path, ours: &[PathBuf]) -> io::Result<()> {
    let missing = matches!(fs::metadata(target), Err(error) if error.kind() == io::ErrorKind::NotFound);
    if missing && let Some(parent) = target.parent() {
        // `/var/run` is mostly a link to `/run`: look at where the nearest existing ancestor really is.
        let real = parent
            .ancestors()
            .find_map(|ancestor| fs::canonicalize(ancestor).ok());
        if real.is_some_and(|real| ours.iter().any(|own| real.starts_with(own))) {
            fs::create_dir_all(parent)?;
            if source.is_dir() {
                fs::create_dir(target)?;
            } else {
                fs::write(target, "")?;
            }
        }
    }
    mount(
        Some(source),
        target,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )?;
    Ok(())
}
