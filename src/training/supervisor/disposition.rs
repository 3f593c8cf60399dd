//! Recording of an attempt's outcome, with retries.

use tokio_util::sync::CancellationToken;

use crate::{
    proto::v1,
    store::{self, Change},
    telemetry::logging::chain,
};

use super::{
    Error,
    cleanup::clean_work_dir,
    context::{Context, RETRY_PAUSE},
    finish::FinalState,
    metrics,
    process::Crash,
    restart::Cause,
    state::{self, Trigger},
};

/// Reason of a failure that a smaller batch may avoid.
pub(super) const OUT_OF_MEMORY: &str = "OUT_OF_MEMORY";

/// Outcome of an attempt whose process is gone.
pub(super) enum Disposition {
    Finished(Box<FinalState>),
    /// To be restarted, up to the limit of restarts.
    Crashed(Crash),
    Paused,
    /// Paused until the disk has room.
    Suspended(v1::Failure),
}

impl Disposition {
    pub(super) fn finished(final_state: FinalState) -> Self {
        Self::Finished(Box::new(final_state))
    }
}

/// Records an outcome until that succeeds: before, the training appears to have a process. If the
/// server ends first, the next one recovers the training.
pub(super) async fn record_with_retry(
    context: &Context,
    id: &str,
    disposition: &Disposition,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    loop {
        let error = match Box::pin(record(context, id, disposition)).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if matches!(error, Error::Store(store::Error::NotFound { .. })) || shutdown.is_cancelled() {
            return Err(error);
        }
        tracing::error!(training = id, error = %chain(&error), "failed to record the outcome of the training; trying again");
        if matches!(error, Error::Store(store::Error::DiskFull { .. })) {
            context.reserve.release().await;
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY_PAUSE) => {}
            () = shutdown.cancelled() => {}
        }
    }
}

async fn record(context: &Context, id: &str, disposition: &Disposition) -> Result<(), Error> {
    let final_state = match disposition {
        Disposition::Paused => return record_pause(context, id).await,
        Disposition::Suspended(failure) => return context.suspend(id, failure).await,
        Disposition::Crashed(crash) => {
            return context.restart(id, Cause::Crash(crash.clone())).await;
        }
        Disposition::Finished(final_state) => final_state.as_ref(),
    };
    if let FinalState::Failed { failure, .. } = final_state {
        if failure.reason == OUT_OF_MEMORY && context.reduce_batch(id).await? {
            return Ok(());
        }
        // Before the record, which may need the space on a full disk.
        context.remove_work_dir(id).await;
    }
    context.finish(id, final_state.clone()).await
}

async fn record_pause(context: &Context, id: &str) -> Result<(), Error> {
    let decide = |training: &mut v1::Training| {
        if state::apply(training, Trigger::Release).is_ok() {
            training.idle_starts = 0;
        }
        Change::default()
    };
    let state = context.update(id, decide).await?.state();
    metrics::paused();
    context.count_states().await;
    tracing::info!(
        training = id,
        state = state.as_str_name(),
        "training paused and released the device"
    );
    let point = context.store.resume_point(id).await?;
    let work_dir = context.options.work_dir.join(id);
    if let Err(error) = clean_work_dir(&work_dir, point.as_ref()).await {
        tracing::warn!(training = id, %error, "failed to clean the work directory of a paused training");
    }
    // A stop or cancel may have come while the process exited.
    context.finish_if_requested(id, state).await
}
