//! Spans of a training whose start was traced: its time in the queue, and those of the worker.
//!
//! Their parent is the span of the request that started the training, so that the trace is complete
//! across restarts of the process and of the server.

use std::time::SystemTime;

use crate::{
    proto::{v1, worker_v1::Span},
    telemetry::traces::{self, KeyValue, SpanDetails, Trace},
};

/// Records the time in the queue before the first start.
pub(super) fn record_queue_time(training: &v1::Training) {
    let Some(trace) = traces::current().filter(|_| training.attempt == 1) else {
        return;
    };
    if let Some(created) = training.create_time.and_then(to_system_time) {
        let details = SpanDetails::of([KeyValue::new("visage.training", training.name.clone())]);
        trace
            .child()
            .record_span_at("queue", created, SystemTime::now(), details);
    }
}

/// Records a span of the worker and its children.
pub(super) fn record_worker_span(span: &Span) {
    if let Some(trace) = traces::current() {
        record_span(&trace, span);
    }
}

fn record_span(parent: &Trace, span: &Span) {
    let start = span.start.and_then(to_system_time);
    let (Some(start), Some(end)) = (start, span.end.and_then(to_system_time)) else {
        tracing::warn!(
            span = span.name,
            "ignored a span of the worker without its times"
        );
        return;
    };
    let trace = parent.child();
    for part in &span.parts {
        record_span(&trace, part);
    }
    let mut attributes = Vec::new();
    if span.epoch > 0 {
        attributes.push(KeyValue::new("visage.epoch", i64::from(span.epoch)));
    }
    if span.summed {
        attributes.push(KeyValue::new("visage.summed", true));
    }
    trace.record_span_at(span.name.clone(), start, end, SpanDetails::of(attributes));
}

fn to_system_time(time: prost_types::Timestamp) -> Option<SystemTime> {
    SystemTime::try_from(time).ok()
}
