//! Earlier predictions, by image content, weights and options.
//!
//! Equal bytes have equal ages, so a client that repeats an image, such as the profile image of a
//! page that is shown often, need not wait for the network again. Disabled unless it is given
//! memory: where images seldom repeat, it only costs.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{
    Image, PredictOptions, Prediction, RenderedExplanation, ServedModel, job::Job, observer,
};

/// Bytes of an entry besides its lists, including the cache's own bookkeeping.
const OVERHEAD: usize = 512;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct PredictionCache(moka::sync::Cache<CacheKey, Arc<Prediction>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct CacheKey([u8; 32]);

/// Input of a key. The key itself takes milliseconds to compute for a large image.
pub(super) struct CacheInput {
    image: Bytes,
    model: Arc<ServedModel>,
    options: PredictOptions,
}

impl CacheInput {
    /// Returns `None` for preprocessed input, which takes as long to hash as to predict on.
    pub(super) fn new(job: &Job, image: &Image) -> Option<Self> {
        match image {
            Image::Encoded(bytes) => Some(CacheInput {
                image: bytes.clone(),
                model: Arc::clone(&job.model),
                options: job.options,
            }),
            Image::TensorBytes(_) | Image::TensorValues(..) => None,
        }
    }

    pub(super) fn key(&self) -> CacheKey {
        let PredictOptions {
            annotate,
            explain,
            detect_faces,
            average_flip,
            interval_level,
        } = self.options;
        let mut hash = Sha256::new();
        // The name too: versions with equal weights may have other labels and intervals.
        for text in [&self.model.sha256, &self.model.name] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        hash.update([annotate, explain, detect_faces, average_flip].map(u8::from));
        hash.update(interval_level.unwrap_or(f64::NAN).to_le_bytes());
        hash.update(&self.image);
        CacheKey(hash.finalize().into())
    }
}

impl PredictionCache {
    /// A cache of at most this many bytes, which evicts the least recently used predictions.
    pub(super) fn new(bytes: u64) -> Self {
        let weigh = |_: &CacheKey, prediction: &Arc<Prediction>| {
            u32::try_from(size(prediction)).unwrap_or(u32::MAX)
        };
        let cache = moka::sync::Cache::builder()
            .name("predictions")
            .max_capacity(bytes)
            .weigher(weigh)
            .eviction_policy(moka::policy::EvictionPolicy::lru())
            .build();
        PredictionCache(cache)
    }

    /// Returns a cached prediction, whose durations are zero.
    pub(super) fn get(&self, key: &CacheKey) -> Option<Prediction> {
        let found = self.0.get(key);
        observer::cache_looked_up(found.is_some(), self.0.weighted_size());
        let prediction = found.as_deref()?.clone();
        Some(Prediction {
            cached: Some(true),
            decode: Duration::ZERO,
            queue: Duration::ZERO,
            inference: Duration::ZERO,
            ..prediction
        })
    }

    pub(super) fn insert(&self, key: CacheKey, prediction: Prediction) {
        self.0.insert(key, Arc::new(prediction));
    }
}

/// Returns the memory that a prediction takes, in bytes.
fn size(prediction: &Prediction) -> usize {
    let rendered = |rendered: &Option<RenderedExplanation>| {
        rendered.as_ref().map_or(0, |rendered| {
            let png = rendered.png.as_ref().map_or(0, Vec::len);
            png + size_of_val(rendered.explanation.years.as_slice())
        })
    };
    let faces = prediction.faces.iter().flatten();
    let faces = faces.map(|face| size_of_val(face) + rendered(&face.explanation));
    let annotated = prediction.annotated_png.as_ref().map_or(0, Vec::len);
    OVERHEAD + annotated + rendered(&prediction.explanation) + faces.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::test_support;

    fn key(image: &'static [u8], version: &str, options: PredictOptions) -> CacheKey {
        let input = CacheInput {
            image: Bytes::from_static(image),
            model: test_support::model(version),
            options,
        };
        input.key()
    }

    fn prediction(png: usize) -> Prediction {
        Prediction {
            annotated_png: Some(vec![0; png]),
            ..test_support::prediction()
        }
    }

    #[test]
    fn keys_differ_by_image_version_and_options() {
        const VERSION: &str = "models/age/versions/1";
        let plain = PredictOptions::default();
        let first = key(b"image", VERSION, plain);
        assert_eq!(first, key(b"image", VERSION, plain));
        let mut others = vec![
            key(b"images", VERSION, plain),
            key(b"image", "models/age/versions/2", plain),
        ];
        let changes: [fn(&mut PredictOptions); 6] = [
            |options| options.annotate = true,
            |options| options.explain = true,
            |options| options.detect_faces = true,
            |options| options.average_flip = true,
            |options| options.interval_level = Some(0.9),
            |options| options.interval_level = Some(0.5),
        ];
        others.extend(changes.map(|change| {
            let mut options = plain;
            change(&mut options);
            key(b"image", VERSION, options)
        }));
        for (index, other) in others.iter().enumerate() {
            assert_ne!(first, *other, "{index}");
            assert!(!others[..index].contains(other), "{index}");
        }
    }

    #[test]
    fn cached_prediction_took_no_time() {
        let cache = PredictionCache::new(1 << 20);
        let key = key(b"image", "a", PredictOptions::default());
        assert!(cache.get(&key).is_none());
        cache.insert(key, prediction(10));
        let found = cache.get(&key).unwrap();
        assert_eq!((found.age, found.cached), (30.0, Some(true)));
        assert_eq!(found.annotated_png, Some(vec![0; 10]));
        assert_eq!(found.decode + found.queue + found.inference, Duration::ZERO);
    }

    #[test]
    fn least_recently_used_prediction_is_evicted_when_the_memory_is_used_up() {
        let cache = PredictionCache::new(5 * (1024 + OVERHEAD) as u64);
        let key = |version: &str| key(b"image", version, PredictOptions::default());
        for number in 0..5_u8 {
            cache.insert(key(&number.to_string()), prediction(1024));
            cache.0.run_pending_tasks();
        }
        assert_eq!(cache.0.weighted_size(), 5 * (1024 + OVERHEAD) as u64);
        // Used, so that the next oldest is evicted.
        assert!(cache.get(&key("0")).is_some());
        cache.insert(key("5"), prediction(1024));
        cache.0.run_pending_tasks();
        let kept = (0..6_u8).filter(|number| cache.0.contains_key(&key(&number.to_string())));
        assert_eq!(kept.collect::<Vec<_>>(), [0, 2, 3, 4, 5]);
        assert_eq!(cache.0.weighted_size(), 5 * (1024 + OVERHEAD) as u64);
    }
}
