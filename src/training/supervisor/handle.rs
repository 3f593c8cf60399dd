//! Requests of clients to the queue and to running trainings.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{
    access::Actor,
    artifacts::Artifacts,
    model::init::WeightSources,
    names::id_of,
    proto::v1::{self, TrainingState},
    store::{Change, Inserted, Kind, RequestId, Store, run_detached},
    training::{
        control::ControlSignal,
        spec::{self, Changes},
        weight_sources::weight_sources,
    },
};

use super::{
    Error, Publisher, SupervisorOptions,
    context::{Context, ProgressReports},
    finish::FinalState,
    state::{self, Trigger},
};

/// Handle to the queue of trainings; cheap to clone.
///
/// A request is carried out to its end even if the client stops waiting for it: it is recorded, and
/// the process is signalled. A request of a client that may not change the training is refused with
/// [`Error::NotOwner`].
#[derive(Clone)]
pub(crate) struct Supervisor {
    pub(super) context: Arc<Context>,
}

impl Supervisor {
    /// Creates a supervisor; [`Supervisor::run`] starts it.
    pub(crate) fn new(
        store: Store,
        artifacts: Artifacts,
        publisher: Arc<dyn Publisher>,
        options: SupervisorOptions,
    ) -> Self {
        Supervisor {
            context: Arc::new(Context::new(store, artifacts, publisher, options)),
        }
    }

    /// Puts a training into the queue.
    ///
    /// # Errors
    /// [`Error::DiskLow`]; see [`Store::insert_training`].
    pub(crate) async fn start(
        &self,
        training: v1::Training,
        request: Option<RequestId>,
    ) -> Result<v1::Training, Error> {
        self.detached(async move |context| {
            context.check_disk().await?;
            let limits = context.options.max_trainings;
            let inserted = context.store.insert_training(training, request, limits);
            let queued = match inserted.await? {
                Inserted::Replaced(training) => {
                    tracing::info!(
                        training = training.name,
                        "training queued in place of one that never started"
                    );
                    // Before the new training can write its own.
                    context.event_files.delete(id_of(&training.name)).await;
                    context.count_states().await;
                    training
                }
                Inserted::New(training) => {
                    tracing::info!(training = training.name, "training queued");
                    context.count_states().await;
                    training
                }
                Inserted::Existing(training) => training,
            };
            // For an existing training too: its first request may have stopped before the wake-up.
            context.wake.notify_one();
            Ok(queued)
        })
        .await
    }

    /// Returns whether [`Supervisor::start`] would accept a training with this id and owner now.
    ///
    /// # Errors
    /// [`Error::DiskLow`]; see [`Store::check_insertable`].
    pub(crate) async fn check_start(&self, id: &str, owner: &str) -> Result<(), Error> {
        self.context.check_disk().await?;
        let limits = self.context.options.max_trainings;
        Ok(self
            .context
            .store
            .check_insertable(id, owner, limits)
            .await?)
    }

    /// Returns the places where the worker processes look for initial weights.
    pub(crate) fn weight_sources(&self) -> WeightSources {
        let options = &self.context.options;
        weight_sources(&options.weights_roots, options.hub.clone())
    }

    /// Stops a training early and keeps its best checkpoint.
    ///
    /// # Errors
    /// A training that does not exist or has ended.
    pub(crate) async fn stop(&self, id: &str, by: Actor) -> Result<v1::Training, Error> {
        let trigger = |training: &v1::Training| Trigger::Stop {
            has_best: training.best.is_some(),
        };
        self.request(id, by, trigger, None).await
    }

    /// Pauses a training: it saves its state and releases the device.
    ///
    /// # Errors
    /// A training that does not exist, has ended or is stopping.
    pub(crate) async fn pause(&self, id: &str, by: Actor) -> Result<v1::Training, Error> {
        self.request(id, by, |_| Trigger::Pause, None).await
    }

    /// Puts a paused training back into the queue.
    ///
    /// # Errors
    /// A training that does not exist, has ended, is pausing or is stopping.
    pub(crate) async fn resume(&self, id: &str, by: Actor) -> Result<v1::Training, Error> {
        self.request(id, by, |_| Trigger::Resume, None).await
    }

