//! The queue of trainings and the processes that run them.
//!
//! State lives in the store alone: every transition is decided inside a transaction that sees the training as it is, so that a stop, a
//! finish and a crash that race end in one of their outcomes and never between them. The process is never trusted: exit, signal, a frame that does
//! not parse, silence and lack of progress each end in a recorded state with a stop reason.
//!
//! - this file: what clients ask for, and the loop that takes the next training from the queue.
//! - `child`: one process: its pipes, its signs of life, its end.
//! - `run`: one training: from PREPARING to a final state, a pause or another start.
//! - `restart`: whether an interrupted training is started again, and from where.
//! - `observe`: what the metrics say about it. `spans`: what its trace is told.
//! - `orphans`: processes that an earlier server left behind.
//! - `reserve`: room for the last word on a full disk.
//! - `tensorboard`: event files about the epochs, for TensorBoard.

mod child;
mod observe;
mod orphans;
mod publisher;
mod reserve;
mod restart;
mod run;
mod spans;
mod tensorboard;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub use self::publisher::{PublishError, Publisher};
use self::{reserve::Reserve, tensorboard::EventFiles};
use crate::{
    artifacts::{self, Artifacts},
    imaging::Limits,
    names::{id_of, of_state},
    proto::{
        v1::{self, StopReason, TrainingState},
        worker_v1,
    },
    store::{self, Change, Inserted, RequestId, Store, is_final, run_detached},
    telemetry::{logging::chain, traces::Traces},
    training::spec::{self, Changes},
};

/// Between two tries of what the database or the disk refused.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// How trainings are run.
#[derive(Debug, Clone)]
pub struct SupervisorOptions {
    /// Directory for the files of running trainings.
    pub work_dir: PathBuf,
    /// File that keeps some room on the database's disk.
    pub reserve_file: PathBuf,
    /// Directory for TensorBoard's event files, a directory in it for each training; `None` for no such files.
    pub event_directory: Option<PathBuf>,
    /// Command put before the worker's own, such as `mpirun -np 4`.
    pub launcher: Vec<String>,
    /// Longest time without a sign of life.
    pub silence_timeout: Duration,
    /// Longest time without anything done.
    pub stall_timeout: Duration,
    /// How long a process may take to end when asked.
    pub grace: Duration,
    /// Starts in a row without a new full checkpoint that are tried again, where the spec says nothing.
    pub max_restarts: u32,
    /// Trainings that may wait.
    pub max_queued: usize,
    /// `cpu`, `cuda:N` or `auto`.
    pub device: String,
    /// Threads of the processor; 0 for all.
    pub threads: u32,
    /// By how much a training gives way to predictions, as `nice` takes it, 0 to 19; 20 for only what nobody else wants.
    pub nice: u32,
    /// Directories under which images may be read.
    pub data_roots: Vec<String>,
    /// Directories in which named weights are looked for.
    pub weights_roots: Vec<String>,
    /// How the hub is reached.
    pub hub: worker_v1::HubAccess,
    /// Limits on one image.
    pub limits: Limits,
    /// Where the spans of trainings go that were started by a traced call.
    pub traces: Traces,
}

/// Failures of what clients ask for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The stored files.
    #[error(transparent)]
    Artifacts(#[from] artifacts::Error),
    /// The training has ended.
    #[error("{name} has already ended as {}", of_state(*.state))]
    AlreadyEnded {
        /// `trainings/{id}`.
        name: String,
        /// The final state.
        state: TrainingState,
    },
    /// The training is about to end or to pause, so it cannot be asked for something else.
    #[error("{name} is {}; it cannot be {wanted} now", of_state(*.state))]
    NotNow {
        /// `trainings/{id}`.
        name: String,
        /// How it stands.
        state: TrainingState,
        /// What was asked for, as a participle.
        wanted: &'static str,
    },
}

/// Cheap to clone. What a client asks for is done to its end although the client may leave: recorded, and told to the process.
#[derive(Clone)]
pub struct Supervisor {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    artifacts: Artifacts,
    publisher: Arc<dyn Publisher>,
    options: SupervisorOptions,
    wake: Notify,
    reserve: Reserve,
    event_files: EventFiles,
    running: Mutex<Option<Running>>,
    progress: watch::Sender<Latest>,
}

