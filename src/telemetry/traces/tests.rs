use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, HeaderValue};
use opentelemetry::{
    Value,
    trace::{SpanId, SpanKind, Status},
};
use opentelemetry_sdk::trace::SpanData;

use super::{CallKind, SpanDetails, Traces, current, in_scope, instrument};
use crate::telemetry::metrics::RpcCode;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const NOT_SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

fn headers(parent: &str) -> HeaderMap {
    let value = HeaderValue::from_str(parent).unwrap();
    HeaderMap::from_iter([("traceparent".parse().unwrap(), value)])
}

fn predict() -> CallKind {
    CallKind::Rpc("visage.v1.PredictionService/Predict".into())
}

#[test]
fn client_decides_and_otherwise_calls_are_sampled_at_random() {
    let (never, _spans) = Traces::for_test(0.0);
    let (always, _spans) = Traces::for_test(1.0);
    let sample = |traces: &Traces, headers: &HeaderMap| {
        let span = traces.call(predict, headers, true);
        span.map(|span| span.trace().id().to_string())
    };
    assert_eq!(
        sample(&never, &headers(SAMPLED)).as_deref(),
        Some(TRACE),
        "the client's trace continues"
    );
    assert_eq!(sample(&always, &headers(NOT_SAMPLED)), None);
    assert_eq!(sample(&never, &HeaderMap::new()), None);
    assert!(sample(&always, &HeaderMap::new()).is_some_and(|id| id != TRACE));
    // Malformed headers are ignored.
    for wrong in [
        "",
        "00-abc-def-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
    ] {
        assert_eq!(sample(&never, &headers(wrong)), None, "{wrong}");
        assert!(sample(&always, &headers(wrong)).is_some(), "{wrong}");
    }
    let off = Traces::off();
    assert_eq!(sample(&off, &headers(SAMPLED)), None);
    assert!(off.continue_remote(SAMPLED, "").is_none());
}

#[test]
fn calls_that_may_not_start_a_trace_can_belong_to_one() {
    let (traces, _spans) = Traces::for_test(1.0);
    assert!(traces.call(predict, &HeaderMap::new(), false).is_none());
    assert!(traces.call(predict, &headers(SAMPLED), false).is_some());
}

#[test]
fn ratio_is_the_share_of_sampled_calls() {
    let (traces, _spans) = Traces::for_test(0.25);
    let sampled = |_: &u32| traces.call(predict, &HeaderMap::new(), true).is_some();
    let count = (0..4000).filter(sampled).count();
    // Seven standard deviations.
    assert!((810..1190).contains(&count), "{count} of 4000");
}

#[test]
fn span_of_a_call_has_its_parent_its_code_and_the_client_s_state() {
    let (traces, mut spans) = Traces::for_test(0.0);
    let mut sent = headers(SAMPLED);
    sent.append("tracestate", HeaderValue::from_static("a=1"));
    sent.append("tracestate", HeaderValue::from_static("b=2"));
    let call = traces.call(predict, &sent, true).unwrap();
    assert_eq!(call.trace().state_header(), "a=1,b=2");
    let identity = call.trace().context();
    call.finish(RpcCode::Unavailable);
    let span = spans.try_recv().unwrap();
    assert_eq!(span.name, "visage.v1.PredictionService/Predict");
    assert_eq!(span.span_context, identity);
    assert_eq!(span.span_kind, SpanKind::Server);
    assert_eq!(span.parent_span_id.to_string(), "00f067aa0ba902b7");
    assert!(span.parent_span_is_remote);
    assert_eq!(span.status, Status::error("unavailable"));
    let attribute = |key: &str| {
        let found = span
            .attributes
            .iter()
            .find(|found| found.key.as_str() == key);
        found.unwrap().value.clone()
    };
    assert_eq!(attribute("rpc.grpc.status_code"), Value::I64(14));
    assert_eq!(
        attribute("rpc.service"),
        Value::from("visage.v1.PredictionService")
    );
    assert_eq!(attribute("rpc.method"), Value::from("Predict"));
}

