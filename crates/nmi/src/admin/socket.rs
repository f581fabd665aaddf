//! The socket itself: in a folder that only its owner can enter, with a mode that only its owner can use, and each who
//! connects is asked of the kernel. One that an agent left behind when it was killed is replaced; one that answers is not.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};

/// Where the socket is when nobody says where.
pub const DEFAULT_ADMIN_SOCKET: &str = "/run/podid/admin.sock";
/// The bits of a mode that let others in.
const OTHERS: u32 = 0o077;
/// How long a socket that is there may take to show that somebody listens.
const PATIENCE: Duration = Duration::from_secs(2);
/// What to wait after accept failed (file descriptors used up), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why there is no admin's door.
#[derive(Debug, Error)]
pub enum AdminSocketError {
    /// The folder cannot be made or looked at.
    #[error("the folder of the admin socket, {}, cannot be used (--admin-socket)", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// Others could put something in the socket's place, or reach it.
    #[error(
        "the folder of the admin socket, {}, is open to others: make it yours alone (chmod 700), or name another with \
         --admin-socket",
        .0.display()
    )]
    FolderOpen(PathBuf),
    /// Another agent answers there.
    #[error("another agent has the admin socket {}: end it, or name another with --admin-socket", .0.display())]
    Live(PathBuf),
    /// There is something else.
    #[error("{} is there and is no socket; name another with --admin-socket", .0.display())]
    NotASocket(PathBuf),
    /// It cannot be bound.
    #[error("cannot listen on the admin socket {} (--admin-socket)", path.display())]
    Bind {
        /// The socket.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
}

/// A bound socket. Its file goes when it is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file, so that only our own is removed.
    file: (u64, u64),
    owner: u32,
}

impl AdminSocket {
    /// Binds `path`, making its folder if need be.
    pub async fn bind(path: &Path) -> Result<Self, AdminSocketError> {
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        private(folder)?;
        clear(path).await?;
        let failed = |source| AdminSocketError::Bind {
            path: path.to_owned(),
            source,
        };
        // The folder is closed already, so nobody comes in before the mode is set.
        let listener = UnixListener::bind(path).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let file = fs::symlink_metadata(path).map_err(failed)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            file: (file.dev(), file.ino()),
            owner: file.uid(),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next who may.
    pub(super) async fn accept(&self) -> (UnixStream, UCred) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => match stream.peer_cred() {
                    Ok(peer) if may(peer.uid(), self.owner) => return (stream, peer),
                    Ok(peer) => tracing::warn!(
                        uid = peer.uid(),
                        pid = peer.pid(),
                        "somebody who is not root was refused at the admin socket"
                    ),
                    Err(error) => {
                        tracing::warn!(%error, "who connected to the admin socket is not known; refused");
                    }
                },
                Err(error) => {
                    tracing::warn!(%error, "a connection to the admin socket could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.file);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "the admin socket stays behind; the next agent replaces it");
        }
    }
}

/// Root, and whom the agent itself runs as.
fn may(uid: u32, owner: u32) -> bool {
    uid == 0 || uid == owner
}

/// Makes the folder, or makes sure that nobody else can enter it.
fn private(folder: &Path) -> Result<(), AdminSocketError> {
    let failed = |source| AdminSocketError::Folder {
        path: folder.to_owned(),
        source,
    };
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    let open = || AdminSocketError::FolderOpen(folder.to_owned());
    let found = fs::symlink_metadata(folder).map_err(failed)?;
    if !found.is_dir() || found.uid() != podid_kernel::privileges::uid() {
        return Err(open());
    }
    if found.mode() & OTHERS == 0 {
        return Ok(());
    }
    // The one that is ours by its name may have been made by a container runtime; any other is somebody's.
    if Some(folder) != Path::new(DEFAULT_ADMIN_SOCKET).parent() {
        return Err(open());
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(failed)
}

/// Takes away what a killed agent left behind.
async fn clear(path: &Path) -> Result<(), AdminSocketError> {
    let failed = |source| AdminSocketError::Bind {
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(AdminSocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match tokio::time::timeout(PATIENCE, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        // It answers, or is too busy to.
        Ok(Ok(_)) | Err(_) => Err(AdminSocketError::Live(path.to_owned())),
        Ok(Err(error)) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("podid/admin.sock");
        (folder, path)
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    #[tokio::test]
    async fn folder_and_socket_are_their_owners_alone_and_the_file_goes_at_the_end() {
        let (_folder, path) = place();
        let socket = AdminSocket::bind(&path).await.unwrap();
        assert_eq!((mode(path.parent().unwrap()), mode(&path)), (0o700, 0o600));
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_a_killed_agent_left_is_replaced_and_what_answers_is_not() {
        let (_folder, path) = place();
        let first = AdminSocket::bind(&path).await.unwrap();
        let refused = AdminSocket::bind(&path).await.unwrap_err();
        assert!(matches!(refused, AdminSocketError::Live(_)), "{refused}");
        drop(first);
        // std's listener leaves its file behind, as one that is killed does.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let socket = AdminSocket::bind(&path).await.unwrap();
        assert!(socket.path().exists());
    }

    #[tokio::test]
    async fn what_is_somebody_elses_is_left_alone() {
        let (folder, path) = place();
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
        let refused = AdminSocket::bind(&path).await.unwrap_err();
        assert!(matches!(refused, AdminSocketError::FolderOpen(_)), "{refused}");
        assert_eq!(mode(path.parent().unwrap()), 0o755);
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let file = folder.path().join("notes");
        fs::write(&file, "mine").unwrap();
        let refused = AdminSocket::bind(&file).await.unwrap_err();
        assert!(matches!(refused, AdminSocketError::NotASocket(_)), "{refused}");
        assert_eq!(fs::read(&file).unwrap(), b"mine");
    }

    #[test]
    fn only_root_and_the_agents_own_user_may() {
        assert!(may(0, 0) && may(0, 1000) && may(1000, 1000));
        assert!(!may(1000, 0) && !may(1001, 1000) && !may(65534, 0));
    }
}
