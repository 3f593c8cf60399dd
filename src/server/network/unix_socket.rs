//! Listening Unix sockets.

use std::{
    io,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixStream as BlockingStream,
    },
    path::{Path, PathBuf},
};

use axum::serve::Listener;
use tokio::net::{UnixListener, UnixStream};

use crate::files;

/// The owner and the group of the socket may connect.
const MODE: u32 = 0o660;

/// A listening Unix socket, whose file is removed when it is dropped.
#[derive(Debug)]
pub(in crate::server) struct UnixSocket {
    listener: UnixListener,
    _file: SocketFile,
}

impl UnixSocket {
    /// Listens at the path. Replaces a socket that nobody listens on any more, as a killed server
    /// leaves it behind.
    ///
    /// # Errors
    /// Another file at the path, a server that listens there, or any failure of the system.
    pub(in crate::server) fn bind(path: &Path) -> io::Result<Self> {
        remove_stale(path)?;
        // In a private directory until it has its mode, because the process's mask of modes may
        // let everybody connect.
        let private = tempfile::Builder::new()
            .prefix(".v")
            .tempdir_in(files::parent_dir(path))?;
        // Short, because the system limits the path of a socket to 107 bytes.
        let hidden = private.path().join("s");
        let listener = UnixListener::bind(&hidden)?;
        fs_err::set_permissions(&hidden, std::fs::Permissions::from_mode(MODE))?;
        let file = SocketFile::new(&hidden, path)?;
        fs_err::rename(&hidden, path)?;
        Ok(Self {
            listener,
            _file: file,
        })
    }

    /// Waits and retries on its own when the process has no file descriptors left.
    pub(super) async fn accept(&mut self) -> UnixStream {
        Listener::accept(&mut self.listener).await.0
    }
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let found = match fs_err::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "a file that is not a socket exists there",
        ));
    }
    match BlockingStream::connect(path) {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs_err::remove_file(path),
        Err(error) => Err(error),
    }
}

/// The file of a socket.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// Of the socket at `hidden`, which is renamed to `path`.
    fn new(hidden: &Path, path: &Path) -> io::Result<Self> {
        let found = fs_err::symlink_metadata(hidden)?;
        Ok(Self {
            path: path.to_owned(),
            device: found.dev(),
            inode: found.ino(),
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another server may have replaced the file.
        let is_same = fs_err::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if is_same && let Err(error) = fs_err::remove_file(&self.path) {
            tracing::warn!(%error, "failed to remove the socket");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn socket_is_for_owner_and_group_and_ends_with_the_server() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("visage.sock");
        let socket = UnixSocket::bind(&path).unwrap();
        let mode = fs_err::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, MODE);
        let second = UnixSocket::bind(&path).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn stale_socket_is_replaced_and_another_file_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("visage.sock");
        // A listener of the standard library leaves its file behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(UnixSocket::bind(&path).unwrap());
        fs_err::write(&path, "data").unwrap();
        let refused = UnixSocket::bind(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs_err::read_to_string(&path).unwrap(), "data");
    }
}
