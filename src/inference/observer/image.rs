//! The steps of one image.

use std::time::Instant;

use crate::{
    inference::{Error, job::Job},
    telemetry::{
        metrics::{self, CacheResult, RejectionReason},
        traces::{KeyValue, SpanDetails},
    },
};

/// Records the rejection that an error stands for, if any.
pub(crate) fn rejected_for(error: &Error) {
    let reason = match error {
        Error::Image { .. } | Error::Pixels { .. } => RejectionReason::InvalidImage,
        Error::QueueFull { .. } => RejectionReason::QueueFull,
        Error::ShareFull { .. } => RejectionReason::ShareFull,
        Error::WaitTooLong { .. } => RejectionReason::WaitTooLong,
        Error::DeadlineExceeded => RejectionReason::DeadlineExceeded,
        Error::File { .. } | Error::Model { .. } | Error::NotFinite { .. } | Error::EngineGone => {
            return;
        }
    };
    metrics::prediction_rejected(reason);
}

pub(crate) fn cache_looked_up(is_hit: bool, cache_bytes: u64) {
    let result = if is_hit {
        CacheResult::Hit
    } else {
        CacheResult::Miss
    };
    metrics::cache_looked_up(result, cache_bytes);
}

/// Adds the span of decoding, which ends now.
pub(crate) fn decoded(job: &Job, started: Instant) {
    step(job, "decode", started);
}

/// Records the detection of faces, which ends now.
pub(crate) fn faces_detected(job: &Job, started: Instant, faces: usize) {
    metrics::faces_found(faces, started.elapsed());
    step(job, "detect", started);
}

fn step(job: &Job, name: &'static str, started: Instant) {
    if let Some(trace) = &job.trace {
        let details = SpanDetails::of([number("visage.image.index", job.index)]);
        trace
            .child()
            .record_span(name, started, Instant::now(), details);
    }
}

pub(super) fn number(key: &'static str, value: usize) -> KeyValue {
    KeyValue::new(key, i64::try_from(value).unwrap_or(i64::MAX))
}
