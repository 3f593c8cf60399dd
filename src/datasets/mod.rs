//! Datasets with a name: directories of the server that were registered, and archives that were uploaded.
//!
//! A [`DatasetRegistry`] keeps them. What it promises:
//!
//! - A registered directory stays where it is; nothing here writes to it or deletes from it.
//! - An upload goes to disk as it comes, and can go on where it ended after either side was killed ([`uploads`]).
//! - What an archive holds is not believed: an entry that would lie outside of the dataset, a link, a device, and more bytes or entries than allowed
//!   end the unpacking with a sentence that names the entry ([`unpack`]).
//! - A dataset is there whole or not at all: it is unpacked aside, made durable, and renamed into place. A server that was killed meanwhile begins that again.
//! - One dataset at a time is unpacked or scanned, on threads that let everything else on the machine go first, and few may wait.
//!
//! On disk, in the data directory: `uploads/` has what is being uploaded, `datasets/{id}-{random}/` the images of an uploaded dataset, and `datasets/.samples/` small
//! images to show of every dataset.
//!
//! - `jobs`: what unpacks and scans, one dataset after the other.
//! - `summary`: the figures of a dataset, and its samples.
//! - `layout`: the directories, and what a killed server left in them.

mod error;
mod jobs;
mod layout;
mod summary;
#[cfg(test)]
mod tests;
pub mod unpack;
pub mod uploads;

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
    imaging,
    proto::v1::{self, DatasetKind, DatasetState},
    store::{NumberedDataset, Store, run_detached},
};

pub use error::Error;

use layout::Layout;
use uploads::Uploads;

/// Datasets that are unpacked and scanned, or wait for it.
const MAX_UNFINISHED: usize = 64;

/// Properties of a new dataset that a client chooses.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// Text for people.
    pub display_name: String,
    /// Pattern that reads the ages of its images, checked; empty for the default.
    pub age_pattern: String,
    /// Columns to read from its manifest, checked.
    pub columns: Option<v1::ManifestColumns>,
}

/// What a library is made with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server's data directory, absolute.
    pub data_dir: PathBuf,
    /// Largest upload in bytes.
    pub max_upload_bytes: u64,
    /// How long an upload may lie without a change.
    pub upload_expiry: Duration,
    /// What an archive may hold.
    pub limits: unpack::Limits,
    /// What each image may cost.
    pub images: imaging::Limits,
}

/// The datasets with a name. Cheap to clone.
#[derive(Clone)]
pub struct DatasetRegistry {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    layout: Layout,
    uploads: Uploads,
    /// Where datasets may be read, the uploaded ones included.
    roots: Roots,
    limits: unpack::Limits,
    images: imaging::Limits,
    wake: Notify,
    /// What is being unpacked or scanned, by the number of its row.
    running: Mutex<HashMap<i64, Running>>,
}

/// What is known of a dataset that is being worked on.
#[derive(Clone)]
struct Running {
    progress: v1::CheckProgress,
    cancelled: CancellationToken,
}

impl DatasetRegistry {
    /// The directory under which uploaded datasets lie, which must be among the roots of whoever reads them. It is made when it is missing.
    ///
    /// # Errors
    /// A directory that cannot be made.
    pub fn prepare(data_dir: &std::path::Path) -> std::io::Result<PathBuf> {
        let directory = layout::datasets(data_dir);
        fs_err::create_dir_all(&directory)?;
        Ok(directory)
    }

    /// Opens the library, follows a data directory that was moved, and removes what a killed server left half made. Nothing is unpacked or scanned before
    /// [`DatasetRegistry::run`].
    ///
    /// # Errors
    /// Directories that cannot be made or cleared, and what the store fails with.
    pub async fn open(store: Store, roots: Roots, options: Options) -> Result<Self, Error> {
        let layout = Layout::open(&options.data_dir)?;
        let known = store.all_datasets().await?;
        layout.sweep(&known);
        for mut found in known {
            let Some(path) = layout.moved(&found.dataset) else {
                continue;
            };
            let (dataset, before) = (&found.dataset.name, &found.dataset.path);
            tracing::info!(dataset, before, path, "has moved with the data directory");
            found.dataset.path = path;
            store.update_dataset(found).await?;
        }
        let uploads = Uploads::open(
            layout.uploads(),
            options.max_upload_bytes,
            options.upload_expiry,
        )?;
        Ok(DatasetRegistry {
            inner: Arc::new(Inner {
                store,
                layout,
                uploads,
                roots,
                limits: options.limits,
                images: options.images,
                wake: Notify::new(),
                running: Mutex::default(),
            }),
        })
    }

    /// The archives that are on their way.
    #[must_use]
    pub fn uploads(&self) -> &Uploads {
        &self.inner.uploads
    }

