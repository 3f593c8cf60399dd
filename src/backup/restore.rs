//! `visage restore`.

use std::{
    io,
    path::{Path, PathBuf},
};

use fs_err as fs;

use crate::{
    artifacts::hash_file,
    files,
    store::{database_path, place_database},
};

use super::{
    Damage, Error, Progress, content,
    manifest::{self, DATABASE, Entry, FILES, Summary},
};

/// Exists while a restore is incomplete, so that another one may continue it.
const MARKER: &str = ".restoring";

/// A restored data directory.
#[derive(Debug)]
pub(crate) struct Restored {
    /// Name of the backup.
    pub backup: String,
    pub files: u64,
    pub bytes: u64,
    /// Files that are damaged or missing in the backup, which were not restored.
    pub damaged: Vec<Damage>,
    pub restarting: Vec<String>,
}

/// Restores a backup, the newest one if `name` is `None`, to a missing or empty directory.
///
/// All files are verified, and the database comes last, so that no server starts in half a
/// directory.
///
/// # Errors
/// [`Error::NotEmpty`], [`Error::NoBackup`], [`Error::Damaged`] unless `ignore_damage`, and
/// failures of the file system.
pub(crate) fn restore(
    root: &Path,
    name: Option<&str>,
    target: &Path,
    ignore_damage: bool,
    progress: Progress<'_>,
) -> Result<Restored, Error> {
    let root = fs::canonicalize(root)?;
    let name = select(&root, name)?;
    let backup = manifest::backups(&root).join(&name);
    let summary = Summary::read(&backup)?;
    for (file, expected) in [(DATABASE, &summary.database), (FILES, &summary.files)] {
        if hash_file(&backup.join(file))?.sha256 != expected.sha256 {
            return Err(Error::BadManifest {
                path: backup.join(file),
                problem: "it is damaged".to_owned(),
            });
        }
    }
    prepare(target)?;
    let mut restored = Restored {
        backup: name,
        files: 0,
        bytes: 0,
        damaged: summary.damaged,
        restarting: summary.restarting,
    };
    // Damage of the data directory was reported by the backup; it must not make it useless.
    let known = restored.damaged.len();
    for entry in manifest::read_files(&backup)? {
        let entry = entry?;
        match place(&root, target, &entry)? {
            None => {
                restored.files += 1;
                restored.bytes += entry.bytes;
            }
            Some(problem) => restored.damaged.push(Damage {
                path: entry.path,
                problem,
                of: entry.of,
            }),
        }
        progress(restored.bytes, Some(summary.file_bytes));
    }
    let count = restored.damaged.len() - known;
    if count > 0 && !ignore_damage {
        return Err(Error::Damaged {
            directory: target.to_owned(),
            count,
        });
    }
    finish(&backup, target)?;
    restored.bytes += summary.database.bytes;
    Ok(restored)
}

/// Returns the name of a backup, by default of the newest one.
fn select(root: &Path, name: Option<&str>) -> Result<String, Error> {
    if !manifest::backups(root).is_dir() {
        return Err(Error::NothingHere(root.to_owned()));
    }
    let known = manifest::names(root)?;
    match name {
        None => known
            .last()
            .cloned()
            .ok_or_else(|| Error::NothingHere(root.to_owned())),
        Some(name) if known.iter().any(|known| known == name) => Ok(name.to_owned()),
        Some(name) => Err(Error::NoBackup {
            directory: root.to_owned(),
            name: name.to_owned(),
            known,
        }),
    }
}

/// Creates the directory, or clears what an incomplete restore left in it.
fn prepare(target: &Path) -> Result<(), Error> {
    files::create_private_dir(target)?;
    let marker = target.join(MARKER);
    let entries: Vec<PathBuf> = fs::read_dir(target)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    let is_resumed = marker.is_file() && !database_path(target).exists();
    if !entries.is_empty() && !is_resumed {
        return Err(Error::NotEmpty(target.to_owned()));
    }
    for path in entries.iter().filter(|path| **path != marker) {
        match path.is_dir() {
            true => fs::remove_dir_all(path)?,
            false => fs::remove_file(path)?,
        }
    }
    Ok(files::write_atomic(&marker, b"")?)
}

/// Copies and verifies a file; returns its problem.
fn place(root: &Path, target: &Path, entry: &Entry) -> io::Result<Option<String>> {
    let Some(path) = entry.below(target) else {
        return Ok(Some(
            "has a path that leads out of the directory".to_owned(),
        ));
    };
    fs::create_dir_all(files::parent_dir(&path))?;
    match fs::copy(content::path(root, &entry.sha256), &path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Some("is not in the backup".to_owned()));
        }
        Err(error) => return Err(error),
    }
    let found = hash_file(&path)?;
    if found.sha256 == entry.sha256 {
        return Ok(None);
    }
    fs::remove_file(&path)?;
    Ok(Some(format!(
        "has the SHA-256 {} instead of {}",
        found.sha256, entry.sha256
    )))
}

/// Makes all files durable, then places the database.
fn finish(backup: &Path, target: &Path) -> io::Result<()> {
    let draft = target.join(".visage.db.restored");
    fs::copy(backup.join(DATABASE), &draft)?;
    files::sync_file_system(target)?;
    place_database(&draft, target)?;
    fs::remove_file(target.join(MARKER))?;
    files::sync_directory(target)
}
