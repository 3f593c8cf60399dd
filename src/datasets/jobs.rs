//! Unpacks and scans one dataset after the other, and continues after a restart of the server.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use crate::{
    files::remove_dir_if_exists,
    names::id_of,
    proto::v1::{self, DatasetState},
    store::{self, NumberedDataset},
};

use super::{
    DatasetRegistry,
    blocking::blocking,
    registry::{Inner, Running},
    summary::{self, Summary},
    unpack,
    uploads::Scope,
};

/// Bytes of an archive between two checks of the free disk space.
const CHECK_BYTES: u64 = 4 << 20;
/// Ends of the server during the work on a dataset after which the dataset fails.
const MAX_CRASHES: u32 = 2;
/// Pause after a failure of the database.
const STORE_PAUSE: Duration = Duration::from_secs(5);

struct UnpackJob<'a> {
    upload: &'a Path,
    temporary: &'a Path,
    place: &'a Path,
    /// Of the dataset's row.
    number: i64,
    limits: &'a unpack::Limits,
}

impl DatasetRegistry {
    /// Works until the token is cancelled; the next server restarts unfinished work.
    pub(crate) async fn run(&self, shutdown: CancellationToken) {
        let inner = &self.inner;
        let mut sweep = tokio::time::interval(inner.uploads.sweep_interval());
        loop {
            let pause = match inner.store.unfinished_datasets().await {
                Ok(unfinished) => match unfinished.into_iter().next() {
                    Some(next) => {
                        inner.work(next, &shutdown).await;
                        Duration::ZERO
                    }
                    None => Duration::MAX,
                },
                Err(store::Error::Closed) => return,
                Err(error) => {
                    tracing::error!(%error, "failed to read the unfinished datasets");
                    STORE_PAUSE
                }
            };
            if shutdown.is_cancelled() {
                return;
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = inner.wake.notified(), if pause == Duration::MAX => {}
                () = tokio::time::sleep(pause), if pause < Duration::MAX => {}
                _ = sweep.tick() => inner.sweep_uploads().await,
            }
        }
    }
}

impl Inner {
    /// Removes expired uploads, except those that are waiting to be unpacked.
    async fn sweep_uploads(&self) {
        let waiting = match self.store.unfinished_datasets().await {
            Ok(unfinished) => unfinished.into_iter().map(|next| next.dataset.upload),
            Err(error) => {
                tracing::warn!(%error, "failed to read the unfinished datasets");
                return;
            }
        };
        self.uploads.sweep(&waiting.collect()).await;
    }

    /// Moves a dataset to its next state.
    async fn work(self: &Arc<Self>, mut next: NumberedDataset, shutdown: &CancellationToken) {
        let number = next.number;
        let cancelled = shutdown.child_token();
        self.running().insert(
            number,
            Running {
                progress: v1::CheckProgress::default(),
                cancelled: cancelled.clone(),
            },
        );
        let begun = self.begin(number).await;
        let done = match next.dataset.state() {
            _ if begun.is_err() => begun,
            DatasetState::Unpacking => self.unpack(&mut next, &cancelled).await,
            DatasetState::Scanning => self.scan(&mut next, &cancelled).await,
            DatasetState::Unspecified | DatasetState::Ready | DatasetState::Failed => {
                Err("its state is unknown to this version".to_owned())
            }
        };
        self.running().remove(&number);
        let inner = Arc::clone(self);
        if let Err(error) = blocking(move || inner.layout.end(number)).await {
            tracing::warn!(%error, "failed to remove the counter of attempts of a dataset");
        }
        if cancelled.is_cancelled() {
            // Deleted meanwhile, or restarted by the next server.
            self.remove_if_deleted(&next).await;
            return;
        }
        if let Err(failure) = done {
            tracing::warn!(dataset = next.dataset.name, failure, "dataset failed");
            next.dataset.failure = failure;
            next.dataset.set_state(DatasetState::Failed);
        }
        let upload = next.dataset.upload.clone();
        let is_unpacked = next.dataset.state() != DatasetState::Unpacking;
        match self.store.update_dataset(next.clone()).await {
            Ok(true) => {}
            Ok(false) => self.remove_if_deleted(&next).await,
            Err(error) => {
                tracing::error!(%error, dataset = next.dataset.name, "failed to store a dataset");
                tokio::time::sleep(STORE_PAUSE).await;
                return;
            }
        }
        if is_unpacked && !upload.is_empty() {
            self.uploads.remove(&upload, &Scope::All).await.ok();
        }
    }

    /// Records the begin of work. The error is for the owner of a dataset whose work ended the
    /// server before: it would end it at each start.
    async fn begin(self: &Arc<Self>, number: i64) -> Result<(), String> {
        let inner = Arc::clone(self);
        match blocking(move || inner.layout.begin(number)).await {
            Ok(before) if before < MAX_CRASHES => Ok(()),
            Ok(before) => Err(format!(
                "the server was killed {before} times while it read this dataset, perhaps for lack of memory; use a smaller dataset"
            )),
            Err(error) => {
                // Such as a full disk, which the work reports.
                tracing::warn!(%error, "failed to count the attempts of a dataset");
                Ok(())
            }
        }
    }

    /// Removes the files of a dataset whose row was deleted.
    async fn remove_if_deleted(self: &Arc<Self>, next: &NumberedDataset) {
        let id = id_of(&next.dataset.name);
        let exists = match self.store.dataset(id).await {
            Ok(found) => found.number == next.number,
            Err(store::Error::NotFound { .. }) => false,
            Err(_) => true,
        };
        if exists {
            return;
        }
        let (inner, deleted) = (Arc::clone(self), next.clone());
        if let Err(error) = blocking(move || inner.layout.remove(&deleted)).await {
            tracing::warn!(%error, "failed to remove the files of a deleted dataset");
        }
    }

