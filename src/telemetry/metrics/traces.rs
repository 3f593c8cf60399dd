use crate::telemetry::metrics::{
    families::{TRACE_SPANS, TRACE_SPANS_LOST},
    labels::SpanLoss,
    series::counter,
};

pub(crate) fn trace_spans_sent(count: u64) {
    counter(&TRACE_SPANS, &[]).increment(count);
}

pub(crate) fn trace_spans_lost(reason: SpanLoss, count: u64) {
    counter(&TRACE_SPANS_LOST, &[reason.as_str().into()]).increment(count);
}
