//! Calls are counted once, with the status that they end with.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, health_client::HealthClient},
};
use tower::{Layer as _, Service as _, ServiceExt as _};

use super::rpc_metrics::RpcMetricsLayer;
use crate::telemetry::{exporter, metrics::RpcCode};

const CHECK: &str = "grpc.health.v1.Health/Check";
const WATCH: &str = "grpc.health.v1.Health/Watch";

fn series(method: &str, code: &str) -> String {
    format!("visage_rpc_requests_total{{method=\"{method}\",code=\"{code}\"}}")
}

fn in_flight(method: &str) -> String {
    format!("visage_rpc_in_flight{{method=\"{method}\"}}")
}

/// The value of a series now; `None` if it does not exist.
fn value(handle: &exporter::Handle, series: &str) -> Option<f64> {
    let text = handle.render();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(line.parse().unwrap())
}

/// Waits until a series has a value; on a timeout, the test names the series.
async fn wait_for(handle: &exporter::Handle, series: &str, expected: f64) {
    let reached = async {
        while value(handle, series) != Some(expected) {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), reached).await;
    assert!(
        waited.is_ok(),
        "{series} is {:?}, not {expected}",
        value(handle, series)
    );
}

/// A health service behind the layer, on the thread of the test and therefore with its recorder.
async fn health_server() -> Channel {
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("visage", ServingStatus::Serving)
        .await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder()
        .layer(RpcMetricsLayer::new([CHECK, WATCH]))
        .add_service(service)
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    Endpoint::try_from(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

fn request(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.into(),
    }
}

#[tokio::test]
async fn unary_call_is_counted_by_its_trailers() {
    let (recorder, handle) = exporter::for_test();
    let _installed = ::metrics::set_default_local_recorder(&recorder);
    let mut client = HealthClient::new(health_server().await);
    assert_eq!(
        value(&handle, &series(CHECK, "ok")),
        Some(0.0),
        "known methods begin at 0"
    );

    client.check(request("visage")).await.unwrap();
    client.check(request("visage")).await.unwrap();

    wait_for(&handle, &series(CHECK, "ok"), 2.0).await;
    wait_for(&handle, &in_flight(CHECK), 0.0).await;
    let count = format!("visage_rpc_duration_seconds_count{{method=\"{CHECK}\"}}");
    assert_eq!(value(&handle, &count), Some(2.0));
}

#[tokio::test]
async fn error_without_a_body_is_counted_by_its_headers() {
    let (recorder, handle) = exporter::for_test();
    let _installed = ::metrics::set_default_local_recorder(&recorder);
    let mut client = HealthClient::new(health_server().await);

    let status = client.check(request("nobody")).await.unwrap_err();

    assert_eq!(status.code(), tonic::Code::NotFound);
    wait_for(&handle, &series(CHECK, "not_found"), 1.0).await;
    assert_eq!(value(&handle, &series(CHECK, "ok")), Some(0.0));
}

#[tokio::test]
async fn stream_runs_until_its_client_leaves_and_is_then_cancelled() {
    let (recorder, handle) = exporter::for_test();
    let _installed = ::metrics::set_default_local_recorder(&recorder);
    let mut client = HealthClient::new(health_server().await);

    let mut stream = client.watch(request("visage")).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    assert_eq!(value(&handle, &in_flight(WATCH)), Some(1.0));
    assert_eq!(value(&handle, &series(WATCH, "cancelled")), None);
    drop(stream);

    wait_for(&handle, &series(WATCH, "cancelled"), 1.0).await;
    assert_eq!(value(&handle, &in_flight(WATCH)), Some(0.0));
    assert_eq!(value(&handle, &series(WATCH, "ok")), Some(0.0));
}

#[tokio::test]
async fn invented_paths_share_one_label() {
    let (recorder, handle) = exporter::for_test();
    let _installed = ::metrics::set_default_local_recorder(&recorder);
    let mut channel = health_server().await;

    for path in ["/invented.Service/One", "/invented.Service/Two"] {
        let request = Request::post(path)
            .header("content-type", "application/grpc")
            .body(tonic::body::Body::empty())
            .unwrap();
        channel.ready().await.unwrap().call(request).await.unwrap();
    }

    wait_for(&handle, &series("other", "unimplemented"), 2.0).await;
    assert!(!handle.render().contains("invented"));
}

/// A body that hands out prepared frames.
struct Frames(VecDeque<Result<Frame<&'static [u8]>, Infallible>>);

impl Body for Frames {
    type Data = &'static [u8];
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<&'static [u8]>, Infallible>>> {
        Poll::Ready(self.0.pop_front())
    }
}

fn data() -> Frame<&'static [u8]> {
    Frame::data(b"message")
}

