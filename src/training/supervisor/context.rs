//! Handles and state shared by the parts of the supervisor.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, watch};

use crate::{
    artifacts::Artifacts,
    proto::v1,
    store::{self, Change, Store},
    training::{control::ControlSignal, tensorboard::EventFiles},
};

use super::{Publisher, SupervisorOptions, disk_state::DiskState, metrics, reserve::Reserve};

/// Wait before the next attempt on a database or disk that failed.
pub(super) const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Latest progress report of each running training, by id.
pub(crate) type ProgressReports = HashMap<String, v1::Progress>;

pub(super) struct Context {
    pub(super) store: Store,
    pub(super) artifacts: Artifacts,
    pub(super) publisher: Arc<dyn Publisher>,
    pub(super) options: SupervisorOptions,
    /// Wakes the scheduler when the queue may have changed.
    pub(super) wake: Notify,
    pub(super) reserve: Reserve,
    pub(super) event_files: EventFiles,
    pub(super) progress: watch::Sender<ProgressReports>,
    pub(super) disk_state: DiskState,
    running: Mutex<Option<Running>>,
}

/// The training that has a process.
struct Running {
    id: String,
    signal: watch::Sender<ControlSignal>,
    /// Number of updates of the spec.
    updates: watch::Sender<u64>,
}

/// Requests to a running training, received by the task that follows its process.
pub(super) struct Requests {
    pub(super) signal: watch::Receiver<ControlSignal>,
    pub(super) updates: watch::Receiver<u64>,
}

impl Context {
    pub(super) fn new(
        store: Store,
        artifacts: Artifacts,
        publisher: Arc<dyn Publisher>,
        options: SupervisorOptions,
    ) -> Self {
        Context {
            store,
            artifacts,
            publisher,
            reserve: Reserve::new(options.reserve_file.clone()),
            event_files: EventFiles::new(options.event_directory.clone()),
            options,
            wake: Notify::new(),
            progress: watch::Sender::default(),
            disk_state: DiskState::default(),
            running: Mutex::default(),
        }
    }

    /// Marks a training as running, so that requests reach it.
    pub(super) fn set_running(&self, id: &str) -> Requests {
        let (signal, updates) = (watch::Sender::default(), watch::Sender::default());
        let requests = Requests {
            signal: signal.subscribe(),
            updates: updates.subscribe(),
        };
        *self.running() = Some(Running {
            id: id.to_owned(),
            signal,
            updates,
        });
        requests
    }

    pub(super) fn clear_running(&self, id: &str) {
        *self.running() = None;
        self.progress.send_modify(|reports| {
            reports.remove(id);
        });
    }

    /// Signals the task that follows the training's process; false if there is no such task.
    pub(super) fn signal(&self, id: &str, signal: ControlSignal) -> bool {
        let running = self.running();
        let Some(running) = running.as_ref().filter(|running| running.id == id) else {
            return false;
        };
        running.signal.send_if_modified(|strongest| {
            let is_stronger = signal > *strongest;
            *strongest = signal.max(*strongest);
            is_stronger
        });
        true
    }

    /// Has the spec of a running training sent to its process again.
    pub(super) fn spec_updated(&self, id: &str) {
        if let Some(running) = self.running().as_ref().filter(|running| running.id == id) {
            running.updates.send_modify(|count| *count += 1);
        }
    }

    pub(super) async fn update<F>(&self, id: &str, decide: F) -> Result<v1::Training, store::Error>
    where
        F: FnOnce(&mut v1::Training) -> Change + Send + 'static,
    {
        let decide = |training: &mut v1::Training| Ok::<_, store::Error>(decide(training));
        let applied = self.store.update(id, decide).await?;
        self.discard(&applied.unreferenced).await;
        Ok(applied.training)
    }

    pub(super) async fn count_states(&self) {
        match self.store.count_states().await {
            Ok(counts) => metrics::states(&counts),
            Err(error) => tracing::warn!(%error, "failed to count the trainings"),
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
