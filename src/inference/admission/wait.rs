//! Estimates the queueing delay from recent images.
//!
//! An observation is a pair: the depth of the queue when an image arrived, itself included, and the
//! time until it was computed. The time per queued image is the slope of the straight line through
//! the origin that fits the pairs best by least squares, sum(depth · time) / sum(depth²), where the
//! weight of a pair decays with every later one. Deep queues count most, as they should: a full
//! batch takes less time per image than a batch of one.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Factor on the weight of earlier pairs at each new one: some hundred pairs count.
const DECAY: f64 = 1.0 - 1.0 / 128.0;
/// Depths beyond this many times the usual one are estimated like that depth: the server has not
/// shown yet how fast it works with so deep a queue.
const MAX_EXTRAPOLATION: f64 = 4.0;

#[derive(Debug, Default)]
pub(super) struct WaitEstimator(Mutex<Sums>);

#[derive(Debug, Default)]
struct Sums {
    weight: f64,
    depth_squared: f64,
    depth_seconds: f64,
}

impl WaitEstimator {
    /// Adds an image that was computed `elapsed` after it arrived at a queue of `depth` images,
    /// itself included.
    pub(super) fn record(&self, depth: usize, elapsed: Duration) {
        let depth = as_f64(depth);
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sums.weight = sums.weight * DECAY + 1.0;
        sums.depth_squared = sums.depth_squared * DECAY + depth * depth;
        sums.depth_seconds = sums.depth_seconds * DECAY + depth * elapsed.as_secs_f64();
    }

    /// Returns the expected time until an image at this depth is computed; zero without
    /// observations.
    pub(super) fn expected(&self, depth: usize) -> Duration {
        let sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sums.depth_squared <= 0.0 {
            return Duration::ZERO;
        }
        let usual_depth = (sums.depth_squared / sums.weight).sqrt();
        let depth = as_f64(depth).min(MAX_EXTRAPOLATION * usual_depth);
        Duration::from_secs_f64(depth * sums.depth_seconds / sums.depth_squared)
    }
}

fn as_f64(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn expected_ms(estimator: &WaitEstimator, depth: usize) -> f64 {
        estimator.expected(depth).as_secs_f64() * 1000.0
    }

    #[test]
    fn without_observations_no_wait_is_expected() {
        assert_eq!(WaitEstimator::default().expected(1_000_000), Duration::ZERO);
    }

    #[test]
    fn slope_is_that_of_least_squares_through_the_origin() {
        let estimator = WaitEstimator::default();
        estimator.record(1, milliseconds(10));
        estimator.record(3, milliseconds(15));
        // (1 · 10 · k + 3 · 15) / (1 · k + 9) with k = 127 / 128: 54.921875 / 9.9921875 = 5.49648.
        assert!((expected_ms(&estimator, 2) - 10.992_96).abs() < 1e-4);
    }

    #[test]
    fn depths_beyond_four_times_the_usual_one_are_not_extrapolated() {
        let estimator = WaitEstimator::default();
        estimator.record(5, milliseconds(100));
        assert!((expected_ms(&estimator, 20) - 400.0).abs() < 1e-6);
        assert!((expected_ms(&estimator, 10_000) - 400.0).abs() < 1e-6);
    }

    #[test]
    fn estimate_follows_a_faster_server_after_some_hundred_images() {
        let estimator = WaitEstimator::default();
        (0..1000).for_each(|_| estimator.record(10, milliseconds(1000)));
        assert!((expected_ms(&estimator, 10) - 1000.0).abs() < 1.0);
        (0..400).for_each(|_| estimator.record(10, milliseconds(100)));
        // The first images still weigh (127 / 128)^400 = 0.0434 of 900 ms.
        assert!((expected_ms(&estimator, 10) - 139.1).abs() < 1.0);
    }
}
