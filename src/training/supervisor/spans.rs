//! What the trace of a training is told, when the call that started it is traced: the wait in the queue, and where the process says that its time went.
//!
//! All of it hangs on the span of that call, which is over long before; so the trace is whole however often the process is started, and by whichever server.

use std::time::SystemTime;

use crate::{
    proto::{v1, worker_v1::TimeSpan},
    telemetry::traces::{self, KeyValue, SpanDetails, Trace},
};

/// The first start of a training, which waited until now.
pub(super) fn queued(training: &v1::Training) {
    let Some(trace) = traces::current().filter(|_| training.attempt == 1) else {
        return;
    };
    if let Some(created) = training.create_time.and_then(moment) {
        let details = SpanDetails::of([KeyValue::new("visage.training", training.name.clone())]);
        trace
            .child()
            .record_span_at("queue", created, SystemTime::now(), details);
    }
}

/// Something that the process has done, with its parts.
pub(super) fn told(span: &TimeSpan) {
    if let Some(trace) = traces::current() {
        record_span(&trace, span);
    }
}

fn record_span(parent: &Trace, span: &TimeSpan) {
    let begin = span.begin.and_then(moment);
    let (Some(begin), Some(end)) = (begin, span.end.and_then(moment)) else {
        tracing::warn!(
            span = span.name,
            "the process told a span without its times"
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
    trace.record_span_at(span.name.clone(), begin, end, SpanDetails::of(attributes));
}

fn moment(time: prost_types::Timestamp) -> Option<SystemTime> {
    SystemTime::try_from(time).ok()
}
