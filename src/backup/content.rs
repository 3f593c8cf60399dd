//! Files by their digest, shared by all backups of a directory.

use std::{
    io,
    path::{Path, PathBuf},
};

use fs_err as fs;
use uuid::Uuid;

use crate::{
    artifacts::{Digest, hash_file},
    files,
};

/// Files and bytes that are synced together.
const BATCH_FILES: usize = 1000;
const BATCH_BYTES: u64 = 1 << 30;

/// The way to add a missing file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transfer {
    /// Linked where possible: nothing writes to the source.
    Link,
    Copy,
}

/// Result of adding a file.
#[derive(Debug)]
pub(super) enum Added {
    Stored(Digest),
    /// The source does not exist.
    Missing,
    /// The source has other bytes than its name says.
    Damaged,
}

/// The content of a directory of backups.
#[derive(Debug)]
pub(super) struct Content {
    directory: PathBuf,
    /// Files that are complete but not synced, with their final names.
    pending: Vec<(PathBuf, PathBuf)>,
    pending_bytes: u64,
    pub copied_files: u64,
    pub copied_bytes: u64,
}

impl Content {
    /// Creates the directory, and removes what a killed backup left unfinished.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let content = Self {
            directory: directory(root),
            pending: Vec::new(),
            pending_bytes: 0,
            copied_files: 0,
            copied_bytes: 0,
        };
        files::remove_dir_if_exists(&content.incoming())?;
        fs::create_dir_all(content.incoming())?;
        Ok(content)
    }

    fn incoming(&self) -> PathBuf {
        self.directory.join("incoming")
    }

    /// Adds a file whose digest is known. Its size is compared with an existing copy; its bytes are
    /// verified if it is new.
    pub(super) fn add_known(&mut self, source: &Path, sha256: &str) -> io::Result<Added> {
        let target = self.path(sha256);
        let stored = fs::metadata(&target).map(|found| found.len());
        let wanted = fs::metadata(source).map(|found| found.len());
        match (stored, wanted) {
            (Ok(stored), Ok(wanted)) if stored != wanted => {}
            // The source may have been deleted since the last attempt.
            (Ok(size), _) => {
                return Ok(Added::Stored(Digest {
                    sha256: sha256.to_owned(),
                    size,
                }));
            }
            (Err(_), _) => {}
        }
        let added = self.add(source, Transfer::Link, Some(sha256))?;
        Ok(added)
    }

    /// Adds a file whose digest is computed.
    pub(super) fn add_unknown(&mut self, source: &Path) -> io::Result<Added> {
        self.add(source, Transfer::Copy, None)
    }

    /// Returns true if the file of an earlier backup is there.
    pub(super) fn has(&self, sha256: &str, bytes: u64) -> bool {
        fs::metadata(self.path(sha256)).is_ok_and(|found| found.len() == bytes)
    }

    fn add(
        &mut self,
        source: &Path,
        transfer: Transfer,
        expected: Option<&str>,
    ) -> io::Result<Added> {
        let temporary = self.incoming().join(Uuid::new_v4().simple().to_string());
        let is_linked = transfer == Transfer::Link && fs::hard_link(source, &temporary).is_ok();
        if !is_linked {
            match fs::copy(source, &temporary) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound && !source.exists() => {
                    files::remove_if_exists(&temporary)?;
                    return Ok(Added::Missing);
                }
                Err(error) => return Err(error),
            }
        }
        let digest = hash_file(&temporary)?;
        if expected.is_some_and(|expected| expected != digest.sha256) {
            fs::remove_file(&temporary)?;
            return Ok(Added::Damaged);
        }
        if self.has(&digest.sha256, digest.size) {
            fs::remove_file(&temporary)?;
            return Ok(Added::Stored(digest));
        }
        self.pending.push((temporary, self.path(&digest.sha256)));
        self.pending_bytes += digest.size;
        self.copied_files += 1;
        self.copied_bytes += digest.size;
        if self.pending.len() >= BATCH_FILES || self.pending_bytes >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(Added::Stored(digest))
    }

    /// Makes all added files durable, then gives them their names: a name is never in front of its
    /// bytes, so that the next backup can trust it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        files::sync_file_system(&self.directory)?;
        for (temporary, target) in self.pending.drain(..) {
            fs::create_dir_all(files::parent_dir(&target))?;
            fs::rename(temporary, target)?;
        }
        self.pending_bytes = 0;
        Ok(())
    }

    fn path(&self, sha256: &str) -> PathBuf {
        path_in(&self.directory, sha256)
    }
}

fn directory(root: &Path) -> PathBuf {
    root.join("content")
}

/// Path of a file in a directory of backups.
pub(super) fn path(root: &Path, sha256: &str) -> PathBuf {
    path_in(&directory(root), sha256)
}

fn path_in(directory: &Path, sha256: &str) -> PathBuf {
    directory
        .join(sha256.get(..2).unwrap_or_default())
        .join(sha256)
}

/// Returns all files of the content with their digests.
pub(super) fn stored(root: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory(root))? {
        let part = entry?;
        if part.file_name().len() != 2 {
            continue;
        }
        for entry in fs::read_dir(part.path())? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}
