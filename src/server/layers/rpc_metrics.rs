//! Counts gRPC calls: how many run, how long they take, and how they end.
//!
//! A call ends when its status is sent: in the headers of a response without a body, or in the
//! trailers after the body. A call whose future or body is dropped before that was cancelled: by
//! its client, by its deadline, or by a shutdown. Each call is counted exactly once, because the
//! count is a value that lives first in the future and then in the body. The same value holds the
//! span of a sampled call.
//!
//! The layer must be inside of the gRPC-Web layer, which hides the trailers in the body.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::telemetry::{
    metrics::{self, RpcCode},
    traces::{self, CallKind, CallSpan, Traces},
};

/// The label of unknown methods, so that clients cannot create series.
const OTHER: &str = "other";

#[derive(Clone, Debug)]
pub(crate) struct RpcMetricsLayer {
    methods: Arc<Methods>,
    traces: Traces,
}

impl RpcMetricsLayer {
    /// Counts these methods separately and all others as `other`. A method is its path without the
    /// leading slash: `visage.v1.PredictionService/Predict`. Creates their series, so the exporter
    /// must be installed.
    pub(crate) fn new<M: Into<String>>(methods: impl IntoIterator<Item = M>) -> Self {
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

    pub(crate) fn with_traces(self, traces: Traces) -> Self {
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

#[derive(Clone, Debug)]
pub(crate) struct RpcMetrics<S> {
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
        // Health checks and reflection would be most of the traces.
        let may_start = !path.starts_with("/grpc.");
        let kind = || CallKind::Rpc(Arc::clone(&method));
        let span = self.traces.call(kind, request.headers(), may_start);
        let call = Call::start(method, span);
        let inner = traces::in_scope(call.trace(), || self.inner.call(request));
        CountedFuture {
            inner,
            call: Some(call),
        }
    }
}

pin_project! {
    /// A call whose response has not started.
    #[derive(Debug)]
    pub(crate) struct CountedFuture<F> {
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
    /// The body of a counted call, which ends with its trailers.
    #[derive(Debug)]
    pub(crate) struct CountedBody<B> {
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
                    // The reader may not poll again, in which case no trailers are sent.
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

/// A running call. Dropping it counts it.
#[derive(Debug)]
struct Call {
    method: Arc<str>,
    started: Instant,
    code: RpcCode,
    span: Option<Box<CallSpan>>,
}

impl Call {
    fn start(method: Arc<str>, span: Option<CallSpan>) -> Self {
        metrics::rpc_started(&method);
        Self {
            method,
            started: Instant::now(),
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
        metrics::rpc_finished(&self.method, self.code, self.started.elapsed());
    }
}

/// Ends the call unless it has ended: nothing after a status changes it.
fn end(call: &mut Option<Call>, code: RpcCode) {
    if let Some(mut call) = call.take() {
        call.code = code;
    }
}

fn status_in(headers: &HeaderMap) -> Option<RpcCode> {
    let status = headers.get("grpc-status")?;
    Some(tonic::Code::from_bytes(status.as_bytes()).into())
}
