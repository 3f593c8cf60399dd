//! One server for one data directory.
//!
//! The lock is the operating system's advisory lock on `visage.lock`. It belongs to the open file, so it goes with the process however that
//! ends, and a left-over file means nothing. Network file systems without locks are not supported; SQLite's WAL does not work there either.

use std::io::{self, ErrorKind};
use std::path::Path;

use fs_err as fs;

use super::Error;

/// Name of the locked file in the data directory.
const FILE: &str = "visage.lock";

/// Exclusive use of a data directory until it is released or dropped.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    file: fs::File,
}

impl DirectoryLock {
    /// Takes the directory, which must exist, without waiting. Errors: [`Error::Locked`] when another server has it, [`Error::Directory`].
    pub(super) fn acquire(directory: &Path) -> Result<Self, Error> {
        // Truncation is left out: the content says nothing, and another server's file is not ours to change.
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

    /// Lets the directory go before the drop.
    pub(super) fn release(&self, directory: &Path) -> Result<(), Error> {
        self.file
            .unlock()
            .map_err(|source| Error::directory(directory, source))
    }
}
