//! One training: from PREPARING to a final state.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    artifacts, files,
    proto::{
        v1::{self, StopReason, TrainingState},
        worker_v1::{
            EpochDone, Finished, ImageLimits, Job, Resume, Saved, UpdateCommand, worker_event,
        },
    },
    store::{self, Change, Kind, Promotion, Rewind, is_final},
    telemetry::{
        logging::{self, chain},
        traces,
    },
    training::{
        spec::Spec,
        supervisor::child::{Broken, Heard, Worker, describe, is_killed},
    },
};

use super::{
    Error, Inner, PublishError, RETRY_PAUSE, Wish, id_of, observe, orphans,
    restart::{self, Cause},
    spans,
};

/// How a training ends.
#[derive(Debug, Clone)]
pub(super) enum Ending {
    /// Its best checkpoint becomes a model version.
    Succeeded {
        stop_reason: StopReason,
        test: Option<v1::Evaluation>,
    },
    Failed {
        stop_reason: StopReason,
        failure: v1::Failure,
    },
    Cancelled,
}

/// Why the loop over events ended.
enum Outcome {
    /// The worker said how it ended.
    Finished(Box<Finished>),
    /// It was killed on request.
    Killed,
    /// The server ends; the next one goes on.
    Interrupted,
    /// The process died or cannot be trusted.
    Died(Death),
    /// A file or the database of the server failed.
    Failed(v1::Failure),
}

/// How a process died.
#[derive(Clone)]
pub(super) struct Death {
    /// In words; empty as long as the process has not been waited for.
    pub(super) message: String,
    /// By SIGKILL, which is what the kernel does for want of memory.
    killed: bool,
}

impl Death {
    fn of(message: String) -> Self {
        Death {
            message,
            killed: false,
        }
    }
}

/// Runs the training at the head of the queue.
pub(super) async fn training(
    inner: &Arc<Inner>,
    id: &str,
    (wishes, changes): (watch::Receiver<Wish>, watch::Receiver<u64>),
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    if let Err(error) = inner.reserve.keep().await {
        tracing::warn!(%error, "failed to set bytes aside: the end of the training may not be recorded on a full disk");
    }
    let Some((training, resume)) = prepare(inner, id).await? else {
        // Stopped or cancelled when it was about to begin, and nobody else ends it.
        let state = inner.store.training(id).await?.state();
        return inner.end_if_asked(id, state).await;
    };
    let (parent, state) = (&training.trace_parent, &training.trace_state);
    let trace = inner.options.traces.from_remote(parent, state);
    let following = attempt(inner, training, resume, (wishes, changes), shutdown);
    Box::pin(traces::instrument(trace, following)).await
}

/// Runs the training's process once, and records what became of it.
async fn attempt(
    inner: &Arc<Inner>,
    training: v1::Training,
    resume: Option<Resume>,
    (wishes, changes): (watch::Receiver<Wish>, watch::Receiver<u64>),
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let id = id_of(&training.name);
    spans::queued(&training);
    let work_dir = inner.options.work_dir.join(id);
    let ooms_before = oom_kills();
    let outcome = match start(inner, &training, resume, &work_dir).await {
        Ok(mut worker) => {
            let mut follow = Follow {
                inner,
                id,
                worker: &mut worker,
                wishes,
                changes,
            };
            let outcome = follow.run(shutdown).await;
            finish_process(inner, &work_dir, worker, outcome).await
        }
        Err(error) if files::is_disk_full(&error) => Outcome::Failed(disk_full(&error.to_string())),
        Err(error) => {
            pause_before_restart(training.idle_starts, wishes, shutdown).await;
            Outcome::Died(Death::of(format!("failed to start the process: {error}")))
        }
    };
    // Whoever ends the server may end all of its processes at once, as systemd does.
    let is_dead = matches!(outcome, Outcome::Died(_));
    let outcome = if is_dead && shutdown.is_cancelled() {
        Outcome::Interrupted
    } else {
        outcome
    };
    let aftermath = match outcome {
        Outcome::Interrupted => return Ok(()),
        Outcome::Finished(finished) if finished.paused => Aftermath::Paused,
        Outcome::Finished(finished) => Aftermath::Ended(ending_of(*finished)),
        Outcome::Killed => Aftermath::Ended(Ending::Cancelled),
        Outcome::Failed(failure) => Aftermath::Ended(Ending::Failed {
            stop_reason: StopReason::Internal,
            failure,
        }),
        Outcome::Died(death) if death.killed && oom_kills() > ooms_before => {
            Aftermath::Ended(Ending::Failed {
                stop_reason: StopReason::OutOfMemory,
                failure: v1::Failure {
                    reason: OUT_OF_MEMORY.to_owned(),
                    message: format!(
                        "{}; the machine ran out of memory: lower spec.batch_size or spec.input_size",
                        death.message
                    ),
                },
            })
        }
        Outcome::Died(death) => Aftermath::Died(death),
    };
    record_at_last(inner, id, &aftermath, shutdown).await
}

