//! The folder in which a world keeps its certificates, logs and control socket, and the lock that tells a living world
//! from what a killed one left. It holds nothing that outlives the world.
//!
//! claim(name) ─▶ folder with our flock ─▶ … ─▶ remove
//!                └─ its owner was killed: no flock ─▶ found by the next claim or sweep ─▶ removed

use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::unistd::geteuid;

/// The longest path of a Unix socket. Source: unix(7), `sun_path` with its closing zero.
const MAX_SOCKET_PATH: usize = 107;

/// Bits of a mode that are for others than the owner.
const OTHERS: u32 = 6;

/// The name of a world: lower-case letters, digits and hyphens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorldName(String);

/// Where the folders of this user's worlds are.
#[derive(Clone, Debug)]
pub struct Home(PathBuf);

/// The folder of a world, which is ours as long as this lives.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    name: WorldName,
    // Held for its lock.
    _lock: File,
}

/// Something about a world's folder did not work.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Not a name.
    #[error(
        "`{0}` is not a world's name: 1 to 32 of a-z, 0-9 and `-`, beginning and ending with a letter or digit"
    )]
    Name(String),
    /// A living world has that name.
    #[error(
        "the world `{0}` is running already; end it with `podid-sandbox down --name {0}`, or choose another --name"
    )]
    Taken(WorldName),
    /// No living world has that name.
    #[error("no world `{0}` is running; start one with `podid-sandbox up --name {0}`")]
    NotRunning(WorldName),
    /// Somebody else could put things there.
    #[error("{} must be a folder that only you can enter", .0.display())]
    Exposed(PathBuf),
    /// A Unix socket cannot be there.
    #[error("{} is too long a path for a socket; set XDG_RUNTIME_DIR to a shorter one", .0.display())]
    TooLong(PathBuf),
    /// The file system says no.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl StateError {
    /// A stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Name(_) => "world_name",
            Self::Taken(_) => "world_taken",
            Self::NotRunning(_) => "world_not_running",
            Self::Exposed(_) => "state_exposed",
            Self::TooLong(_) => "state_path_too_long",
            Self::Io { .. } => "state_io",
        }
    }

    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

// === impl WorldName ===

impl FromStr for WorldName {
    type Err = StateError;

    fn from_str(text: &str) -> Result<Self, StateError> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if (1..=32).contains(&text.len())
            && text.chars().all(fits)
            && !text.starts_with('-')
            && !text.ends_with('-')
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(StateError::Name(text.to_owned()))
        }
    }
}

impl std::fmt::Display for WorldName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Home ===

impl Home {
    /// `$XDG_RUNTIME_DIR/podid`, else a private folder under the temporary directory.
    pub fn locate() -> Self {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        match runtime.filter(|path| path.is_absolute() && path.is_dir()) {
            Some(path) => Self(path.join("podid")),
            None => Self(std::env::temp_dir().join(format!("podid-{}", geteuid()))),
        }
    }

    /// A home at that path.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where the folder of that world is, if there is one.
    pub fn folder(&self, name: &WorldName) -> PathBuf {
        self.0.join(&name.0)
    }

    /// Makes that world's folder ours, and empty. What a killed world of that name left is removed.
    pub fn claim(&self, name: &WorldName) -> Result<Folder, StateError> {
        let path = self.folder(name);
        let socket = path.join(CONTROL_SOCKET);
        if socket.as_os_str().len() > MAX_SOCKET_PATH {
            return Err(StateError::TooLong(socket));
        }
        loop {
            private(&self.0)?;
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                // The home was removed meanwhile by a world that ended.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(StateError::io("make", &path)(error)),
            }
            match lock(&path)? {
                Lock::Ours(lock) => {
                    owned(&path)?;
                    empty(&path)?;
                    return Ok(Folder {
                        path,
                        name: name.clone(),
                        _lock: lock,
                    });
                }
                Lock::Theirs => return Err(StateError::Taken(name.clone())),
                Lock::Gone => {}
            }
        }
    }

    /// Whether a living world has that name.
    pub fn is_alive(&self, name: &WorldName) -> Result<bool, StateError> {
        Ok(matches!(lock(&self.folder(name))?, Lock::Theirs))
    }

    /// Removes what killed worlds left; their names.
    pub fn sweep(&self) -> Result<Vec<WorldName>, StateError> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(StateError::io("list", &self.0)(error)),
        };
        private(&self.0)?;
        let mut found = Vec::new();
        for entry in entries.flatten() {
            let Some(name) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<WorldName>().ok())
            else {
                continue;
            };
            if let Lock::Ours(_lock) = lock(&entry.path())? {
                remove(&entry.path())?;
                found.push(name);
            }
        }
        self.leave();
        found.sort();
        Ok(found)
    }

    /// Removes the home itself when no world is in it.
    fn leave(&self) {
        // Not empty, or gone already: both are as they should be.
        let _still_used = fs::remove_dir(&self.0);
    }
}