#[test]
fn client_error_leaves_the_status_of_the_span_unset() {
    let (traces, mut spans) = Traces::for_test(1.0);
    let post = || CallKind::Post("/v2/models/{model}/infer");
    let call = traces.call(post, &HeaderMap::new(), true).unwrap();
    call.finish(RpcCode::InvalidArgument);
    let span = spans.try_recv().unwrap();
    assert_eq!(span.name, "POST /v2/models/{model}/infer");
    assert_eq!(span.status, Status::Unset);
    assert_eq!(span.parent_span_id, SpanId::INVALID);
}

#[test]
fn spans_inside_of_a_call_have_the_times_that_were_measured() {
    let (traces, mut spans) = Traces::for_test(0.0);
    let call = traces.continue_remote(SAMPLED, "a=1").unwrap();
    let (child, started) = (call.child(), Instant::now());
    // Before the span that it is in: a clock that only knew later moments would put both at the
    // same time.
    let earlier = started.checked_sub(Duration::from_millis(1500)).unwrap();
    let grandchild = child.child();
    grandchild.record_span("decode", earlier, started, SpanDetails::default());
    let details = SpanDetails {
        links: vec![call.context()],
        ..SpanDetails::default()
    };
    child.record_span(
        "batch",
        started,
        started + Duration::from_millis(250),
        details,
    );
    let (decode, batch) = (spans.try_recv().unwrap(), spans.try_recv().unwrap());
    assert_eq!(decode.end_time, batch.start_time);
    let length = |span: &SpanData| span.end_time.duration_since(span.start_time).unwrap();
    assert_eq!(length(&decode), Duration::from_millis(1500));
    assert_eq!(length(&batch), Duration::from_millis(250));
    assert_eq!(decode.parent_span_id, batch.span_context.span_id());
    assert_eq!(batch.parent_span_id.to_string(), "00f067aa0ba902b7");
    assert_eq!(batch.links.len(), 1);
    assert_eq!(
        batch.links[0].span_context.span_id().to_string(),
        "00f067aa0ba902b7"
    );
    assert_eq!(decode.span_context.trace_state().header(), "a=1");
    let age = SystemTime::now().duration_since(batch.start_time).unwrap();
    assert!(age < Duration::from_secs(60), "{age:?}");
}

#[test]
fn header_for_work_elsewhere_names_the_span() {
    let (traces, _spans) = Traces::for_test(1.0);
    let call = traces.call(predict, &HeaderMap::new(), true).unwrap();
    let header = call.trace().parent_header();
    let adopted = traces.continue_remote(&header, "").unwrap();
    assert_eq!(
        adopted.context().span_id(),
        call.trace().context().span_id()
    );
    assert_eq!(adopted.id(), call.trace().id());
    assert!(traces.continue_remote(NOT_SAMPLED, "").is_none());
    assert!(traces.continue_remote("", "").is_none());
}

#[test]
fn full_queue_drops_spans_and_counts_them() {
    let (recorder, handle) = crate::telemetry::exporter::for_test();
    let (traces, mut spans) = Traces::for_test(1.0);
    let call = traces.continue_remote(SAMPLED, "").unwrap();
    let room = spans.max_capacity();
    ::metrics::with_local_recorder(&recorder, || {
        let now = Instant::now();
        for _ in 0..room + 3 {
            call.child()
                .record_span("decode", now, now, SpanDetails::default());
        }
    });
    let text = handle.render();
    let expected = "\nvisage_trace_spans_lost_total{reason=\"queue_full\"} 3\n";
    assert!(text.contains(expected), "{text}");
    let mut received = 0;
    while spans.try_recv().is_ok() {
        received += 1;
    }
    assert_eq!(received, room);
}

#[tokio::test]
async fn current_span_is_that_of_the_task() {
    let (traces, _spans) = Traces::for_test(0.0);
    let trace = traces.continue_remote(SAMPLED, "").unwrap();
    let inside = instrument(Some(trace.clone()), async {
        tokio::task::yield_now().await;
        current().map(|trace| trace.id())
    });
    assert_eq!(inside.await, Some(trace.id()));
    assert!(instrument(None, async { current() }).await.is_none());
    assert!(in_scope(None, current).is_none());
    assert!(in_scope(Some(&trace), current).is_some());
}
