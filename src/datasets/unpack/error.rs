//! Errors of unpacking an archive.

use std::io;

use crate::{disk::DiskLow, files};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the file must be a zip, tar or gzipped tar")]
    NotAnArchive,
    #[error("the archive is damaged or cut off{}: {problem}", after(entry))]
    Damaged {
        /// The current entry, or the last one before; empty before the first.
        entry: String,
        problem: String,
    },
    #[error("the archive is refused for its entry {entry:?}: {problem}")]
    Refused { entry: String, problem: String },
    #[error(
        "the archive is refused at its entry {entry:?}: it has more than {limit} entries (max_archive_entries of the server)"
    )]
    TooManyEntries { entry: String, limit: u64 },
    #[error(
        "the archive is refused at its entry {entry:?}: its files have more than {limit} bytes (max_unpacked_bytes of the server)"
    )]
    TooLarge { entry: String, limit: u64 },
    #[error(
        "the archive is refused at its entry {entry:?}: it unpacks to more than {limit} bytes, a hundred times its size, which an archive of images never does"
    )]
    Bomb { entry: String, limit: u64 },
    #[error(
        "the archive must contain images (.jpg, .png, .webp or .bmp); {ignored} other files were ignored{}",
        skipped.iter().map(|sentence| format!("; {sentence}")).collect::<String>()
    )]
    NoImages { ignored: u64, skipped: Vec<String> },
    #[error("the server's disk is full; make room there and upload the archive again")]
    DiskFull,
    #[error(transparent)]
    DiskLow(#[from] DiskLow),
    #[error("failed to unpack the archive: {0}")]
    Io(io::Error),
    #[error("unpacking was cancelled")]
    Cancelled,
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match files::is_disk_full(&error) {
            true => Error::DiskFull,
            false => Error::Io(error),
        }
    }
}

/// Reasons to stop that pass through readers of other crates inside an `io::Error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Stop {
    #[error("cancelled")]
    Cancelled,
    #[error("too large")]
    TooLarge,
}

pub(super) fn stop(reason: Stop) -> io::Error {
    io::Error::other(reason)
}

/// Returns the reason inside an error, if there is one.
pub(super) fn stopped(error: &io::Error) -> Option<Stop> {
    error.get_ref()?.downcast_ref().copied()
}

fn after(entry: &str) -> String {
    match entry {
        "" => String::new(),
        entry => format!(" at its entry {entry:?}"),
    }
}

pub(super) fn shorten(name: &str) -> String {
    name.chars().take(200).collect()
}
