//! W3C trace context: what a client says about the trace that its call belongs to.

use http::HeaderMap;
use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator},
    trace::{SpanContext, TraceContextExt, TraceFlags},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;

const PARENT: &str = "traceparent";
const STATE: &str = "tracestate";

/// The client's span; `None` when it sends none or one that cannot be read, which the specification treats alike.
pub(super) fn of_headers(headers: &HeaderMap) -> Option<SpanContext> {
    // Nearly all calls end here.
    let parent = headers.get(PARENT)?.to_str().ok()?;
    // Several headers are one list.
    let state: Vec<&str> = headers
        .get_all(STATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    parse(parent, &state.join(","))
}

/// Whether the parts have the lengths that W3C Trace Context says (section 3.2.2), which the library does not look at.
fn is_whole(parent: &str) -> bool {
    let lengths = parent.split('-').map(str::len);
    lengths.take(4).eq([2, 32, 16, 2])
}

/// The span that the two headers name.
pub(super) fn parse(parent: &str, state: &str) -> Option<SpanContext> {
    if !is_whole(parent) {
        return None;
    }
    let pair = Pair { parent, state };
    let found = TraceContextPropagator::new().extract_with_context(&Context::new(), &pair);
    let span = found.span();
    let context = span.span_context();
    context.is_valid().then(|| context.clone())
}

/// `traceparent` for work that belongs to a span.
pub(super) fn header(context: &SpanContext) -> String {
    format!(
        "00-{}-{}-{:02x}",
        context.trace_id(),
        context.span_id(),
        context.trace_flags() & TraceFlags::SAMPLED
    )
}

struct Pair<'a> {
    parent: &'a str,
    state: &'a str,
}

impl Extractor for Pair<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            PARENT => Some(self.parent),
            STATE => Some(self.state).filter(|state| !state.is_empty()),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec![PARENT, STATE]
    }
}
