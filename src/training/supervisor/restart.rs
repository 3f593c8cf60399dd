//! Whether an interrupted training is started again, and from where.

use std::path::Path;

use crate::{
    artifacts, files,
    model::checkpoint::{MANIFEST_FILE, MODEL_FILE},
    names::CheckpointRef,
    proto::{
        v1::{self, StopReason, TrainingState},
        worker_v1::{Resume, ResumePoint},
    },
    store::{self, Change, Kind},
    telemetry::{logging::chain, metrics},
    training::spec::{Spec, halve_batch},
};

use super::{
    Error, Inner,
    run::{Death, Ending},
};

/// Why a training has no process any more although it has not ended.
pub(super) enum Cause {
    /// The server ended.
    Server,
    /// The process died or could not be trusted.
    Died(Death),
}

impl Inner {
    /// Puts an interrupted training back into the queue, or ends it when that was tried often enough.
    pub(super) async fn restart(&self, id: &str, cause: Cause) -> Result<(), Error> {
        let training = self.store.training(id).await?;
        let state = training.state();
        if matches!(state, TrainingState::Stopping | TrainingState::Cancelling) {
            // Stopped, it succeeds with its best checkpoint if it has one.
            return self.end_if_asked(id, state).await;
        }
        let limit = self.max_restarts(&training);
        let starts = training.idle_starts;
        if limit == 0 || starts > limit {
            return self.end(id, given_up(cause, starts, limit)).await;
        }
        match &cause {
            Cause::Server => tracing::warn!(
                training = id,
                starts,
                "was interrupted by the end of the server and is queued again"
            ),
            Cause::Died(death) => tracing::warn!(
                training = id,
                starts,
                death = death.message,
                "its process died; it is queued again"
            ),
        }
        metrics::training_worker_restarted();
        self.requeue(id, |_| Change::default()).await
    }

    /// Halves the batch of a training that ran out of memory and puts it back into the queue; false when it is to end instead.
    pub(super) async fn reduce_batch(&self, id: &str) -> Result<bool, Error> {
        let training = self.store.training(id).await?;
        let spec = training.resolved_spec.as_ref();
        let wants_it = Spec::resolve(spec).is_ok_and(|spec| spec.reduce_batch_on_oom);
        let Some(mut spec) = training.resolved_spec.filter(|_| wants_it) else {
            return Ok(false);
        };
        let Some(change) = halve_batch(&mut spec) else {
            return Ok(false);
        };
        tracing::warn!(
            training = id,
            before = change.before,
            after = change.after,
            "there is too little memory: the batch is halved"
        );
        let decide = move |training: &mut v1::Training| {
            training.resolved_spec = Some(spec);
            // It got nothing done for a reason that is gone.
            training.idle_starts = 0;
            Change {
                events: vec![Kind::SpecChanged(v1::SpecChanged {
                    reason: v1::SpecChangeReason::OutOfMemory.into(),
                    changes: vec![change],
                })],
                ..Change::default()
            }
        };
        self.requeue(id, decide).await?;
        Ok(true)
    }

    /// Puts a training without a process back into the queue with a change, unless it was asked for something else in the meantime or that is done.
    async fn requeue<F>(&self, id: &str, decide: F) -> Result<(), Error>
    where
        F: FnOnce(&mut v1::Training) -> Change + Send + 'static,
    {
        let decide = move |training: &mut v1::Training| {
            let state = match training.state() {
                TrainingState::Pausing => TrainingState::Paused,
                TrainingState::Unspecified | TrainingState::Preparing | TrainingState::Running => {
                    TrainingState::Queued
                }
                TrainingState::Queued
                | TrainingState::Paused
                | TrainingState::Stopping
                | TrainingState::Cancelling
                | TrainingState::Succeeded
                | TrainingState::Failed
                | TrainingState::Cancelled => return Ok::<_, store::Error>(Change::default()),
            };
            training.set_state(state);
            Ok(decide(training))
        };
        let state = self.store.update(id, decide).await?.training.state();
        self.count_states().await;
        self.end_if_asked(id, state).await
    }

    fn max_restarts(&self, training: &v1::Training) -> u32 {
        let spec = training.resolved_spec.as_ref();
        let policy = spec.and_then(|spec| spec.restart_policy);
        policy
            .and_then(|policy| policy.max_restarts)
            .unwrap_or(self.options.max_restarts)
    }

