use std::{
    borrow::Cow,
    fmt,
    sync::Arc,
    time::{Instant, SystemTime},
};

use opentelemetry::{
    KeyValue,
    trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SpanData, SpanEvents, SpanLinks};

use super::{context, sampling::Shared};
use crate::telemetry::metrics::RpcCode;

/// The identity of a span of a sampled call, and of its parent. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Trace(Arc<Point>);

struct Point {
    shared: Arc<Shared>,
    context: SpanContext,
    parent: SpanId,
    parent_is_remote: bool,
    clock: Clock,
}

/// The same moment on both clocks, so that all spans of a call use the monotonic one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    instant: Instant,
    time: SystemTime,
}

impl Clock {
    pub(super) fn at(instant: Instant) -> Self {
        Clock {
            instant,
            time: SystemTime::now() - instant.elapsed(),
        }
    }

    fn time(&self, instant: Instant) -> SystemTime {
        match instant.checked_duration_since(self.instant) {
            Some(later) => self.time + later,
            None => self.time - self.instant.duration_since(instant),
        }
    }
}

/// The data of a span except its name and times.
#[derive(Debug, Default)]
pub(crate) struct SpanDetails {
    pub(crate) attributes: Vec<KeyValue>,
    /// Related spans of other traces.
    pub(crate) links: Vec<SpanContext>,
}

impl SpanDetails {
    pub(crate) fn of(attributes: impl Into<Vec<KeyValue>>) -> Self {
        SpanDetails {
            attributes: attributes.into(),
            links: Vec::new(),
        }
    }
}

impl Trace {
    pub(super) fn new(
        shared: &Arc<Shared>,
        trace_id: TraceId,
        state: TraceState,
        parent: Option<&SpanContext>,
        clock: Clock,
    ) -> Self {
        let span_id = RandomIdGenerator::default().new_span_id();
        Trace(Arc::new(Point {
            shared: Arc::clone(shared),
            context: SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, false, state),
            parent: parent.map_or(SpanId::INVALID, SpanContext::span_id),
            parent_is_remote: parent.is_some_and(SpanContext::is_remote),
            clock,
        }))
    }

    /// A span that is recorded elsewhere, so its parent is not needed.
    pub(super) fn existing(shared: &Arc<Shared>, context: SpanContext, clock: Clock) -> Self {
        Trace(Arc::new(Point {
            shared: Arc::clone(shared),
            context,
            parent: SpanId::INVALID,
            parent_is_remote: false,
            clock,
        }))
    }

    /// Creates a span inside of this one. It becomes part of the trace when it is recorded.
    pub(crate) fn child(&self) -> Self {
        let context = &self.0.context;
        let state = context.trace_state().clone();
        let parent = Some(context);
        Trace::new(
            &self.0.shared,
            context.trace_id(),
            state,
            parent,
            self.0.clock,
        )
    }

    /// The identity that other spans can link to.
    pub(crate) fn context(&self) -> SpanContext {
        self.0.context.clone()
    }

    /// The identifier of the trace in log lines, 32 hexadecimal digits.
    pub(crate) fn id(&self) -> TraceId {
        self.0.context.trace_id()
    }

    /// `traceparent` for work elsewhere that belongs to this span.
    pub(crate) fn parent_header(&self) -> String {
        context::header(&self.0.context)
    }

    /// `tracestate` for the same; empty if the client sent none.
    pub(crate) fn state_header(&self) -> String {
        self.0.context.trace_state().header()
    }

    /// Queues this span for export, once, when it has ended. Does not wait; if the queue is full,
    /// the span is dropped and counted.
    pub(crate) fn record_span(
        &self,
        name: impl Into<Cow<'static, str>>,
        started: Instant,
        ended: Instant,
        details: SpanDetails,
    ) {
        let (started, ended) = (self.0.clock.time(started), self.0.clock.time(ended));
        self.record_span_at(name, started, ended, details);
    }

    /// As [`Trace::record_span`], with times of a clock that other processes share.
    pub(crate) fn record_span_at(
        &self,
        name: impl Into<Cow<'static, str>>,
        started: SystemTime,
        ended: SystemTime,
        details: SpanDetails,
    ) {
        self.send(
            SpanKind::Internal,
            name.into(),
            (started, ended),
            details,
            Status::Unset,
        );
    }

    fn send(
        &self,
        span_kind: SpanKind,
        name: Cow<'static, str>,
        (start_time, end_time): (SystemTime, SystemTime),
        details: SpanDetails,
        status: Status,
    ) {
        let point = &self.0;
        let mut links = SpanLinks::default();
        links.links = details.links.into_iter().map(Link::with_context).collect();
        point.shared.queue.send(SpanData {
            span_context: point.context.clone(),
            parent_span_id: point.parent,
            parent_span_is_remote: point.parent_is_remote,
            span_kind,
            name,
            start_time,
            end_time: end_time.max(start_time),
            attributes: details.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status,
            instrumentation_scope: point.shared.scope.clone(),
        });
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.parent_header())
    }
}

#[derive(Clone, Debug)]
pub(crate) enum CallKind {
    /// A gRPC method as `package.Service/Method`.
    Rpc(Arc<str>),
    /// A POST to an HTTP route.
    Post(&'static str),
}

/// The span of a running call. Its owner must call [`CallSpan::finish`], even if the call is
/// dropped.
#[derive(Debug)]
pub(crate) struct CallSpan {
    trace: Trace,
    kind: CallKind,
    started: Instant,
}

impl CallSpan {
    pub(super) fn new(trace: Trace, kind: CallKind, started: Instant) -> Self {
        CallSpan {
            trace,
            kind,
            started,
        }
    }

    pub(crate) fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Records the span with the current time as its end.
    pub(crate) fn finish(self, code: RpcCode) {
        // The variants are in the order of the numbers.
        let number = code as i64;
        let mut attributes = vec![KeyValue::new("rpc.grpc.status_code", number)];
        let name = match &self.kind {
            CallKind::Rpc(method) => {
                attributes.push(KeyValue::new("rpc.system", "grpc"));
                if let Some((service, method)) = method.split_once('/') {
                    attributes.push(KeyValue::new("rpc.service", service.to_owned()));
                    attributes.push(KeyValue::new("rpc.method", method.to_owned()));
                }
                method.to_string()
            }
            CallKind::Post(route) => {
                attributes.push(KeyValue::new("http.request.method", "POST"));
                attributes.push(KeyValue::new("http.route", *route));
                format!("POST {route}")
            }
        };
        let status = if is_server_error(code) {
            Status::error(code.as_str())
        } else {
            Status::Unset
        };
        let clock = self.trace.0.clock;
        let times = (clock.time(self.started), clock.time(Instant::now()));
        let details = SpanDetails::of(attributes);
        self.trace
            .send(SpanKind::Server, name.into(), times, details, status);
    }
}

/// Follows OpenTelemetry's conventions for servers.
fn is_server_error(code: RpcCode) -> bool {
    matches!(
        code,
        RpcCode::Unknown
            | RpcCode::DeadlineExceeded
            | RpcCode::Unimplemented
            | RpcCode::Internal
            | RpcCode::Unavailable
            | RpcCode::DataLoss
    )
}
