//! The scheduler: recovers trainings of an earlier server, then runs the queue one by one.

use tokio_util::sync::CancellationToken;

use crate::{
    names::id_of,
    proto::v1::{self, TrainingState},
    store::Change,
    telemetry::logging::chain,
};

use super::{
    Error, Supervisor, attempt,
    context::{Context, RETRY_PAUSE},
    orphans,
    restart::Cause,
    state::{self, Trigger},
};

impl Supervisor {
    /// Recovers the trainings of an earlier server, then runs the queue until the token is
    /// cancelled.
    ///
    /// # Errors
    /// A failure of the database or the disk during recovery.
    pub(crate) async fn run(&self, shutdown: CancellationToken) -> Result<(), Error> {
        let context = &*self.context;
        let live = context.store.live_trainings().await?;
        let live = live.iter().map(|training| id_of(&training.name).to_owned());
        let options = &context.options;
        orphans::end_all(&options.work_dir, &live.collect(), options.grace).await;
        Box::pin(recover(context)).await?;
        while !shutdown.is_cancelled() {
            context.count_states().await;
            let next = match next(context).await {
                Ok(next) => next,
                Err(error) => {
                    tracing::error!(error = %chain(&error), "failed to read the queue of trainings; trying again");
                    pause(&shutdown).await;
                    continue;
                }
            };
            let mut low = context.disk_state.subscribe();
            let is_low = low.borrow_and_update().is_some();
            match next {
                // The queue waits until there is room on the disk.
                Some(_) if is_low => tokio::select! {
                    _ = low.changed() => {}
                    () = shutdown.cancelled() => {}
                },
                Some(id) => run_one(context, &id, &shutdown).await,
                None => tokio::select! {
                    () = context.wake.notified() => {}
                    () = shutdown.cancelled() => {}
                },
            }
        }
        Ok(())
    }
}

/// Returns the training to run next.
///
/// No training runs at this moment. One that was asked to end after its process had exited, but
/// before that was recorded, is ended here.
async fn next(context: &Context) -> Result<Option<String>, Error> {
    for training in context.store.live_trainings().await? {
        let id = id_of(&training.name);
        context.finish_if_requested(id, training.state()).await?;
    }
    Ok(context.store.queue().await?.into_iter().next())
}

async fn run_one(context: &Context, id: &str, shutdown: &CancellationToken) {
    let requests = context.set_running(id);
    let outcome = Box::pin(attempt::run(context, id, requests, shutdown)).await;
    context.clear_running(id);
    if let Err(error) = outcome {
        tracing::error!(training = id, error = %chain(&error), "failed to run the training or to record its outcome");
        pause(shutdown).await;
    }
}

/// Decides about the trainings that were live when an earlier server ended.
async fn recover(context: &Context) -> Result<(), Error> {
    for training in context.store.live_trainings().await? {
        let id = id_of(&training.name);
        match training.state() {
            TrainingState::Queued | TrainingState::Paused => {}
            state if state::is_ending(state) => context.finish_if_requested(id, state).await?,
            TrainingState::Pausing => {
                let decide = |training: &mut v1::Training| {
                    // Only this task changes the training, so the state is still PAUSING.
                    drop(state::apply(training, Trigger::Release));
                    Change::default()
                };
                context.update(id, decide).await?;
            }
            TrainingState::Unspecified
            | TrainingState::Preparing
            | TrainingState::Running
            | TrainingState::Stopping
            | TrainingState::Cancelling
            | TrainingState::Succeeded
            | TrainingState::Failed
            | TrainingState::Cancelled => context.restart(id, Cause::Server).await?,
        }
    }
    Ok(())
}

/// Waits before another attempt on a database or disk that failed.
async fn pause(shutdown: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(RETRY_PAUSE) => {}
        () = shutdown.cancelled() => {}
    }
}