    /// Stops a training without a result; with `force` its process is killed at once.
    ///
    /// # Errors
    /// A training that does not exist or has ended.
    pub(crate) async fn cancel(
        &self,
        id: &str,
        by: Actor,
        force: bool,
    ) -> Result<v1::Training, Error> {
        let signal = force.then_some(ControlSignal::Kill);
        self.request(id, by, |_| Trigger::Cancel, signal).await
    }

    /// Changes the spec of a training from its next epoch on.
    ///
    /// # Errors
    /// A training that does not exist or has ended.
    pub(crate) async fn change(
        &self,
        id: &str,
        by: Actor,
        changes: Changes,
    ) -> Result<v1::Training, Error> {
        let id = id.to_owned();
        self.detached(async move |context| {
            let decide = move |training: &mut v1::Training| {
                check_owner(training, &by)?;
                state::apply(training, Trigger::UpdateSpec)?;
                let spec = training.resolved_spec.get_or_insert_default();
                let changes = spec::change(spec, changes);
                if changes.is_empty() {
                    return Ok::<_, Error>(Change::default());
                }
                Ok(Change::from(Kind::SpecChanged(v1::SpecChanged {
                    reason: v1::SpecChangeReason::Requested.into(),
                    changes,
                })))
            };
            let applied = context.store.update(&id, decide).await?;
            context.spec_updated(&id);
            Ok(applied.training)
        })
        .await
    }

    /// Deletes an ended training, its event files and files that are no longer referenced.
    ///
    /// # Errors
    /// A training that does not exist or has not ended.
    pub(crate) async fn delete(&self, id: &str) -> Result<(), Error> {
        let id = id.to_owned();
        self.detached(async move |context| {
            let unreferenced = context.store.delete_training(&id).await?;
            context.discard(&unreferenced).await;
            context.event_files.delete(&id).await;
            context.count_states().await;
            Ok(())
        })
        .await
    }

    /// Latest progress report of a running training.
    pub(crate) fn progress(&self, id: &str) -> Option<v1::Progress> {
        self.context.progress.borrow().get(id).cloned()
    }

    /// Receives the progress reports of running trainings.
    pub(crate) fn follow_progress(&self) -> watch::Receiver<ProgressReports> {
        self.context.progress.subscribe()
    }

    /// Records a request, then signals the process. `signal` replaces the usual signal of the new
    /// state.
    async fn request(
        &self,
        id: &str,
        by: Actor,
        trigger: fn(&v1::Training) -> Trigger,
        signal: Option<ControlSignal>,
    ) -> Result<v1::Training, Error> {
        let id = id.to_owned();
        self.detached(async move |context| {
            let decide = move |training: &mut v1::Training| {
                check_owner(training, &by)?;
                let trigger = trigger(training);
                state::apply(training, trigger)?;
                Ok::<_, Error>(Change::default())
            };
            let training = context.store.update(&id, decide).await?.training;
            let state = training.state();
            if state == TrainingState::Queued {
                context.wake.notify_one();
            }
            context.count_states().await;
            context.remove_work_dir_if_ended(&training).await;
            let signal = signal.unwrap_or(state::signal(state));
            if !context.signal(&id, signal) && state::is_ending(state) {
                // No process will report an end.
                context.finish(&id, FinalState::Cancelled).await?;
                return Ok(context.store.training(&id).await?);
            }
            Ok(training)
        })
        .await
    }

    async fn detached<T, F>(&self, request: impl FnOnce(Arc<Context>) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        run_detached(Box::pin(request(Arc::clone(&self.context)))).await
    }
}

/// Refuses a client that may not change a training. In the transaction of the change, because
/// another training may replace it.
fn check_owner(training: &v1::Training, by: &Actor) -> Result<(), Error> {
    if by.may_change(&training.owner) {
        return Ok(());
    }
    Err(Error::NotOwner {
        name: training.name.clone(),
        owner: training.owner.clone(),
    })
}