/// The training that runs now.
struct Running {
    id: String,
    wishes: watch::Sender<Wish>,
    /// Counts the changes of its spec.
    changes: watch::Sender<u64>,
}

/// What clients want of a running training; the strongest wish counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wish {
    GoOn,
    Pause,
    Stop,
    Cancel,
    Kill,
}

/// The latest progress report of each running training, by id.
pub type Latest = HashMap<String, v1::Progress>;

impl Supervisor {
    /// A supervisor that does nothing before [`Supervisor::run`].
    pub fn new(
        store: Store,
        artifacts: Artifacts,
        publisher: Arc<dyn Publisher>,
        options: SupervisorOptions,
    ) -> Self {
        let reserve = Reserve::new(options.reserve_file.clone());
        let event_files = EventFiles::new(options.event_directory.clone());
        Supervisor {
            inner: Arc::new(Inner {
                store,
                artifacts,
                publisher,
                options,
                reserve,
                event_files,
                wake: Notify::new(),
                running: Mutex::new(None),
                progress: watch::Sender::new(Latest::new()),
            }),
        }
    }

    /// Puts a training into the queue.
    ///
    /// # Errors
    /// See [`Store::insert_training`].
    pub async fn start(
        &self,
        training: v1::Training,
        request: Option<RequestId>,
    ) -> Result<v1::Training, Error> {
        let this = self.clone();
        run_detached(Box::pin(
            async move { this.start_now(training, request).await },
        ))
        .await
    }

    async fn start_now(
        &self,
        training: v1::Training,
        request: Option<RequestId>,
    ) -> Result<v1::Training, Error> {
        let inner = &self.inner;
        let limit = inner.options.max_queued;
        let inserted = inner.store.insert_training(training, request, limit);
        let inserted = inserted.await?;
        // For one that exists too: a call too many costs the loop a look at the queue, a missing one leaves the training there.
        inner.wake.notify_one();
        match inserted {
            Inserted::New(training) => {
                tracing::info!(training = training.name, "queued");
                inner.count_states().await;
                Ok(training)
            }
            Inserted::Existing(training) => Ok(training),
        }
    }

    /// Whether [`Supervisor::start`] would take a training of this id now.
    ///
    /// # Errors
    /// See [`Store::check_insertable`].
    pub async fn check_start(&self, id: &str) -> Result<(), Error> {
        let limit = self.inner.options.max_queued;
        Ok(self.inner.store.check_insertable(id, limit).await?)
    }

    /// Asks a training to end early and keep its best checkpoint.
    ///
    /// # Errors
    /// A training that does not exist or has ended.
    pub async fn stop(&self, id: &str) -> Result<v1::Training, Error> {
        let (this, id) = (self.clone(), id.to_owned());
        run_detached(Box::pin(async move { this.stop_now(&id).await })).await
    }

    async fn stop_now(&self, id: &str) -> Result<v1::Training, Error> {
        let decide = |training: &mut v1::Training| {
            match training.state() {
                // Without a process and without a checkpoint there is nothing to wait for and nothing to keep.
                TrainingState::Queued | TrainingState::Paused if training.best.is_none() => {
                    cancelled(training);
                }
                TrainingState::Unspecified
                | TrainingState::Queued
                | TrainingState::Paused
                | TrainingState::Preparing
                | TrainingState::Running
                | TrainingState::Pausing => training.set_state(TrainingState::Stopping),
                TrainingState::Stopping | TrainingState::Cancelling => {}
                TrainingState::Succeeded | TrainingState::Failed | TrainingState::Cancelled => {
                    return Err(already_ended(training));
                }
            }
            Ok(Change::default())
        };
        let applied = self.inner.store.update(id, decide).await?;
        self.inner.count_states().await;
        self.inner.clear_if_ended(&applied.training).await;
        if applied.training.state() == TrainingState::Stopping && !self.wish(id, Wish::Stop) {
            self.inner.end(id, run::Ending::Cancelled).await?;
            return Ok(self.inner.store.training(id).await?);
        }
        Ok(applied.training)
    }