/// Waits after a process could not be started, longer each time: what was missing for a moment, such as room for one more process, must not use up all
/// restarts. Whoever wants something of the training, or the end of the server, ends the pause.
async fn pause_before_restart(
    starts: u32,
    mut wishes: watch::Receiver<Wish>,
    shutdown: &CancellationToken,
) {
    const LONGEST: u32 = 30;
    tokio::select! {
        () = tokio::time::sleep(RETRY_PAUSE * starts.min(LONGEST)) => {}
        _ = wishes.changed() => {}
        () = shutdown.cancelled() => {}
    }
}

/// What is to be recorded about a training whose process is gone.
enum Aftermath {
    Ended(Ending),
    /// It is started again, or given up.
    Died(Death),
    /// It has let go of the device.
    Paused,
}

/// The reason of a failure for want of memory, which a smaller batch may mend.
const OUT_OF_MEMORY: &str = "OUT_OF_MEMORY";

/// Records what became of a training however often that fails: until then it has no process and stands as if it had one. The next start of the
/// server accounts for it when this one ends before that.
async fn record_at_last(
    inner: &Inner,
    id: &str,
    aftermath: &Aftermath,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    loop {
        let error = match Box::pin(record_aftermath(inner, id, aftermath)).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if matches!(error, Error::Store(store::Error::NotFound { .. })) || shutdown.is_cancelled() {
            return Err(error);
        }
        tracing::error!(training = id, error = %chain(&error), "failed to record what became of the training; trying again");
        if is_disk_full(&error) {
            inner.reserve.release().await;
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY_PAUSE) => {}
            () = shutdown.cancelled() => {}
        }
    }
}

async fn record_aftermath(inner: &Inner, id: &str, aftermath: &Aftermath) -> Result<(), Error> {
    let ending = match aftermath {
        Aftermath::Paused => return paused(inner, id).await,
        Aftermath::Died(death) => return inner.restart(id, Cause::Died(death.clone())).await,
        Aftermath::Ended(ending) => ending,
    };
    if let Ending::Failed { failure, .. } = ending {
        if failure.reason == OUT_OF_MEMORY && inner.reduce_batch(id).await? {
            return Ok(());
        }
        // Before the outcome is recorded: on a full disk this is what makes room for it.
        inner.clear(id).await;
    }
    inner.end(id, ending.clone()).await
}

/// Records that a process has let go of the device.
async fn paused(inner: &Inner, id: &str) -> Result<(), Error> {
    let decide = |training: &mut v1::Training| {
        // At the end of the server it stands as it did, and the next one goes on.
        if training.state() == TrainingState::Pausing {
            training.set_state(TrainingState::Paused);
        }
        training.idle_starts = 0;
        Ok::<_, store::Error>(Change::default())
    };
    let training = inner.store.update(id, decide).await?.training;
    observe::paused();
    inner.count_states().await;
    tracing::info!(
        training = id,
        state = training.state().as_str_name(),
        "has let go of the device"
    );
    let point = inner.store.resume_point(id).await?;
    let work_dir = inner.options.work_dir.join(id);
    if let Err(error) = restart::tidy(&work_dir, point.as_ref()).await {
        tracing::warn!(%error, "failed to remove what a paused training does not need");
    }
    // Perhaps while the process ended.
    inner.end_if_asked(id, training.state()).await
}

