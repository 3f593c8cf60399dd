//! Progress and cancellation of work on several threads.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use super::Error;

/// Interval of progress reports and of checks for cancellation.
const REPORT_EVERY: Duration = Duration::from_millis(50);

/// Capacity of the channel of results. The receiving thread does almost nothing with a result, so
/// the channel is rarely full.
pub(super) const QUEUE: usize = 256;

/// Phase of [`super::load`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Reading the files.
    Scan,
    /// Searching for near-duplicates.
    Compare,
}

impl Phase {
    #[must_use]
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Scan => "scan",
            Self::Compare => "compare",
        }
    }
}

/// Receives the results of worker threads until all have finished. `accept` returns the number of
/// items that a result completes.
///
/// `progress` gets (done, total) on this thread about twenty times a second and once at the end.
/// On an error the receiver is dropped, so the next send of a worker fails and it can return.
pub(super) fn receive<T>(
    receiver: Receiver<T>,
    total: usize,
    mut accept: impl FnMut(T) -> usize,
    progress: &mut dyn FnMut(usize, usize),
    cancelled: &dyn Fn() -> bool,
) -> Result<(), Error> {
    let mut done = 0;
    let mut last_report = Instant::now();
    loop {
        match receiver.recv_timeout(REPORT_EVERY) {
            Ok(result) => done += accept(result),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if last_report.elapsed() >= REPORT_EVERY {
            last_report = Instant::now();
            if cancelled() {
                return Err(Error::Cancelled);
            }
            progress(done, total);
        }
    }
    if cancelled() {
        return Err(Error::Cancelled);
    }
    progress(done, total);
    Ok(())
}
