//! Durable recording of worker events.

use std::path::PathBuf;

use crate::{
    artifacts,
    proto::{
        v1::{self, TrainingState},
        worker_v1::{EpochCompleted, ResumePointSaved, Started, worker_event},
    },
    store::{self, Change, Kind},
    telemetry::logging::chain,
};

use super::{
    context::Context,
    disk_state::DISK_FULL,
    metrics,
    prepare::rewind,
    state::{self, Trigger},
};

/// Failure to make an event durable.
pub(super) enum RecordError {
    /// Another attempt fails too.
    Permanent(v1::Failure),
    /// Another attempt may succeed, for example after a lock on the database is released.
    Transient(String),
}

/// Makes one event durable.
pub(super) async fn record(
    context: &Context,
    id: &str,
    event: worker_event::Kind,
) -> Result<(), RecordError> {
    match event {
        worker_event::Kind::Progress(progress) => record_progress(context, id, progress).await?,
        worker_event::Kind::Started(started) => check_version(started)?,
        worker_event::Kind::Dataset(report) => {
            metrics::rejects(&report);
            let decide = move |training: &mut v1::Training| {
                training.dataset = Some(report.clone());
                Change::from(Kind::DatasetScanned(report))
            };
            context.update(id, decide).await?;
        }
        worker_event::Kind::Init(init) => {
            let decide = move |training: &mut v1::Training| {
                training.init_source = init.source;
                Change::default()
            };
            context.update(id, decide).await?;
        }
        worker_event::Kind::Epoch(epoch) => match epoch.metrics {
            Some(initial) if initial.epoch == 0 => record_initial(context, id, initial).await?,
            _ => record_epoch(context, id, epoch).await?,
        },
        worker_event::Kind::Saved(saved) => record_resume_point(context, id, saved).await?,
        worker_event::Kind::Restarted(restarted) => {
            tracing::warn!(
                training = id,
                reason = restarted.reason,
                "full checkpoint is not usable; training starts again"
            );
            context
                .update(id, |training| rewind(training, None))
                .await?;
        }
        worker_event::Kind::Heartbeat(_)
        | worker_event::Kind::Span(_)
        | worker_event::Kind::LiveRequested(_)
        | worker_event::Kind::Finished(_) => {}
    }
    Ok(())
}

fn check_version(started: Started) -> Result<(), RecordError> {
    let own = env!("CARGO_PKG_VERSION");
    if started.version == own {
        return Ok(());
    }
    Err(RecordError::permanent(
        "WORKER_VERSION",
        format!(
            "the version of the worker must be that of the server, {own}, got {}",
            started.version
        ),
    ))
}

async fn record_progress(
    context: &Context,
    id: &str,
    progress: v1::Progress,
) -> Result<(), store::Error> {
    const TRAIN: &str = "train";
    metrics::progress(&progress);
    let is_training = progress.phase == TRAIN;
    let mut earlier = None;
    context.progress.send_modify(|reports| {
        earlier = reports.insert(id.to_owned(), progress);
    });
    let is_first = earlier.is_none_or(|earlier| earlier.phase != TRAIN);
    if is_training && is_first {
        record_running(context, id).await?;
    }
    Ok(())
}

async fn record_running(context: &Context, id: &str) -> Result<(), store::Error> {
    if context.store.training(id).await?.state() != TrainingState::Preparing {
        return Ok(());
    }
    let decide = |training: &mut v1::Training| {
        // A training that has ended meanwhile stays as it is.
        drop(state::apply(training, Trigger::Train));
        Change::default()
    };
    context.update(id, decide).await?;
    context.count_states().await;
    Ok(())
}

