//! Restarts of interrupted trainings, and their limit.

use crate::{
    proto::v1::{self, StopReason},
    store::{Change, Kind},
    telemetry::metrics,
    training::spec::{Spec, halve_batch},
};

use super::{
    Error,
    context::Context,
    finish::FinalState,
    process::Crash,
    state::{self, Trigger},
};

/// Cause of an interruption.
pub(super) enum Cause {
    /// The server ended.
    Server,
    /// The process ended or could not be trusted.
    Crash(Crash),
}

impl Context {
    /// Puts an interrupted training back into the queue, or ends it at the limit of restarts.
    pub(super) async fn restart(&self, id: &str, cause: Cause) -> Result<(), Error> {
        let training = self.store.training(id).await?;
        let state = training.state();
        if state::is_ending(state) {
            return self.finish_if_requested(id, state).await;
        }
        let policy = training.resolved_spec.and_then(|spec| spec.restart_policy);
        let limit = policy.and_then(|policy| policy.max_restarts);
        let limit = limit.unwrap_or(self.options.max_restarts);
        let starts = training.idle_starts;
        if limit == 0 || starts > limit {
            let failed = restart_limit_reached(cause, starts, limit);
            return self.finish(id, failed).await;
        }
        match &cause {
            Cause::Server => tracing::warn!(
                training = id,
                starts,
                "training was interrupted by the end of the server; queued again"
            ),
            Cause::Crash(crash) => tracing::warn!(
                training = id,
                starts,
                cause = crash.message,
                "worker process ended unexpectedly; training queued again"
            ),
        }
        metrics::training_worker_restarted();
        self.requeue(id, |_| Change::default()).await
    }

    /// Halves the batch of a training that ran out of memory and puts it back into the queue. False
    /// if the training must end instead.
    pub(super) async fn reduce_batch(&self, id: &str) -> Result<bool, Error> {
        let spec = self.store.training(id).await?.resolved_spec;
        let is_wanted =
            Spec::resolve(spec.as_ref()).is_ok_and(|resolved| resolved.reduce_batch_on_oom);
        let Some(mut spec) = spec.filter(|_| is_wanted) else {
            return Ok(false);
        };
        let Some(change) = halve_batch(&mut spec) else {
            return Ok(false);
        };
        tracing::warn!(
            training = id,
            before = change.before,
            after = change.after,
            "training ran out of memory; batch halved"
        );
        let decide = move |training: &mut v1::Training| {
            training.resolved_spec = Some(spec);
            // The cause of the failed starts is removed.
            training.idle_starts = 0;
            Change::from(Kind::SpecChanged(v1::SpecChanged {
                reason: v1::SpecChangeReason::OutOfMemory.into(),
                changes: vec![change],
            }))
        };
        self.requeue(id, decide).await?;
        Ok(true)
    }

    /// Puts a training without a process back into the queue, with a change, unless another request
    /// has moved it meanwhile.
    async fn requeue<F>(&self, id: &str, decide: F) -> Result<(), Error>
    where
        F: FnOnce(&mut v1::Training) -> Change + Send + 'static,
    {
        let decide =
            move |training: &mut v1::Training| match state::apply(training, Trigger::Requeue) {
                Ok(()) => decide(training),
                Err(_) => Change::default(),
            };
        let state = self.update(id, decide).await?.state();
        self.count_states().await;
        self.finish_if_requested(id, state).await
    }
}

fn restart_limit_reached(cause: Cause, starts: u32, limit: u32) -> FinalState {
    let (stop_reason, reason, message) = match cause {
        Cause::Crash(crash) if limit == 0 => {
            (StopReason::WorkerDied, "WORKER_DIED", crash.message)
        }
        Cause::Crash(crash) => (
            StopReason::ServerRestartLimit,
            "SERVER_RESTART_LIMIT",
            format!(
                "{starts} starts in a row ended without a new full checkpoint; restart_policy.max_restarts is {limit}; last cause: {}",
                crash.message
            ),
        ),
        Cause::Server if limit == 0 => (
            StopReason::ServerRestartLimit,
            "SERVER_RESTART_LIMIT",
            "the server ended while the training ran and restart_policy.max_restarts is 0; raise it to resume after a restart of the server".to_owned(),
        ),
        Cause::Server => (
            StopReason::ServerRestartLimit,
            "SERVER_RESTART_LIMIT",
            format!(
                "{starts} starts in a row ended without a new full checkpoint; restart_policy.max_restarts is {limit}; last cause: the server ended"
            ),
        ),
    };
    FinalState::failed(stop_reason, reason, message)
}
