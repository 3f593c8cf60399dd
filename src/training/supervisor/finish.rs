//! The end of a training: its final state and the publication of its best checkpoint.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use futures_util::future::BoxFuture;

use crate::{
    artifacts,
    proto::{
        v1::{self, StopReason, TrainingState},
        worker_v1::{Comparison, Finished},
    },
    store::{self, Change, Kind, Promotion, Publish},
    telemetry::logging::chain,
    training::spec::Spec,
};

use super::{
    Error, PublishError,
    context::Context,
    metrics,
    state::{self, Outcome, Trigger},
};

#[derive(Debug, Clone)]
pub(super) enum FinalState {
    /// The best checkpoint becomes a model version.
    Succeeded {
        stop_reason: StopReason,
        test: Option<Box<v1::Evaluation>>,
        comparison: Option<Comparison>,
    },
    Failed {
        stop_reason: StopReason,
        failure: v1::Failure,
    },
    /// A training that was stopped and has a checkpoint succeeds instead.
    Cancelled,
}

impl FinalState {
    pub(super) fn of_worker(finished: Finished) -> Self {
        let stop_reason = finished.stop_reason();
        match finished.failure {
            _ if finished.cancelled => FinalState::Cancelled,
            Some(failure) => FinalState::Failed {
                stop_reason,
                failure,
            },
            None => FinalState::Succeeded {
                stop_reason,
                test: finished.test.map(Box::new),
                comparison: finished.comparison,
            },
        }
    }

    pub(super) fn failed(stop_reason: StopReason, reason: &str, message: String) -> Self {
        FinalState::Failed {
            stop_reason,
            failure: v1::Failure {
                reason: reason.to_owned(),
                message,
            },
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            FinalState::Succeeded { .. } => Outcome::Succeeded,
            FinalState::Failed { .. } => Outcome::Failed,
            FinalState::Cancelled => Outcome::Cancelled,
        }
    }
}

impl Context {
    /// Ends a training without a process if it was asked to end.
    pub(super) async fn finish_if_requested(
        &self,
        id: &str,
        state: TrainingState,
    ) -> Result<(), Error> {
        if state::is_ending(state) {
            self.finish(id, FinalState::Cancelled).await?;
        }
        Ok(())
    }

    /// Records the end of a training; a success publishes its best checkpoint in the same
    /// transaction, unless the spec asks for no version. Boxed, because the future holds several
    /// trainings, which are large.
    pub(super) fn finish<'a>(
        &'a self,
        id: &'a str,
        final_state: FinalState,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.record_end(id, final_state))
    }

    async fn record_end(&self, id: &str, mut final_state: FinalState) -> Result<(), Error> {
        let mut training = self.store.training(id).await?;
        if training.state() == TrainingState::Stopping
            && matches!(final_state, FinalState::Cancelled)
            && self.store.best_checkpoint(id).await?.is_some()
        {
            // The process was stopped in its first epoch; an earlier one left a checkpoint.
            final_state = FinalState::Succeeded {
                stop_reason: StopReason::UserStop,
                test: None,
                comparison: None,
            };
        }
        let mut publish = None;
        let mut best = None;
        if let FinalState::Succeeded {
            test, comparison, ..
        } = &final_state
        {
            if training.best.is_none() {
                training.best = self.store.best_metrics(id).await?;
            }
            best = training.best;
            training.test = test.as_deref().cloned();
            if creates_version(&training) {
                match self.prepare_version(&training).await? {
                    Ok(prepared) => {
                        publish = Some(Publish {
                            comparison: comparison.clone(),
                            ..prepared
                        });
                    }
                    Err(failure) => {
                        final_state = FinalState::Failed {
                            stop_reason: StopReason::Internal,
                            failure,
                        };
                    }
                }
            }
        }
        let has_ended = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&has_ended);
        let decide = move |training: &mut v1::Training| {
            let mut change = Change::default();
            if state::apply(training, Trigger::Finish(final_state.outcome())).is_err() {
                return change;
            }
            ended.store(true, Ordering::Relaxed);
            training.end_time = Some(SystemTime::now().into());
            match (training.state(), final_state) {
                (
                    TrainingState::Succeeded,
                    FinalState::Succeeded {
                        stop_reason, test, ..
                    },
                ) => {
                    let test = test.map(|test| *test);
                    training.set_stop_reason(stop_reason);
                    change.events.extend(test.clone().map(Kind::TestEvaluated));
                    training.test = test;
                    training.best = training.best.or(best);
                    change.publish = publish;
                }
                (
                    TrainingState::Failed,
                    FinalState::Failed {
                        stop_reason,
                        failure,
                    },
                ) => {
                    training.set_stop_reason(stop_reason);
                    training.failure = Some(failure);
                }
                // An earlier cancel prevailed.
                _ => {}
            }
            change
        };
        let training = self.update(id, decide).await?;
        self.remove_work_dir(id).await;
        if !has_ended.load(Ordering::Relaxed) {
            // A concurrent call recorded the end.
            return Ok(());
        }
        metrics::finished(training.stop_reason());
        self.count_states().await;
        let (failure, promotion) = (training.failure.as_ref(), training.promotion.as_ref());
        tracing::info!(
            training = training.name,
            state = training.state().as_str_name(),
            stop_reason = training.stop_reason().as_str_name(),
            failure = failure.map(|failure| failure.message.as_str()),
            model_version = training.model_version,
            promotion = promotion.map(|promotion| promotion.reason.as_str()),
            "training ended"
        );
        Ok(())
    }

    /// Prepares the version of a successful training, or explains why its checkpoint is unusable.
    ///
    /// # Errors
    /// A failure of the database or the disk that may not occur again.
    async fn prepare_version(
        &self,
        training: &v1::Training,
    ) -> Result<Result<Publish, v1::Failure>, Error> {
        let promotion = Spec::resolve(training.resolved_spec.as_ref())
            .map_or(Promotion::Never, |spec| spec.promote);
        match self.publisher.prepare(training, promotion).await {
            Ok(publish) => Ok(Ok(publish)),
            Err(PublishError::Store(error))
                if error.is_transient() || matches!(error, store::Error::DiskFull { .. }) =>
            {
                Err(error.into())
            }
            Err(PublishError::Artifacts(error))
                if error.is_transient() || matches!(error, artifacts::Error::DiskFull { .. }) =>
            {
                Err(error.into())
            }
            Err(error) => {
                let cause = chain(&error);
                tracing::error!(
                    training = training.name,
                    error = cause,
                    "failed to load the best checkpoint"
                );
                Ok(Err(v1::Failure {
                    reason: "CHECKPOINT_UNUSABLE".to_owned(),
                    message: format!("failed to load the best checkpoint: {cause}"),
                }))
            }
        }
    }
}

/// Returns whether the best checkpoint of a training becomes a model version.
fn creates_version(training: &v1::Training) -> bool {
    let spec = training.resolved_spec.as_ref();
    // Specs of earlier servers do not have the field.
    spec.and_then(|spec| spec.create_version).unwrap_or(true)
}
