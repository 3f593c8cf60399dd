//! The directories of the library in the data directory, and what a killed server left in them.

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

/// Tells that the directory is ours alone, so that what no dataset knows may be deleted from it.
const OURS: &str = ".visage";
/// How the names of what is being unpacked or deleted begin.
const ASIDE: &str = ".aside-";

/// The directory of uploaded datasets.
pub(super) fn datasets(data_dir: &Path) -> PathBuf {
    data_dir.join("datasets")
}

/// Where everything lies.
#[derive(Debug)]
pub(super) struct Layout {
    datasets: PathBuf,
    samples: PathBuf,
    uploads: PathBuf,
}

impl Layout {
    /// Makes the directories.
    pub(super) fn open(data_dir: &Path) -> io::Result<Self> {
        let layout = Layout {
            datasets: datasets(data_dir),
            samples: datasets(data_dir).join(".samples"),
            uploads: data_dir.join("uploads"),
        };
        fs::create_dir_all(&layout.datasets)?;
        if fs::read_dir(&layout.datasets)?.next().is_none() {
            files::write_atomic(&layout.datasets.join(OURS), b"")?;
        }
        fs::create_dir_all(&layout.samples)?;
        fs::create_dir_all(&layout.uploads)?;
        files::sync_directory(data_dir)?;
        Ok(layout)
    }

    pub(super) fn uploads(&self) -> PathBuf {
        self.uploads.clone()
    }

    /// A directory for a new dataset, which no other one ever had.
    pub(super) fn new_dataset(&self, id: &str) -> PathBuf {
        let random = Uuid::new_v4().simple().to_string();
        self.datasets.join(format!("{id}-{}", &random[..8]))
    }

    /// Where an uploaded dataset lies now, if the database has another path: it has the absolute one of the directory's first place, and the data directory may have
    /// been moved, or be a restored copy.
    pub(super) fn moved(&self, dataset: &Dataset) -> Option<String> {
        if dataset.kind() != DatasetKind::Uploaded {
            return None;
        }
        let name = Path::new(&dataset.path).file_name()?;
        let path = self.datasets.join(name).to_string_lossy().into_owned();
        (path != dataset.path).then_some(path)
    }

    /// Where a dataset is unpacked before it is renamed into place.
    pub(super) fn aside(&self, number: i64) -> PathBuf {
        self.datasets.join(format!("{ASIDE}{number}"))
    }

    /// The small images of a dataset.
    pub(super) fn samples(&self, number: i64) -> PathBuf {
        self.samples.join(number.to_string())
    }

    /// One of them.
    pub(super) fn sample(&self, number: i64, index: usize) -> PathBuf {
        self.samples(number).join(format!("{index}.jpg"))
    }

    /// Puts a directory that was unpacked aside in its place, durably.
    pub(super) fn put(&self, aside: &Path, place: &Path) -> io::Result<()> {
        sync_all(aside)?;
        fs::rename(aside, place)?;
        files::sync_directory(&self.datasets)
    }

    /// Removes the files of a dataset that is forgotten: the small images, and those of an uploaded one.
    pub(super) fn remove(&self, deleted: &NumberedDataset) -> io::Result<()> {
        remove_directory(&self.samples(deleted.number))?;
        let path = Path::new(&deleted.dataset.path);
        // Whatever the database says, nothing outside of the directory is ours to delete.
        let is_ours = path.parent() == Some(self.datasets.as_path());
        if deleted.dataset.kind() != DatasetKind::Uploaded || !is_ours {
            return Ok(());
        }
        let random = Uuid::new_v4().simple().to_string();
        let aside = self.datasets.join(format!("{ASIDE}{random}"));
        match fs::rename(path, &aside) {
            Ok(()) => remove_directory(&aside),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes what belongs to no dataset. What cannot be removed is told in the log and stays.
    pub(super) fn sweep(&self, known: &[NumberedDataset]) {
        // By name: the data directory may have been elsewhere when the paths were stored. A registered directory counts too, as it may lie here.
        let directories: HashSet<&OsStr> = known
            .iter()
            .filter_map(|known| Path::new(&known.dataset.path).file_name())
            .collect();
        let numbers: HashSet<String> = known.iter().map(|known| known.number.to_string()).collect();
        let is_ours = self.datasets.join(OURS).exists();
        let is_left = |name: &str| {
            let is_known = name.starts_with('.') || directories.contains(OsStr::new(name));
            name.starts_with(ASIDE) || (is_ours && !is_known)
        };
        clear(&self.datasets, is_left);
        clear(&self.samples, |name| !numbers.contains(name));
    }
}

/// Removes the directories of which `is_left` is true.
fn clear(directory: &Path, is_left: impl Fn(&str) -> bool) {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(%error, "could not look for leftovers");
            return;
        }
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if !path.is_dir() || !is_left(&name.to_string_lossy()) {
            continue;
        }
        match fs::remove_dir_all(&path) {
            Ok(()) => tracing::info!(path = %path.display(), "removed what a dataset left behind"),
            Err(error) => tracing::warn!(%error, "could not remove what a dataset left behind"),
        }
    }
}

/// Removes a directory with all that is in it; one that is not there is no error.
pub(super) fn remove_directory(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes all files of a directory durable at once: one call for each of a hundred thousand files would take minutes.
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
