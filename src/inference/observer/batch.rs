//! Forward passes.
//!
//! A batch serves images of many requests. Its span is in the trace of the first request that is
//! sampled, with a link to each image's own span of the forward pass, and these link back to it.

use std::time::{Duration, Instant};

use super::{Statistics, image::number};
use crate::{
    inference::queue::QueueEntry,
    model,
    telemetry::{
        metrics,
        traces::{self, KeyValue, SpanDetails, Trace},
    },
};

/// Records a forward pass that started at `started` and took `inference`.
pub(crate) fn batch_computed(
    statistics: &Statistics,
    model: &str,
    entries: &[QueueEntry],
    started: Instant,
    inference: Duration,
) {
    add_spans(model, entries, started, inference);
    metrics::batch_computed(entries.len(), inference);
    statistics.record_batch(model, entries.len(), inference);
}

/// Logs a forward pass that failed.
pub(crate) fn batch_failed(model: &str, entries: &[QueueEntry], error: &model::Error) {
    let trace = sampled(entries).next().map(|(trace, _)| trace);
    traces::in_scope(trace, || {
        tracing::error!(model, %error, "failed to compute a batch");
    });
}

/// Spans of the requests that are sampled; most batches have none.
fn sampled(entries: &[QueueEntry]) -> impl Iterator<Item = (&Trace, &QueueEntry)> {
    entries
        .iter()
        .filter_map(|entry| Some((entry.job.trace.as_ref()?, entry)))
}

fn add_spans(model: &str, entries: &[QueueEntry], started: Instant, inference: Duration) {
    let Some((first, _)) = sampled(entries).next() else {
        return;
    };
    let batch = first.child();
    let ended = started + inference;
    let images = || number("visage.batch.images", entries.len());
    let mut links = Vec::new();
    for (trace, entry) in sampled(entries) {
        trace
            .child()
            .record_span("queue", entry.enqueued, started, SpanDetails::default());
        let forward = trace.child();
        links.push(forward.context());
        let details = SpanDetails {
            attributes: vec![images()],
            links: vec![batch.context()],
        };
        forward.record_span("inference", started, ended, details);
    }
    let details = SpanDetails {
        attributes: vec![images(), KeyValue::new("visage.model", model.to_owned())],
        links,
    };
    batch.record_span("batch", started, ended, details);
}
