//! Directories of named datasets in the data directory, and their leftovers after a crash.

use std::{
    collections::HashSet,
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
};

use fs_err as fs;
use uuid::Uuid;

use crate::{
    files,
    proto::v1::{Dataset, DatasetKind},
    store::NumberedDataset,
};

/// Marks the directory as created by the server, so that unknown entries may be deleted.
const MARKER: &str = ".visage";
/// Prefix of temporary directories.
const TEMPORARY: &str = ".aside-";

pub(super) fn datasets(data_dir: &Path) -> PathBuf {
    data_dir.join("datasets")
}

#[derive(Debug)]
pub(super) struct Layout {
    datasets: PathBuf,
    samples: PathBuf,
    uploads: PathBuf,
}

impl Layout {
    /// Creates the directories.
    pub(super) fn open(data_dir: &Path) -> io::Result<Self> {
        let layout = Layout {
            datasets: datasets(data_dir),
            samples: datasets(data_dir).join(".samples"),
            uploads: data_dir.join("uploads"),
        };
        fs::create_dir_all(&layout.datasets)?;
        if fs::read_dir(&layout.datasets)?.next().is_none() {
            files::write_atomic(&layout.datasets.join(MARKER), b"")?;
        }
        fs::create_dir_all(&layout.samples)?;
        fs::create_dir_all(&layout.uploads)?;
        files::sync_directory(data_dir)?;
        Ok(layout)
    }

    pub(super) fn uploads(&self) -> PathBuf {
        self.uploads.clone()
    }

    /// Returns a path for a new dataset that was never used before.
    pub(super) fn new_dataset(&self, id: &str) -> PathBuf {
        let random = Uuid::new_v4().simple().to_string();
        self.datasets.join(format!("{id}-{}", &random[..8]))
    }

    /// Returns the current path of an uploaded dataset if it differs from the absolute path in the
    /// database, because the data directory was moved or restored.
    pub(super) fn moved(&self, dataset: &Dataset) -> Option<String> {
        if dataset.kind() != DatasetKind::Uploaded {
            return None;
        }
        let name = Path::new(&dataset.path).file_name()?;
        let path = self.datasets.join(name).to_string_lossy().into_owned();
        (path != dataset.path).then_some(path)
    }

    /// Temporary directory in which a dataset is unpacked.
    pub(super) fn temporary(&self, number: i64) -> PathBuf {
        self.datasets.join(format!("{TEMPORARY}{number}"))
    }

    /// Directory of the thumbnails of a dataset.
    pub(super) fn samples(&self, number: i64) -> PathBuf {
        self.samples.join(number.to_string())
    }

    pub(super) fn sample(&self, number: i64, index: usize) -> PathBuf {
        self.samples(number).join(format!("{index}.jpg"))
    }

    /// Makes an unpacked directory durable and moves it to its final place.
    pub(super) fn put(&self, from: &Path, to: &Path) -> io::Result<()> {
        sync_all(from)?;
        fs::rename(from, to)?;
        files::sync_directory(&self.datasets)
    }

    /// Removes the files of a deleted dataset: its thumbnails, and the images of an uploaded one.
    pub(super) fn remove(&self, deleted: &NumberedDataset) -> io::Result<()> {
        files::remove_dir_if_exists(&self.samples(deleted.number))?;
        let path = Path::new(&deleted.dataset.path);
        // Nothing outside the directory may be deleted, whatever the database contains.
        let may_delete = path.parent() == Some(self.datasets.as_path());
        if deleted.dataset.kind() != DatasetKind::Uploaded || !may_delete {
            return Ok(());
        }
        let random = Uuid::new_v4().simple().to_string();
        let temporary = self.datasets.join(format!("{TEMPORARY}{random}"));
        match fs::rename(path, &temporary) {
            Ok(()) => files::remove_dir_if_exists(&temporary),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes directories that do not belong to a dataset. A failure is logged.
    pub(super) fn sweep(&self, known: &[NumberedDataset]) {
        // By name, because the data directory may have been moved since the paths were stored. A
        // registered directory counts too, because it may lie here.
        let directories: HashSet<&OsStr> = known
            .iter()
            .filter_map(|known| Path::new(&known.dataset.path).file_name())
            .collect();
        let numbers: HashSet<String> = known.iter().map(|known| known.number.to_string()).collect();
        let may_delete = self.datasets.join(MARKER).exists();
        let is_leftover = |name: &str| {
            let is_known = name.starts_with('.') || directories.contains(OsStr::new(name));
            name.starts_with(TEMPORARY) || (may_delete && !is_known)
        };
        clear(&self.datasets, is_leftover);
        clear(&self.samples, |name| !numbers.contains(name));
    }
}

/// Removes the directories whose names are leftovers.
fn clear(directory: &Path, is_leftover: impl Fn(&str) -> bool) {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(%error, "failed to search for leftovers of datasets");
            return;
        }
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if !path.is_dir() || !is_leftover(&name.to_string_lossy()) {
            continue;
        }
        match fs::remove_dir_all(&path) {
            Ok(()) => tracing::info!(path = %path.display(), "removed leftovers of a dataset"),
            Err(error) => tracing::warn!(%error, "failed to remove leftovers of a dataset"),
        }
    }
}

/// Makes all files of a directory durable at once, because one call per file would take minutes for
/// 100,000 files.
fn sync_all(directory: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::fs::syncfs(fs::File::open(directory)?.file())?;
    #[cfg(not(target_os = "linux"))]
    {
        rustix::fs::sync();
        files::sync_directory(directory)?;
    }
    Ok(())
}