    /// Asks a training to keep all it has and let go of the device.
    ///
    /// # Errors
    /// A training that does not exist, has ended or was asked to end.
    pub async fn pause(&self, id: &str) -> Result<v1::Training, Error> {
        let (this, id) = (self.clone(), id.to_owned());
        run_detached(Box::pin(async move { this.pause_now(&id).await })).await
    }

    async fn pause_now(&self, id: &str) -> Result<v1::Training, Error> {
        let decide = |training: &mut v1::Training| {
            match training.state() {
                TrainingState::Queued => training.set_state(TrainingState::Paused),
                TrainingState::Unspecified | TrainingState::Preparing | TrainingState::Running => {
                    training.set_state(TrainingState::Pausing);
                }
                TrainingState::Pausing | TrainingState::Paused => {}
                TrainingState::Stopping | TrainingState::Cancelling => {
                    return Err(not_now(training, "paused"));
                }
                TrainingState::Succeeded | TrainingState::Failed | TrainingState::Cancelled => {
                    return Err(already_ended(training));
                }
            }
            Ok(Change::default())
        };
        let applied = self.inner.store.update(id, decide).await?;
        self.inner.count_states().await;
        if applied.training.state() == TrainingState::Pausing {
            self.wish(id, Wish::Pause);
        }
        Ok(applied.training)
    }

    /// Puts a paused training back into the queue.
    ///
    /// # Errors
    /// A training that does not exist, has ended, is about to pause or was asked to end.
    pub async fn resume(&self, id: &str) -> Result<v1::Training, Error> {
        let (this, id) = (self.clone(), id.to_owned());
        run_detached(Box::pin(async move { this.resume_now(&id).await })).await
    }

    async fn resume_now(&self, id: &str) -> Result<v1::Training, Error> {
        let decide = |training: &mut v1::Training| {
            match training.state() {
                TrainingState::Paused => training.set_state(TrainingState::Queued),
                TrainingState::Unspecified
                | TrainingState::Queued
                | TrainingState::Preparing
                | TrainingState::Running => {}
                TrainingState::Pausing | TrainingState::Stopping | TrainingState::Cancelling => {
                    return Err(not_now(training, "resumed"));
                }
                TrainingState::Succeeded | TrainingState::Failed | TrainingState::Cancelled => {
                    return Err(already_ended(training));
                }
            }
            Ok(Change::default())
        };
        let applied = self.inner.store.update(id, decide).await?;
        self.inner.wake.notify_one();
        self.inner.count_states().await;
        Ok(applied.training)
    }

    /// Changes the spec of a training that has not ended, from its next epoch on.
    ///
    /// # Errors
    /// A training that does not exist or has ended.
    pub async fn change(&self, id: &str, changes: Changes) -> Result<v1::Training, Error> {
        let (this, id) = (self.clone(), id.to_owned());
        run_detached(Box::pin(async move { this.change_now(&id, changes).await })).await
    }

    async fn change_now(&self, id: &str, changes: Changes) -> Result<v1::Training, Error> {
        let decide = move |training: &mut v1::Training| {
            if is_final(training.state()) {
                return Err(already_ended(training));
            }
            let spec = training.resolved_spec.get_or_insert_default();
            let changed = spec::change(spec, changes);
            let mut change = Change::default();
            if !changed.is_empty() {
                change
                    .events
                    .push(store::Kind::SpecChanged(v1::SpecChanged {
                        reason: v1::SpecChangeReason::Requested.into(),
                        changes: changed,
                    }));
            }
            Ok(change)
        };
        let applied = self.inner.store.update(id, decide).await?;
        if let Some(running) = self.running().as_ref().filter(|running| running.id == id) {
            running.changes.send_modify(|count| *count += 1);
        }
        Ok(applied.training)
    }

    /// Asks a training to give up; with `force` its process is killed.
    ///
    /// # Errors
    /// A training that does not exist or has ended.
    pub async fn cancel(&self, id: &str, force: bool) -> Result<v1::Training, Error> {
        let (this, id) = (self.clone(), id.to_owned());
        run_detached(Box::pin(async move { this.cancel_now(&id, force).await })).await
    }

