//! Files in the data directory that the database does not know.
//!
//! They are leftovers of a crash, or the database was restored from an older copy. In the second
//! case they are needed, so the server never deletes them at its start: it moves them aside, and
//! they expire.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use fs_err as fs;

use crate::files;

const DIRECTORY: &str = "quarantine";

/// The files of one start of the server. Nothing is created before the first of them.
#[derive(Debug)]
pub(crate) struct Quarantine {
    /// `quarantine/{time}` in the data directory.
    directory: PathBuf,
    files: u64,
}

impl Quarantine {
    /// Removes the files of starts longer ago than `expiry`.
    ///
    /// # Errors
    /// A directory that cannot be read or removed.
    pub(crate) fn open(data_dir: &Path, expiry: Duration, now: SystemTime) -> io::Result<Self> {
        let all = data_dir.join(DIRECTORY);
        let entries = match fs::read_dir(&all) {
            Ok(entries) => entries.collect::<Result<Vec<_>, _>>()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let name = entry.file_name();
            let Ok(time) = humantime::parse_rfc3339(&name.to_string_lossy()) else {
                continue;
            };
            // A time in the future, because the clock was set back, counts as new.
            let age = now.duration_since(time).unwrap_or_default();
            if age > expiry {
                files::remove_dir_if_exists(&entry.path())?;
                tracing::info!(path = %entry.path().display(), "removed expired files from the quarantine");
            }
        }
        let name = humantime::format_rfc3339_seconds(now).to_string();
        Ok(Self {
            directory: all.join(name),
            files: 0,
        })
    }

    /// Moves a file or directory here, into the directory `kind`.
    ///
    /// # Errors
    /// A failure of the file system; the file then stays where it is.
    pub(crate) fn take(&mut self, path: &Path, kind: &str) -> io::Result<()> {
        let Some(name) = path.file_name() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let directory = self.directory.join(kind);
        fs::create_dir_all(&directory)?;
        fs::rename(path, directory.join(name))?;
        self.files += 1;
        files::sync_directory(&directory)?;
        files::sync_directory(files::parent_dir(path))
    }

    /// Logs the number of files, if there are any.
    pub(crate) fn report(&self, expiry: Duration) {
        if self.files > 0 {
            tracing::warn!(
                files = self.files,
                directory = %self.directory.display(),
                expiry = %humantime::format_duration(expiry),
                "moved files that the database does not know into the quarantine; if the database was restored from an older copy, restore the newer one and move them back"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn files_are_kept_until_they_expire() {
        let data = tempfile::tempdir().unwrap();
        let now = SystemTime::UNIX_EPOCH + 20_000 * DAY;
        let file = data.path().join("abc");
        fs::write(&file, b"weights").unwrap();
        let mut quarantine = Quarantine::open(data.path(), DAY, now).unwrap();
        assert!(!data.path().join(DIRECTORY).exists());
        quarantine.take(&file, "artifacts").unwrap();
        assert!(!file.exists());
        let kept = data
            .path()
            .join("quarantine/2024-10-04T00:00:00Z/artifacts/abc");
        assert_eq!(fs::read(&kept).unwrap(), b"weights");

        Quarantine::open(data.path(), DAY, now + DAY).unwrap();
        assert!(kept.exists());
        Quarantine::open(data.path(), DAY, now - DAY).unwrap();
        assert!(kept.exists());
        Quarantine::open(data.path(), DAY, now + 2 * DAY).unwrap();
        assert!(!kept.exists());
    }
}