    /// What a process needs to go on where an earlier one was; `None` when it can only begin, because nothing is there or what is there is damaged.
    pub(super) async fn resume(&self, id: &str) -> Result<Option<Resume>, Error> {
        let found = match self.store.resume_point(id).await {
            Ok(None) => return Ok(None),
            Ok(Some(point)) => self.resume_at(id, point).await,
            Err(error) => Err(error.into()),
        };
        match found {
            Err(error) if is_lost(&error) => {
                tracing::warn!(training = id, error = %chain(&error), "the full checkpoint cannot be used: the training begins anew");
                Ok(None)
            }
            other => other,
        }
    }

    async fn resume_at(&self, id: &str, point: ResumePoint) -> Result<Option<Resume>, Error> {
        let path = self.options.work_dir.join(id).join(&point.file);
        if !fs_err::tokio::try_exists(&path).await.unwrap_or(false) {
            tracing::warn!(training = id, path = %path.display(), "the full checkpoint is gone: the training begins anew");
            return Ok(None);
        }
        let mut resume = Resume::default();
        if point.best_epoch > 0 {
            let which = CheckpointRef::Epoch(point.best_epoch);
            let checkpoint = self.store.checkpoint(id, which).await?;
            for file in checkpoint.files {
                let path = self.artifacts.local_file(&file.sha256).await?;
                let path = path.to_string_lossy().into_owned();
                match file.name.as_str() {
                    MODEL_FILE => (resume.best_path, resume.best_sha256) = (path, file.sha256),
                    MANIFEST_FILE => resume.best_manifest_path = path,
                    _ => {}
                }
            }
        }
        resume.point = Some(point);
        Ok(Some(resume))
    }
}

/// Whether an error says that something is gone or damaged, so that it would come again however often one tries.
fn is_lost(error: &Error) -> bool {
    let is_lost = |error: &store::Error| {
        matches!(
            error,
            store::Error::NotFound { .. } | store::Error::Damaged { .. }
        )
    };
    match error {
        Error::Store(error) => is_lost(error),
        Error::Artifacts(error) => matches!(
            error,
            artifacts::Error::NotFound { .. } | artifacts::Error::Corrupt { .. }
        ),
        Error::AlreadyEnded { .. } | Error::NotNow { .. } => false,
    }
}

/// Empties a work directory but for the full checkpoint to go on from, and makes its place durable.
pub(super) async fn tidy(work_dir: &Path, kept: Option<&ResumePoint>) -> std::io::Result<()> {
    let (work_dir, kept) = (work_dir.to_owned(), kept.map(|point| point.file.clone()));
    let tidy = move || {
        fs_err::create_dir_all(&work_dir)?;
        for entry in fs_err::read_dir(&work_dir)? {
            let entry = entry?;
            if Some(entry.file_name().to_string_lossy().as_ref()) == kept.as_deref() {
                continue;
            }
            match entry.file_type()?.is_dir() {
                true => fs_err::remove_dir_all(entry.path())?,
                false => fs_err::remove_file(entry.path())?,
            }
        }
        // The directory itself, the one of all trainings, and that one's place in the data directory may all be new.
        let above = work_dir.ancestors().skip(1).take(2);
        above
            .filter(|path| path.is_dir())
            .try_for_each(files::sync_directory)
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "files are what the blocking pool is for; starts are as rare as trainings"
    )]
    let tidied = tokio::task::spawn_blocking(tidy).await;
    tidied.unwrap_or_else(|panic| Err(std::io::Error::other(panic)))
}

fn given_up(cause: Cause, starts: u32, limit: u32) -> Ending {
    let (stop_reason, reason, message) = match cause {
        Cause::Died(death) if limit == 0 => (StopReason::WorkerDied, "WORKER_DIED", death.message),
        Cause::Died(death) => (
            StopReason::ServerRestartLimit,
            "SERVER_RESTART_LIMIT",
            format!(
                "{starts} starts in a row ended without a new full checkpoint and restart_policy.max_restarts is {limit}; the last time {}",
                death.message
            ),
        ),
        Cause::Server if limit == 0 => (
            StopReason::ServerRestartLimit,
            "SERVER_RESTART_LIMIT",
            "the server ended while the training ran, and restart_policy.max_restarts is 0; raise it to go on after that".to_owned(),
        ),
        Cause::Server => (
            StopReason::ServerRestartLimit,
            "SERVER_RESTART_LIMIT",
            format!(
                "{starts} starts in a row ended without a new full checkpoint, the last one with the server; restart_policy.max_restarts is {limit}"
            ),
        ),
    };
    Ending::Failed {
        stop_reason,
        failure: v1::Failure {
            reason: reason.to_owned(),
            message,
        },
    }
}
