//! Supervision of one worker process, until it ends or must be ended.

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    disk::DiskLow,
    proto::{
        v1,
        worker_v1::{Finished, UpdateCommand, worker_event},
    },
    training::control::ControlSignal,
};

use super::{
    context::{Context, Requests},
    disk_state::DISK_LOW,
    process::{Crash, Worker, WorkerMessage},
    record::{RecordError, record},
    spans, state,
};

/// Reason why supervision ended.
pub(super) enum ProcessEnd {
    /// The worker reported a result.
    Finished(Box<Finished>),
    /// The process closed its pipe without a result.
    Exited,
    /// The process must be killed, because a client asked for it or it did not cancel in time.
    Kill,
    /// The worker saved its state and exited, because the disk has too little space.
    Suspended(v1::Failure),
    /// The server shuts down; the next one resumes the training.
    Shutdown,
    /// The process cannot be trusted, or its events cannot be recorded for now.
    Crashed(Crash),
    /// A file or the database of the server failed.
    Failed(v1::Failure),
}

/// Records the events of a worker and forwards requests to it.
pub(super) struct Follower<'a> {
    pub(super) context: &'a Context,
    pub(super) id: &'a str,
    pub(super) worker: &'a mut Worker,
    pub(super) requests: Requests,
}

impl Follower<'_> {
    pub(super) async fn run(&mut self, shutdown: &CancellationToken) -> ProcessEnd {
        let (context, id) = (self.context, self.id);
        let grace = context.options.grace;
        // A request between the start of the training and here had no process to signal.
        if let Ok(training) = context.store.training(id).await {
            let signal = state::signal(training.state());
            if signal >= ControlSignal::Cancel {
                return ProcessEnd::Kill;
            }
            self.worker.signal(signal).await;
        }
        let mut low = context.disk_state.subscribe();
        low.mark_changed();
        let mut suspending = None;
        let mut cancel_deadline = None;
        let mut shutdown_deadline = None;
        loop {
            let message = tokio::select! {
                message = self.worker.next() => message,
                _ = self.requests.signal.changed() => {
                    let signal = *self.requests.signal.borrow_and_update();
                    if signal == ControlSignal::Kill {
                        return ProcessEnd::Kill;
                    }
                    self.worker.signal(signal).await;
                    if signal == ControlSignal::Cancel {
                        cancel_deadline = Some(Instant::now() + grace);
                    }
                    continue;
                }
                _ = self.requests.updates.changed() => {
                    self.requests.updates.mark_unchanged();
                    self.send_update().await;
                    continue;
                }
                Ok(()) = low.changed(), if suspending.is_none() => {
                    suspending = low.borrow_and_update().map(disk_low);
                    if suspending.is_some() {
                        self.worker.signal(ControlSignal::Pause).await;
                    }
                    continue;
                }
                () = sleep_until(cancel_deadline) => {
                    tracing::warn!(training = id, "training did not stop within the grace period; killing its process");
                    return ProcessEnd::Kill;
                }
                () = sleep_until(shutdown_deadline) => return ProcessEnd::Shutdown,
                () = shutdown.cancelled(), if shutdown_deadline.is_none() => {
                    // Saves the progress if half of the grace period is enough for it.
                    self.worker.signal(ControlSignal::Pause).await;
                    shutdown_deadline = Some(Instant::now() + grace / 2);
                    continue;
                }
            };
            let event = match message {
                Ok(WorkerMessage::Event(event)) => *event,
                Ok(WorkerMessage::Closed) => return ProcessEnd::Exited,
                Err(fault) => return ProcessEnd::Crashed(Crash::new(fault.to_string())),
            };
            let recorded = if let worker_event::Kind::Finished(finished) = event {
                return match suspending {
                    Some(failure) if finished.paused => ProcessEnd::Suspended(failure),
                    _ => ProcessEnd::Finished(Box::new(finished)),
                };
            } else if let worker_event::Kind::Span(span) = &event {
                spans::record_worker_span(span);
                Ok(())
            } else if let worker_event::Kind::LiveRequested(_) = event {
                let live = context.live_version().await;
                self.worker.send_live(live).await;
                Ok(())
            } else {
                record(context, id, event).await
            };
            match recorded {
                Ok(()) => {}
                Err(RecordError::Permanent(failure)) => return ProcessEnd::Failed(failure),
                // The training resumes at its last full checkpoint once that can be recorded.
                Err(RecordError::Transient(cause)) => {
                    return ProcessEnd::Crashed(Crash::new(format!(
                        "failed to record an event of the worker: {cause}"
                    )));
                }
            }
        }
    }

    async fn send_update(&mut self) {
        let spec = match self.context.store.training(self.id).await {
            Ok(training) => training.resolved_spec.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(training = self.id, %error, "failed to send a spec update to the worker; it applies at the next start");
                return;
            }
        };
        let update = UpdateCommand {
            max_epochs: spec.max_epochs,
            patience: spec.early_stopping.and_then(|stopping| stopping.patience),
            learning_rate: spec.optimizer.and_then(|optimizer| optimizer.learning_rate),
        };
        self.worker.update(update).await;
    }
}

/// The reason of a pause.
fn disk_low(low: DiskLow) -> v1::Failure {
    v1::Failure {
        reason: DISK_LOW.to_owned(),
        message: format!("{low}; the training resumes when there is room"),
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