/// Moves the training from QUEUED to PREPARING; `None` when it is not QUEUED any more. Also says where it goes on.
async fn prepare(inner: &Inner, id: &str) -> Result<Option<(v1::Training, Option<Resume>)>, Error> {
    let resume = inner.resume(id).await?;
    let kept = match &resume {
        Some(resume) => Some(kept_epochs(inner, id, resume).await?),
        None => None,
    };
    let decide = move |training: &mut v1::Training| {
        let mut change = Change::default();
        if training.state() != TrainingState::Queued {
            return Ok::<_, store::Error>(change);
        }
        training.set_state(TrainingState::Preparing);
        training.attempt += 1;
        training.idle_starts += 1;
        training
            .start_time
            .get_or_insert_with(|| SystemTime::now().into());
        if training.attempt > 1 && training.dataset.is_some() {
            change = rewind(training, kept);
        }
        Ok(change)
    };
    let applied = inner.store.update(id, decide).await?;
    inner.discard(&applied.unreferenced).await;
    let training = applied.training;
    inner.count_states().await;
    Ok((training.state() == TrainingState::Preparing).then_some((training, resume)))
}

/// The epochs that a full checkpoint knows.
struct KeptEpochs {
    count: u32,
    last: Option<v1::EpochMetrics>,
    best: Option<v1::EpochMetrics>,
}

/// Takes back what is known of epochs that are made again, behind those of a full checkpoint or all, and says so.
fn rewind(training: &mut v1::Training, kept: Option<KeptEpochs>) -> Change {
    let (last, best, from_epoch, rewind) = match kept {
        None => (None, None, 1, Rewind::ToStart),
        Some(kept) => {
            let rewind = Rewind::Behind {
                epochs: kept.count,
                best_epoch: kept.best.map_or(0, |best| best.epoch),
            };
            (kept.last, kept.best, kept.count + 1, rewind)
        }
    };
    (training.last, training.best) = (last, best);
    Change {
        rewind: Some(rewind),
        ..event_change(Kind::MetricsRewound(v1::MetricsRewound { from_epoch }))
    }
}

async fn kept_epochs(inner: &Inner, id: &str, resume: &Resume) -> Result<KeptEpochs, Error> {
    let point = resume.point.clone().unwrap_or_default();
    Ok(KeptEpochs {
        count: point.epochs,
        last: inner.store.epoch_metrics(id, point.epochs).await?,
        best: inner.store.epoch_metrics(id, point.best_epoch).await?,
    })
}

async fn start(
    inner: &Inner,
    training: &v1::Training,
    resume: Option<Resume>,
    work_dir: &Path,
) -> std::io::Result<Worker> {
    let options = &inner.options;
    let kept = resume.as_ref().and_then(|resume| resume.point.as_ref());
    restart::tidy(work_dir, kept).await?;
    let mut spec = training.resolved_spec.clone();
    if let Some(dataset) = spec.as_mut().and_then(|spec| spec.dataset.as_mut()) {
        locate(inner, dataset).await;
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
    };
    tracing::info!(
        training = training.name,
        attempt = training.attempt,
        "started"
    );
    Worker::start(
        &options.launcher,
        job,
        options.silence_timeout,
        options.stall_timeout,
    )
    .await
}

/// Puts the path into a dataset with a name that it has now: since the training was queued an uploaded one may have moved with the data directory.
async fn locate(inner: &Inner, dataset: &mut v1::DatasetSpec) {
    let Some(id) = dataset.name.strip_prefix("datasets/") else {
        return;
    };
    match inner.store.dataset(id).await {
        Ok(found) => dataset.path = found.dataset.path,
        Err(error) => {
            tracing::warn!(dataset = dataset.name, %error, "failed to look up where the dataset lies");
        }
    }
}

/// Follows one process.
struct Follow<'a> {
    inner: &'a Arc<Inner>,
    id: &'a str,
    worker: &'a mut Worker,
    wishes: watch::Receiver<Wish>,
    changes: watch::Receiver<u64>,
}

