//! Ends calls whose deadline has passed with DEADLINE_EXCEEDED.
//!
//! tonic enforces the `grpc-timeout` header too, but responds with CANCELLED and without details.
//! This layer is inside of that timeout and ends slightly earlier, so that its response comes first
//! and still reaches the client in time. The work of the call is dropped.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::{HeaderMap, Request, Response};
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower::{Layer, Service};

use crate::services::{caller::Deadline, status};

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DeadlineLayer;

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> DeadlineService<S> {
        DeadlineService { inner }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct DeadlineService<S> {
    inner: S,
}

impl<S, RequestBody, ResponseBody> Service<Request<RequestBody>> for DeadlineService<S>
where
    S: Service<Request<RequestBody>, Response = Response<ResponseBody>>,
    ResponseBody: Default,
{
    type Response = Response<ResponseBody>;
    type Error = S::Error;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<RequestBody>) -> Self::Future {
        let deadline = deadline(request.headers(), Instant::now());
        if let Some(deadline) = deadline {
            request.extensions_mut().insert(Deadline(deadline));
        }
        DeadlineFuture {
            inner: self.inner.call(request),
            expired: deadline.map(|deadline| tokio::time::sleep_until(deadline.into())),
        }
    }
}

pin_project! {
    /// A call whose response has not started.
    #[derive(Debug)]
    pub(crate) struct DeadlineFuture<F> {
        #[pin]
        inner: F,
        #[pin]
        expired: Option<Sleep>,
    }
}

impl<F, ResponseBody, E> Future for DeadlineFuture<F>
where
    F: Future<Output = Result<Response<ResponseBody>, E>>,
    ResponseBody: Default,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(response) = this.inner.poll(context) {
            return Poll::Ready(response);
        }
        match this.expired.as_pin_mut() {
            Some(expired) => expired
                .poll(context)
                .map(|()| Ok(status::deadline_exceeded().into_http())),
            None => Poll::Pending,
        }
    }
}

/// Reads the `grpc-timeout` header: at most eight digits and a unit (gRPC over HTTP/2, "Requests").
fn deadline(headers: &HeaderMap, arrived: Instant) -> Option<Instant> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let value: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    let timeout = match unit {
        "H" => Duration::from_secs(value * 3_600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    };
    let margin = (timeout / 2).min(Duration::from_millis(10));
    arrived.checked_add(timeout - margin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_comes_from_the_grpc_timeout_header() {
        let now = Instant::now();
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            deadline(&headers, now).map(|deadline| deadline - now)
        };
        assert_eq!(read("250m"), Some(Duration::from_millis(240)));
        assert_eq!(read("5S"), Some(Duration::from_millis(4_990)));
        assert_eq!(read("12m"), Some(Duration::from_millis(6)));
        assert_eq!(read("99999999n"), Some(Duration::from_nanos(89_999_999)));
        assert_eq!(read("123456789n"), None);
        assert_eq!(read("5x"), None);
        assert_eq!(read(""), None);
        assert_eq!(deadline(&HeaderMap::new(), now), None);
    }
}
