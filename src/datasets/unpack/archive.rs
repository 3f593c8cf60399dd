//! Detection of the format, limits and progress.

use std::{
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use flate2::bufread::MultiGzDecoder;
use fs_err as fs;

use crate::dataset::Skipped;

use super::{Error, entry::Target, error, tar, zip};

/// Largest factor by which an archive may grow; images are compressed already.
const MAX_RATIO: u64 = 100;
/// Bytes to which any archive may grow, for small archives of drawn images.
pub(super) const MIN_ALLOWED: u64 = 64 << 20;
/// First bytes of a gzip file.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// First bytes of a zip file: an entry, or the end record of an empty one.
const ZIP: [[u8; 4]; 2] = [*b"PK\x03\x04", *b"PK\x05\x06"];
/// Magic of a tar header and its position.
const TAR: (&[u8], std::ops::Range<usize>) = (b"ustar", 257..262);
/// Bytes of a tar header.
const TAR_BLOCK: usize = 512;

/// Limits of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Total bytes of all files.
    pub bytes: u64,
    /// Entries, including directories.
    pub entries: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// Written files.
    pub files: u64,
    /// Bytes of the written files.
    pub bytes: u64,
    /// Files that do not belong to a dataset.
    pub ignored: u64,
    /// The ignored files that may have been meant as images.
    pub skipped: Skipped,
}

/// Receives the processed and total bytes of the archive; returns false to cancel.
pub(crate) type Progress<'a> = dyn FnMut(u64, u64) -> bool + 'a;

/// Unpacks an archive into an empty directory, on the calling thread. After an error the directory
/// holds a part of it.
///
/// # Errors
/// Every variant of [`Error`].
pub(crate) fn unpack(
    archive: &Path,
    directory: &Path,
    limits: &Limits,
    progress: &mut Progress<'_>,
) -> Result<Unpacked, Error> {
    let mut file = fs::File::open(archive)?;
    let size = file.metadata()?.len();
    let mut start = Vec::with_capacity(TAR_BLOCK);
    (&mut file).take(TAR_BLOCK as u64).read_to_end(&mut start)?;
    file.seek(SeekFrom::Start(0))?;
    let by_ratio = MIN_ALLOWED.max(size.saturating_mul(MAX_RATIO));
    let mut target = Target::new(directory, limits, by_ratio);
    let mut reporter = Reporter { progress, size };
    if ZIP.iter().any(|magic| start.starts_with(magic)) {
        zip::unpack(file, size, &mut target, &mut reporter)?;
    } else if start.starts_with(&GZIP) {
        let compressed = ProgressReader::new(file, &mut reporter);
        let tar = MultiGzDecoder::new(BufReader::new(compressed));
        // Skipped entries cost time too: no more is read than all files and headers may have.
        let most = limits.bytes.min(by_ratio);
        let headers = limits.entries.saturating_mul(4 * TAR_BLOCK as u64);
        tar::unpack(Bounded::new(tar, most.saturating_add(headers)), &mut target)?;
    } else if start.get(TAR.1) == Some(TAR.0) {
        tar::unpack(
            BufReader::new(ProgressReader::new(file, &mut reporter)),
            &mut target,
        )?;
    } else {
        return Err(Error::NotAnArchive);
    }
    target.finish()
}

/// Reports progress and checks for cancellation.
pub(super) struct Reporter<'a, 'b> {
    progress: &'a mut Progress<'b>,
    size: u64,
}

impl Reporter<'_, '_> {
    pub(super) fn done(&mut self, bytes: u64) -> io::Result<()> {
        match (self.progress)(bytes.min(self.size), self.size) {
            true => Ok(()),
            false => Err(error::stop(error::Stop::Cancelled)),
        }
    }
}

/// A file that reports the progress of its reader.
struct ProgressReader<'a, 'b, 'c> {
    file: fs::File,
    done: u64,
    reporter: &'a mut Reporter<'b, 'c>,
}

impl<'a, 'b, 'c> ProgressReader<'a, 'b, 'c> {
    fn new(file: fs::File, reporter: &'a mut Reporter<'b, 'c>) -> Self {
        ProgressReader {
            file,
            done: 0,
            reporter,
        }
    }
}

impl Read for ProgressReader<'_, '_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.done += read as u64;
        self.reporter.done(self.done)?;
        Ok(read)
    }
}

/// A reader that fails after a number of bytes.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R> Bounded<R> {
    fn new(inner: R, most: u64) -> Self {
        Bounded { inner, left: most }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| error::stop(error::Stop::TooLarge))?;
        Ok(read)
    }
}
