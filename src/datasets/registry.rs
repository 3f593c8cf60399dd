//! Operations of clients on named datasets.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    dataset::{self, Roots},
    disk::Disk,
    imaging,
    proto::v1::{self, DatasetKind, DatasetState},
    quarantine::Quarantine,
    store::{DatasetLimits, NumberedDataset, Store, run_detached},
};

use super::{
    Error,
    blocking::blocking,
    layout::{self, Layout},
    summary, unpack,
    uploads::{ListedUpload, Scope, Uploads},
};

/// Datasets that are unpacked or scanned, or wait for it.
const MAX_UNFINISHED: usize = 64;

/// Properties of a new dataset that a client chooses.
#[derive(Debug, Clone, Default)]
pub(crate) struct Properties {
    pub display_name: String,
    /// Checked pattern that reads the ages; empty for the default.
    pub age_pattern: String,
    /// Checked columns to read from the manifest.
    pub columns: Option<v1::ManifestColumns>,
}

#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The server's data directory, absolute.
    pub data_dir: PathBuf,
    pub max_upload_bytes: u64,
    pub disk: Disk,
    /// Size limit of all uploaded datasets together; 0 for none.
    pub max_dataset_bytes: u64,
    /// Datasets that may exist.
    pub max_datasets: usize,
    /// Time without a change after which an upload is removed.
    pub upload_expiry: Duration,
    /// Limits of an archive.
    pub limits: unpack::Limits,
    /// Limits of each image.
    pub images: imaging::Limits,
}

/// The named datasets. Cheap to clone.
#[derive(Clone)]
pub(crate) struct DatasetRegistry {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) store: Store,
    pub(super) layout: Layout,
    pub(super) uploads: Uploads,
    /// Directories of datasets, including the uploaded ones.
    pub(super) roots: Roots,
    pub(super) limits: unpack::Limits,
    pub(super) disk: Disk,
    max_dataset_bytes: u64,
    max_datasets: usize,
    pub(super) images: imaging::Limits,
    pub(super) wake: Notify,
    /// Running work by the number of the dataset's row.
    pub(super) running: Mutex<HashMap<i64, Running>>,
}

#[derive(Clone)]
pub(super) struct Running {
    pub(super) progress: v1::CheckProgress,
    pub(super) cancelled: CancellationToken,
}

impl DatasetRegistry {
    /// Creates and returns the directory of uploaded datasets, which must be one of the roots that
    /// they are read from.
    ///
    /// # Errors
    /// A directory that cannot be created.
    pub(crate) fn prepare(data_dir: &std::path::Path) -> std::io::Result<PathBuf> {
        layout::prepare(data_dir)
    }

    /// Opens the datasets, updates their paths if the data directory was moved, removes temporary
    /// directories of a killed server, and moves unknown ones into the quarantine. Nothing is
    /// unpacked or scanned before [`DatasetRegistry::run`].
    ///
    /// # Errors
    /// Directories that cannot be created or cleared, and failures of the store.
    pub(crate) async fn open(
        store: Store,
        roots: Roots,
        options: Options,
        mut quarantine: Quarantine,
    ) -> Result<(Self, Quarantine), Error> {
        let layout = Layout::open(&options.data_dir)?;
        let known = store.all_datasets().await?;
        layout.sweep(&known, &mut quarantine);
        for mut found in known {
            let Some(path) = layout.moved(&found.dataset) else {
                continue;
            };
            let (dataset, before) = (&found.dataset.name, &found.dataset.path);
            tracing::info!(
                dataset,
                before,
                path,
                "updated the path of a dataset, because the data directory was moved"
            );
            found.dataset.path = path;
            store.update_dataset(found).await?;
        }
        let uploads = Uploads::open(
            layout.uploads(),
            options.max_upload_bytes,
            options.disk.clone(),
            options.upload_expiry,
        )?;
        let registry = DatasetRegistry {
            inner: Arc::new(Inner {
                store,
                layout,
                uploads,
                roots,
                limits: options.limits,
                disk: options.disk,
                max_dataset_bytes: options.max_dataset_bytes,
                max_datasets: options.max_datasets,
                images: options.images,
                wake: Notify::new(),
                running: Mutex::default(),
            }),
        };
        Ok((registry, quarantine))
    }

