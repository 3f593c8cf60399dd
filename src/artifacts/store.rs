//! The handle to the store.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use fs_err as fs;
use object_store::{ObjectStoreExt as _, local::LocalFileSystem};
use tokio::sync::RwLock;

use crate::files;

use super::{
    Digest, Error,
    digest::{STORED, key},
};

/// Directory of unfinished writes.
pub(super) const INCOMING: &str = "incoming";

/// The artifact store. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Artifacts {
    directory: Arc<Path>,
    pub(super) store: Arc<LocalFileSystem>,
    /// Held shared from storing bytes until they are recorded, exclusively while unreferenced
    /// artifacts are removed.
    pub(super) gc_lock: Arc<RwLock<()>>,
}

impl Artifacts {
    /// Opens the store in a directory, which is created if it is missing, and removes unfinished
    /// writes.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::DiskFull`], [`Error::Store`].
    pub(crate) async fn local(directory: &Path) -> Result<Self, Error> {
        let directory = directory.to_owned();
        let (directory, store) = blocking(move || {
            fs::create_dir_all(&directory)?;
            let directory = directory.canonicalize()?;
            // The directory's own entry; `object_store` syncs those inside.
            files::sync_directory(files::parent_dir(&directory))?;
            files::remove_dir_if_exists(&directory.join(INCOMING))?;
            let store = LocalFileSystem::new_with_prefix(&directory).map_err(Error::from)?;
            Ok::<_, Error>((directory, store.with_fsync(true)))
        })
        .await?;
        Ok(Self {
            directory: directory.into(),
            store: Arc::new(store),
            gc_lock: Arc::default(),
        })
    }

    /// Lists the artifacts in the directory of a store that is not open.
    ///
    /// # Errors
    /// A directory that cannot be read.
    pub(crate) fn list(directory: &Path) -> std::io::Result<Vec<Digest>> {
        let mut found = Vec::new();
        let Ok(parts) = fs::read_dir(directory.join(STORED)) else {
            return Ok(found);
        };
        for part in parts {
            for entry in fs::read_dir(part?.path())? {
                let entry = entry?;
                let sha256 = entry.file_name().to_string_lossy().into_owned();
                if key(&sha256).is_ok() {
                    let size = entry.metadata()?.len();
                    found.push(Digest { sha256, size });
                }
            }
        }
        Ok(found)
    }

    /// Returns the directory of the store, absolute, for [`file_in`].
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the file of an artifact, for readers that map or verify it themselves.
    ///
    /// # Errors
    /// [`Error::BadDigest`], [`Error::NotFound`].
    pub(crate) async fn local_file(&self, sha256: &str) -> Result<PathBuf, Error> {
        let path = self.store.path_to_filesystem(&key(sha256)?)?;
        let (path, exists) = blocking(move || {
            let exists = path.try_exists();
            (path, exists)
        })
        .await;
        exists?.then_some(path).ok_or_else(|| Error::NotFound {
            digest: sha256.to_owned(),
        })
    }

    /// Deletes an artifact and returns its size in bytes; 0 if it does not exist. The caller holds
    /// [`Artifacts::lock_for_gc`], unless the same bytes cannot be stored again meanwhile.
    ///
    /// # Errors
    /// [`Error::BadDigest`], [`Error::Store`].
    pub(crate) async fn delete(&self, sha256: &str) -> Result<u64, Error> {
        let key = key(sha256)?;
        let size = match self.store.head(&key).await {
            Ok(meta) => meta.size,
            Err(object_store::Error::NotFound { .. }) => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        match self.store.delete(&key).await {
            Ok(()) => Ok(size),
            Err(object_store::Error::NotFound { .. }) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}

/// Returns the file of an artifact in the directory of a store, for another process that has no
/// store; `None` if the text is not a digest. The file may be missing.
pub(crate) fn file_in(directory: &Path, sha256: &str) -> Option<PathBuf> {
    Some(directory.join(key(sha256).ok()?.as_ref()))
}

/// Runs file access or hashing on the runtime's blocking threads. A panic continues in the caller.
#[expect(
    clippy::disallowed_methods,
    reason = "the only place of this module where files are read and written"
)]
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down and does not poll this task again.
            Err(_) => std::future::pending().await,
        },
    }
}