    /// Unpacks the upload of a dataset into its directory. The error is shown to the owner of the
    /// dataset.
    async fn unpack(
        self: &Arc<Self>,
        next: &mut NumberedDataset,
        cancelled: &CancellationToken,
    ) -> Result<(), String> {
        let upload = self.uploads.file(&next.dataset.upload);
        let upload = upload.map_err(|error| error.to_string())?;
        let temporary = self.layout.temporary(next.number);
        let place = PathBuf::from(&next.dataset.path);
        let quota = self.free_quota().await;
        let quota = quota.map_err(|error| error.to_string())?;
        let limits = unpack::Limits {
            bytes: self.limits.bytes.min(quota.unwrap_or(u64::MAX)),
            ..self.limits
        };
        let (inner, number, cancelled) = (Arc::clone(self), next.number, cancelled.clone());
        let unpacking = blocking(move || {
            let job = UnpackJob {
                upload: &upload,
                temporary: &temporary,
                place: &place,
                number,
                limits: &limits,
            };
            let unpacked = inner.unpack_into(&job, &cancelled);
            if unpacked.is_err() {
                // A partial dataset is useless; the next start removes what remains.
                remove_dir_if_exists(&temporary).ok();
            }
            Ok(unpacked)
        });
        let unpacked = unpacking.await.map_err(|error| error.to_string())?;
        let found = unpacked.map_err(|error| match (error, quota) {
            (unpack::Error::TooLarge { limit, .. }, Some(quota)) if limit == quota => format!(
                "the archive is refused: its files have more than the {quota} bytes that uploaded datasets may still have (max_dataset_bytes of the server)"
            ),
            (error, _) => error.to_string(),
        })?;
        // Counted from now on; the scan replaces it by the size of the images.
        next.dataset.bytes = found.bytes;
        next.dataset.ignored_files = found.ignored;
        let warnings = found.skipped.warnings();
        // Kept for the report of the scan, which may follow a restart.
        next.dataset.report = (!warnings.is_empty()).then(|| v1::DatasetReport {
            warnings,
            ..Default::default()
        });
        next.dataset.set_state(DatasetState::Scanning);
        Ok(())
    }

    fn unpack_into(
        &self,
        job: &UnpackJob<'_>,
        cancelled: &CancellationToken,
    ) -> Result<unpack::Unpacked, unpack::Error> {
        let (temporary, place) = (job.temporary, job.place);
        // Left by a server that was killed between the rename and its record.
        remove_dir_if_exists(place)?;
        remove_dir_if_exists(temporary)?;
        fs_err::create_dir_all(temporary)?;
        let (mut unchecked, mut low) = (0, None);
        let mut report = |done: u64, total| {
            self.set_progress(job.number, "unpack", done, total);
            // Bytes of the archive, which are fewer than those of its files.
            if done.saturating_sub(unchecked) >= CHECK_BYTES {
                unchecked = done;
                low = self.disk.check(0).ok().and_then(Result::err);
            }
            low.is_none() && !cancelled.is_cancelled()
        };
        let unpacked = unpack::unpack(job.upload, temporary, job.limits, &mut report);
        let found = match (unpacked, low) {
            (Err(unpack::Error::Cancelled), Some(low)) => return Err(low.into()),
            (unpacked, _) => unpacked?,
        };
        self.layout.put(temporary, place)?;
        Ok(found)
    }

    /// Scans a dataset and stores thumbnails of samples.
    async fn scan(
        self: &Arc<Self>,
        next: &mut NumberedDataset,
        cancelled: &CancellationToken,
    ) -> Result<(), String> {
        let (inner, number, cancelled) = (Arc::clone(self), next.number, cancelled.clone());
        let path = next.dataset.path.clone();
        let options = self.options(&next.dataset);
        let options = options.map_err(|error| error.to_string())?;
        let scanning = blocking(move || {
            let mut report = |done: usize, total: usize| {
                inner.set_progress(number, "scan", done as u64, total as u64);
            };
            Ok(summary::summarize(
                Path::new(&path),
                &inner.roots,
                options,
                &inner.layout.samples(number),
                &mut report,
                &|| cancelled.is_cancelled(),
            ))
        });
        let scanned = scanning.await.map_err(|error| error.to_string())?;
        let Summary {
            images,
            bytes,
            report,
            ages,
            split_origin,
            ignored,
            samples,
        } = scanned.map_err(|error| error.to_string())?;
        let dataset = &mut next.dataset;
        dataset.images = images;
        dataset.bytes = bytes;
        let unpacking = dataset.report.take().unwrap_or_default();
        dataset.report = Some(v1::DatasetReport {
            warnings: [unpacking.warnings, report.warnings].concat(),
            ..report
        });
        dataset.ages = ages;
        dataset.set_split_origin(split_origin);
        dataset.ignored_files += ignored;
        dataset.samples = samples;
        dataset.set_state(DatasetState::Ready);
        tracing::info!(dataset = dataset.name, images, "dataset is ready");
        Ok(())
    }

    fn set_progress(&self, number: i64, phase: &str, done: u64, total: u64) {
        if let Some(work) = self.running().get_mut(&number) {
            work.progress = v1::CheckProgress {
                phase: phase.to_owned(),
                done,
                total,
            };
        }
    }
}