    #[must_use]
    pub(crate) fn uploads(&self) -> &Uploads {
        &self.inner.uploads
    }

    /// Registers a directory or manifest of the server.
    ///
    /// # Errors
    /// [`Error::Path`] and the errors of [`Store::insert_dataset`].
    pub(crate) async fn register(
        &self,
        id: &str,
        properties: Properties,
        path: &str,
    ) -> Result<v1::Dataset, Error> {
        let path = self.inner.roots.resolve_async(path).await;
        let path = path.map_err(Error::Path)?;
        let dataset = v1::Dataset {
            kind: DatasetKind::Registered.into(),
            state: DatasetState::Scanning.into(),
            path: path.to_string_lossy().into_owned(),
            ..described(id, properties)
        };
        let (inner, options) = (Arc::clone(&self.inner), self.inner.options(&dataset)?);
        // A header without the columns is refused now, not by the scan.
        let checked = blocking(move || Ok(dataset::check_source(&path, &inner.roots, &options)));
        checked.await?.map_err(Error::Path)?;
        self.insert(dataset).await
    }

    /// Creates a dataset from a complete upload of the scope.
    ///
    /// # Errors
    /// [`Error::NoUpload`], [`Error::Incomplete`], [`Error::DiskLow`], [`Error::QuotaUsed`] and the
    /// errors of [`Store::insert_dataset`].
    pub(crate) async fn create(
        &self,
        id: &str,
        properties: Properties,
        upload: &str,
        scope: &Scope,
    ) -> Result<v1::Dataset, Error> {
        let upload = self.inner.uploads.get(upload, scope).await?;
        if upload.offset < upload.length {
            return Err(Error::Incomplete {
                upload: upload.id.to_string(),
                offset: upload.offset,
                length: upload.length,
            });
        }
        let disk = self.inner.disk.clone();
        blocking(move || disk.check(0)).await??;
        self.inner.free_quota().await?;
        let path = self.inner.layout.new_dataset(id);
        self.insert(v1::Dataset {
            kind: DatasetKind::Uploaded.into(),
            state: DatasetState::Unpacking.into(),
            path: path.to_string_lossy().into_owned(),
            upload: upload.id.to_string(),
            ..described(id, properties)
        })
        .await
    }

    /// Lists the uploads of a scope that no dataset uses, the last updated first.
    ///
    /// # Errors
    /// Failures of the store and of the file system.
    pub(crate) async fn list_uploads(&self, scope: &Scope) -> Result<Vec<ListedUpload>, Error> {
        let unfinished = self.inner.store.unfinished_datasets().await?;
        let used = unfinished.into_iter().map(|next| next.dataset.upload);
        self.inner.uploads.list(&used.collect(), scope).await
    }

    /// Deletes an upload of the scope.
    ///
    /// # Errors
    /// [`Error::NoUpload`], [`Error::Busy`], and [`Error::InUse`] while it is unpacked into a
    /// dataset.
    pub(crate) async fn remove_upload(&self, upload: &str, scope: &Scope) -> Result<(), Error> {
        // The datasets have the canonical form of the id.
        let id = self.inner.uploads.get(upload, scope).await?.id.to_string();
        let unfinished = self.inner.store.unfinished_datasets().await?;
        let needs_it = unfinished.iter().find(|next| next.dataset.upload == id);
        match needs_it {
            Some(next) => Err(Error::InUse {
                upload: id,
                dataset: next.dataset.name.clone(),
            }),
            None => self.inner.uploads.remove(&id, scope).await,
        }
    }

