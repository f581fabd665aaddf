//! Network namespaces that this process owns: made, entered by helper threads, and gone with their last descriptor.
//! Nothing is pinned on disk, and the calling thread never changes its own namespace.
//!
//! ```text
//! caller ──run(f)──▶ helper thread: setns ─▶ f() ─▶ gone
//!                        └─ sockets and programs made there stay in that namespace
//! ```

mod links;
mod room;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sched::{CloneFlags, setns, unshare};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;

pub use links::{Links, Mac};
pub use room::Room;

/// A network namespace, kept alive by this descriptor. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Namespace {
    file: Arc<File>,
}

/// What tells two namespaces apart: device and inode of the namespace file. A number is reused after the namespace is
/// gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NamespaceId {
    device: u64,
    inode: u64,
}

/// Something about a network namespace did not work.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {source}")]
pub struct NamespaceError {
    what: String,
    source: io::Error,
}

impl NamespaceError {
    pub(crate) fn new(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self {
            what: what.into(),
            source: source.into(),
        }
    }

    /// A stable code.
    pub fn code(&self) -> &'static str {
        "namespace"
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// What the kernel said, as an error number.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

impl Namespace {
    /// A new, empty namespace; its loopback interface is up.
    pub fn create() -> Result<Self, NamespaceError> {
        let made = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open(OWN)
        })
        .map_err(|source| NamespaceError::new("make a network namespace", source))?;
        let namespace = Self { file: Arc::new(made) };
        namespace.links()?.up("lo")?;
        Ok(namespace)
    }

    /// The calling thread's namespace.
    pub fn current() -> Result<Self, NamespaceError> {
        Self::open(Path::new(OWN))
    }

    /// The namespace of process `pid`.
    pub fn of_pid(pid: u32) -> Result<Self, NamespaceError> {
        Self::open(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// The namespace behind a path: `/proc/<pid>/ns/net`, a mounted namespace file, or [`Self::path`] of another
    /// process's.
    pub fn open(path: &Path) -> Result<Self, NamespaceError> {
        let failed =
            |source| NamespaceError::new(format!("open network namespace {}", path.display()), source);
        let file = File::open(path).map_err(failed)?;
        let kind = nix::sys::statfs::fstatfs(&file).map_err(|errno| failed(errno.into()))?;
        if kind.filesystem_type() != nix::sys::statfs::NSFS_MAGIC {
            return Err(failed(io::Error::new(
                io::ErrorKind::InvalidInput,
                "this is not a namespace",
            )));
        }
        Ok(Self { file: Arc::new(file) })
    }

    /// A path by which other processes of the same PID and user namespace can open it, as long as this process lives
    /// and holds it.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }

    /// Which namespace this is.
    pub fn id(&self) -> Result<NamespaceId, NamespaceError> {
        let seen = self
            .file
            .metadata()
            .map_err(|source| NamespaceError::new("look at a network namespace", source))?;
        Ok(NamespaceId {
            device: seen.dev(),
            inode: seen.ino(),
        })
    }

    /// Runs `f` on a thread inside the namespace and waits for it. What `f` opens stays in the namespace: sockets,
    /// programs. A tokio runtime of the caller is at hand inside. Takes some milliseconds; in async code use
    /// `spawn_blocking` where that matters.
    pub fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> Result<R, NamespaceError> {
        self.run_in(&Room::default(), f)
    }

    /// [`Self::run`], and also in a private view of the file system and with a host name of its own.
    pub fn run_in<R: Send>(&self, room: &Room, f: impl FnOnce() -> R + Send) -> Result<R, NamespaceError> {
        on_thread(|| {
            room.enter()?;
            setns(&self.file, CloneFlags::CLONE_NEWNET)
                .map_err(|errno| NamespaceError::new("enter a network namespace", errno))?;
            Ok(f())
        })
    }

    /// Starts a program in the namespace and the room, in a process group of its own. To be called inside a runtime.
    pub fn spawn(&self, room: &Room, command: &mut Command) -> Result<Child, NamespaceError> {
        let program = command.as_std().get_program().display().to_string();
        command.process_group(0);
        self.run_in(room, || command.spawn())?
            .map_err(|source| NamespaceError::new(format!("start {program}"), source))
    }

    /// A handle for the namespace's interfaces, addresses, routes and neighbours.
    pub fn links(&self) -> Result<Links, NamespaceError> {
        self.run(Links::open)?
    }

    /// Writes one of the namespace's own settings, e.g. `net.ipv4.ip_forward`. An interface name with a dot in it is
    /// written with a slash there, as in sysctl(8).
    pub fn sysctl(&self, name: &str, value: &str) -> Result<(), NamespaceError> {
        let path = format!("/proc/sys/{}", sysctl_path(name));
        self.run(|| std::fs::write(&path, value))?
            .map_err(|source| NamespaceError::new(format!("set {name} to {value}"), source))
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The calling thread's namespace; `/proc/self` would be the main thread's.
const OWN: &str = "/proc/thread-self/ns/net";

/// Runs `f` on a thread of its own and waits for it; a panic goes on in the caller.
fn on_thread<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    let runtime = Handle::try_current().ok();
    std::thread::scope(|scope| {
        let work = || {
            let _inside = runtime.as_ref().map(Handle::enter);
            f()
        };
        scope
            .spawn(work)
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn sysctl_path(name: &str) -> String {
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    name.chars().map(swap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctl_names_become_paths() {
        assert_eq!(sysctl_path("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(
            sysctl_path("net.ipv4.conf.eth0/1.rp_filter"),
            "net/ipv4/conf/eth0.1/rp_filter"
        );
    }

    #[test]
    fn a_file_that_is_no_namespace_is_refused_by_name() {
        let refused = Namespace::open(Path::new("/etc/hosts")).unwrap_err().to_string();
        assert!(
            refused.contains("/etc/hosts") && refused.contains("not a namespace"),
            "{refused}"
        );
    }
}
