use std::{sync::Arc, time::Instant};

use http::HeaderMap;
use opentelemetry::{InstrumentationScope, trace::TraceState};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

use super::{
    context,
    export::{self, Error, ExporterThread},
    span::{CallKind, CallSpan, Clock, Trace},
};

/// Samples calls and exports their spans. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traces(Option<Arc<Shared>>);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) queue: export::Queue,
    /// Traces are sampled if the lower 63 bits of their identifier are below; 2^63 samples all.
    threshold: u64,
    pub(super) scope: InstrumentationScope,
}

#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The collector's address for OTLP over gRPC: `http://host:port`.
    pub(crate) endpoint: String,
    /// Share of calls to sample if the client does not decide, 0 to 1.
    pub(crate) sample_ratio: f64,
}

impl Traces {
    pub(crate) fn off() -> Self {
        Self(None)
    }

    /// Starts the thread that exports spans. The collector may start later.
    ///
    /// # Errors
    /// An invalid endpoint, or a thread that cannot be started.
    pub(crate) fn start(options: &Options) -> Result<(Self, ExporterThread), Error> {
        let (queue, thread) = export::start(&options.endpoint)?;
        Ok((Self::over(queue, options.sample_ratio), thread))
    }

    fn over(queue: export::Queue, sample_ratio: f64) -> Self {
        let scope = InstrumentationScope::builder("visage")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        Self(Some(Arc::new(Shared {
            queue,
            // In range because of the clamp.
            threshold: (sample_ratio.clamp(0.0, 1.0) * (1_u64 << 63) as f64) as u64,
            scope,
        })))
    }

    /// Starts the span of a call if it is sampled: if its client samples it, or at random if the
    /// client does not decide. With `may_start` false, the call never starts a trace of its own.
    pub(crate) fn call(
        &self,
        kind: impl FnOnce() -> CallKind,
        headers: &HeaderMap,
        may_start: bool,
    ) -> Option<CallSpan> {
        let shared = self.0.as_ref()?;
        let parent = context::from_headers(headers);
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
        let clock = Clock::at(started);
        let trace = Trace::new(shared, trace_id, state, parent.as_ref(), clock);
        Some(CallSpan::new(trace, kind(), started))
    }

    /// The span of a sampled call from its headers, for work after the call or in another process.
    pub(crate) fn continue_remote(&self, trace_parent: &str, trace_state: &str) -> Option<Trace> {
        let shared = self.0.as_ref()?;
        let context = context::parse(trace_parent, trace_state)?;
        context
            .is_sampled()
            .then(|| Trace::existing(shared, context, Clock::at(Instant::now())))
    }

    /// Traces whose spans a test receives.
    #[cfg(test)]
    pub(in crate::telemetry) fn for_test(
        sample_ratio: f64,
    ) -> (
        Self,
        tokio::sync::mpsc::Receiver<opentelemetry_sdk::trace::SpanData>,
    ) {
        let (queue, spans) = export::Queue::for_test();
        (Self::over(queue, sample_ratio), spans)
    }
}
