//! How long an image will wait, told from how long others did.
//!
//! What was seen are pairs: so many images stood in line with one, itself among them, and so long after it came it was computed. The time for each image of a
//! line is the slope of a straight line through the origin that fits them best by least squares, sum(depth · time) / sum(depth²), where a pair counts for less
//! the longer ago it was. Long lines count most in it, as they should: a batch of many takes less for each of them than a batch of one.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// What is left of a pair's weight when another one was seen: a few hundred of them count.
const DECAY: f64 = 1.0 - 1.0 / 128.0;
/// Of a line that is longer than those that were seen it is known that it lasts at least as long as one of so many times their length, and no more: a server
/// that has answered single images so far has not shown what it can do with a hundred.
const MAX_EXTRAPOLATION: f64 = 4.0;

/// The pairs that were seen. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct WaitEstimator(Arc<Mutex<Sums>>);

#[derive(Debug, Default)]
struct Sums {
    weight: f64,
    depth_squared: f64,
    depth_seconds: f64,
}

impl WaitEstimator {
    /// An image was computed so long after it came, and `depth` had to be until then, itself included.
    pub(super) fn record(&self, depth: usize, took: Duration) {
        let depth = as_f64(depth);
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sums.weight = sums.weight * DECAY + 1.0;
        sums.depth_squared = sums.depth_squared * DECAY + depth * depth;
        sums.depth_seconds = sums.depth_seconds * DECAY + depth * took.as_secs_f64();
    }

    /// The time until an image is computed when so many have to be until then, itself included; zero as long as nothing was seen.
    pub(super) fn expected(&self, depth: usize) -> Duration {
        let sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sums.depth_squared <= 0.0 {
            return Duration::ZERO;
        }
        let usual_depth = (sums.depth_squared / sums.weight).sqrt();
        let known = as_f64(depth).min(MAX_EXTRAPOLATION * usual_depth);
        Duration::from_secs_f64(known * sums.depth_seconds / sums.depth_squared)
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

    /// Expected for `depth`, in milliseconds.
    fn expected(pace: &WaitEstimator, depth: usize) -> f64 {
        pace.expected(depth).as_secs_f64() * 1000.0
    }

    #[test]
    fn nothing_is_expected_of_a_server_that_has_shown_nothing() {
        assert_eq!(WaitEstimator::default().expected(1_000_000), Duration::ZERO);
    }

    #[test]
    fn slope_is_that_of_least_squares_through_the_origin() {
        let pace = WaitEstimator::default();
        pace.record(1, milliseconds(10));
        pace.record(3, milliseconds(15));
        // (1 · 10 · k + 3 · 15) / (1 · k + 9) with k = 127 / 128: 54.921875 / 9.9921875 = 5.49648.
        assert!((expected(&pace, 2) - 10.992_96).abs() < 1e-4);
    }

    #[test]
    fn line_beyond_those_that_were_seen_is_taken_for_one_of_four_times_their_length() {
        let pace = WaitEstimator::default();
        pace.record(5, milliseconds(100));
        assert!((expected(&pace, 20) - 400.0).abs() < 1e-6);
        assert!((expected(&pace, 10_000) - 400.0).abs() < 1e-6);
    }

    #[test]
    fn server_that_became_faster_is_believed_after_some_hundred_images() {
        let pace = WaitEstimator::default();
        (0..1000).for_each(|_| pace.record(10, milliseconds(1000)));
        assert!((expected(&pace, 10) - 1000.0).abs() < 1.0);
        (0..400).for_each(|_| pace.record(10, milliseconds(100)));
        // What is left of the first: (127 / 128)^400 = 0.0434 of 900 ms.
        assert!((expected(&pace, 10) - 139.1).abs() < 1.0);
    }
}
