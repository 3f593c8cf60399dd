//! Removal of old backups, and the lock of a directory of backups.

use std::{collections::HashSet, io, path::Path};

use fs_err as fs;

use crate::files;

use super::{
    Error, content,
    manifest::{self, PARTIAL},
};

/// Locks a directory against other backups until the file is dropped.
pub(super) fn lock(root: &Path) -> Result<fs::File, Error> {
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(root.join(".lock"))?;
    match file.try_lock().map_err(io::Error::from) {
        Ok(()) => Ok(file),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(Error::Busy(root.to_owned()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Removes all but the newest backups, and the content that none of the remaining ones has. Returns
/// the names of the removed backups.
///
/// # Errors
/// A remaining backup that cannot be read; its content is then kept.
pub(super) fn keep_newest(root: &Path, keep: usize) -> Result<Vec<String>, Error> {
    let mut old = manifest::names(root)?;
    let kept = old.split_off(old.len().saturating_sub(keep.max(1)));
    if old.is_empty() {
        return Ok(old);
    }
    let mut needed = HashSet::new();
    for name in &kept {
        for entry in manifest::read_files(&manifest::backups(root).join(name))? {
            needed.insert(entry?.sha256);
        }
    }
    let backups = manifest::backups(root);
    for name in &old {
        // Renamed first, because a backup is never incomplete under its name.
        let aside = backups.join(format!("{PARTIAL}{name}"));
        fs::rename(backups.join(name), &aside)?;
        files::sync_directory(&backups)?;
        fs::remove_dir_all(aside)?;
    }
    for (sha256, path) in content::stored(root)? {
        if !needed.contains(&sha256) {
            files::remove_if_exists(&path)?;
        }
    }
    Ok(old)
}