impl Follow<'_> {
    /// Records the worker's events until it ends, one way or another.
    async fn run(&mut self, shutdown: &CancellationToken) -> Outcome {
        let (inner, id) = (self.inner, self.id);
        // A stop, pause or cancel that came between the queue and here found nobody to signal.
        match inner
            .store
            .training(id)
            .await
            .map(|training| training.state())
        {
            Ok(TrainingState::Stopping) => self.worker.stop().await,
            Ok(TrainingState::Pausing) => self.worker.pause().await,
            Ok(TrainingState::Cancelling) => return Outcome::Killed,
            Ok(_) | Err(_) => {}
        }
        let mut cancel_deadline = None;
        let mut shutdown_deadline = None;
        loop {
            let heard = tokio::select! {
                heard = self.worker.next() => heard,
                _ = self.wishes.changed() => {
                    let wish = *self.wishes.borrow_and_update();
                    match wish {
                        Wish::GoOn => {}
                        Wish::Pause => self.worker.pause().await,
                        Wish::Stop => self.worker.stop().await,
                        Wish::Cancel => {
                            self.worker.cancel().await;
                            cancel_deadline = Some(tokio::time::Instant::now() + inner.options.grace);
                        }
                        Wish::Kill => return Outcome::Killed,
                    }
                    continue;
                }
                _ = self.changes.changed() => {
                    self.changes.mark_unchanged();
                    self.update().await;
                    continue;
                }
                () = sleep_until(cancel_deadline) => {
                    tracing::warn!(training = id, "did not give up in time and is killed");
                    return Outcome::Killed;
                }
                () = sleep_until(shutdown_deadline) => return Outcome::Interrupted,
                () = shutdown.cancelled(), if shutdown_deadline.is_none() => {
                    // What the process has done so far is kept, if that is possible in half the time that there is.
                    self.worker.pause().await;
                    shutdown_deadline = Some(tokio::time::Instant::now() + inner.options.grace / 2);
                    continue;
                }
            };
            let recorded = match heard {
                Ok(Heard::Event(event)) => {
                    if let worker_event::Kind::Finished(finished) = *event {
                        return Outcome::Finished(Box::new(finished));
                    }
                    if let worker_event::Kind::Span(span) = *event {
                        spans::told(&span);
                        continue;
                    }
                    record(inner, id, *event).await
                }
                Ok(Heard::Closed) => return Outcome::Died(Death::of(String::new())),
                Err(broken @ (Broken::Protocol(_) | Broken::Silent(_) | Broken::Stalled(_))) => {
                    return Outcome::Died(Death::of(broken.to_string()));
                }
            };
            match recorded {
                Ok(()) => {}
                Err(Unrecorded::ForGood(failure)) => return Outcome::Failed(failure),
                // It is started again from its last full checkpoint, when that can be recorded.
                Err(Unrecorded::ForNow(cause)) => {
                    return Outcome::Died(Death::of(format!(
                        "what it did could not be recorded: {cause}"
                    )));
                }
            }
        }
    }

    /// Tells the process what its spec says now about what may change.
    async fn update(&mut self) {
        let spec = match self.inner.store.training(self.id).await {
            Ok(training) => training.resolved_spec.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, "a change of the spec reaches the training with its next start only");
                return;
            }
        };
        let update = UpdateCommand {
            max_epochs: spec.max_epochs,
            patience: spec.early_stopping.and_then(|stopping| stopping.patience),
            learning_rate: spec.optimizer.and_then(|optimizer| optimizer.learning_rate),
        };
        self.worker.update(update).await;
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Waits for or forces the end of the process, and completes the words about a death.
async fn finish_process(
    inner: &Inner,
    work_dir: &Path,
    worker: Worker,
    outcome: Outcome,
) -> Outcome {
    let grace = inner.options.grace;
    let outcome = match outcome {
        Outcome::Finished(_) | Outcome::Interrupted => {
            worker.end(grace).await;
            outcome
        }
        Outcome::Killed | Outcome::Failed(_) => {
            worker.kill().await;
            outcome
        }
        Outcome::Died(death) if death.message.is_empty() => {
            let status = worker.end(Duration::from_secs(2)).await;
            Outcome::Died(Death {
                message: format!("{} before it said how the training ended", describe(status)),
                killed: is_killed(status),
            })
        }
        Outcome::Died(death) => {
            worker.kill().await;
            Outcome::Died(death)
        }
    };
    orphans::forget(work_dir).await;
    outcome
}

