//! Trainings on a disk with too little space: they pause, and resume when there is room again.

use std::{io, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    names::id_of,
    proto::v1::{self, TrainingState},
    store::Change,
    telemetry::{logging::chain, metrics},
};

use super::{
    Error, Supervisor,
    cleanup::clean_work_dir,
    context::Context,
    disk_state::{DISK_FULL, DISK_LOW},
    metrics as training_metrics,
    state::{self, Trigger},
};

/// Interval of the queries.
const INTERVAL: Duration = Duration::from_secs(2);
impl Supervisor {
    /// Observes the disk until the token is cancelled.
    pub(crate) async fn watch_disk(&self, shutdown: CancellationToken) {
        let mut interval = tokio::time::interval(INTERVAL);
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                () = shutdown.cancelled() => return,
            }
            match self.context.free_disk().await {
                Ok(free) => Box::pin(self.context.observe_disk(free)).await,
                Err(error) => tracing::warn!(%error, "failed to query the free disk space"),
            }
        }
    }
}

impl Context {
    #[expect(
        clippy::disallowed_methods,
        reason = "the blocking pool is for file operations; each start of a training asks once"
    )]
    pub(super) async fn free_disk(&self) -> io::Result<u64> {
        let disk = self.options.disk.clone();
        let free = tokio::task::spawn_blocking(move || disk.free()).await;
        free.unwrap_or_else(|panic| Err(io::Error::other(panic)))
    }

    /// Checks that a training may start.
    pub(super) async fn check_disk(&self) -> Result<(), Error> {
        let free = self.free_disk().await?;
        Ok(self.options.disk.judge(free, 0)?)
    }

    /// Publishes whether the space is low, and resumes trainings when there is room again.
    async fn observe_disk(&self, free: u64) {
        metrics::disk_free(free);
        let disk = &self.options.disk;
        let has_room = disk.has_room_again(free);
        self.disk_state.publish(|low| match disk.judge(free, 0) {
            Err(found) => Some(found),
            // Above the minimum, but not enough to continue.
            Ok(()) if !has_room => low,
            Ok(()) => None,
        });
        if has_room
            && !self.disk_state.is_blocked(free)
            && self.disk_state.has_suspended()
            && let Err(error) = self.resume_suspended().await
        {
            tracing::warn!(error = %chain(&error), "failed to resume the trainings that wait for disk space; trying again");
        }
    }

    async fn resume_suspended(&self) -> Result<(), Error> {
        // Before the trainings are read, so that one that is paused meanwhile is not missed.
        self.disk_state.set_suspended(false);
        let resumed = self.resume_all().await;
        if resumed.is_err() {
            self.disk_state.set_suspended(true);
        }
        resumed
    }

    async fn resume_all(&self) -> Result<(), Error> {
        for training in self.store.live_trainings().await? {
            if !is_suspended(&training) {
                continue;
            }
            let id = id_of(&training.name);
            let decide = |training: &mut v1::Training| {
                if is_suspended(training) {
                    // A paused training accepts it.
                    drop(state::apply(training, Trigger::Resume));
                }
                Change::default()
            };
            self.update(id, decide).await?;
            tracing::info!(
                training = id,
                "there is room on the disk again; training queued"
            );
            self.wake.notify_one();
        }
        self.count_states().await;
        Ok(())
    }

    /// Pauses a training whose process is gone, until there is room on the disk.
    pub(super) async fn suspend(&self, id: &str, failure: &v1::Failure) -> Result<(), Error> {
        if failure.reason == DISK_FULL {
            let free = self.free_disk().await.unwrap_or(0);
            self.disk_state.record_full(free);
        }
        let mut reason = failure.clone();
        if reason.reason == DISK_FULL {
            reason.message = format!(
                "the disk is full: {}; the training resumes when there is room",
                failure.message
            );
        }
        let decide = move |training: &mut v1::Training| {
            // A client that asked for the pause resumes it too.
            let is_requested = training.state() == TrainingState::Pausing;
            if state::apply(training, Trigger::Suspend).is_ok() {
                training.idle_starts = 0;
                training.failure = (!is_requested).then_some(reason);
            }
            Change::default()
        };
        // Frees the space of unfinished files before the record needs some.
        let point = self.store.resume_point(id).await?;
        let work_dir = self.options.work_dir.join(id);
        if let Err(error) = clean_work_dir(&work_dir, point.as_ref()).await {
            tracing::warn!(training = id, %error, "failed to clean the work directory of a paused training");
        }
        let state = self.update(id, decide).await?.state();
        self.disk_state.set_suspended(true);
        training_metrics::paused();
        self.count_states().await;
        tracing::warn!(
            training = id,
            reason = failure.reason,
            cause = failure.message,
            "training paused until there is room on the disk"
        );
        self.finish_if_requested(id, state).await
    }
}

/// Returns true for a training that is paused for lack of disk space.
fn is_suspended(training: &v1::Training) -> bool {
    let failure = training.failure.as_ref();
    training.state() == TrainingState::Paused
        && failure.is_some_and(|failure| [DISK_LOW, DISK_FULL].contains(&&*failure.reason))
}
