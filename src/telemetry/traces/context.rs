//! W3C trace context: the trace that a client's call belongs to.

use http::HeaderMap;
use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator},
    trace::{SpanContext, TraceContextExt, TraceFlags},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;

const PARENT: &str = "traceparent";
const STATE: &str = "tracestate";

/// The client's span; `None` if it is missing or malformed, which the specification treats alike.
pub(super) fn from_headers(headers: &HeaderMap) -> Option<SpanContext> {
    // Most calls return here.
    let parent = headers.get(PARENT)?.to_str().ok()?;
    // Several headers form one list.
    let state: Vec<&str> = headers
        .get_all(STATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    parse(parent, &state.join(","))
}

/// Checks the lengths of the parts (W3C Trace Context, section 3.2.2), which the library does not.
fn has_valid_lengths(parent: &str) -> bool {
    let lengths = parent.split('-').map(str::len);
    lengths.take(4).eq([2, 32, 16, 2])
}

/// Parses the two headers.
pub(super) fn parse(parent: &str, state: &str) -> Option<SpanContext> {
    if !has_valid_lengths(parent) {
        return None;
    }
    let pair = Pair { parent, state };
    let found = TraceContextPropagator::new().extract_with_context(&Context::new(), &pair);
    let span = found.span();
    let context = span.span_context();
    context.is_valid().then(|| context.clone())
}

/// `traceparent` of a span.
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