/// Why an event is not durable.
enum Unrecorded {
    /// It would not be at the next try either.
    ForGood(v1::Failure),
    /// It may be later, such as when nobody else has the database locked.
    ForNow(String),
}

/// Makes one event durable.
async fn record(inner: &Arc<Inner>, id: &str, event: worker_event::Kind) -> Result<(), Unrecorded> {
    let recorded = match event {
        worker_event::Kind::Progress(progress) => {
            let begins = matches!(progress.phase.as_str(), "train");
            let is_first = inner
                .progress
                .borrow()
                .get(id)
                .is_none_or(|earlier| earlier.phase != "train");
            observe::progress(&progress);
            inner.progress.send_modify(|latest| {
                latest.insert(id.to_owned(), progress);
            });
            if begins && is_first {
                running(inner, id).await
            } else {
                Ok(())
            }
        }
        worker_event::Kind::Started(started) if started.version != env!("CARGO_PKG_VERSION") => {
            return Err(Unrecorded::ForGood(v1::Failure {
                reason: "WORKER_VERSION".to_owned(),
                message: format!(
                    "the worker is version {}, the server {}",
                    started.version,
                    env!("CARGO_PKG_VERSION")
                ),
            }));
        }
        worker_event::Kind::Dataset(report) => {
            observe::rejects(&report);
            let decide = move |training: &mut v1::Training| {
                training.dataset = Some(report.clone());
                Ok(event_change(Kind::DatasetScanned(report)))
            };
            update(inner, id, decide).await
        }
        worker_event::Kind::Init(init) => {
            let decide = move |training: &mut v1::Training| {
                training.init_source = init.source;
                Ok(Change::default())
            };
            update(inner, id, decide).await
        }
        worker_event::Kind::Epoch(done) => return epoch(inner, id, done).await,
        worker_event::Kind::Saved(saved) => return self::saved(inner, id, saved).await,
        worker_event::Kind::BegunAnew(anew) => {
            tracing::warn!(training = id, reason = anew.reason, "begins anew");
            let decide =
                |training: &mut v1::Training| Ok::<_, store::Error>(rewind(training, None));
            let applied = inner.store.update(id, decide).await;
            match applied {
                Ok(applied) => {
                    inner.discard(&applied.unreferenced).await;
                    Ok(())
                }
                Err(error) => Err(error),
            }
        }
        worker_event::Kind::Started(_)
        | worker_event::Kind::Beat(_)
        | worker_event::Kind::Span(_)
        | worker_event::Kind::Finished(_) => Ok(()),
    };
    recorded.map_err(|error| Unrecorded::of_store(&error))
}

async fn running(inner: &Inner, id: &str) -> Result<(), store::Error> {
    if inner.store.training(id).await?.state() != TrainingState::Preparing {
        return Ok(());
    }
    let decide = |training: &mut v1::Training| {
        if training.state() == TrainingState::Preparing {
            training.set_state(TrainingState::Running);
        }
        Ok(Change::default())
    };
    update(inner, id, decide).await?;
    inner.count_states().await;
    Ok(())
}

/// Records where the training can go on from now on, and removes where it could before.
async fn saved(inner: &Inner, id: &str, saved: Saved) -> Result<(), Unrecorded> {
    let point = saved.point.unwrap_or_default();
    let earlier = inner.store.resume_point(id).await;
    let file = point.file.clone();
    let decide = move |training: &mut v1::Training| {
        training.idle_starts = 0;
        Ok(Change {
            resume_point: Some(point),
            ..Change::default()
        })
    };
    update(inner, id, decide)
        .await
        .map_err(|error| Unrecorded::of_store(&error))?;
    if let Ok(Some(earlier)) = earlier
        && earlier.file != file
    {
        let path = inner.options.work_dir.join(id).join(earlier.file);
        if let Err(error) = fs_err::tokio::remove_file(&path).await {
            tracing::warn!(%error, "failed to remove an earlier full checkpoint");
        }
    }
    Ok(())
}

