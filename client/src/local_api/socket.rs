//! Where the daemon's socket is, and who may speak on it: the person whose process it is, and nobody else.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};

use crate::cache::{CacheError, make_private_folder};

/// The socket could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// There is no folder for it.
    #[error("there is no folder for the daemon's socket: XDG_RUNTIME_DIR is not set")]
    NoFolder,
    /// Another daemon answers there.
    #[error("a daemon runs already, at {}", .0.display())]
    Taken(PathBuf),
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] CacheError),
    /// The system refused.
    #[error("cannot listen at {}", path.display())]
    Listen {
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// `$XDG_RUNTIME_DIR/pomerium/daemon.sock`.
pub(crate) fn path(runtime_folder: Option<PathBuf>) -> Option<PathBuf> {
    runtime_folder.filter(|path| path.is_absolute()).map(|folder| folder.join("pomerium").join("daemon.sock"))
}

/// Takes the socket, unless another daemon answers on it; what a dead one left behind is removed.
pub(crate) async fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    let failed = |source| SocketError::Listen { path: path.to_owned(), source };
    make_private_folder(path.parent().ok_or(SocketError::NoFolder)?)?;
    let held = lock(path).map_err(failed)?.ok_or_else(|| SocketError::Taken(path.to_owned()))?;
    if UnixStream::connect(path).await.is_ok() {
        return Err(SocketError::Taken(path.to_owned()));
    }
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path).map_err(failed)?,
        Ok(_) => return Err(failed(io::Error::other("something that is no socket is there"))),
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    // The folder lets nobody in; this is for a folder that is widened later.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    drop(held);
    Ok(listener)
}

/// Holds off another daemon that begins at the same moment.
fn lock(path: &Path) -> io::Result<Option<fs::File>> {
    let file =
        fs::OpenOptions::new().create(true).truncate(false).write(true).open(path.with_extension("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// Whether the process at the other end is of the same user as this one; a kernel that does not say means no.
pub(crate) fn is_own(stream: &UnixStream) -> bool {
    match (stream.peer_cred(), own_uid()) {
        (Ok(peer), Ok(own)) => peer.uid() == own,
        _ => false,
    }
}

/// The user of this process.
pub(crate) fn own_uid() -> io::Result<u32> {
    // A socket to oneself says it without any unsafe call.
    let (one, _other) = UnixStream::pair()?;
    one.peer_cred().map(|own| own.uid())
}

/// Whether the folder of a socket is private to this user; a command speaks to no other daemon.
pub(crate) fn is_private(path: &Path) -> bool {
    let found = path.parent().and_then(|folder| fs::metadata(folder).ok());
    match (found, own_uid()) {
        (Some(found), Ok(own)) => found.uid() == own && found.permissions().mode() & 0o077 == 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_daemon_is_refused_and_a_dead_ones_socket_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(Some(folder.path().to_owned())).unwrap();
        let first = bind(&path).await.unwrap();
        let error = bind(&path).await.unwrap_err();
        assert!(matches!(&error, SocketError::Taken(at) if *at == path), "{error}");
        drop(first);
        assert!(path.exists(), "a dead daemon leaves its socket");
        bind(&path).await.unwrap();
    }

    #[tokio::test]
    async fn only_the_owner_can_reach_the_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(Some(folder.path().to_owned())).unwrap();
        let listener = bind(&path).await.unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(path.parent().unwrap()), mode(&path)), (0o700, 0o600));
        let stream = UnixStream::connect(&path).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        assert!(is_own(&stream) && is_own(&accepted) && is_private(&path));
        fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(!is_private(&path));
    }

    #[tokio::test]
    async fn a_file_in_the_sockets_place_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(Some(folder.path().to_owned())).unwrap();
        make_private_folder(path.parent().unwrap()).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path).await, Err(SocketError::Listen { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn there_is_no_socket_without_a_folder_of_the_session() {
        assert_eq!(path(None), None);
        assert_eq!(path(Some("run".into())), None);
    }
}
