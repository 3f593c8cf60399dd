//! What the trace of a call is told about its images: decoding, the wait for the engine, and the forward pass with the batch that it was.
//!
//! A batch serves images of many calls. It is in the trace of the first of them that is followed, with a link to each that is, and each image's span of the
//! forward pass links to it.

use std::time::{Duration, Instant};

use crate::telemetry::traces::{KeyValue, SpanDetails, Trace};

use super::queue::QueueEntry;

/// A step of an image that ended now: `decode` or `detect`.
pub(super) fn step(trace: Option<&Trace>, name: &'static str, index: usize, begun: Instant) {
    if let Some(trace) = trace {
        let details = SpanDetails::of([number("visage.image.index", index)]);
        trace
            .child()
            .record_span(name, begun, Instant::now(), details);
    }
}

/// The images of a batch whose calls are followed, with the moments at which they came into the queue. Most batches have none.
pub(super) fn followed(batch: &[QueueEntry]) -> Vec<(Trace, Instant)> {
    let followed = |item: &QueueEntry| Some((item.trace.clone()?, item.enqueued));
    batch.iter().filter_map(followed).collect()
}

/// A forward pass over `images` images which began at `begun` and took `inference`.
pub(super) fn batch(
    followed: &[(Trace, Instant)],
    model: &str,
    images: usize,
    begun: Instant,
    inference: Duration,
) {
    let Some((first, _)) = followed.first() else {
        return;
    };
    let batch = first.child();
    let ended = begun + inference;
    let mut links = Vec::with_capacity(followed.len());
    for (trace, enqueued) in followed {
        let waiting = trace.child();
        waiting.record_span("queue", *enqueued, begun, SpanDetails::default());
        let computing = trace.child();
        links.push(computing.context());
        let details = SpanDetails {
            attributes: vec![number("visage.batch.images", images)],
            links: vec![batch.context()],
        };
        computing.record_span("inference", begun, ended, details);
    }
    let details = SpanDetails {
        attributes: vec![
            number("visage.batch.images", images),
            KeyValue::new("visage.model", model.to_owned()),
        ],
        links,
    };
    batch.record_span("batch", begun, ended, details);
}

fn number(key: &'static str, value: usize) -> KeyValue {
    KeyValue::new(key, i64::try_from(value).unwrap_or(i64::MAX))
}
