//! What became of the images of a request.

use std::time::Instant;

use crate::telemetry::metrics::{self, ImageOutcome};

use super::{Error, predictor::Prediction};

/// How one image ended.
pub(super) fn outcome(answer: &Result<Prediction, Error>) -> ImageOutcome {
    match answer {
        Ok(_) => ImageOutcome::Ok,
        Err(Error::Image { .. } | Error::File { .. } | Error::Pixels { .. }) => {
            ImageOutcome::InvalidImage
        }
        Err(Error::QueueFull { .. } | Error::ShareFull { .. } | Error::WaitTooLong { .. }) => {
            ImageOutcome::Overloaded
        }
        Err(Error::DeadlineExceeded) => ImageOutcome::Expired,
        Err(Error::Model { .. } | Error::NotFinite { .. } | Error::EngineGone) => {
            ImageOutcome::Failed
        }
    }
}

/// Counts every image of a request once, also when the request is dropped because its client left or its deadline passed.
pub(super) struct OutcomeRecorder {
    left: usize,
    deadline: Option<Instant>,
}

impl OutcomeRecorder {
    /// For so many images.
    pub(super) fn new(images: usize, deadline: Option<Instant>) -> Self {
        OutcomeRecorder {
            left: images,
            deadline,
        }
    }

    /// One image ended.
    pub(super) fn finish(&mut self, outcome: ImageOutcome) {
        self.left -= 1;
        metrics::image_finished(outcome);
    }

    /// All images that have not ended yet end the same.
    pub(super) fn finish_all(&mut self, outcome: ImageOutcome) {
        while self.left > 0 {
            self.finish(outcome);
        }
    }
}

impl Drop for OutcomeRecorder {
    fn drop(&mut self) {
        let is_late = self
            .deadline
            .is_some_and(|deadline| deadline <= Instant::now());
        let outcome = if is_late {
            ImageOutcome::Expired
        } else {
            ImageOutcome::Cancelled
        };
        for _ in 0..self.left {
            metrics::image_finished(outcome);
        }
    }
}