    async fn cancel_now(&self, id: &str, force: bool) -> Result<v1::Training, Error> {
        let decide = |training: &mut v1::Training| {
            match training.state() {
                TrainingState::Queued | TrainingState::Paused => cancelled(training),
                TrainingState::Unspecified
                | TrainingState::Preparing
                | TrainingState::Running
                | TrainingState::Pausing
                | TrainingState::Stopping => training.set_state(TrainingState::Cancelling),
                TrainingState::Cancelling => {}
                TrainingState::Succeeded | TrainingState::Failed | TrainingState::Cancelled => {
                    return Err(already_ended(training));
                }
            }
            Ok(Change::default())
        };
        let applied = self.inner.store.update(id, decide).await?;
        self.inner.count_states().await;
        self.inner.clear_if_ended(&applied.training).await;
        let wish = if force { Wish::Kill } else { Wish::Cancel };
        if applied.training.state() == TrainingState::Cancelling && !self.wish(id, wish) {
            self.inner.end(id, run::Ending::Cancelled).await?;
            return Ok(self.inner.store.training(id).await?);
        }
        Ok(applied.training)
    }

    /// Deletes an ended training, its event files and those files that nothing uses any more.
    ///
    /// # Errors
    /// A training that does not exist or has not ended.
    pub async fn delete(&self, id: &str) -> Result<(), Error> {
        let (this, id) = (self.clone(), id.to_owned());
        run_detached(Box::pin(async move { this.delete_now(&id).await })).await
    }

    async fn delete_now(&self, id: &str) -> Result<(), Error> {
        let unreferenced = self.inner.store.delete_training(id).await?;
        self.inner.discard(&unreferenced).await;
        self.inner.event_files.delete(id).await;
        self.inner.count_states().await;
        Ok(())
    }

    /// The latest progress report of a running training.
    pub fn progress(&self, id: &str) -> Option<v1::Progress> {
        self.inner.progress.borrow().get(id).cloned()
    }

    /// Changes whenever a running training reports progress.
    pub fn follow_progress(&self) -> watch::Receiver<Latest> {
        self.inner.progress.subscribe()
    }

