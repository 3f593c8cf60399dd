//! Why an archive is refused.

use std::io;

use crate::files;

/// What is wrong with an archive, or with the disk it is unpacked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing that can be read.
    #[error("the file is no zip, tar or gzipped tar")]
    NotAnArchive,
    /// It ends early, or its bytes are not what they should be.
    #[error("the archive is damaged or cut off{}: {problem}", after(entry))]
    Damaged {
        /// The entry that is being read, or the last one before; empty before the first.
        entry: String,
        /// What is wrong.
        problem: String,
    },
    /// An entry that no dataset may have.
    #[error("the archive is refused for its entry {entry:?}: {problem}")]
    Refused {
        /// Its name, shortened.
        entry: String,
        /// What is wrong with it.
        problem: String,
    },
    /// There are too many.
    #[error(
        "the archive is refused at its entry {entry:?}: it has more than {limit} entries (max_archive_entries of the server)"
    )]
    TooManyEntries {
        /// The first one too many.
        entry: String,
        /// The limit.
        limit: u64,
    },
    /// The files have too many bytes.
    #[error(
        "the archive is refused at its entry {entry:?}: its files have more than {limit} bytes (max_unpacked_bytes of the server)"
    )]
    TooLarge {
        /// Where it is too much.
        entry: String,
        /// The limit.
        limit: u64,
    },
    /// It grows as no archive of images does.
    #[error(
        "the archive is refused at its entry {entry:?}: it unpacks to more than {limit} bytes, a hundred times its size, which no archive of images does"
    )]
    Bomb {
        /// Where it is too much.
        entry: String,
        /// How much was allowed.
        limit: u64,
    },
    /// Nothing in it can be part of a dataset.
    #[error(
        "the archive holds no image ({ignored} other files were left out); expected .jpg, .png, .webp or .bmp files{}",
        skipped.iter().map(|sentence| format!("; {sentence}")).collect::<String>()
    )]
    NoImages {
        /// Other files.
        ignored: u64,
        /// Sentences about those of them that may have been meant as images.
        skipped: Vec<String>,
    },
    /// The disk has no room.
    #[error("the server's disk is full; make room there and upload the archive again")]
    DiskFull,
    /// The server's own files.
    #[error("the archive cannot be unpacked: {0}")]
    Io(io::Error),
    /// The caller asked to stop.
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

/// Reasons to stop that travel inside of an `io::Error` through readers of others.
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

/// The reason inside of an error, if it is one of ours.
pub(super) fn stopped(error: &io::Error) -> Option<Stop> {
    error.get_ref()?.downcast_ref().copied()
}

fn after(entry: &str) -> String {
    match entry {
        "" => String::new(),
        entry => format!(" at its entry {entry:?}"),
    }
}

/// Enough of a name to recognise it.
pub(super) fn shorten(name: &str) -> String {
    name.chars().take(200).collect()
}
