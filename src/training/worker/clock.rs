//! Running time of a training, its limit and an estimate of the rest.

use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Clock {
    process_start: Instant,
    /// Start of the epochs in this process, after loading.
    training_start: Instant,
    limit: Option<Duration>,
    /// Running time of earlier processes.
    earlier: Duration,
    /// Epochs that earlier processes completed, with the share of a partial one.
    epochs_before: f64,
}

impl Clock {
    pub(super) fn new(process_start: Instant, limit: Option<Duration>) -> Self {
        Clock {
            process_start,
            training_start: Instant::now(),
            limit,
            earlier: Duration::ZERO,
            epochs_before: 0.0,
        }
    }

    /// Marks the start of the epochs, so that their estimate excludes what came before.
    pub(super) fn start_epochs(&mut self) {
        self.training_start = Instant::now();
    }

    /// Restores the state of an earlier process.
    pub(super) fn restore(&mut self, elapsed_seconds: f64, epochs: f64) {
        self.earlier = Duration::try_from_secs_f64(elapsed_seconds).unwrap_or_default();
        self.epochs_before = epochs;
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.earlier + self.process_start.elapsed()
    }

    pub(super) fn is_out_of_time(&self) -> bool {
        self.limit.is_some_and(|limit| self.elapsed() >= limit)
    }

    /// Estimates the seconds until all epochs are done; not finite before any progress.
    pub(super) fn remaining(&self, done: f64, all: u32) -> f64 {
        let pace = self.training_start.elapsed().as_secs_f64() / (done - self.epochs_before);
        pace * (f64::from(all) - done)
    }
}
