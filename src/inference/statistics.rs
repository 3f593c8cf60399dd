//! What each version has done since the server began: requests by how they ended and what they waited for, and forward passes by size.
//!
//! Prometheus has the same for all versions together; this is for clients that ask about one.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use super::predictor::Prediction;

/// Counts by version. Cheap to clone; the clones count together.
#[derive(Debug, Clone, Default)]
pub struct Statistics {
    /// By name, of versions that exist, which bounds it.
    versions: Arc<Mutex<BTreeMap<String, VersionStatistics>>>,
}

/// How often something happened, and how long it took in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Total {
    /// How often.
    pub count: u64,
    /// How long in all.
    pub time: Duration,
}

impl Total {
    fn add(&mut self, time: Duration) {
        self.count += 1;
        self.time += time;
    }
}

/// What one version has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionStatistics {
    /// When it was last asked.
    pub last_request: Option<SystemTime>,
    /// Images that got an age.
    pub images: u64,
    /// Requests whose images all got an age, from admission to answer.
    pub succeeded: Total,
    /// Requests that failed, were refused or were left by their clients.
    pub failed: Total,
    /// Images whose answers the cache had, and those whose it had not.
    pub cache: (u64, u64),
    /// The time until a request's last image was prepared.
    pub decode: Total,
    /// The longest time that an image of a request waited for the engine.
    pub queue: Total,
    /// The longest forward pass that an image of a request was in.
    pub inference: Total,
    /// Forward passes by their number of images. A pass over images of versions with the same weights counts for the first's version.
    pub batches: BTreeMap<usize, Total>,
}

impl Statistics {
    /// What a version has done; nothing for one that was never asked.
    pub fn of(&self, version: &str) -> VersionStatistics {
        self.lock().get(version).cloned().unwrap_or_default()
    }

    /// Names of the versions that were asked.
    pub fn versions(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// A request of a version begins. Unless it is said to have succeeded, it has failed when what this returns is dropped.
    pub(super) fn begin(&self, version: &str) -> Pending {
        self.change(version, |counts| {
            counts.last_request = Some(SystemTime::now());
        });
        Pending {
            statistics: self.clone(),
            version: version.to_owned(),
            begun: Instant::now(),
            ended: false,
        }
    }

    /// One forward pass over so many images.
    pub(super) fn computed(&self, version: &str, images: usize, elapsed: Duration) {
        self.change(version, |counts| {
            counts.batches.entry(images).or_default().add(elapsed);
        });
    }

    fn change(&self, version: &str, change: impl FnOnce(&mut VersionStatistics)) {
        let mut versions = self.lock();
        match versions.get_mut(version) {
            Some(counts) => change(counts),
            None => change(versions.entry(version.to_owned()).or_default()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, VersionStatistics>> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that has begun. Dropping it is what counts it.
#[derive(Debug)]
pub(super) struct Pending {
    statistics: Statistics,
    version: String,
    begun: Instant,
    ended: bool,
}

impl Pending {
    /// All images of the request got an age.
    pub(super) fn succeeded(mut self, answers: &[Prediction]) {
        self.ended = true;
        let longest = |of: fn(&Prediction) -> Duration| answers.iter().map(of).max();
        let decode = longest(|answer| answer.decode).unwrap_or_default();
        let queue = longest(|answer| answer.queue).unwrap_or_default();
        let inference = longest(|answer| answer.inference).unwrap_or_default();
        let cached = |wanted| {
            let looked_up = answers.iter().filter_map(|answer| answer.cached);
            looked_up.filter(|cached| *cached == wanted).count() as u64
        };
        let (hits, misses) = (cached(true), cached(false));
        let elapsed = self.begun.elapsed();
        self.statistics.change(&self.version, |counts| {
            counts.cache.0 += hits;
            counts.cache.1 += misses;
            counts.images += answers.len() as u64;
            counts.succeeded.add(elapsed);
            counts.decode.add(decode);
            counts.queue.add(queue);
            counts.inference.add(inference);
        });
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.ended {
            let elapsed = self.begun.elapsed();
            self.statistics
                .change(&self.version, |counts| counts.failed.add(elapsed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(decode: u64, queue: u64, inference: u64) -> Prediction {
        Prediction {
            age: 30.0,
            interval: None,
            dimensions: (1, 1),
            annotated_png: None,
            explanation: None,
            faces: None,
            cached: (queue == 20).then_some(true),
            decode: Duration::from_millis(decode),
            queue: Duration::from_millis(queue),
            inference: Duration::from_millis(inference),
        }
    }

    #[test]
    fn a_request_counts_once_with_the_longest_time_of_its_images() {
        let statistics = Statistics::default();
        let pending = statistics.begin("models/age/versions/1");
        pending.succeeded(&[answer(1, 20, 300), answer(4, 10, 300)]);
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
        drop(statistics.begin("a"));
        let found = statistics.of("a");
        assert_eq!((found.failed.count, found.succeeded.count), (1, 0));
        assert_eq!(statistics.of("b"), VersionStatistics::default());
        assert_eq!(statistics.versions(), ["a"]);
    }

    #[test]
    fn passes_are_counted_by_size() {
        let statistics = Statistics::default();
        for (images, milliseconds) in [(3, 5), (1, 2), (3, 7)] {
            statistics.computed("a", images, Duration::from_millis(milliseconds));
        }
        let batches = statistics.of("a").batches;
        let expected = [(1, 1, 2), (3, 2, 12)].map(|(images, count, milliseconds)| {
            let time = Duration::from_millis(milliseconds);
            (images, Total { count, time })
        });
        assert_eq!(batches, BTreeMap::from(expected));
    }
}
