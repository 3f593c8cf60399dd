//! Use of the disk that holds the data directory.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tonic::Status;

use super::task::read_files;
use crate::{datasets, proto::v1, store::Store, training::resources::free_disk};

/// Age at which the values are read again.
const MAX_AGE: Duration = Duration::from_secs(5);

/// Reads the use of the disk, at most once every few seconds. Cheap to clone.
#[derive(Clone)]
pub(crate) struct DiskUseReader {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    data_dir: PathBuf,
    latest: Mutex<Option<(Instant, v1::DiskUse)>>,
}

impl DiskUseReader {
    pub(crate) fn new(store: Store, data_dir: PathBuf) -> Self {
        DiskUseReader {
            inner: Arc::new(Inner {
                store,
                data_dir,
                latest: Mutex::default(),
            }),
        }
    }

    /// Returns values that are at most a few seconds old.
    ///
    /// # Errors
    /// A failure of the database or of the disk.
    pub(super) async fn read(&self) -> Result<v1::DiskUse, Status> {
        if let Some((read, disk)) = *self.latest()
            && read.elapsed() < MAX_AGE
        {
            return Ok(disk);
        }
        let data_dir = self.inner.data_dir.clone();
        let (free_bytes, uploads_bytes) =
            read_files(move || (free_disk(&data_dir), datasets::upload_bytes(&data_dir))).await?;
        let disk = v1::DiskUse {
            free_bytes,
            artifacts_bytes: self.inner.store.artifact_bytes().await?,
            datasets_bytes: self.inner.store.unpacked_bytes().await?,
            uploads_bytes,
        };
        *self.latest() = Some((Instant::now(), disk));
        Ok(disk)
    }

    fn latest(&self) -> std::sync::MutexGuard<'_, Option<(Instant, v1::DiskUse)>> {
        self.inner
            .latest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