// === impl Folder ===

/// The control socket's name in the folder.
pub const CONTROL_SOCKET: &str = "control.sock";

impl Folder {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is.
    pub fn name(&self) -> &WorldName {
        &self.name
    }

    /// Removes it with all that is in it. It stays locked until this returns.
    pub fn remove(self) -> Result<(), StateError> {
        remove(&self.path)?;
        if let Some(home) = self.path.parent() {
            Home(home.to_owned()).leave();
        }
        Ok(())
    }
}

enum Lock {
    Ours(File),
    Theirs,
    Gone,
}

/// Tries to lock the folder; the lock is on the folder itself, so that it leaves no file of its own. It ends when the
/// last process that has the file open ends: a supervisor and its world share it.
fn lock(path: &Path) -> Result<Lock, StateError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Lock::Gone),
        Err(error) => return Err(StateError::io("open", path)(error)),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Lock::Theirs),
        Err(TryLockError::Error(error)) => return Err(StateError::io("lock", path)(error)),
    }
    // Its last owner may have removed it between our opening and locking it.
    let identity = |seen: fs::Metadata| (seen.dev(), seen.ino());
    let ours = file.metadata().map(identity).ok();
    let there = fs::symlink_metadata(path).map(identity).ok();
    Ok(if ours.is_some() && ours == there {
        Lock::Ours(file)
    } else {
        Lock::Gone
    })
}

/// Makes a folder that only this user can enter, or checks that it is one.
fn private(path: &Path) -> Result<(), StateError> {
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Ok(()) => owned(path),
        Err(error) => Err(StateError::io("make", path)(error)),
    }
}

fn owned(path: &Path) -> Result<(), StateError> {
    match fs::symlink_metadata(path) {
        Ok(seen)
            if seen.is_dir()
                && seen.uid() == geteuid().as_raw()
                && seen.mode().trailing_zeros() >= OTHERS =>
        {
            Ok(())
        }
        Ok(_) => Err(StateError::Exposed(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StateError::io("look at", path)(error)),
    }
}

fn empty(path: &Path) -> Result<(), StateError> {
    for entry in fs::read_dir(path)
        .map_err(StateError::io("list", path))?
        .flatten()
    {
        let inside = entry.path();
        let removed = if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            fs::remove_dir_all(&inside)
        } else {
            fs::remove_file(&inside)
        };
        removed.map_err(StateError::io("remove", &inside))?;
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), StateError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StateError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Writes a file that only this user can read.
pub fn write_private(path: &Path, text: &str) -> Result<(), StateError> {
    let write = || {
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        io::Write::write_all(&mut &file, text.as_bytes())
    };
    write().map_err(StateError::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> WorldName {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_cannot_leave_the_home() {
        for text in ["", "..", "a/b", "A", "-a", "a-", "a.b", &"a".repeat(33)] {
            assert!(text.parse::<WorldName>().is_err(), "{text}");
        }
        assert_eq!(name("demo-1").to_string(), "demo-1");
    }

    #[test]
    fn a_living_world_is_left_alone_and_a_dead_ones_folder_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("podid"));
        let living = home.claim(&name("living")).unwrap();
        fs::write(living.path().join("x"), "x").unwrap();
        let dead = home.claim(&name("dead")).unwrap();
        fs::write(dead.path().join("x"), "x").unwrap();
        drop(dead);
        assert!(matches!(home.claim(&name("living")), Err(StateError::Taken(_))));
        assert!(home.is_alive(&name("living")).unwrap() && !home.is_alive(&name("dead")).unwrap());
        assert_eq!(home.sweep().unwrap(), [name("dead")]);
        assert!(living.path().join("x").exists() && !home.folder(&name("dead")).exists());
        living.remove().unwrap();
        assert!(!dir.path().join("podid").exists());
    }

    #[test]
    fn a_folder_claimed_anew_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("podid"));
        let first = home.claim(&name("w")).unwrap();
        fs::create_dir_all(first.path().join("logs/deep")).unwrap();
        drop(first);
        let second = home.claim(&name("w")).unwrap();
        assert_eq!(fs::read_dir(second.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_home_that_others_can_enter_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("podid");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(
            Home::at(path).claim(&name("w")),
            Err(StateError::Exposed(_))
        ));
    }
}
