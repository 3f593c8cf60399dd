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
    files::{self, UPLOADED_MARKER},
    proto::v1::{Dataset, DatasetKind},
    quarantine::Quarantine,
    store::NumberedDataset,
};

/// Prefix of temporary directories.
const TEMPORARY: &str = ".aside-";

pub(super) fn datasets(data_dir: &Path) -> PathBuf {
    data_dir.join("datasets")
}

/// Creates the directory of uploaded datasets, with its marker. A directory that others filled gets
/// none, so that nothing in it is moved or isolated.
pub(super) fn prepare(data_dir: &Path) -> io::Result<PathBuf> {
    let directory = datasets(data_dir);
    fs::create_dir_all(&directory)?;
    if fs::read_dir(&directory)?.next().is_none() {
        files::write_atomic(&directory.join(UPLOADED_MARKER), b"")?;
    }
    Ok(directory)
}

fn uploads(data_dir: &Path) -> PathBuf {
    data_dir.join("uploads")
}

/// Returns the size of all uploads in bytes; there are few of them.
pub(crate) fn upload_bytes(data_dir: &Path) -> u64 {
    // An upload may be removed meanwhile; before the first one the directory may be missing.
    let entries = fs::read_dir(uploads(data_dir)).into_iter().flatten();
    let sizes = entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
    sizes.sum()
}

#[derive(Debug)]
pub(super) struct Layout {
    datasets: PathBuf,
    samples: PathBuf,
    attempts: PathBuf,
    uploads: PathBuf,
}

impl Layout {
    /// Creates the directories.
    pub(super) fn open(data_dir: &Path) -> io::Result<Self> {
        let layout = Layout {
            datasets: datasets(data_dir),
            samples: datasets(data_dir).join(".samples"),
            attempts: datasets(data_dir).join(".attempts"),
            uploads: uploads(data_dir),
        };
        fs::create_dir_all(&layout.datasets)?;
        fs::create_dir_all(&layout.samples)?;
        fs::create_dir_all(&layout.attempts)?;
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

    /// Records that work on a dataset begins, and returns how often it began before without an end:
    /// the server was killed meanwhile.
    pub(super) fn begin(&self, number: i64) -> io::Result<u32> {
        let path = self.attempts.join(number.to_string());
        let before: u32 = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().unwrap_or(0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        files::write_atomic(&path, before.saturating_add(1).to_string().as_bytes())?;
        Ok(before)
    }

    /// Records that work on a dataset ended, whatever its result.
    pub(super) fn end(&self, number: i64) -> io::Result<()> {
        files::remove_if_exists(&self.attempts.join(number.to_string()))
    }

    /// Makes an unpacked directory durable and moves it to its final place.
    pub(super) fn put(&self, from: &Path, to: &Path) -> io::Result<()> {
        files::sync_file_system(from)?;
        fs::rename(from, to)?;
        files::sync_directory(&self.datasets)
    }

    /// Removes the files of a deleted dataset: its thumbnails, and the images of an uploaded one.
    pub(super) fn remove(&self, deleted: &NumberedDataset) -> io::Result<()> {
        files::remove_dir_if_exists(&self.samples(deleted.number))?;
        self.end(deleted.number)?;
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

    /// Removes temporary directories, and moves those that do not belong to a dataset into the
    /// quarantine. A failure is logged.
    pub(super) fn sweep(&self, known: &[NumberedDataset], quarantine: &mut Quarantine) {
        // By name, because the data directory may have been moved since the paths were stored. A
        // registered directory counts too, because it may lie here.
        let directories: HashSet<&OsStr> = known
            .iter()
            .filter_map(|known| Path::new(&known.dataset.path).file_name())
            .collect();
        let numbers: HashSet<String> = known.iter().map(|known| known.number.to_string()).collect();
        let is_own = self.datasets.join(UPLOADED_MARKER).is_file();
        for path in subdirectories(&self.datasets) {
            let name = path.file_name().unwrap_or_default();
            let shown = name.to_string_lossy();
            let done = if shown.starts_with(TEMPORARY) {
                fs::remove_dir_all(&path)
            } else if !is_own || shown.starts_with('.') || directories.contains(name) {
                continue;
            } else {
                quarantine.take(&path, "datasets")
            };
            log_leftover(&path, done);
        }
        for path in subdirectories(&self.samples) {
            let name = path.file_name().unwrap_or_default();
            if !numbers.contains(name.to_string_lossy().as_ref()) {
                log_leftover(&path, fs::remove_dir_all(&path));
            }
        }
    }
}

fn subdirectories(directory: &Path) -> Vec<PathBuf> {
    match fs::read_dir(directory) {
        Ok(entries) => entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.is_dir())
            .collect(),
        Err(error) => {
            tracing::warn!(%error, "failed to search for leftovers of datasets");
            Vec::new()
        }
    }
}

fn log_leftover(path: &Path, done: io::Result<()>) {
    match done {
        Ok(()) => tracing::info!(path = %path.display(), "cleared leftovers of a dataset"),
        Err(error) => tracing::warn!(%error, "failed to clear leftovers of a dataset"),
    }
}
