//! The free space of the disk of the data directory.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::files;

/// Least free space above the minimum at which paused work continues, so that it is not paused
/// again at once.
const MIN_MARGIN: u64 = 64 << 20;

type Query = dyn Fn(&Path) -> io::Result<u64> + Send + Sync;

/// The disk of a directory, and the space that must stay free on it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Disk {
    directory: Arc<Path>,
    min_free: u64,
    query: Arc<Query>,
}

/// A disk with too little free space, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the disk of the server has {free} bytes free, and {required} are required because {min_free} must stay free (min_free_disk); delete datasets, trainings or uploads that are not needed"
)]
pub struct DiskLow {
    pub free: u64,
    /// The minimum and the space that the request needs.
    pub required: u64,
    pub min_free: u64,
}

impl Disk {
    pub(crate) fn new(directory: PathBuf, min_free: u64) -> Self {
        Self::with_query(directory, min_free, files::free_space)
    }

    /// A disk whose free space is what a function returns.
    pub(crate) fn with_query(
        directory: PathBuf,
        min_free: u64,
        query: impl Fn(&Path) -> io::Result<u64> + Send + Sync + 'static,
    ) -> Self {
        Self {
            directory: directory.into(),
            min_free,
            query: Arc::new(query),
        }
    }

    /// Returns the free bytes. May block.
    ///
    /// # Errors
    /// A file system that cannot be queried.
    pub(crate) fn free(&self) -> io::Result<u64> {
        (self.query)(&self.directory)
    }

    /// Checks that the disk has room for `more` bytes above the minimum. May block.
    ///
    /// # Errors
    /// The inner error for a disk with too little space.
    pub(crate) fn check(&self, more: u64) -> io::Result<Result<(), DiskLow>> {
        Ok(self.judge(self.free()?, more))
    }

    /// As [`Disk::check`], for a known number of free bytes.
    pub(crate) fn judge(&self, free: u64, more: u64) -> Result<(), DiskLow> {
        let required = self.min_free.saturating_add(more);
        if free >= required {
            return Ok(());
        }
        Err(DiskLow {
            free,
            required,
            min_free: self.min_free,
        })
    }

    /// Returns true if work that was paused for lack of space may continue.
    pub(crate) fn has_room_again(&self, free: u64) -> bool {
        let margin = (self.min_free / 8).max(MIN_MARGIN);
        free >= self.min_free.saturating_add(margin)
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk")
            .field("directory", &self.directory)
            .field("min_free", &self.min_free)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn announced_bytes_count_above_the_minimum() {
        let disk = Disk::with_query(PathBuf::from("/"), GIB, |_| Ok(3 * GIB));
        assert_eq!(disk.check(2 * GIB).unwrap(), Ok(()));
        let low = disk.check(2 * GIB + 1).unwrap().unwrap_err();
        assert_eq!((low.free, low.required), (3 * GIB, 3 * GIB + 1));
        let text = low.to_string();
        assert!(
            text.contains("has 3221225472 bytes free, and 3221225473"),
            "{text}"
        );
        assert!(disk.check(u64::MAX).unwrap().is_err());
    }

    #[test]
    fn paused_work_continues_with_a_margin() {
        let disk = Disk::new(PathBuf::from("/"), 16 * GIB);
        assert_eq!(disk.judge(16 * GIB, 0), Ok(()));
        assert!(!disk.has_room_again(17 * GIB));
        assert!(disk.has_room_again(18 * GIB));
        let without_minimum = Disk::new(PathBuf::from("/"), 0);
        assert_eq!(without_minimum.judge(0, 0), Ok(()));
        assert!(!without_minimum.has_room_again(MIN_MARGIN - 1));
        assert!(without_minimum.has_room_again(MIN_MARGIN));
    }
}
