//! Traces: spans of sampled calls, exported to a collector over OTLP.
//!
//! - `sampling`: which calls are sampled. `span`: the spans of sampled calls. `current`: the span
//!   that a task works for.
//! - `context`: the client's trace context (W3C `traceparent` and `tracestate`).
//! - `export`: the queue and the thread that exports spans.
//!
//! Most calls are not sampled and must cost nothing, so no span is entered or left. The server
//! measures its durations anyway, and for a sampled call [`Trace::record_span`] creates a span from
//! two instants once they are known. A sampled call has a [`Trace`], which is the [`current`] one
//! of its task, and is passed as a value to other threads. For all other calls it is `None`.
//!
//! Without an endpoint ([`Traces::off`]), a call costs one comparison.

mod context;
mod current;
mod export;
mod sampling;
mod span;
#[cfg(test)]
mod tests;

pub(crate) use opentelemetry::KeyValue;

pub(super) use self::current::current_id;
pub(crate) use self::{
    current::{current, in_scope, instrument},
    export::{Error, ExporterThread, FLUSH_DEADLINE},
    sampling::{Options, Traces},
    span::{CallKind, CallSpan, SpanDetails, Trace},
};
