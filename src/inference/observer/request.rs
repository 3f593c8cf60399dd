//! A request from its arrival to its end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Statistics, image::rejected_for};
use crate::{
    inference::{Error, Prediction, ServedModel},
    telemetry::metrics::{self, ImageOutcome},
};

/// Records the outcome of every image of a request exactly once, and of the request as a whole.
///
/// A request that is dropped, because its client left or its deadline passed, has failed, and its
/// remaining images are expired or cancelled.
#[derive(Debug)]
pub(crate) struct RequestObserver {
    statistics: Statistics,
    model: Arc<ServedModel>,
    started: Instant,
    deadline: Option<Instant>,
    /// Images without an outcome.
    remaining: usize,
    has_succeeded: bool,
}

impl RequestObserver {
    pub(crate) fn start(
        statistics: &Statistics,
        model: &Arc<ServedModel>,
        images: usize,
        deadline: Option<Instant>,
    ) -> Self {
        statistics.record_request(&model.name);
        RequestObserver {
            statistics: statistics.clone(),
            model: Arc::clone(model),
            started: Instant::now(),
            deadline,
            remaining: images,
            has_succeeded: false,
        }
    }

    /// Records that admission has refused the request.
    pub(crate) fn refused(&mut self, error: &Error) {
        rejected_for(error);
        self.finish_all(ImageOutcome::Overloaded);
    }

    /// Records that the model cannot be loaded.
    pub(crate) fn not_loaded(&mut self) {
        self.finish_all(ImageOutcome::Failed);
    }

    pub(crate) fn image_finished(&mut self, result: &Result<Prediction, Error>) {
        self.finish(outcome(result));
    }

    /// Records that all images have a prediction.
    pub(crate) fn succeeded(mut self, predictions: &[Prediction]) {
        self.has_succeeded = true;
        let elapsed = self.started.elapsed();
        self.statistics
            .record_success(&self.model.name, predictions, elapsed);
    }

    fn finish(&mut self, outcome: ImageOutcome) {
        self.remaining -= 1;
        metrics::image_finished(outcome);
    }

    fn finish_all(&mut self, outcome: ImageOutcome) {
        while self.remaining > 0 {
            self.finish(outcome);
        }
    }
}

impl Drop for RequestObserver {
    fn drop(&mut self) {
        if !self.has_succeeded {
            let elapsed: Duration = self.started.elapsed();
            self.statistics.record_failure(&self.model.name, elapsed);
        }
        let is_late = self
            .deadline
            .is_some_and(|deadline| deadline <= Instant::now());
        self.finish_all(if is_late {
            ImageOutcome::Expired
        } else {
            ImageOutcome::Cancelled
        });
    }
}

fn outcome(result: &Result<Prediction, Error>) -> ImageOutcome {
    match result {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::{Total, VersionStatistics, test_support};

    fn prediction(decode: u64, queue: u64, inference: u64) -> Prediction {
        Prediction {
            cached: (queue == 20).then_some(true),
            decode: Duration::from_millis(decode),
            queue: Duration::from_millis(queue),
            inference: Duration::from_millis(inference),
            ..test_support::prediction()
        }
    }

    #[test]
    fn a_request_counts_once_with_the_longest_time_of_its_images() {
        let statistics = Statistics::default();
        let model = test_support::model("models/age/versions/1");
        let mut observer = RequestObserver::start(&statistics, &model, 2, None);
        let predictions = [prediction(1, 20, 300), prediction(4, 10, 300)];
        for prediction in &predictions {
            observer.image_finished(&Ok(prediction.clone()));
        }
        observer.succeeded(&predictions);
        let found = statistics.of("models/age/versions/1");
        let total = |milliseconds| Total {
            count: 1,
            time: Duration::from_millis(milliseconds),
        };
        assert_eq!(
            (found.images, found.succeeded.count, found.failed.count),
            (2, 1, 0)
        );
        assert_eq!(found.cache, (1, 0));
        assert_eq!(
            (found.decode, found.queue, found.inference),
            (total(4), total(20), total(300))
        );
        assert!(found.last_request.is_some());
    }

    #[test]
    fn a_request_that_is_dropped_has_failed() {
        let statistics = Statistics::default();
        let model = test_support::model("a");
        drop(RequestObserver::start(&statistics, &model, 1, None));
        let found = statistics.of("a");
        assert_eq!((found.failed.count, found.succeeded.count), (1, 0));
        assert_eq!(statistics.of("b"), VersionStatistics::default());
        assert_eq!(statistics.versions(), ["a"]);
    }
}
