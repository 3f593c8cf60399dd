//! Traces: where the time of a call went, sent to a collector over OTLP.
//!
//! - this file: which calls are followed, and the spans of those that are.
//! - `context`: what clients send along (W3C `traceparent` and `tracestate`).
//! - `export`: the queue and the thread that sends spans.
//!
//! Most calls are not followed, and they must cost nothing. So nothing is opened or entered: the server measures its durations anyhow, and where a call is
//! followed, [`Trace::record_span`] makes a span of two moments once they are known. A call that is followed has a [`Trace`], which goes with it: through
//! asynchronous code as the task's [`current`] one, and as a value where work changes the thread. Everything else sees `None`.
//!
//! Without an endpoint there are no traces, and a [`Traces`] of [`Traces::off`] is one comparison.

mod context;
mod export;

#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    fmt,
    future::Future,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::HeaderMap;
use opentelemetry::{
    InstrumentationScope,
    trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SpanData, SpanEvents, SpanLinks};

use super::metrics::RpcCode;

pub(crate) use export::{Error, ExporterThread};
pub(crate) use opentelemetry::KeyValue;

/// How long the spans that wait at the end of the server may take to be sent.
pub(crate) const FLUSH_DEADLINE: Duration = Duration::from_secs(3);

/// Whether calls are followed, and where their spans go. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traces(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    queue: export::Queue,
    /// Traces whose identifier's lower 63 bits are below it are followed; 2^63 for all of them.
    threshold: u64,
    scope: InstrumentationScope,
}

/// Where spans go and how many calls are followed.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The collector's address for OTLP over gRPC: `http://host:port`.
    pub(crate) endpoint: String,
    /// Share of the calls that are followed where the client does not say, 0 to 1.
    pub(crate) sample_ratio: f64,
}

impl Traces {
    /// No traces at all.
    #[must_use]
    pub(crate) fn off() -> Self {
        Self(None)
    }

    /// Starts the thread that sends spans. Whether anybody listens at the endpoint is not looked at: it may come later.
    ///
    /// # Errors
    /// An endpoint that is no address, or a thread that the operating system refuses.
    pub(crate) fn start(options: &Options) -> Result<(Self, ExporterThread), Error> {
        let (queue, exporting) = export::start(&options.endpoint)?;
        Ok((Self::over(queue, options.sample_ratio), exporting))
    }

    fn over(queue: export::Queue, sample_ratio: f64) -> Self {
        let scope = InstrumentationScope::builder("visage")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        Self(Some(Arc::new(Shared {
            queue,
            // In range by the clamp.
            threshold: (sample_ratio.clamp(0.0, 1.0) * (1_u64 << 63) as f64) as u64,
            scope,
        })))
    }

    /// The span of a call that begins now, if it is followed: when its client follows it, or, where the client does not say, by chance. `may_start` is false
    /// for calls that are not worth a trace of their own.
    #[must_use]
    pub(crate) fn call(
        &self,
        kind: impl FnOnce() -> CallKind,
        headers: &HeaderMap,
        may_start: bool,
    ) -> Option<CallSpan> {
        let shared = self.0.as_ref()?;
        let parent = context::of_headers(headers);
        let (trace_id, state) = match &parent {
            Some(parent) if parent.is_sampled() => {
                (parent.trace_id(), parent.trace_state().clone())
            }
            Some(_) => return None,
            None if !may_start => return None,
            None => {
                let trace_id = RandomIdGenerator::default().new_trace_id();
                let lower = u128::from_be_bytes(trace_id.to_bytes()) as u64;
                if lower >> 1 >= shared.threshold {
                    return None;
                }
                (trace_id, TraceState::NONE)
            }
        };
        let started = Instant::now();
        let trace = Trace::new(shared, trace_id, state, parent.as_ref(), Clock::at(started));
        Some(CallSpan {
            trace,
            kind: kind(),
            started,
        })
    }

    /// Traces whose spans a test receives.
    #[cfg(test)]
    pub(super) fn for_test(sample_ratio: f64) -> (Self, tokio::sync::mpsc::Receiver<SpanData>) {
        let (queue, spans) = export::Queue::for_test();
        (Self::over(queue, sample_ratio), spans)
    }

    /// The span that these headers name, if there are traces and it is followed: work that goes on after its call, or in another process.
    #[must_use]
    pub(crate) fn from_remote(&self, trace_parent: &str, trace_state: &str) -> Option<Trace> {
        let shared = self.0.as_ref()?;
        let context = context::parse(trace_parent, trace_state)?;
        context.is_sampled().then(|| {
            Trace(Arc::new(Point {
                shared: Arc::clone(shared),
                context,
                // Told by whoever made it.
                parent: SpanId::INVALID,
                parent_is_remote: false,
                clock: Clock::at(Instant::now()),
            }))
        })
    }
}