    /// Accounts for what an earlier server left behind, then runs one training after the other until the token is cancelled.
    ///
    /// # Errors
    /// A database or disk that fails while the past is accounted for.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), Error> {
        let live = self.inner.store.live_trainings().await?;
        let live = live.iter().map(|training| id_of(&training.name).to_owned());
        let options = &self.inner.options;
        orphans::end_all(&options.work_dir, &live.collect(), options.grace).await;
        self.recover().await?;
        loop {
            self.inner.count_states().await;
            let next = match self.next().await {
                Ok(next) => next,
                Err(error) => {
                    tracing::error!(error = %chain(&error), "failed to take the next training from the queue; trying again");
                    tokio::select! {
                        () = tokio::time::sleep(RETRY_PAUSE) => {}
                        () = shutdown.cancelled() => return Ok(()),
                    }
                    continue;
                }
            };
            match next {
                Some(id) => self.run_one(&id, &shutdown).await,
                None => tokio::select! {
                    () = self.inner.wake.notified() => {}
                    () = shutdown.cancelled() => {}
                },
            }
            if shutdown.is_cancelled() {
                return Ok(());
            }
        }
    }

    /// The training to run next. None runs now, so those that were asked to end have nobody else who ends them: the request came when their process
    /// was gone and nothing was recorded yet.
    async fn next(&self) -> Result<Option<String>, Error> {
        for training in self.inner.store.live_trainings().await? {
            let id = id_of(&training.name);
            self.inner.end_if_asked(id, training.state()).await?;
        }
        Ok(self.inner.store.queue().await?.into_iter().next())
    }

    async fn run_one(&self, id: &str, shutdown: &CancellationToken) {
        let (wishes, wished) = watch::channel(Wish::GoOn);
        let (changes, changed) = watch::channel(0);
        *self.running() = Some(Running {
            id: id.to_owned(),
            wishes,
            changes,
        });
        let training = run::training(&self.inner, id, (wished, changed), shutdown);
        let outcome = Box::pin(training).await;
        *self.running() = None;
        self.inner.progress.send_modify(|latest| {
            latest.remove(id);
        });
        if let Err(error) = outcome {
            tracing::error!(training = id, error = %chain(&error), "failed to record what became of the training");
            // The database fails, most likely for want of disk; a tight loop would not help it.
            tokio::select! {
                () = tokio::time::sleep(RETRY_PAUSE) => {}
                () = shutdown.cancelled() => {}
            }
        }
    }

    /// Decides what becomes of trainings that were live when the server ended.
    async fn recover(&self) -> Result<(), Error> {
        for training in self.inner.store.live_trainings().await? {
            let id = id_of(&training.name).to_owned();
            match training.state() {
                TrainingState::Queued | TrainingState::Paused => {}
                TrainingState::Cancelling => {
                    self.inner.end(&id, run::Ending::Cancelled).await?;
                }
                TrainingState::Stopping => {
                    // Succeeds with its best checkpoint if it has one.
                    self.inner.end(&id, run::Ending::Cancelled).await?;
                }
                TrainingState::Pausing => {
                    let decide = |training: &mut v1::Training| {
                        training.set_state(TrainingState::Paused);
                        Ok::<_, store::Error>(Change::default())
                    };
                    self.inner.store.update(&id, decide).await?;
                }
                TrainingState::Unspecified
                | TrainingState::Preparing
                | TrainingState::Running
                | TrainingState::Succeeded
                | TrainingState::Failed
                | TrainingState::Cancelled => {
                    self.inner.restart(&id, restart::Cause::Server).await?;
                }
            }
        }
        Ok(())
    }

    /// Tells the one who follows the training's process what is wanted; false when there is none.
    fn wish(&self, id: &str, wish: Wish) -> bool {
        let running = self.running();
        let Some(running) = running.as_ref().filter(|running| running.id == id) else {
            return false;
        };
        running.wishes.send_if_modified(|strongest| {
            let is_stronger = wish > *strongest;
            *strongest = wish.max(*strongest);
            is_stronger
        });
        true
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
        self.inner
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Removes stored files that nothing uses any more; a failure costs disk only and the next start tries again.
    async fn discard(&self, digests: &[String]) {
        if digests.is_empty() {
            return;
        }
        // Nobody is between storing the same bytes and recording them while this is held, so what is unused now stays unused.
        let _nobody_stores = self.artifacts.lock_for_gc().await;
        for digest in digests {
            let removed = match self.store.is_referenced(digest).await {
                Ok(true) => continue,
                Ok(false) => self.artifacts.delete(digest).await.map_err(Error::from),
                Err(error) => Err(error.into()),
            };
            if let Err(error) = removed {
                tracing::warn!(digest, error = %chain(&error), "failed to remove an unused file");
            }
        }
    }

    /// Removes the work directory of a training that has ended.
    async fn clear_if_ended(&self, training: &v1::Training) {
        if is_final(training.state()) {
            self.clear(id_of(&training.name)).await;
        }
    }

    /// Removes the work directory of a training.
    async fn clear(&self, id: &str) {
        let work_dir = self.options.work_dir.join(id);
        match fs_err::tokio::remove_dir_all(&work_dir).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, "failed to remove the files of a training");
            }
            _ => {}
        }
    }

    async fn count_states(&self) {
        match self.store.count_states().await {
            Ok(counts) => observe::states(&counts),
            Err(error) => tracing::warn!(%error, "failed to count the trainings"),
        }
    }
}

fn cancelled(training: &mut v1::Training) {
    training.set_state(TrainingState::Cancelled);
    training.set_stop_reason(StopReason::UserStop);
    training.end_time = Some(std::time::SystemTime::now().into());
}

fn not_now(training: &v1::Training, wanted: &'static str) -> Error {
    Error::NotNow {
        name: training.name.clone(),
        state: training.state(),
        wanted,
    }
}

fn already_ended(training: &v1::Training) -> Error {
    debug_assert!(is_final(training.state()));
    Error::AlreadyEnded {
        name: training.name.clone(),
        state: training.state(),
    }
}
