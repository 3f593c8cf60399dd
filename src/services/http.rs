//! Responses of the HTTP port: JSON bodies, errors, metrics and spans.

use std::time::Instant;

use axum::{
    http::{
        HeaderValue, StatusCode,
        header::{ACCEPT_ENCODING, CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::status;
use crate::telemetry::{
    metrics,
    traces::{self, CallSpan},
};

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub(super) fn as_json(value: &Value) -> Response {
    // With a newline, for terminals.
    ([(CONTENT_TYPE, JSON)], format!("{value}\n")).into_response()
}

/// An error with its HTTP status, which may be more specific than that of the code. The body is
/// `{"error": "...", "reason": "..."}` with the stable reason of the gRPC error.
pub(super) struct Failure {
    pub(super) status: Status,
    pub(super) http: StatusCode,
}

impl<E: Into<Status>> From<E> for Failure {
    fn from(error: E) -> Self {
        let status = error.into();
        let http = status::http(status.code());
        Failure { status, http }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let info = self.status.get_details_error_info();
        let reason = info.map(|info| info.reason).unwrap_or_default();
        let body = json!({ "error": self.status.message(), "reason": reason });
        let mut response = (self.http, as_json(&body)).into_response();
        let is_content_coding = self.http == StatusCode::UNSUPPORTED_MEDIA_TYPE
            && self.status.code() == Code::Unimplemented;
        if is_content_coding {
            // RFC 9110, section 15.5.16: the accepted content codings.
            let identity = HeaderValue::from_static("identity");
            response.headers_mut().insert(ACCEPT_ENCODING, identity);
        }
        let retry = self.status.get_details_retry_info();
        if let Some(delay) = retry.and_then(|info| info.retry_delay) {
            let seconds = HeaderValue::from(delay.as_secs().max(1));
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        response
    }
}

/// Runs the work of a request and counts it.
pub(super) async fn respond(
    route: &'static str,
    work: impl Future<Output = Result<Response, Failure>>,
) -> Response {
    respond_traced(route, None, work).await
}

/// As [`respond`], within the span of a sampled request.
pub(super) async fn respond_traced(
    route: &'static str,
    span: Option<CallSpan>,
    work: impl Future<Output = Result<Response, Failure>>,
) -> Response {
    let trace = span.as_ref().map(|span| span.trace().clone());
    let mut counted = Counted {
        route,
        started: Instant::now(),
        code: Code::Cancelled,
        span,
    };
    match traces::instrument(trace, work).await {
        Ok(response) => {
            counted.code = Code::Ok;
            response
        }
        Err(failure) => {
            counted.code = failure.status.code();
            failure.into_response()
        }
    }
}

/// Counts a request once when it is dropped, even if its client disconnects before the response.
struct Counted {
    route: &'static str,
    started: Instant,
    code: Code,
    span: Option<CallSpan>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let code = self.code.into();
        if let Some(span) = self.span.take() {
            span.finish(code);
        }
        metrics::http_finished(self.route, code, self.started.elapsed());
    }
}
