//! One attempt at a training: a start of its process and the outcome.

use std::{path::Path, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    files,
    names::id_of,
    proto::{
        v1::{self, StopReason},
        worker_v1::Resume,
    },
    telemetry::traces,
};

use super::{
    Error,
    context::{Context, RETRY_PAUSE, Requests},
    disk_state::DISK_FULL,
    disposition::{Disposition, OUT_OF_MEMORY, record_with_retry},
    finish::FinalState,
    follow::{Follower, ProcessEnd},
    orphans,
    prepare::{prepare, start_worker},
    process::{Crash, Worker},
    spans,
};

/// Runs the training at the head of the queue until its process ends, and records the outcome.
pub(super) async fn run(
    context: &Context,
    id: &str,
    requests: Requests,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    if let Err(error) = context.reserve.allocate().await {
        tracing::warn!(%error, "failed to reserve disk space; the end of the training may not be recorded on a full disk");
    }
    let Some((training, resume)) = prepare(context, id).await? else {
        // Stopped or cancelled just before its start; no process will report an end.
        let state = context.store.training(id).await?.state();
        return context.finish_if_requested(id, state).await;
    };
    let (parent, state) = (&training.trace_parent, &training.trace_state);
    let trace = context.options.traces.continue_remote(parent, state);
    let attempt = attempt(context, training, resume, requests, shutdown);
    Box::pin(traces::instrument(trace, attempt)).await
}

async fn attempt(
    context: &Context,
    training: v1::Training,
    resume: Option<Resume>,
    requests: Requests,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let id = id_of(&training.name);
    spans::record_queue_time(&training);
    let work_dir = context.options.work_dir.join(id);
    let ooms_before = oom_kills();
    let end = match start_worker(context, &training, resume, &work_dir).await {
        Ok(mut worker) => {
            let mut follower = Follower {
                context,
                id,
                worker: &mut worker,
                requests,
            };
            let end = Box::pin(follower.run(shutdown)).await;
            end_process(context, &work_dir, worker, end).await
        }
        Err(error) if files::is_disk_full(&error) => ProcessEnd::Failed(v1::Failure {
            reason: DISK_FULL.to_owned(),
            message: error.to_string(),
        }),
        Err(error) => {
            pause_before_restart(training.idle_starts, requests, shutdown).await;
            let message = format!("failed to start the worker process: {error}");
            ProcessEnd::Crashed(Crash::new(message))
        }
    };
    let disposition = match end {
        ProcessEnd::Shutdown => return Ok(()),
        // A service manager such as systemd may end all processes of the server at once.
        ProcessEnd::Exited | ProcessEnd::Crashed(_) if shutdown.is_cancelled() => return Ok(()),
        ProcessEnd::Suspended(failure) => Disposition::Suspended(failure),
        ProcessEnd::Finished(finished) if finished.paused => Disposition::Paused,
        ProcessEnd::Finished(finished) if is_disk_full(finished.failure.as_ref()) => {
            Disposition::Suspended(finished.failure.unwrap_or_default())
        }
        ProcessEnd::Finished(finished) => Disposition::finished(FinalState::of_worker(*finished)),
        ProcessEnd::Kill => Disposition::finished(FinalState::Cancelled),
        ProcessEnd::Failed(failure) if is_disk_full(Some(&failure)) => {
            Disposition::Suspended(failure)
        }
        ProcessEnd::Failed(failure) => Disposition::finished(FinalState::Failed {
            stop_reason: StopReason::Internal,
            failure,
        }),
        ProcessEnd::Exited => Disposition::Crashed(Crash::of_exit(None)),
        ProcessEnd::Crashed(crash) if crash.is_killed && oom_kills() > ooms_before => {
            Disposition::finished(FinalState::failed(
                StopReason::OutOfMemory,
                OUT_OF_MEMORY,
                format!(
                    "{}; the machine ran out of memory; lower spec.batch_size or spec.input_size",
                    crash.message
                ),
            ))
        }
        ProcessEnd::Crashed(crash) => Disposition::Crashed(crash),
    };
    record_with_retry(context, id, &disposition, shutdown).await
}

/// Waits for or forces the exit of the process, and adds its exit status to an unexpected end.
async fn end_process(
    context: &Context,
    work_dir: &Path,
    worker: Worker,
    end: ProcessEnd,
) -> ProcessEnd {
    let end = match end {
        ProcessEnd::Finished(_) | ProcessEnd::Suspended(_) | ProcessEnd::Shutdown => {
            worker.end(context.options.grace).await;
            end
        }
        ProcessEnd::Exited => {
            let status = worker.end(Duration::from_secs(2)).await;
            ProcessEnd::Crashed(Crash::of_exit(status))
        }
        ProcessEnd::Kill | ProcessEnd::Failed(_) | ProcessEnd::Crashed(_) => {
            worker.kill().await;
            end
        }
    };
    orphans::remove_pid_file(work_dir).await;
    end
}

fn is_disk_full(failure: Option<&v1::Failure>) -> bool {
    failure.is_some_and(|failure| failure.reason == DISK_FULL)
}

/// Waits after a failed start, longer each time, so that a short shortage such as of processes does
/// not use up all restarts. A request or a shutdown ends the wait.
async fn pause_before_restart(starts: u32, mut requests: Requests, shutdown: &CancellationToken) {
    const MAX_PAUSES: u32 = 30;
    tokio::select! {
        () = tokio::time::sleep(RETRY_PAUSE * starts.min(MAX_PAUSES)) => {}
        _ = requests.signal.changed() => {}
        () = shutdown.cancelled() => {}
    }
}

/// Number of processes that the kernel has killed for lack of memory since boot.
fn oom_kills() -> u64 {
    let text = fs_err::read_to_string("/proc/vmstat").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}