fn trailers(status: &'static str) -> Frame<&'static [u8]> {
    let status = HeaderValue::from_static(status);
    Frame::trailers(HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        status,
    )]))
}

/// Reads `read` frames of an answer of `frames`, drops it, and returns the codes that were counted.
async fn codes_after(frames: Vec<Frame<&'static [u8]>>, read: usize) -> Vec<String> {
    let (recorder, handle) = exporter::for_test();
    let _installed = ::metrics::set_default_local_recorder(&recorder);
    let mut frames = Some(frames);
    let service = tower::service_fn(move |_: Request<()>| {
        let body = Frames(frames.take().unwrap().into_iter().map(Ok).collect());
        std::future::ready(Ok::<_, Infallible>(Response::new(body)))
    });
    let mut counted = RpcMetricsLayer::new([CHECK]).layer(service);
    let request = Request::post(format!("/{CHECK}")).body(()).unwrap();
    let mut body = Box::pin(
        counted
            .ready()
            .await
            .unwrap()
            .call(request)
            .await
            .unwrap()
            .into_body(),
    );
    for _ in 0..read {
        std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await;
    }
    drop(body);
    let text = handle.render();
    assert!(
        text.contains(&format!("{} 0\n", in_flight(CHECK))),
        "{text}"
    );
    RpcCode::VALUES
        .iter()
        .filter(|code| text.contains(&format!("{} 1\n", series(CHECK, code))))
        .map(|&code| code.to_owned())
        .collect()
}

#[tokio::test]
async fn answer_dropped_before_its_trailers_is_cancelled() {
    assert_eq!(
        codes_after(vec![data(), data(), trailers("0")], 1).await,
        ["cancelled"]
    );
}

#[tokio::test]
async fn trailers_decide_even_if_the_end_is_never_asked_for() {
    assert_eq!(codes_after(vec![data(), trailers("0")], 2).await, ["ok"]);
    assert_eq!(
        codes_after(vec![data(), trailers("8")], 3).await,
        ["resource_exhausted"]
    );
}

#[tokio::test]
async fn answer_without_a_status_is_unknown() {
    assert_eq!(codes_after(vec![data()], 2).await, ["unknown"]);
    assert_eq!(
        codes_after(vec![data(), trailers("not a number")], 2).await,
        ["unknown"]
    );
}

#[tokio::test]
async fn call_dropped_before_its_answer_is_cancelled() {
    let (recorder, handle) = exporter::for_test();
    let _installed = ::metrics::set_default_local_recorder(&recorder);
    let service = tower::service_fn(|_: Request<()>| {
        std::future::pending::<Result<Response<Frames>, Infallible>>()
    });
    let mut counted = RpcMetricsLayer::new([CHECK]).layer(service);
    let request = Request::post(format!("/{CHECK}")).body(()).unwrap();

    let answer = counted.ready().await.unwrap().call(request);
    assert_eq!(value(&handle, &in_flight(CHECK)), Some(1.0));
    drop(answer);

    assert_eq!(value(&handle, &in_flight(CHECK)), Some(0.0));
    assert_eq!(value(&handle, &series(CHECK, "cancelled")), Some(1.0));
}
