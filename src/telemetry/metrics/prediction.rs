use std::time::Duration;

use crate::telemetry::metrics::{
    families::{
        CACHE_LOOKUPS, CACHE_SIZE, PREDICT_BATCH_SIZE, PREDICT_DECODE, PREDICT_DETECTION,
        PREDICT_FACES, PREDICT_IMAGES, PREDICT_INFERENCE, PREDICT_QUEUE, PREDICT_QUEUE_DEPTH,
        PREDICT_REJECTIONS,
    },
    labels::{CacheResult, ImageOutcome, RejectionReason},
    series::{counter, gauge, histogram},
};

pub(crate) fn image_finished(outcome: ImageOutcome) {
    counter(&PREDICT_IMAGES, &[outcome.as_str().into()]).increment(1);
}

/// Counts a rejected request, or a rejected part of one; its images are counted by
/// [`image_finished`] as well.
pub(crate) fn prediction_rejected(reason: RejectionReason) {
    counter(&PREDICT_REJECTIONS, &[reason.as_str().into()]).increment(1);
}

pub(crate) fn image_decoded(elapsed: Duration) {
    histogram(&PREDICT_DECODE, &[]).record(elapsed);
}

pub(crate) fn faces_found(faces: usize, elapsed: Duration) {
    histogram(&PREDICT_FACES, &[]).record(faces as f64);
    histogram(&PREDICT_DETECTION, &[]).record(elapsed);
}

/// Records the time that an image waited for the engine.
pub(crate) fn image_dequeued(waited: Duration) {
    histogram(&PREDICT_QUEUE, &[]).record(waited);
}

pub(crate) fn batch_computed(images: usize, elapsed: Duration) {
    histogram(&PREDICT_BATCH_SIZE, &[]).record(images as f64);
    histogram(&PREDICT_INFERENCE, &[]).record(elapsed);
}

/// Counts a cache lookup and records the size of the cache after it.
pub(crate) fn cache_looked_up(result: CacheResult, bytes: u64) {
    counter(&CACHE_LOOKUPS, &[result.as_str().into()]).increment(1);
    gauge(&CACHE_SIZE, &[]).set(bytes as f64);
}

pub(crate) fn prediction_queue_depth(images: usize) {
    gauge(&PREDICT_QUEUE_DEPTH, &[]).set(images as f64);
}
