//! Preparation of a training for a start of its process.

use std::{io, path::Path, time::SystemTime};

use crate::{
    proto::{
        v1,
        worker_v1::{ImageLimits, Job, Resume},
    },
    store::{Change, Kind, Rewind},
    telemetry::{logging, traces},
};

use super::{
    Error,
    cleanup::clean_work_dir,
    context::Context,
    process::Worker,
    state::{self, Trigger},
};

/// Moves a training from QUEUED to PREPARING and looks up where it resumes; `None` if it is not
/// QUEUED any more.
pub(super) async fn prepare(
    context: &Context,
    id: &str,
) -> Result<Option<(v1::Training, Option<Resume>)>, Error> {
    let resume = context.resume_state(id).await?;
    let kept = match &resume {
        Some(resume) => Some(KeptEpochs::find(context, id, resume).await?),
        None => None,
    };
    let decide = move |training: &mut v1::Training| {
        if state::apply(training, Trigger::Prepare).is_err() {
            return Change::default();
        }
        training.attempt += 1;
        training.idle_starts += 1;
        training
            .start_time
            .get_or_insert_with(|| SystemTime::now().into());
        if training.attempt > 1 && training.dataset.is_some() {
            return rewind(training, kept);
        }
        Change::default()
    };
    let training = context.update(id, decide).await?;
    context.count_states().await;
    let is_prepared = training.state() == v1::TrainingState::Preparing;
    Ok(is_prepared.then_some((training, resume)))
}

/// The epochs in a full checkpoint.
pub(super) struct KeptEpochs {
    count: u32,
    last: Option<v1::EpochMetrics>,
    best: Option<v1::EpochMetrics>,
}

impl KeptEpochs {
    async fn find(context: &Context, id: &str, resume: &Resume) -> Result<Self, Error> {
        let point = resume.point.clone().unwrap_or_default();
        Ok(KeptEpochs {
            count: point.epochs,
            last: context.store.epoch_metrics(id, point.epochs).await?,
            best: context.store.epoch_metrics(id, point.best_epoch).await?,
        })
    }
}

/// Reverts the record to the epochs of a full checkpoint, or to the start of the training.
pub(super) fn rewind(training: &mut v1::Training, kept: Option<KeptEpochs>) -> Change {
    let (last, best, from_epoch, rewind) = match kept {
        None => {
            training.initial = None;
            (None, None, 1, Rewind::ToStart)
        }
        Some(kept) => {
            let rewind = Rewind::After {
                epochs: kept.count,
                best_epoch: kept.best.map_or(0, |best| best.epoch),
            };
            (kept.last, kept.best, kept.count + 1, rewind)
        }
    };
    (training.last, training.best) = (last, best);
    Change {
        rewind: Some(rewind),
        ..Kind::MetricsRewound(v1::MetricsRewound { from_epoch }).into()
    }
}

/// Starts the worker process of a prepared training.
///
/// # Errors
/// A failure of the file system, or to start the process.
pub(super) async fn start_worker(
    context: &Context,
    training: &v1::Training,
    resume: Option<Resume>,
    work_dir: &Path,
) -> io::Result<Worker> {
    let options = &context.options;
    let kept = resume.as_ref().and_then(|resume| resume.point.as_ref());
    clean_work_dir(work_dir, kept).await?;
    let mut spec = training.resolved_spec.clone();
    if let Some(dataset) = spec.as_mut().and_then(|spec| spec.dataset.as_mut()) {
        update_path(context, dataset).await;
    }
    let job = Job {
        training: training.name.clone(),
        spec,
        attempt: training.attempt,
        work_dir: work_dir.to_string_lossy().into_owned(),
        data_roots: options.data_roots.clone(),
        weights_roots: options.weights_roots.clone(),
        hub: Some(options.hub.clone()),
        threads: options.threads,
        device: options.device.clone(),
        image_limits: Some(ImageLimits {
            max_bytes: options.limits.max_bytes,
            max_pixels: options.limits.max_pixels,
            max_dimension: options.limits.max_dimension,
        }),
        resume,
        check_memory: true,
        nice: options.nice,
        log_filter: logging::filter().unwrap_or_default(),
        traced: traces::current().is_some(),
        artifacts_dir: context.artifacts.directory().to_string_lossy().into_owned(),
    };
    tracing::info!(
        training = training.name,
        attempt = training.attempt,
        "starting worker process"
    );
    Worker::start(
        &options.launcher,
        options.ranks,
        job,
        options.heartbeat_timeout,
        options.progress_timeout,
    )
    .await
}

/// Updates the path of a named dataset: an uploaded one may have moved with the data directory
/// since the training was queued.
async fn update_path(context: &Context, dataset: &mut v1::DatasetSpec) {
    let Some(id) = dataset.name.strip_prefix("datasets/") else {
        return;
    };
    match context.store.dataset(id).await {
        Ok(found) => dataset.path = found.dataset.path,
        Err(error) => {
            tracing::warn!(dataset = dataset.name, %error, "failed to look up the path of the dataset");
        }
    }
}
