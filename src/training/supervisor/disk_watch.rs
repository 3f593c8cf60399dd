//! Trainings on a disk with too little space: they pause, and resume when there is room again.

use std::{
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    disk::DiskLow,
    names::id_of,
    proto::v1::{self, TrainingState},
    store::Change,
    telemetry::{logging::chain, metrics},
};

use super::{
    Error, Supervisor,
    cleanup::clean_work_dir,
    context::Context,
    metrics as training_metrics,
    state::{self, Trigger},
};

/// Interval of the queries.
const INTERVAL: Duration = Duration::from_secs(2);
/// Wait before a training that met a full disk is tried again although no space was freed: a quota
/// may be full that the free space does not show.
const FULL_PAUSE: Duration = Duration::from_secs(60);

/// Reasons of a training that is paused until there is room.
pub(super) const DISK_LOW: &str = "DISK_LOW";
pub(super) const DISK_FULL: &str = "DISK_FULL";

/// What is known about the disk.
pub(super) struct DiskWatch {
    low: watch::Sender<Option<DiskLow>>,
    /// True if trainings may be paused for lack of space.
    has_suspended: AtomicBool,
    /// The last write that met a full disk.
    full: Mutex<Option<Full>>,
}

struct Full {
    at: Instant,
    /// Free bytes at that time.
    free: u64,
}

impl Default for DiskWatch {
    fn default() -> Self {
        Self {
            low: watch::Sender::default(),
            // An earlier server may have paused some.
            has_suspended: AtomicBool::new(true),
            full: Mutex::default(),
        }
    }
}

impl DiskWatch {
    /// Changes when the space falls below the minimum, and when there is room again.
    pub(super) fn subscribe(&self) -> watch::Receiver<Option<DiskLow>> {
        self.low.subscribe()
    }

    fn is_blocked(&self, free: u64) -> bool {
        let full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        full.as_ref()
            .is_some_and(|full| free <= full.free && full.at.elapsed() < FULL_PAUSE)
    }
}

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
        self.disk_watch.low.send_if_modified(|low| {
            let found = match disk.judge(free, 0) {
                Err(found) => Some(found),
                // Above the minimum, but not enough to continue.
                Ok(()) if !has_room => *low,
                Ok(()) => None,
            };
            let is_changed = found.is_some() != low.is_some();
            if is_changed && let Some(found) = &found {
                tracing::warn!(%found, "the running training is paused until there is room");
            }
            *low = found;
            is_changed
        });
        if has_room
            && !self.disk_watch.is_blocked(free)
            && self.disk_watch.has_suspended.load(Ordering::Acquire)
            && let Err(error) = self.resume_suspended().await
        {
            tracing::warn!(error = %chain(&error), "failed to resume the trainings that wait for disk space; trying again");
        }
    }

    async fn resume_suspended(&self) -> Result<(), Error> {
        // Before the trainings are read, so that one that is paused meanwhile is not missed.
        self.disk_watch
            .has_suspended
            .store(false, Ordering::Release);
        let resumed = self.resume_all().await;
        if resumed.is_err() {
            self.disk_watch.has_suspended.store(true, Ordering::Release);
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
            let mut full = self
                .disk_watch
                .full
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *full = Some(Full {
                at: Instant::now(),
                free,
            });
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
        self.disk_watch.has_suspended.store(true, Ordering::Release);
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
