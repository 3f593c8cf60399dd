//! Answers that were given before, by the content of the image, the weights and what was wanted of it.
//!
//! The same bytes give the same age, so a client that asks twice for one image, such as for the profile image of a page that is shown often, need not wait for
//! the network twice. Off unless it is given memory: where images seldom come again, it only costs.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::telemetry::metrics::{self, CacheResult};

use super::{
    ServedModel,
    decoding::Image,
    predictor::{DecodeJob, PredictOptions, Prediction, RenderedExplanation},
};

/// What an answer takes beside its lists, with the cache's own bookkeeping.
const OVERHEAD: usize = 512;

/// The cache. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Cache(moka::sync::Cache<Key, Arc<Prediction>>);

/// What an answer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

/// What a key is made of; the hash is the expensive part.
pub(super) struct Parts {
    image: Bytes,
    model: Arc<ServedModel>,
    options: PredictOptions,
}

impl Key {
    /// The parts for an image; none for numbers that a client has prepared, which are as long to hash as to compute with.
    pub(super) fn parts(job: &DecodeJob) -> Option<Parts> {
        match &job.image {
            Image::Encoded(bytes) => Some(Parts {
                image: bytes.clone(),
                model: Arc::clone(&job.model),
                options: job.options,
            }),
            Image::TensorBytes(_) | Image::TensorValues(..) => None,
        }
    }
}

impl Parts {
    pub(super) fn key(&self) -> Key {
        let PredictOptions {
            annotate,
            explain,
            detect_faces,
            average_flip,
            interval_level,
        } = self.options;
        let mut hash = Sha256::new();
        // The version's name too: versions of the same weights may have other labels and intervals.
        for text in [&self.model.sha256, &self.model.name] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        hash.update([annotate, explain, detect_faces, average_flip].map(u8::from));
        hash.update(interval_level.unwrap_or(f64::NAN).to_le_bytes());
        hash.update(&self.image);
        Key(hash.finalize().into())
    }
}

impl Cache {
    /// A cache that takes so many bytes at most; what was not used for the longest time goes first.
    pub(super) fn new(bytes: u64) -> Self {
        let weigh =
            |_: &Key, answer: &Arc<Prediction>| u32::try_from(size(answer)).unwrap_or(u32::MAX);
        let cache = moka::sync::Cache::builder()
            .name("answers")
            .max_capacity(bytes)
            .weigher(weigh)
            .eviction_policy(moka::policy::EvictionPolicy::lru())
            .build();
        Cache(cache)
    }

    /// The answer, if it is there, which took no time now.
    pub(super) fn get(&self, key: &Key) -> Option<Prediction> {
        let found = self.0.get(key);
        let result = match found {
            Some(_) => CacheResult::Hit,
            None => CacheResult::Miss,
        };
        metrics::cache_looked_up(result, self.0.weighted_size());
        let answer = found.as_deref()?.clone();
        Some(Prediction {
            cached: Some(true),
            decode: Duration::ZERO,
            queue: Duration::ZERO,
            inference: Duration::ZERO,
            ..answer
        })
    }

    pub(super) fn insert(&self, key: Key, answer: Prediction) {
        self.0.insert(key, Arc::new(answer));
    }
}

/// Bytes that an answer takes.
fn size(answer: &Prediction) -> usize {
    let explained = |explained: &Option<RenderedExplanation>| {
        explained.as_ref().map_or(0, |explained| {
            let png = explained.png.as_ref().map_or(0, Vec::len);
            png + size_of_val(explained.explanation.years.as_slice())
        })
    };
    let faces = answer.faces.iter().flatten();
    let faces = faces.map(|face| size_of_val(face) + explained(&face.explanation));
    let annotated = answer.annotated_png.as_ref().map_or(0, Vec::len);
    OVERHEAD + annotated + explained(&answer.explanation) + faces.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use crate::{imaging::InputSpec, model::checkpoint::LabelScale};

    use super::*;

    fn parts(image: &'static [u8], version: &str, options: PredictOptions) -> Parts {
        let model = ServedModel {
            name: version.to_owned(),
            weights: "model.safetensors".into(),
            sha256: "abc".to_owned(),
            input: InputSpec::default(),
            label: LabelScale {
                scale: 1.0,
                offset: 0.0,
            },
            calibration: None,
            mean_training_age: None,
        };
        Parts {
            image: Bytes::from_static(image),
            model: Arc::new(model),
            options,
        }
    }

    fn answer(png: usize) -> Prediction {
        Prediction {
            age: 30.0,
            interval: None,
            dimensions: (1, 1),
            annotated_png: Some(vec![0; png]),
            explanation: None,
            faces: None,
            cached: None,
            decode: Duration::from_secs(1),
            queue: Duration::from_secs(1),
            inference: Duration::from_secs(1),
        }
    }

    #[test]
    fn key_is_the_same_for_the_same_and_another_for_everything_else() {
        let plain = PredictOptions::default();
        let key = |image, version, options| parts(image, version, options).key();
        let first = key(b"image", "models/age/versions/1", plain);
        assert_eq!(first, key(b"image", "models/age/versions/1", plain));
        let mut others = vec![
            key(b"images", "models/age/versions/1", plain),
            key(b"image", "models/age/versions/2", plain),
        ];
        let options = [
            PredictOptions {
                annotate: true,
                ..plain
            },
            PredictOptions {
                explain: true,
                ..plain
            },
            PredictOptions {
                detect_faces: true,
                ..plain
            },
            PredictOptions {
                average_flip: true,
                ..plain
            },
            PredictOptions {
                interval_level: Some(0.9),
                ..plain
            },
            PredictOptions {
                interval_level: Some(0.5),
                ..plain
            },
        ];
        others.extend(options.map(|options| key(b"image", "models/age/versions/1", options)));
        for (index, other) in others.iter().enumerate() {
            assert_ne!(first, *other, "{index}");
            assert!(!others[..index].contains(other), "{index}");
        }
    }

    #[test]
    fn answer_that_comes_from_the_cache_took_no_time() {
        let cache = Cache::new(1 << 20);
        let key = parts(b"image", "a", PredictOptions::default()).key();
        assert!(cache.get(&key).is_none());
        cache.insert(key, answer(10));
        let found = cache.get(&key).unwrap();
        assert_eq!((found.age, found.cached), (30.0, Some(true)));
        assert_eq!(found.annotated_png, Some(vec![0; 10]));
        assert_eq!(found.decode + found.queue + found.inference, Duration::ZERO);
    }

    #[test]
    fn what_was_not_used_for_the_longest_time_goes_when_the_memory_is_used_up() {
        let cache = Cache::new(5 * (1024 + OVERHEAD) as u64);
        let key = |version: &str| parts(b"image", version, PredictOptions::default()).key();
        for number in 0..5_u8 {
            cache.insert(key(&number.to_string()), answer(1024));
            cache.0.run_pending_tasks();
        }
        assert_eq!(cache.0.weighted_size(), 5 * (1024 + OVERHEAD) as u64);
        // Used, so that the next oldest goes.
        assert!(cache.get(&key("0")).is_some());
        cache.insert(key("5"), answer(1024));
        cache.0.run_pending_tasks();
        let kept = (0..6_u8).filter(|number| cache.0.contains_key(&key(&number.to_string())));
        assert_eq!(kept.collect::<Vec<_>>(), [0, 2, 3, 4, 5]);
        assert_eq!(cache.0.weighted_size(), 5 * (1024 + OVERHEAD) as u64);
    }
}
