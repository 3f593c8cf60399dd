//! Traces as a collector receives them from a real server over OTLP, for calls and for trainings.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::{Span, span::SpanKind},
};
use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinHandle,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};
use visage::proto::v1::{
    self, GetLogLevelRequest, SetLogLevelRequest, TrainingState,
    system_service_client::SystemServiceClient,
};

use crate::support::{PATIENCE, Server, faces, files_of, signal, small_spec, wait_until};

const PREDICT: &str = "visage.v1.PredictionService/Predict";

/// The received batches, with the name of the service that sent each.
#[derive(Clone, Default)]
struct Inbox(Arc<Mutex<Vec<(String, Span)>>>);

#[tonic::async_trait]
impl TraceService for Inbox {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut inbox = self.0.lock().unwrap();
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.unwrap_or_default().attributes;
            let name = attributes.iter().find(|found| found.key == "service.name");
            let name = name.and_then(|found| found.value.clone()?.value);
            let Some(Value::StringValue(name)) = name else {
                return Err(Status::invalid_argument("spans of nobody"));
            };
            let spans = resource
                .scope_spans
                .into_iter()
                .flat_map(|scope| scope.spans);
            inbox.extend(spans.map(|span| (name.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A collector on a local port, which closes when dropped.
struct Collector {
    address: SocketAddr,
    inbox: Inbox,
    serving: JoinHandle<()>,
}

impl Collector {
    async fn start() -> Self {
        Self::listen(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn listen(listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        let inbox = Inbox::default();
        let serving = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(inbox.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let serving = tokio::spawn(async move { serving.await.unwrap() });
        Collector {
            address,
            inbox,
            serving,
        }
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The spans of a trace so far.
    fn spans(&self, trace: &str) -> Vec<Span> {
        let inbox = self.inbox.0.lock().unwrap();
        assert!(inbox.iter().all(|(service, _)| service == "visage"));
        let of_trace = |(_, span): &&(String, Span)| hex(&span.trace_id) == trace;
        let mut spans: Vec<Span> = inbox
            .iter()
            .filter(of_trace)
            .map(|(_, span)| span.clone())
            .collect();
        spans.sort_by_key(|span| span.start_time_unix_nano);
        spans
    }

    /// Waits for this many spans of a trace.
    async fn wait(&self, trace: &str, count: usize) -> Vec<Span> {
        let begun = Instant::now();
        loop {
            let spans = self.spans(trace);
            if spans.len() >= count {
                let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
                assert_eq!(spans.len(), count, "{names:?}");
                return spans;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "{} of {count} spans came: {spans:#?}",
                spans.len()
            );
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    fn traces(&self) -> Vec<String> {
        let inbox = self.inbox.0.lock().unwrap();
        let mut traces: Vec<String> = inbox.iter().map(|(_, span)| hex(&span.trace_id)).collect();
        traces.sort();
        traces.dedup();
        traces
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A trace id that only this test uses.
fn trace(number: u8) -> String {
    format!("{number:02x}").repeat(16)
}

const CLIENT_SPAN: &str = "00f067aa0ba902b7";

/// A request inside a client's span.
fn within<T>(message: T, trace: &str, flags: &str) -> Request<T> {
    let mut request = Request::new(message);
    let header = format!("00-{trace}-{CLIENT_SPAN}-{flags}");
    let metadata = request.metadata_mut();
    metadata.insert("traceparent", header.parse().unwrap());
    metadata.insert("tracestate", "shop=7".parse().unwrap());
    request
}

fn images(server: &Server, count: usize) -> v1::PredictRequest {
    let directory = server.path("faces-to-predict");
    if !directory.exists() {
        faces(&directory, 3, 77);
    }
    let files = files_of(&directory);
    let images = files.iter().take(count);
    v1::PredictRequest {
        images: images
            .map(|path| fs_err::read(path).unwrap().into())
            .collect(),
        ..Default::default()
    }
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

fn one<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found = named(spans, name);
    assert_eq!(found.len(), 1, "{name}: {spans:#?}");
    found[0]
}

fn number(span: &Span, key: &str) -> Option<i64> {
    let found = span.attributes.iter().find(|found| found.key == key)?;
    let value = found.value.clone()?.value?;
    if let Value::IntValue(number) = value {
        return Some(number);
    }
    None
}

fn is_inside(inner: &Span, outer: &Span) -> bool {
    inner.start_time_unix_nano >= outer.start_time_unix_nano
        && inner.end_time_unix_nano <= outer.end_time_unix_nano
        && inner.start_time_unix_nano <= inner.end_time_unix_nano
}

#[tokio::test]
async fn only_sampled_predictions_are_exported_as_a_tree_of_spans() {
    let collector = Collector::start().await;
    let endpoint = collector.endpoint();
    let server = Server::start(&[
        "--starter",
        "--otlp-endpoint",
        &endpoint,
        "--trace-sample-ratio",
        "0",
    ]);
    let mut client = server.predictions();
    // The client disables sampling, then sends no header; the sampling rate here is 0.
    let request = within(images(&server, 1), &trace(0x11), "00");
    client.predict(request).await.unwrap();
    client.predict(images(&server, 1)).await.unwrap();
    let request = within(images(&server, 3), &trace(0x22), "01");
    let answer = client.predict(request).await.unwrap().into_inner();
    assert_eq!(answer.predictions.len(), 3);

    // The call, and three spans per image; the images form one batch or up to three.
    wait_until("the call's span comes", || async {
        !named(&collector.spans(&trace(0x22)), PREDICT).is_empty()
    })
    .await;
    let batches = named(&collector.spans(&trace(0x22)), "batch").len();
    let spans = collector.wait(&trace(0x22), 10 + batches).await;
    assert_eq!(
        collector.traces(),
        [trace(0x22)],
        "a span that is not sampled is not exported"
    );
    let call = one(&spans, PREDICT);
    assert_eq!(call.kind, i32::from(SpanKind::Server));
    assert_eq!(hex(&call.parent_span_id), CLIENT_SPAN);
    assert_eq!(call.trace_state, "shop=7");
    assert_eq!(number(call, "rpc.grpc.status_code"), Some(0));
    let took = call.end_time_unix_nano - call.start_time_unix_nano;
    assert!(took < PATIENCE.as_nanos() as u64, "{took} ns");
    for name in ["decode", "queue", "inference"] {
        let found = named(&spans, name);
        assert_eq!(found.len(), 3, "{name}: {spans:#?}");
        for span in found {
            assert_eq!(span.parent_span_id, call.span_id, "{name}");
            assert!(is_inside(span, call), "{name}: {spans:#?}");
        }
    }
    let mut indices: Vec<_> = named(&spans, "decode")
        .iter()
        .map(|span| number(span, "visage.image.index").unwrap())
        .collect();
    indices.sort_unstable();
    assert_eq!(indices, [0, 1, 2]);
    // The forward pass of each image names its batch, and the batch names its images.
    let batches = named(&spans, "batch");
    assert!((1..=3).contains(&batches.len()), "{spans:#?}");
    let mut linked = 0;
    for batch in batches {
        assert_eq!(batch.parent_span_id, call.span_id);
        assert_eq!(
            number(batch, "visage.batch.images"),
            Some(batch.links.len() as i64)
        );
        for link in &batch.links {
            let mut inferences = named(&spans, "inference").into_iter();
            let inference = inferences
                .find(|span| span.span_id == link.span_id)
                .unwrap();
            assert_eq!(inference.links[0].span_id, batch.span_id);
            assert!(is_inside(inference, batch));
            linked += 1;
        }
    }
    assert_eq!(linked, 3);
    let expected = format!("\nvisage_trace_spans_total {}\n", spans.len());
    wait_until("the spans are counted", || async {
        server.page("/metrics").await.contains(&expected)
    })
    .await;
}

#[tokio::test]
async fn rest_prediction_belongs_to_the_trace_of_its_header() {
    let collector = Collector::start().await;
    let endpoint = collector.endpoint();
    let server = Server::start(&["--starter", "--otlp-endpoint", &endpoint]);
    let side = 192;
    let body = serde_json::json!({ "inputs": [{
        "name": "input", "datatype": "FP32", "shape": [1, 3, side, side], "data": vec![0.5; 3 * side * side],
    }]});
    let address = format!("http://{}/v2/models/age/infer", server.http);
    let header = format!("00-{}-{CLIENT_SPAN}-01", trace(0x33));
    let post = move || {
        ureq::post(&address)
            .header("traceparent", header)
            .send(body.to_string())
            .map(|answer| answer.status())
    };
    let status = std::thread::spawn(post).join().unwrap().unwrap();
    assert_eq!(status, 200);
    let spans = collector.wait(&trace(0x33), 5).await;
    let call = one(&spans, "POST /v2/models/{model}/infer");
    assert_eq!(hex(&call.parent_span_id), CLIENT_SPAN);
    for name in ["decode", "queue", "inference", "batch"] {
        assert_eq!(one(&spans, name).parent_span_id, call.span_id, "{name}");
    }
}

#[tokio::test]
async fn epochs_of_a_training_are_in_the_trace_of_the_call_that_started_it() {
    let collector = Collector::start().await;
    let endpoint = collector.endpoint();
    let server = Server::start(&["--otlp-endpoint", &endpoint, "--log-format", "json"]);
    let spec = small_spec(&server.faces("faces", 60, 1));
    let request = v1::StartTrainingRequest {
        spec: Some(spec),
        ..Default::default()
    };
    let request = within(request, &trace(0x44), "01");
    let answer = server.trainings().start_training(request).await.unwrap();
    let name = answer.into_inner().training.unwrap().name;
    let training = server.ended(&name).await;
    assert_eq!(training.state(), TrainingState::Succeeded, "{training:#?}");
    let is_complete = || {
        let spans = collector.spans(&trace(0x44));
        named(&spans, "epoch").len() == 2 && !named(&spans, "test").is_empty()
    };
    wait_until("the spans of both epochs and of the test come", || async {
        is_complete()
    })
    .await;
    let spans = collector.spans(&trace(0x44));
    let call = one(&spans, "visage.v1.TrainingService/StartTraining");
    assert_eq!(hex(&call.parent_span_id), CLIENT_SPAN);
    assert_eq!(
        training.trace_parent,
        format!("00-{}-{}-01", trace(0x44), hex(&call.span_id))
    );
    assert_eq!(training.trace_state, "shop=7");
    let steps = ["queue", "scan", "load"].map(|name| one(&spans, name));
    let epochs = named(&spans, "epoch");
    let in_order: Vec<&Span> = steps.into_iter().chain(epochs.iter().copied()).collect();
    for pair in in_order.windows(2) {
        assert_eq!(pair[1].parent_span_id, call.span_id, "{}", pair[1].name);
        assert!(
            pair[0].end_time_unix_nano <= pair[1].start_time_unix_nano,
            "{} before {}",
            pair[0].name,
            pair[1].name
        );
    }
    let numbers: Vec<_> = epochs
        .iter()
        .map(|span| number(span, "visage.epoch"))
        .collect();
    assert_eq!(numbers, [Some(1), Some(2)]);
    let events = server.events(&name).await;
    let figures: Vec<v1::EpochMetrics> = events
        .iter()
        .filter_map(|event| match event.kind {
            Some(v1::training_event::Kind::EpochCompleted(metrics)) => Some(metrics),
            _ => None,
        })
        .collect();
    for (epoch, metrics) in epochs.iter().zip(&figures) {
        let seconds = metrics.seconds.unwrap();
        let parts = [
            ("data", seconds.data),
            ("forward", seconds.forward),
            ("backward", seconds.backward),
            ("update", seconds.update),
            ("validate", seconds.validate),
        ];
        for (name, expected) in parts {
            let mut found = named(&spans, name).into_iter();
            let part = found.find(|part| part.parent_span_id == epoch.span_id);
            let part = part.unwrap_or_else(|| panic!("an epoch has no {name}: {spans:#?}"));
            assert!(is_inside(part, epoch), "{name}: {spans:#?}");
            let length = part.end_time_unix_nano - part.start_time_unix_nano;
            let difference = (length as f64 / 1e9 - expected).abs();
            assert!(difference < 1e-6, "{name}: {length} ns, not {expected} s");
        }
        let has_checkpoint = named(&spans, "checkpoint")
            .iter()
            .any(|part| part.parent_span_id == epoch.span_id);
        assert_eq!(has_checkpoint, metrics.is_best);
    }
    // The logs of server and worker contain the trace id.
    let log = fs_err::read_to_string(server.path("log")).unwrap();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let line = |message: &str| {
        let is_it = |line: &&serde_json::Value| {
            let text = line["message"].as_str();
            text.is_some_and(|text| text.starts_with(message))
        };
        lines
            .iter()
            .find(is_it)
            .unwrap_or_else(|| panic!("{message:?} is not in {log}"))
    };
    assert_eq!(line("starting worker process")["trace_id"], trace(0x44));
    assert_eq!(line("network ready for training")["trace_id"], trace(0x44));
    assert_eq!(
        line("network ready for training")["target"],
        "visage::worker"
    );
    assert_eq!(line("serving")["trace_id"], serde_json::Value::Null);
}

// Multi-threaded, because the collector responds while the test waits for the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreachable_collector_does_not_affect_serving_and_receives_later_spans() {
    // Bound but not listening, so that no other process takes the port.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let endpoint = format!("http://{address}");
    let mut server = Server::start(&[
        "--starter",
        "--otlp-endpoint",
        &endpoint,
        "--trace-sample-ratio",
        "1",
    ]);
    for _ in 0..20 {
        server.predict().await.unwrap();
    }
    let lost = || async {
        let text = server.page("/metrics").await;
        let series = "visage_trace_spans_lost_total{reason=\"export_failed\"} ";
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series))
            .unwrap();
        line.parse::<f64>().unwrap() > 0.0
    };
    wait_until("the loss is counted", lost).await;
    server.predict().await.unwrap();
    let log = fs_err::read_to_string(server.path("log")).unwrap();
    assert_eq!(log.matches("failed to export traces").count(), 1, "{log}");

    let collector = Collector::listen(socket.listen(16).unwrap());
    let mut client = server.predictions();
    let begun = Instant::now();
    while collector.traces().is_empty() {
        let request = within(images(&server, 1), &trace(0x55), "01");
        client.predict(request).await.unwrap();
        assert!(begun.elapsed() < PATIENCE, "nothing came");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let asked = Instant::now();
    signal(server.pid(), "TERM");
    assert_eq!(server.wait().await, Some(0));
    assert!(
        asked.elapsed() < Duration::from_secs(30),
        "{:?}",
        asked.elapsed()
    );
}

#[tokio::test]
async fn shutdown_exports_pending_spans() {
    let collector = Collector::start().await;
    let endpoint = collector.endpoint();
    let mut server = Server::start(&["--starter", "--otlp-endpoint", &endpoint]);
    let request = within(images(&server, 1), &trace(0x77), "01");
    server.predictions().predict(request).await.unwrap();
    signal(server.pid(), "TERM");
    assert_eq!(server.wait().await, Some(0));
    // The process has ended, so no more spans arrive.
    let spans = collector.spans(&trace(0x77));
    let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(spans.len(), 5, "{names:?}");
}

#[tokio::test]
async fn log_level_changes_while_the_server_runs_and_reaches_later_trainings() {
    let server = Server::start(&["--log-level", "warn", "--log-format", "json"]);
    let mut system = SystemServiceClient::new(server.channel());
    let level = system.get_log_level(GetLogLevelRequest {}).await.unwrap();
    assert_eq!(level.into_inner().directives, "warn");
    server.train_small().await;
    let log = || fs_err::read_to_string(server.path("log")).unwrap();
    assert!(!log().contains("network ready for training"), "{}", log());

    let set = |directives: &str| SetLogLevelRequest {
        directives: directives.to_owned(),
    };
    let refused = system.set_log_level(set("info,visage=loud")).await;
    let status = refused.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("directives: "), "{status:?}");
    let changed = system.set_log_level(set(" info ")).await.unwrap();
    let changed = changed.into_inner();
    let found = (changed.directives.as_str(), changed.previous.as_str());
    assert_eq!(found, ("info", "warn"));
    let level = system.get_log_level(GetLogLevelRequest {}).await.unwrap();
    assert_eq!(level.into_inner().directives, "info");
    let training = server.queue(small_spec(&server.path("small"))).await;
    server.ended(&training).await;
    let log = log();
    assert!(
        log.contains("\"message\":\"the log filter was changed\""),
        "{log}"
    );
    assert!(log.contains("network ready for training"), "{log}");
}
