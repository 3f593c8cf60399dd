//! A layer around a gRPC server that counts its calls: how many run, how long they took, and how they ended.
//!
//! A call ends when its status goes out: in the headers of an answer without a body, or in the trailers after the body. A call whose
//! future or body is dropped before that was cancelled: by its client, by its deadline (tonic answers `CANCELLED` then), or by a
//! shutdown. Either way it is counted exactly once, because the count hangs on a value that lives in the future first and in the
//! body afterwards.
//!
//! Where the call is followed by a trace, the same value holds its span, and the call runs as that span's work.
//!
//! With grpc-web the layer belongs *inside* the translation (added to the server after it): outside, the trailers are already
//! hidden in the body.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::metrics::{self, RpcCode};
use super::traces::{self, CallKind, CallSpan, Traces};

/// The method label of calls to methods that are not known, so that a client cannot create series by inventing paths.
const OTHER: &str = "other";

/// Wraps services in [`RpcMetrics`].
#[derive(Clone, Debug)]
pub struct RpcMetricsLayer {
    methods: Arc<Methods>,
    traces: Traces,
}

impl RpcMetricsLayer {
    /// A layer that tells these methods apart, and counts all others as `other`. A method is written as its path without the
    /// leading slash: `visage.v1.PredictionService/Predict`. Their series exist from now on, so the exporter must be installed.
    pub fn new<M: Into<String>>(methods: impl IntoIterator<Item = M>) -> Self {
        let known: HashMap<String, Arc<str>> = methods
            .into_iter()
            .map(Into::into)
            .map(|method| (format!("/{method}"), Arc::from(method)))
            .collect();
        let other = Arc::from(OTHER);
        for method in known.values().chain([&other]) {
            metrics::rpc_known(method);
        }
        Self {
            methods: Arc::new(Methods { known, other }),
            traces: Traces::off(),
        }
    }

    /// The same layer, which also follows calls.
    #[must_use]
    pub fn with_traces(self, traces: Traces) -> Self {
        Self { traces, ..self }
    }
}

impl<S> Layer<S> for RpcMetricsLayer {
    type Service = RpcMetrics<S>;

    fn layer(&self, inner: S) -> RpcMetrics<S> {
        RpcMetrics {
            inner,
            methods: Arc::clone(&self.methods),
            traces: self.traces.clone(),
        }
    }
}

/// A service whose calls are counted.
#[derive(Clone, Debug)]
pub struct RpcMetrics<S> {
    inner: S,
    methods: Arc<Methods>,
    traces: Traces,
}

impl<S, RequestBody, ResponseBody> Service<Request<RequestBody>> for RpcMetrics<S>
where
    S: Service<Request<RequestBody>, Response = Response<ResponseBody>>,
    ResponseBody: Body,
{
    type Response = Response<CountedBody<ResponseBody>>;
    type Error = S::Error;
    type Future = CountedFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let path = request.uri().path();
        let method = self.methods.label(path);
        // Probes and reflection would be most of the traces and tell nothing.
        let may_start = !path.starts_with("/grpc.");
        let kind = || CallKind::Rpc(Arc::clone(&method));
        let span = self.traces.call(kind, request.headers(), may_start);
        let call = Call::begin(method, span);
        let inner = traces::in_scope(call.trace(), || self.inner.call(request));
        CountedFuture {
            inner,
            call: Some(call),
        }
    }
}

pin_project! {
    /// A call whose answer has not begun.
    #[derive(Debug)]
    pub struct CountedFuture<F> {
        #[pin]
        inner: F,
        call: Option<Call>,
    }
}

impl<F, ResponseBody, E> Future for CountedFuture<F>
where
    F: Future<Output = Result<Response<ResponseBody>, E>>,
    ResponseBody: Body,
{
    type Output = Result<Response<CountedBody<ResponseBody>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let trace = this.call.as_ref().and_then(Call::trace);
        let result = ready!(traces::in_scope(trace, || this.inner.poll(context)));
        let mut call = this.call.take();
        match result {
            Ok(response) => {
                if let Some(code) = status_in(response.headers()) {
                    end(&mut call, code);
                } else if response.body().is_end_stream() {
                    end(&mut call, RpcCode::Unknown);
                }
                Poll::Ready(Ok(response.map(|inner| CountedBody { inner, call })))
            }
            Err(error) => {
                end(&mut call, RpcCode::Internal);
                Poll::Ready(Err(error))
            }
        }
    }
}

pin_project! {
    /// The body of a counted call; it ends the count with its trailers.
    #[derive(Debug)]
    pub struct CountedBody<B> {
        #[pin]
        inner: B,
        call: Option<Call>,
    }
}

impl<B: Body> Body for CountedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.inner.as_mut().poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    end(this.call, status_in(trailers).unwrap_or(RpcCode::Unknown));
                } else if this.inner.is_end_stream() {
                    // Whoever reads the body may not ask again, and then no trailers were sent.
                    end(this.call, RpcCode::Unknown);
                }
            }
            Some(Err(_)) => end(this.call, RpcCode::Internal),
            None => end(this.call, RpcCode::Unknown),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The methods whose series exist, by path.
#[derive(Debug)]
struct Methods {
    known: HashMap<String, Arc<str>>,
    other: Arc<str>,
}

impl Methods {
    fn label(&self, path: &str) -> Arc<str> {
        Arc::clone(self.known.get(path).unwrap_or(&self.other))
    }
}

/// A call that runs. Dropping it is what counts it.
#[derive(Debug)]
struct Call {
    method: Arc<str>,
    begun: Instant,
    code: RpcCode,
    span: Option<Box<CallSpan>>,
}

impl Call {
    fn begin(method: Arc<str>, span: Option<CallSpan>) -> Self {
        metrics::rpc_started(&method);
        Self {
            method,
            begun: Instant::now(),
            code: RpcCode::Cancelled,
            span: span.map(Box::new),
        }
    }

    fn trace(&self) -> Option<&traces::Trace> {
        self.span.as_ref().map(|span| span.trace())
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(span) = self.span.take() {
            span.finish(self.code);
        }
        metrics::rpc_finished(&self.method, self.code, self.begun.elapsed());
    }
}

/// Ends the call unless it has ended: what follows a status does not change it.
fn end(call: &mut Option<Call>, code: RpcCode) {
    if let Some(mut call) = call.take() {
        call.code = code;
    }
}

fn status_in(headers: &HeaderMap) -> Option<RpcCode> {
    let status = headers.get("grpc-status")?;
    Some(tonic::Code::from_bytes(status.as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::time::Duration;

    use http::HeaderValue;
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::transport::{Channel, Endpoint, Server};
    use tonic_health::ServingStatus;
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;
    use tower::ServiceExt;

    use super::super::exporter;
    use super::*;

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

    /// Lets the server go on until a series has a value; a test that hangs here names the series.
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

    /// A health service behind the layer, on the test's own thread so that the test's own recorder sees it.
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
}