    async fn insert(&self, dataset: v1::Dataset) -> Result<v1::Dataset, Error> {
        let inner = Arc::clone(&self.inner);
        // A client that disconnects after the commit must not prevent the work from starting.
        run_detached(Box::pin(async move {
            let inserted = inner.store.insert_dataset(
                dataset,
                DatasetLimits {
                    unfinished: MAX_UNFINISHED,
                    all: inner.max_datasets,
                },
            );
            let dataset = inserted.await?.dataset;
            tracing::info!(
                dataset = dataset.name,
                path = dataset.path,
                "accepted a dataset"
            );
            inner.wake.notify_one();
            Ok(dataset)
        }))
        .await
    }

    /// Returns a dataset with its current progress.
    ///
    /// # Errors
    /// As [`Store::dataset`].
    pub(crate) async fn get(&self, id: &str) -> Result<v1::Dataset, Error> {
        let NumberedDataset {
            number,
            mut dataset,
        } = self.inner.store.dataset(id).await?;
        let running = self.inner.running();
        dataset.progress = running.get(&number).map(|work| work.progress.clone());
        Ok(dataset)
    }

    /// Deletes a dataset, including the images of an uploaded one.
    ///
    /// # Errors
    /// As [`Store::delete_dataset`].
    pub(crate) async fn delete(&self, id: &str) -> Result<(), Error> {
        let deleted = self.inner.store.delete_dataset(id).await?;
        if let Some(work) = self.inner.running().get(&deleted.number) {
            work.cancelled.cancel();
        }
        tracing::info!(dataset = deleted.dataset.name, "deleted a dataset");
        let inner = Arc::clone(&self.inner);
        let upload = deleted.dataset.upload.clone();
        // The next start of the server removes what remains.
        blocking(move || inner.layout.remove(&deleted)).await?;
        if !upload.is_empty() {
            self.inner.uploads.remove(&upload, &Scope::All).await.ok();
        }
        Ok(())
    }

    /// Returns the thumbnail of a sample, a JPEG.
    ///
    /// # Errors
    /// [`Error::NoSample`] and the errors of [`Store::dataset`].
    pub(crate) async fn sample(&self, id: &str, index: usize) -> Result<Vec<u8>, Error> {
        let found = self.inner.store.dataset(id).await?;
        let missing = || Error::NoSample {
            dataset: format!("datasets/{id}"),
            index,
            samples: found.dataset.samples.len(),
        };
        if index >= found.dataset.samples.len() {
            return Err(missing());
        }
        let path = self.inner.layout.sample(found.number, index);
        match fs_err::tokio::read(path).await {
            Ok(bytes) => Ok(bytes),
            // Deleted after the lookup.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(missing()),
            Err(error) => Err(error.into()),
        }
    }
}

fn described(id: &str, properties: Properties) -> v1::Dataset {
    v1::Dataset {
        name: format!("datasets/{id}"),
        display_name: properties.display_name,
        age_pattern: properties.age_pattern,
        columns: properties.columns,
        ..Default::default()
    }
}

impl Inner {
    pub(super) fn options(&self, dataset: &v1::Dataset) -> Result<dataset::Options, Error> {
        summary::options(dataset, self.images).map_err(Error::Reading)
    }

    /// Returns the bytes that uploaded datasets may still have; `None` without a limit.
    ///
    /// # Errors
    /// [`Error::QuotaUsed`] if they are used up.
    pub(super) async fn free_quota(&self) -> Result<Option<u64>, Error> {
        let limit = self.max_dataset_bytes;
        if limit == 0 {
            return Ok(None);
        }
        let used = self.store.unpacked_bytes().await?;
        match limit.checked_sub(used).filter(|free| *free > 0) {
            Some(free) => Ok(Some(free)),
            None => Err(Error::QuotaUsed { used, limit }),
        }
    }

    pub(super) fn running(&self) -> std::sync::MutexGuard<'_, HashMap<i64, Running>> {
        // A panic cannot leave an entry half changed.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
