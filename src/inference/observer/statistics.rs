//! Totals by model version since the server started: requests by outcome, and forward passes by
//! size.
//!
//! Prometheus has the same for all versions together; this is for clients that ask about one.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use crate::inference::Prediction;

/// Counts by version. Cheap to clone; clones share the counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Statistics {
    /// By the names of versions that exist, which bounds it.
    versions: Arc<Mutex<BTreeMap<String, VersionStatistics>>>,
}

/// Number of events and their total duration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Total {
    pub count: u64,
    pub time: Duration,
}

impl Total {
    fn add(&mut self, time: Duration) {
        self.count += 1;
        self.time += time;
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct VersionStatistics {
    pub last_request: Option<SystemTime>,
    /// Images with a prediction.
    pub images: u64,
    /// Requests whose images all have a prediction, from admission to response.
    pub succeeded: Total,
    /// Requests that failed, were refused, or whose clients left.
    pub failed: Total,
    /// Cache hits and misses.
    pub cache: (u64, u64),
    /// Time until the last image of a request was decoded.
    pub decode: Total,
    /// Longest queueing time of an image of a request.
    pub queue: Total,
    /// Longest forward pass with an image of a request.
    pub inference: Total,
    /// Forward passes by number of images. A pass over images of versions with the same weights
    /// counts for the version of its first image.
    pub batches: BTreeMap<usize, Total>,
}

impl Statistics {
    /// Returns the totals of a version; zeros for one without requests.
    pub(crate) fn of(&self, version: &str) -> VersionStatistics {
        self.lock().get(version).cloned().unwrap_or_default()
    }

    /// Returns the names of the versions with requests.
    pub(crate) fn versions(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    pub(super) fn record_request(&self, version: &str) {
        self.update(version, |totals| {
            totals.last_request = Some(SystemTime::now());
        });
    }

    pub(super) fn record_failure(&self, version: &str, elapsed: Duration) {
        self.update(version, |totals| totals.failed.add(elapsed));
    }

    pub(super) fn record_success(
        &self,
        version: &str,
        predictions: &[Prediction],
        elapsed: Duration,
    ) {
        let longest = |of: fn(&Prediction) -> Duration| predictions.iter().map(of).max();
        let decode = longest(|prediction| prediction.decode).unwrap_or_default();
        let queue = longest(|prediction| prediction.queue).unwrap_or_default();
        let inference = longest(|prediction| prediction.inference).unwrap_or_default();
        let lookups = |hit| {
            let lookups = predictions
                .iter()
                .filter_map(|prediction| prediction.cached);
            lookups.filter(|cached| *cached == hit).count() as u64
        };
        let (hits, misses) = (lookups(true), lookups(false));
        self.update(version, |totals| {
            totals.cache.0 += hits;
            totals.cache.1 += misses;
            totals.images += predictions.len() as u64;
            totals.succeeded.add(elapsed);
            totals.decode.add(decode);
            totals.queue.add(queue);
            totals.inference.add(inference);
        });
    }

    pub(super) fn record_batch(&self, version: &str, images: usize, elapsed: Duration) {
        self.update(version, |totals| {
            totals.batches.entry(images).or_default().add(elapsed);
        });
    }

    fn update(&self, version: &str, update: impl FnOnce(&mut VersionStatistics)) {
        let mut versions = self.lock();
        match versions.get_mut(version) {
            Some(totals) => update(totals),
            None => update(versions.entry(version.to_owned()).or_default()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, VersionStatistics>> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_are_counted_by_size() {
        let statistics = Statistics::default();
        for (images, milliseconds) in [(3, 5), (1, 2), (3, 7)] {
            statistics.record_batch("a", images, Duration::from_millis(milliseconds));
        }
        let batches = statistics.of("a").batches;
        let expected = [(1, 1, 2), (3, 2, 12)].map(|(images, count, milliseconds)| {
            let time = Duration::from_millis(milliseconds);
            (images, Total { count, time })
        });
        assert_eq!(batches, BTreeMap::from(expected));
    }
}
