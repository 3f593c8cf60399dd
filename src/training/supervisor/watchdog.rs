//! Detection of workers that hang.

use std::time::Duration;

use tokio::time::Instant;

use crate::proto::worker_v1::worker_event;

/// Reason to stop trusting a worker.
#[derive(Debug, thiserror::Error)]
pub(super) enum WorkerFault {
    #[error("the worker sent an invalid message: {0}")]
    Protocol(String),
    #[error("the worker sent no heartbeat for {0:?}")]
    Silent(Duration),
    #[error("the worker sent heartbeats but made no progress for {0:?}")]
    Stalled(Duration),
}

/// Times of the last sign of life and of the last progress of a worker.
pub(super) struct Watchdog {
    heartbeat_timeout: Duration,
    progress_timeout: Duration,
    last_event: Instant,
    last_progress: Instant,
    /// Progress counter of the last heartbeat.
    progress: u64,
}

impl Watchdog {
    pub(super) fn new(heartbeat_timeout: Duration, progress_timeout: Duration) -> Self {
        let now = Instant::now();
        Watchdog {
            heartbeat_timeout,
            progress_timeout,
            last_event: now,
            last_progress: now,
            progress: 0,
        }
    }

    pub(super) fn observe(&mut self, event: Option<&worker_event::Kind>) {
        self.last_event = Instant::now();
        match event {
            Some(worker_event::Kind::Heartbeat(heartbeat)) => {
                if heartbeat.progress != self.progress {
                    self.progress = heartbeat.progress;
                    self.last_progress = self.last_event;
                }
            }
            _ => self.last_progress = self.last_event,
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        let heartbeat = self.last_event + self.heartbeat_timeout;
        heartbeat.min(self.last_progress + self.progress_timeout)
    }

    /// Returns the fault of a worker whose deadline has passed.
    pub(super) fn fault(&self) -> WorkerFault {
        if self.last_event.elapsed() >= self.heartbeat_timeout {
            WorkerFault::Silent(self.heartbeat_timeout)
        } else {
            WorkerFault::Stalled(self.progress_timeout)
        }
    }
}