/// Takes over the checkpoint's files, then records the epoch together with them.
async fn epoch(inner: &Arc<Inner>, id: &str, done: EpochDone) -> Result<(), Unrecorded> {
    let metrics = done.metrics.unwrap_or_default();
    // Until the files are recorded nobody may take them for unused.
    let storing = inner.artifacts.block_gc().await;
    let mut files = Vec::with_capacity(done.files.len());
    for file in done.files {
        let path = PathBuf::from(&file.path);
        let stored = inner
            .artifacts
            .move_file(&path)
            .await
            .map_err(|error| Unrecorded::of_artifacts(&error))?;
        if stored.sha256 != file.sha256 {
            return Err(Unrecorded::ForGood(v1::Failure {
                reason: "CHECKPOINT_CORRUPT".to_owned(),
                message: format!(
                    "{} has the SHA-256 {} after it was written as {}",
                    file.name, stored.sha256, file.sha256
                ),
            }));
        }
        files.push(v1::CheckpointFile {
            name: file.name,
            size_bytes: stored.size,
            sha256: stored.sha256,
        });
    }
    observe::epoch(&metrics);
    // An epoch may be over before a report of its steps was due.
    running(inner, id)
        .await
        .map_err(|error| Unrecorded::of_store(&error))?;
    let decide = move |training: &mut v1::Training| {
        training.last = Some(metrics);
        if metrics.is_best {
            training.best = Some(metrics);
        }
        let mut change = event_change(Kind::EpochCompleted(metrics));
        if !files.is_empty() {
            change.events.push(Kind::CheckpointSaved(v1::Checkpoint {
                epoch: metrics.epoch,
                best: metrics.is_best,
                val_loss: metrics.val_loss,
                val_mae: metrics.val_mae,
                files,
                ..Default::default()
            }));
        }
        Ok::<_, store::Error>(change)
    };
    let applied = inner
        .store
        .update(id, decide)
        .await
        .map_err(|error| Unrecorded::of_store(&error))?;
    drop(storing);
    inner.discard(&applied.unreferenced).await;
    inner.event_files.epoch(&applied.training).await;
    Ok(())
}

impl Inner {
    /// Ends a training without a process that was asked to stop or to give up; others stay as they are.
    pub(super) async fn end_if_asked(&self, id: &str, state: TrainingState) -> Result<(), Error> {
        match matches!(state, TrainingState::Stopping | TrainingState::Cancelling) {
            true => self.end(id, Ending::Cancelled).await,
            false => Ok(()),
        }
    }

    /// Records how a training ended; a success publishes its best checkpoint in the same transaction.
    pub(super) fn end<'a>(
        &'a self,
        id: &'a str,
        ending: Ending,
    ) -> BoxFuture<'a, Result<(), Error>> {
        // It holds several trainings, which are large, and whoever waits for it would hold them too.
        Box::pin(self.end_boxed(id, ending))
    }

    async fn end_boxed(&self, id: &str, ending: Ending) -> Result<(), Error> {
        let training = self.store.training(id).await?;
        let (mut ending, mut publish, mut best) = (ending, None, None);
        let is_stopping = training.state() == TrainingState::Stopping;
        if is_stopping
            && matches!(ending, Ending::Cancelled)
            && self.store.best_checkpoint(id).await?.is_some()
        {
            // Stopped in the first epoch of a later start: the best checkpoint of an earlier one counts.
            ending = Ending::Succeeded {
                stop_reason: StopReason::UserStop,
                test: None,
            };
        }
        if let Ending::Succeeded { .. } = ending {
            let promotion = Spec::resolve(training.resolved_spec.as_ref())
                .map_or(Promotion::Never, |spec| spec.promote);
            let mut finished = training.clone();
            if finished.best.is_none() {
                // Its checkpoint is of an earlier start, whose figures are among the events.
                finished.best = self.store.best_metrics(id).await?;
            }
            best = finished.best;
            if let Ending::Succeeded { test, .. } = &ending {
                finished.test.clone_from(test);
            }
            match self.publisher.prepare(&finished, promotion).await {
                Ok(prepared) => publish = Some(prepared),
                Err(PublishError::Store(error))
                    if error.is_transient() || matches!(error, store::Error::DiskFull { .. }) =>
                {
                    return Err(error.into());
                }
                Err(PublishError::Artifacts(error))
                    if error.is_transient()
                        || matches!(error, artifacts::Error::DiskFull { .. }) =>
                {
                    return Err(error.into());
                }
                Err(error) => {
                    tracing::error!(training = id, %error, "the best checkpoint cannot be served");
                    ending = Ending::Failed {
                        stop_reason: StopReason::Internal,
                        failure: v1::Failure {
                            reason: "CHECKPOINT_UNUSABLE".to_owned(),
                            message: format!(
                                "the best checkpoint cannot be served: {}",
                                chain(&error)
                            ),
                        },
                    };
                }
            }
        }
        let decide = move |training: &mut v1::Training| {
            let mut change = Change::default();
            if is_final(training.state()) {
                return Ok::<_, store::Error>(change);
            }
            training.end_time = Some(SystemTime::now().into());
            // A cancel that was acknowledged wins over a success that came after it.
            let ending = if training.state() == TrainingState::Cancelling {
                Ending::Cancelled
            } else {
                ending
            };
            match ending {
                Ending::Succeeded { stop_reason, test } => {
                    training.set_state(TrainingState::Succeeded);
                    training.set_stop_reason(stop_reason);
                    change.events.extend(test.clone().map(Kind::TestEvaluated));
                    training.test = test;
                    training.best = training.best.or(best);
                    change.publish = publish;
                }
                Ending::Failed {
                    stop_reason,
                    failure,
                } => {
                    training.set_state(TrainingState::Failed);
                    training.set_stop_reason(stop_reason);
                    training.failure = Some(failure);
                }
                Ending::Cancelled => super::cancelled(training),
            }
            Ok(change)
        };
        let applied = self.store.update(id, decide).await?;
        let training = &applied.training;
        self.clear(id).await;
        observe::finished(training.stop_reason());
        self.count_states().await;
        tracing::info!(
            training = training.name,
            state = training.state().as_str_name(),
            stop_reason = training.stop_reason().as_str_name(),
            failure = training
                .failure
                .as_ref()
                .map(|failure| failure.message.as_str()),
            model_version = training.model_version,
            "ended"
        );
        Ok(())
    }
}