/// A span of a call that is followed: its own identity, and where it belongs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Trace(Arc<Point>);

struct Point {
    shared: Arc<Shared>,
    context: SpanContext,
    parent: SpanId,
    parent_is_remote: bool,
    clock: Clock,
}

/// A moment on both clocks, so that all spans of a call are laid out by the one that never jumps.
#[derive(Clone, Copy, Debug)]
struct Clock {
    instant: Instant,
    time: SystemTime,
}

impl Clock {
    fn at(instant: Instant) -> Self {
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

/// What a span says beside its name and its times.
#[derive(Debug, Default)]
pub(crate) struct SpanDetails {
    /// Its attributes.
    pub(crate) attributes: Vec<KeyValue>,
    /// Spans of other traces that it has to do with.
    pub(crate) links: Vec<SpanContext>,
}

impl SpanDetails {
    /// Only attributes.
    #[must_use]
    pub(crate) fn of(attributes: impl Into<Vec<KeyValue>>) -> Self {
        SpanDetails {
            attributes: attributes.into(),
            links: Vec::new(),
        }
    }
}

impl Trace {
    fn new(
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

    /// A new span inside of this one. It is in the trace once it is told.
    #[must_use]
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

    /// What others may link to.
    #[must_use]
    pub(crate) fn context(&self) -> SpanContext {
        self.0.context.clone()
    }

    /// The trace's identifier, which log lines bear: 32 hexadecimal digits when it is shown.
    #[must_use]
    pub(crate) fn id(&self) -> TraceId {
        self.0.context.trace_id()
    }

    /// `traceparent` for work elsewhere that belongs to this span.
    #[must_use]
    pub(crate) fn parent_header(&self) -> String {
        context::header(&self.0.context)
    }

    /// `tracestate` for the same; empty when the client sent none.
    #[must_use]
    pub(crate) fn state_header(&self) -> String {
        self.0.context.trace_state().header()
    }

    /// Sends this span, once: it is over, and this is all about it. Waits for nothing; when the queue is full the span is dropped and counted.
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

    /// The same with times of a clock that other processes have, too.
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

/// What kind of call a span is about.
#[derive(Clone, Debug)]
pub(crate) enum CallKind {
    /// A gRPC method as `package.Service/Method`.
    Rpc(Arc<str>),
    /// A POST to an HTTP route.
    Post(&'static str),
}

/// A call that is followed and has not ended. Whoever holds it owes it a [`CallSpan::finish`], also when the call is dropped.
#[derive(Debug)]
pub(crate) struct CallSpan {
    trace: Trace,
    kind: CallKind,
    started: Instant,
}

impl CallSpan {
    /// The call's span, for what is done inside of it.
    #[must_use]
    pub(crate) fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Tells the span: the call ended now, with this code.
    pub(crate) fn finish(self, code: RpcCode) {
        let number = RpcCode::ALL.iter().position(|known| *known == code);
        let number = number.and_then(|number| i64::try_from(number).ok());
        let mut attributes = vec![KeyValue::new(
            "rpc.grpc.status_code",
            number.unwrap_or_default(),
        )];
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
        let status = if is_our_fault(code) {
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

/// Whether a call that ended so failed by the server's fault, as OpenTelemetry's conventions for servers have it.
fn is_our_fault(code: RpcCode) -> bool {
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

tokio::task_local! {
    static CURRENT: Trace;
}

/// The span that this task works for, if it is followed.
#[must_use]
pub(crate) fn current() -> Option<Trace> {
    CURRENT.try_with(Trace::clone).ok()
}

/// The trace that this task works for, for its log lines.
pub(super) fn current_id() -> Option<TraceId> {
    CURRENT.try_with(Trace::id).ok()
}

/// Does something for a span: until it is done, that is the [`current`] one.
pub(crate) fn in_scope<T>(trace: Option<&Trace>, work: impl FnOnce() -> T) -> T {
    match trace {
        None => work(),
        Some(trace) => CURRENT.sync_scope(trace.clone(), work),
    }
}

/// The same for asynchronous work.
pub(crate) async fn instrument<F: Future>(trace: Option<Trace>, work: F) -> F::Output {
    match trace {
        None => work.await,
        Some(trace) => CURRENT.scope(trace, work).await,
    }
}
