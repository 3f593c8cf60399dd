//! Lock of the data directory: one server for each.
//!
//! The lock is an advisory lock of the operating system on `visage.lock`. It belongs to the open
//! file, so it ends with the process, and a leftover file has no meaning.

use std::{
    io::{self, ErrorKind},
    path::Path,
};

use fs_err as fs;

use super::Error;

const FILE: &str = "visage.lock";

/// Exclusive use of a data directory until it is released or dropped.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    file: fs::File,
}

/// Keeps servers from starting while their stopped database is read. Several may be held.
#[derive(Debug)]
pub(super) struct SharedLock {
    _file: Option<fs::File>,
}

impl SharedLock {
    /// Returns `None` if a server is running. Nothing is written.
    pub(super) fn acquire(directory: &Path) -> Result<Option<Self>, Error> {
        let file = match fs::File::open(directory.join(FILE)) {
            Ok(file) => file,
            // No server has run here, for example because only the data were copied.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Some(Self { _file: None }));
            }
            Err(source) => return Err(Error::directory(directory, source)),
        };
        match file.file().try_lock_shared().map_err(io::Error::from) {
            Ok(()) => Ok(Some(Self { _file: Some(file) })),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(source) => Err(Error::directory(directory, source)),
        }
    }
}

impl DirectoryLock {
    /// Locks the directory, which must exist, without waiting.
    ///
    /// # Errors
    /// [`Error::Locked`] if another server holds the lock, [`Error::Directory`].
    pub(super) fn acquire(directory: &Path) -> Result<Self, Error> {
        // Not truncated: the file of another server must not change.
        let file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(directory.join(FILE))
            .map_err(|source| Error::directory(directory, source))?;
        match file.try_lock().map_err(io::Error::from) {
            Ok(()) => Ok(Self { file }),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(Error::Locked {
                directory: directory.to_owned(),
            }),
            Err(source) => Err(Error::directory(directory, source)),
        }
    }

    /// Unlocks the directory before the drop.
    pub(super) fn release(&self, directory: &Path) -> Result<(), Error> {
        self.file
            .unlock()
            .map_err(|source| Error::directory(directory, source))
    }
}
