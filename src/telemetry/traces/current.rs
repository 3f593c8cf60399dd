use opentelemetry::trace::TraceId;

use super::span::Trace;

tokio::task_local! {
    static CURRENT: Trace;
}

/// The span that the current task works for, if its call is sampled.
pub(crate) fn current() -> Option<Trace> {
    CURRENT.try_with(Trace::clone).ok()
}

/// The trace that the current task works for, for its log lines.
pub(in crate::telemetry) fn current_id() -> Option<TraceId> {
    CURRENT.try_with(Trace::id).ok()
}

/// Runs work with a span as the [`current`] one.
pub(crate) fn in_scope<T>(trace: Option<&Trace>, work: impl FnOnce() -> T) -> T {
    match trace {
        None => work(),
        Some(trace) => CURRENT.sync_scope(trace.clone(), work),
    }
}

/// As [`in_scope`], for asynchronous work.
pub(crate) async fn instrument<F: Future>(trace: Option<Trace>, work: F) -> F::Output {
    match trace {
        None => work.await,
        Some(trace) => CURRENT.scope(trace, work).await,
    }
}