fn ending_of(finished: Finished) -> Ending {
    if finished.cancelled {
        return Ending::Cancelled;
    }
    let stop_reason = finished.stop_reason();
    match finished.failure {
        Some(failure) => Ending::Failed {
            stop_reason,
            failure,
        },
        None => Ending::Succeeded {
            stop_reason,
            test: finished.test,
        },
    }
}

async fn update<F>(inner: &Inner, id: &str, decide: F) -> Result<(), store::Error>
where
    F: FnOnce(&mut v1::Training) -> Result<Change, store::Error> + Send + 'static,
{
    inner.store.update(id, decide).await.map(|_| ())
}

fn event_change(kind: Kind) -> Change {
    Change {
        events: vec![kind],
        ..Change::default()
    }
}

impl Unrecorded {
    fn of_store(error: &store::Error) -> Self {
        let message = chain(error);
        if error.is_transient() {
            return Unrecorded::ForNow(message);
        }
        if matches!(error, store::Error::DiskFull { .. }) {
            return Unrecorded::ForGood(disk_full(&message));
        }
        Unrecorded::ForGood(v1::Failure {
            reason: "STORE".to_owned(),
            message,
        })
    }

    fn of_artifacts(error: &artifacts::Error) -> Self {
        let message = chain(error);
        if error.is_transient() {
            return Unrecorded::ForNow(message);
        }
        if matches!(error, artifacts::Error::DiskFull { .. }) {
            return Unrecorded::ForGood(disk_full(&message));
        }
        Unrecorded::ForGood(v1::Failure {
            reason: "ARTIFACTS".to_owned(),
            message,
        })
    }
}

fn is_disk_full(error: &Error) -> bool {
    let is_full = |error: &store::Error| matches!(error, store::Error::DiskFull { .. });
    match error {
        Error::Store(error) => is_full(error),
        Error::Artifacts(_) | Error::AlreadyEnded { .. } | Error::NotNow { .. } => false,
    }
}

fn disk_full(message: &str) -> v1::Failure {
    v1::Failure {
        reason: "DISK_FULL".to_owned(),
        message: message.to_owned(),
    }
}

/// How many processes the kernel has killed for want of memory since the machine started.
fn oom_kills() -> u64 {
    let text = fs_err::read_to_string("/proc/vmstat").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}