/// Records a new resume point and removes the file of the previous one.
async fn record_resume_point(
    context: &Context,
    id: &str,
    saved: ResumePointSaved,
) -> Result<(), store::Error> {
    let point = saved.point.unwrap_or_default();
    let previous = context.store.resume_point(id).await;
    let file = point.file.clone();
    let decide = move |training: &mut v1::Training| {
        training.idle_starts = 0;
        Change {
            resume_point: Some(point),
            ..Change::default()
        }
    };
    context.update(id, decide).await?;
    if let Ok(Some(previous)) = previous
        && previous.file != file
    {
        let path = context.options.work_dir.join(id).join(previous.file);
        if let Err(error) = fs_err::tokio::remove_file(&path).await {
            tracing::warn!(%error, "failed to remove the previous full checkpoint");
        }
    }
    Ok(())
}

/// Records the validation of the initial weights.
async fn record_initial(
    context: &Context,
    id: &str,
    initial: v1::EpochMetrics,
) -> Result<(), store::Error> {
    let decide = move |training: &mut v1::Training| {
        training.initial = Some(initial);
        Change::from(Kind::InitialValidated(initial))
    };
    let training = context.update(id, decide).await?;
    context.event_files.append(&training, &initial).await;
    Ok(())
}

/// Moves the files of a checkpoint into the artifact store, then records the epoch with them.
async fn record_epoch(
    context: &Context,
    id: &str,
    epoch: EpochCompleted,
) -> Result<(), RecordError> {
    let epoch_metrics = epoch.metrics.unwrap_or_default();
    // Keeps the files from being removed as unreferenced until they are recorded.
    let gc_guard = context.artifacts.block_gc().await;
    let mut files = Vec::with_capacity(epoch.files.len());
    for file in epoch.files {
        let stored = context
            .artifacts
            .move_file(&PathBuf::from(file.path))
            .await?;
        if stored.sha256 != file.sha256 {
            return Err(RecordError::permanent(
                "CHECKPOINT_CORRUPT",
                format!(
                    "{} must have the SHA-256 {}, got {}",
                    file.name, file.sha256, stored.sha256
                ),
            ));
        }
        files.push(v1::CheckpointFile {
            name: file.name,
            size_bytes: stored.size,
            sha256: stored.sha256,
        });
    }
    metrics::epoch(&epoch_metrics);
    // A short epoch may end before its first progress report is due.
    record_running(context, id).await?;
    let decide = move |training: &mut v1::Training| {
        training.last = Some(epoch_metrics);
        if epoch_metrics.is_best {
            training.best = Some(epoch_metrics);
        }
        let mut change = Change::from(Kind::EpochCompleted(epoch_metrics));
        if !files.is_empty() {
            change.events.push(Kind::CheckpointSaved(v1::Checkpoint {
                epoch: epoch_metrics.epoch,
                best: epoch_metrics.is_best,
                val_loss: epoch_metrics.val_loss,
                val_mae: epoch_metrics.val_mae,
                files,
                ..Default::default()
            }));
        }
        Ok::<_, store::Error>(change)
    };
    let applied = context.store.update(id, decide).await?;
    // `discard` waits until nothing is being stored.
    drop(gc_guard);
    context.discard(&applied.unreferenced).await;
    let training = &applied.training;
    context.event_files.append(training, &epoch_metrics).await;
    Ok(())
}

impl RecordError {
    fn permanent(reason: &str, message: String) -> Self {
        RecordError::Permanent(v1::Failure {
            reason: reason.to_owned(),
            message,
        })
    }
}

impl From<store::Error> for RecordError {
    fn from(error: store::Error) -> Self {
        let message = chain(&error);
        if error.is_transient() {
            return RecordError::Transient(message);
        }
        let is_disk_full = matches!(error, store::Error::DiskFull { .. });
        let reason = if is_disk_full { DISK_FULL } else { "STORE" };
        RecordError::permanent(reason, message)
    }
}

impl From<artifacts::Error> for RecordError {
    fn from(error: artifacts::Error) -> Self {
        let message = chain(&error);
        if error.is_transient() {
            return RecordError::Transient(message);
        }
        let is_disk_full = matches!(error, artifacts::Error::DiskFull { .. });
        let reason = if is_disk_full { DISK_FULL } else { "ARTIFACTS" };
        RecordError::permanent(reason, message)
    }
}