    /// Registers what lies at a path of the server.
    ///
    /// # Errors
    /// [`Error::Path`] and what [`Store::insert_dataset`] fails with.
    pub async fn register(&self, id: &str, about: About, path: &str) -> Result<v1::Dataset, Error> {
        let path = self.inner.roots.resolve(path).map_err(Error::Path)?;
        let dataset = v1::Dataset {
            kind: DatasetKind::Registered.into(),
            state: DatasetState::Scanning.into(),
            path: path.to_string_lossy().into_owned(),
            ..described(id, about)
        };
        let (inner, options) = (Arc::clone(&self.inner), self.inner.options(&dataset)?);
        // A header without the columns is refused now, and not by the scan.
        let checked =
            jobs::blocking(move || Ok(dataset::check_source(&path, &inner.roots, &options)));
        checked.await?.map_err(Error::Path)?;
        self.insert(dataset).await
    }

    /// Makes a dataset of a complete upload.
    ///
    /// # Errors
    /// [`Error::NoUpload`], [`Error::Incomplete`] and what [`Store::insert_dataset`] fails with.
    pub async fn create(&self, id: &str, about: About, upload: &str) -> Result<v1::Dataset, Error> {
        let upload = self.inner.uploads.get(upload).await?;
        if upload.offset < upload.length {
            return Err(Error::Incomplete {
                upload: upload.id.to_string(),
                offset: upload.offset,
                length: upload.length,
            });
        }
        let path = self.inner.layout.new_dataset(id);
        self.insert(v1::Dataset {
            kind: DatasetKind::Uploaded.into(),
            state: DatasetState::Unpacking.into(),
            path: path.to_string_lossy().into_owned(),
            upload: upload.id.to_string(),
            ..described(id, about)
        })
        .await
    }

    /// Removes an upload with all its bytes.
    ///
    /// # Errors
    /// [`Error::NoUpload`], [`Error::Busy`], and [`Error::Needed`] while a dataset is being made of it.
    pub async fn remove_upload(&self, upload: &str) -> Result<(), Error> {
        let unfinished = self.inner.store.unfinished_datasets().await?;
        let needs_it = unfinished.iter().find(|next| next.dataset.upload == upload);
        match needs_it {
            Some(next) => Err(Error::Needed {
                upload: upload.to_owned(),
                dataset: next.dataset.name.clone(),
            }),
            None => self.inner.uploads.remove(upload).await,
        }
    }

    async fn insert(&self, dataset: v1::Dataset) -> Result<v1::Dataset, Error> {
        let inner = Arc::clone(&self.inner);
        // A client that leaves behind the commit must not keep the work from being begun.
        run_detached(Box::pin(async move {
            let inserted = inner.store.insert_dataset(dataset, MAX_UNFINISHED);
            let dataset = inserted.await?.dataset;
            tracing::info!(dataset = dataset.name, path = dataset.path, "accepted");
            inner.wake.notify_one();
            Ok(dataset)
        }))
        .await
    }

    /// One dataset, with the progress of its work.
    ///
    /// # Errors
    /// What [`Store::dataset`] fails with.
    pub async fn get(&self, id: &str) -> Result<v1::Dataset, Error> {
        let NumberedDataset {
            number,
            mut dataset,
        } = self.inner.store.dataset(id).await?;
        let running = self.inner.running();
        dataset.progress = running.get(&number).map(|work| work.progress.clone());
        Ok(dataset)
    }

    /// Forgets a dataset, and deletes the images of an uploaded one.
    ///
    /// # Errors
    /// What [`Store::delete_dataset`] fails with.
    pub async fn delete(&self, id: &str) -> Result<(), Error> {
        let deleted = self.inner.store.delete_dataset(id).await?;
        if let Some(work) = self.inner.running().get(&deleted.number) {
            work.cancelled.cancel();
        }
        tracing::info!(dataset = deleted.dataset.name, "deleted");
        let inner = Arc::clone(&self.inner);
        let upload = deleted.dataset.upload.clone();
        // What cannot be removed now goes with the next start of the server.
        jobs::blocking(move || inner.layout.remove(&deleted)).await?;
        if !upload.is_empty() {
            self.inner.uploads.remove(&upload).await.ok();
        }
        Ok(())
    }

    /// The encoded small image of a dataset's sample, a JPEG.
    ///
    /// # Errors
    /// [`Error::NoSample`] and what [`Store::dataset`] fails with.
    pub async fn sample(&self, id: &str, index: usize) -> Result<Vec<u8>, Error> {
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
            // Deleted since it was looked up.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(missing()),
            Err(error) => Err(error.into()),
        }
    }
}

/// A dataset with the properties that a client chose.
fn described(id: &str, about: About) -> v1::Dataset {
    v1::Dataset {
        name: format!("datasets/{id}"),
        display_name: about.display_name,
        age_pattern: about.age_pattern,
        columns: about.columns,
        ..Default::default()
    }
}

impl Inner {
    /// Options to read a dataset with.
    fn options(&self, dataset: &v1::Dataset) -> Result<dataset::Options, Error> {
        summary::options(dataset, self.images).map_err(Error::Reading)
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<i64, Running>> {
        // Half a change of one entry is nothing that a panic could leave.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
