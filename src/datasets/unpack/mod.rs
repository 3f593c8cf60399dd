//! Archives of images, which are not believed: a zip, a tar or a gzipped tar becomes a directory, or a sentence that says which entry it is refused for.
//!
//! - Only regular files and directories are taken, and their names must stay inside: no absolute path, no `..`, no control character. In a zip a backslash separates
//!   the parts of a name as `/` does, and names without a mark are read as `names` says; all checks are of the resulting parts. A link, a device or anything else
//!   refuses the whole archive, and so does a second file of the same name.
//! - What an archive says about sizes is not trusted: the bytes that come out are counted while they come, and so are the entries.
//! - Working memory does not depend on the archive: entries are read one at a time.
//! - Only files that a dataset is made of are written: images, by their extension or else by their first bytes, and `.csv` and `.tsv` files that are not hidden.
//!   The rest is counted as ignored, such as what macOS adds (`__MACOSX`, `._*`).
//!
//! - `names`: the names of entries as text.
//! - `entry`: what a name may be, and the one place that writes.
//! - `tar` and `zip`: what the entries of an archive are.

mod entry;
mod error;
mod names;
mod tar;
mod zip;

use std::{
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use flate2::bufread::MultiGzDecoder;
use fs_err as fs;

pub use error::Error;

use crate::dataset::Skipped;

use entry::Target;

/// An archive that grows to more than so many times its size is a bomb: images are compressed already.
const MAX_RATIO: u64 = 100;
/// Bytes that any archive may grow to, so that a small one of drawn images is none.
const FREE_OF_RATIO: u64 = 64 << 20;
/// How a gzip file begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// How a zip file begins: with an entry, or with its end where it has none.
const ZIP: [[u8; 4]; 2] = [*b"PK\x03\x04", *b"PK\x05\x06"];
/// What stands in the header of a tar's entry, and where.
const TAR: (&[u8], std::ops::Range<usize>) = (b"ustar", 257..262);
/// Bytes of a tar's header.
const TAR_BLOCK: usize = 512;

/// What an archive may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of all files together.
    pub bytes: u64,
    /// Most entries, directories included.
    pub entries: u64,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Files that were written.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that no dataset is made of, and that were left out.
    pub ignored: u64,
    /// Those of them that may have been meant as images.
    pub skipped: Skipped,
}

/// Hears how many bytes of the archive are done, of how many, and says whether to go on.
pub type Progress<'a> = dyn FnMut(u64, u64) -> bool + 'a;

/// Unpacks an archive into an empty directory, on the calling thread. Where it fails, the directory holds a part of it.
///
/// # Errors
/// Every variant of [`Error`].
pub fn unpack(
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
    let by_ratio = FREE_OF_RATIO.max(size.saturating_mul(MAX_RATIO));
    let mut target = Target::new(directory, limits, by_ratio);
    let mut tell = Tell { progress, size };
    if ZIP.iter().any(|magic| start.starts_with(magic)) {
        zip::unpack(file, size, &mut target, &mut tell)?;
    } else if start.starts_with(&GZIP) {
        let compressed = Told::new(file, &mut tell);
        let tar = MultiGzDecoder::new(BufReader::new(compressed));
        // Also what is skipped costs time: more than all files and their headers may have is never read.
        let most = limits.bytes.min(by_ratio);
        let headers = limits.entries.saturating_mul(4 * TAR_BLOCK as u64);
        tar::unpack(Bounded::new(tar, most.saturating_add(headers)), &mut target)?;
    } else if start.get(TAR.1) == Some(TAR.0) {
        tar::unpack(BufReader::new(Told::new(file, &mut tell)), &mut target)?;
    } else {
        return Err(Error::NotAnArchive);
    }
    target.finish()
}

/// Tells of progress and asks whether to go on.
struct Tell<'a, 'b> {
    progress: &'a mut Progress<'b>,
    size: u64,
}

impl Tell<'_, '_> {
    fn done(&mut self, bytes: u64) -> io::Result<()> {
        match (self.progress)(bytes.min(self.size), self.size) {
            true => Ok(()),
            false => Err(error::stop(error::Stop::Cancelled)),
        }
    }
}

/// A file that tells how far it was read.
struct Told<'a, 'b, 'c> {
    file: fs::File,
    done: u64,
    tell: &'a mut Tell<'b, 'c>,
}

impl<'a, 'b, 'c> Told<'a, 'b, 'c> {
    fn new(file: fs::File, tell: &'a mut Tell<'b, 'c>) -> Self {
        Told {
            file,
            done: 0,
            tell,
        }
    }
}

impl Read for Told<'_, '_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.done += read as u64;
        self.tell.done(self.done)?;
        Ok(read)
    }
}

/// A reader that fails behind so many bytes.
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

#[cfg(test)]
mod tests;
