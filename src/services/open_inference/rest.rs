//! The paths under `/v2` on the HTTP port.
//!
//! | Path | Answer |
//! |---|---|
//! | `/v2` | name, version and extensions of the server |
//! | `/v2/health/live`, `/v2/health/ready` | 200, or 503 |
//! | `/v2/models/{model}[/versions/{version}]` | metadata |
//! | `…/ready` | 200, or 404 |
//! | `…/config`, `…/stats` | Triton's configuration and statistics |
//! | POST `…/infer` | a prediction |
//! | `/v2/models/stats` | statistics of all versions that have been used |
//! | POST `/v2/repository/index` | all versions |
//! | POST `/v2/repository/models/{model}/load`, `…/unload` | as RepositoryModelLoad and RepositoryModelUnload |
//!
//! Errors are `{"error": "..."}` with the status that [`status::http`] gives to their code.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{FromRequestParts, Path, Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
        request::Parts,
    },
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic_types::StatusExt;

use crate::{
    proto::to_json,
    services::{caller::Caller, status},
    telemetry::{
        metrics,
        traces::{self, CallKind, CallSpan, Traces},
    },
};

use super::{OpenInference, Wanted, check_load, describe, json, no_unload};

/// How many bytes of a request are JSON, where tensors follow it.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Longest time that a request's body may take to come.
const BODY_PATIENCE: Duration = Duration::from_secs(60);

/// A body that is too large is read up to so many times the limit, and thrown away, so that its sender gets to read the answer.
const DISCARDED: usize = 4;

/// What the metrics call the paths; versions are left out of them.
mod route {
    pub(super) const SERVER: &str = "/v2";
    pub(super) const LIVE: &str = "/v2/health/live";
    pub(super) const READY: &str = "/v2/health/ready";
    pub(super) const MODEL: &str = "/v2/models/{model}";
    pub(super) const MODEL_READY: &str = "/v2/models/{model}/ready";
    pub(super) const CONFIG: &str = "/v2/models/{model}/config";
    pub(super) const STATS: &str = "/v2/models/{model}/stats";
    pub(super) const INFER: &str = "/v2/models/{model}/infer";
    pub(super) const ALL_STATS: &str = "/v2/models/stats";
    pub(super) const INDEX: &str = "/v2/repository/index";
    pub(super) const LOAD: &str = "/v2/repository/models/{model}/load";
    pub(super) const UNLOAD: &str = "/v2/repository/models/{model}/unload";
    pub(super) const OTHER: &str = "other";
    pub(super) const ALL: [&str; 13] = [
        SERVER,
        LIVE,
        READY,
        MODEL,
        MODEL_READY,
        CONFIG,
        STATS,
        INFER,
        ALL_STATS,
        INDEX,
        LOAD,
        UNLOAD,
        OTHER,
    ];
}

/// Limits on requests with bodies.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest body in bytes.
    pub body: usize,
    /// Requests with bodies at a time.
    pub requests: usize,
}

/// The pages. The exporter must be installed: their series exist from now on.
pub fn router(api: OpenInference, limits: Limits, traces: Traces) -> Router {
    route::ALL.into_iter().for_each(metrics::http_known);
    let rest = Rest {
        api,
        slots: Arc::new(Semaphore::new(limits.requests)),
        limits,
        traces,
    };
    let mut router = Router::new()
        .route("/v2", get(server).fallback(wrong_method))
        .route("/v2/", get(server).fallback(wrong_method))
        .route("/v2/health/live", get(live).fallback(wrong_method))
        .route("/v2/health/ready", get(ready).fallback(wrong_method))
        .route(
            "/v2/models/stats",
            get(all_statistics).fallback(wrong_method),
        )
        .route("/v2/repository/index", post(index).fallback(wrong_method))
        .route(
            "/v2/repository/models/{model}/load",
            post(load).fallback(wrong_method),
        )
        .route(
            "/v2/repository/models/{model}/unload",
            post(unload).fallback(wrong_method),
        )
        .route("/v2/{*rest}", any(no_page));
    for model in [
        "/v2/models/{model}",
        "/v2/models/{model}/versions/{version}",
    ] {
        let path = |last: &str| format!("{model}{last}");
        router = router
            .route(&path(""), get(metadata).fallback(wrong_method))
            .route(&path("/ready"), get(model_ready).fallback(wrong_method))
            .route(&path("/config"), get(config).fallback(wrong_method))
            .route(&path("/stats"), get(statistics).fallback(wrong_method))
            .route(&path("/infer"), post(infer).fallback(wrong_method));
    }
    router.with_state(rest)
}

#[derive(Clone)]
struct Rest {
    api: OpenInference,
    slots: Arc<Semaphore>,
    limits: Limits,
    traces: Traces,
}

/// The version that a path names.
#[derive(Deserialize)]
struct Named {
    model: String,
    #[serde(default)]
    version: String,
}

impl Named {
    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            model: &self.model,
            version: &self.version,
            field: "version",
        }
    }
}

impl FromRequestParts<Rest> for Named {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, rest: &Rest) -> Result<Self, Failure> {
        match Path::from_request_parts(parts, rest).await {
            Ok(Path(named)) => Ok(named),
            Err(rejection) => Err(status::invalid("path", &rejection.body_text()).into()),
        }
    }
}

/// What goes wrong, and the status where HTTP has one that is more exact than that of the code.
pub(in crate::services) struct Failure {
    pub(in crate::services) status: Status,
    pub(in crate::services) http: StatusCode,
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let http = status::http(status.code());
        Failure { status, http }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.status.message() });
        let mut response = (self.http, as_json(&body)).into_response();
        let is_coding = self.http == StatusCode::UNSUPPORTED_MEDIA_TYPE
            && self.status.code() == tonic::Code::Unimplemented;
        if is_coding {
            // RFC 9110, section 15.5.16: the codings that are read.
            let identity = HeaderValue::from_static("identity");
            response.headers_mut().insert(ACCEPT_ENCODING, identity);
        }
        let wait = self.status.get_details_retry_info();
        if let Some(wait) = wait.and_then(|info| info.retry_delay) {
            let seconds = HeaderValue::from(wait.as_secs().max(1));
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        response
    }
}

/// Counts a request once, also when its client leaves before the answer.
struct Counted {
    route: &'static str,
    begun: Instant,
    code: tonic::Code,
    span: Option<CallSpan>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let code = self.code.into();
        if let Some(span) = self.span.take() {
            span.finish(code);
        }
        metrics::http_finished(self.route, code, self.begun.elapsed());
    }
}

/// Waits for an answer and counts it.
pub(in crate::services) async fn answer(
    route: &'static str,
    answering: impl Future<Output = Result<Response, Failure>>,
) -> Response {
    follow(route, None, answering).await
}

/// The same, as the work of a span where the request is followed.
async fn follow(
    route: &'static str,
    span: Option<CallSpan>,
    answering: impl Future<Output = Result<Response, Failure>>,
) -> Response {
    let trace = span.as_ref().map(|span| span.trace().clone());
    let mut counted = Counted {
        route,
        begun: Instant::now(),
        code: tonic::Code::Cancelled,
        span,
    };
    match traces::instrument(trace, answering).await {
        Ok(response) => {
            counted.code = tonic::Code::Ok;
            response
        }
        Err(failure) => {
            counted.code = failure.status.code();
            failure.into_response()
        }
    }
}

async fn server() -> Response {
    answer(route::SERVER, async {
        Ok(as_json(&to_json(&describe::server())))
    })
    .await
}

async fn live() -> Response {
    answer(route::LIVE, async { Ok(as_json(&json!({"live": true}))) }).await
}

async fn ready(State(rest): State<Rest>) -> Response {
    answer(route::READY, async {
        if rest.api.is_server_ready() {
            Ok(as_json(&json!({"ready": true})))
        } else {
            Err(status::stream_ends().into())
        }
    })
    .await
}

async fn metadata(State(rest): State<Rest>, named: Named) -> Response {
    answer(route::MODEL, async {
        let metadata = rest.api.metadata(named.wanted()).await?;
        Ok(as_json(&to_json(&metadata)))
    })
    .await
}

async fn model_ready(State(rest): State<Rest>, named: Named) -> Response {
    answer(route::MODEL_READY, async {
        rest.api.check_ready(named.wanted()).await?;
        Ok(as_json(&json!({"name": named.model, "ready": true})))
    })
    .await
}

async fn config(State(rest): State<Rest>, named: Named) -> Response {
    answer(route::CONFIG, async {
        let config = rest.api.config(named.wanted()).await?;
        Ok(as_json(&to_json(&config)))
    })
    .await
}

async fn statistics(State(rest): State<Rest>, named: Named) -> Response {
    answer(route::STATS, async {
        let statistics = rest.api.statistics(named.wanted()).await?;
        Ok(as_json(&to_json(&statistics)))
    })
    .await
}

async fn all_statistics(State(rest): State<Rest>) -> Response {
    answer(route::ALL_STATS, async {
        let all = Named {
            model: String::new(),
            version: String::new(),
        };
        let statistics = rest.api.statistics(all.wanted()).await?;
        Ok(as_json(&to_json(&statistics)))
    })
    .await
}

async fn index(State(rest): State<Rest>) -> Response {
    answer(route::INDEX, async {
        let index = to_json(&rest.api.index().await?);
        // A list in itself, unlike the message.
        Ok(as_json(index.get("models").unwrap_or(&Value::Null)))
    })
    .await
}

async fn load(State(rest): State<Rest>, named: Named, headers: HeaderMap, body: Body) -> Response {
    answer(route::LOAD, async {
        let (body, _slot) = rest.body(&headers, body).await?;
        check_load(parameters(&body)?)?;
        rest.api.load(&named.model).await?;
        Ok(as_json(&json!({})))
    })
    .await
}

async fn unload() -> Response {
    answer(route::UNLOAD, async { Err(no_unload().into()) }).await
}

async fn infer(State(rest): State<Rest>, named: Named, request: Request) -> Response {
    let span = rest
        .traces
        .call(|| CallKind::Post(route::INFER), request.headers(), true);
    // Boxed, because it holds everything on the way of a prediction.
    follow(
        route::INFER,
        span,
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let caller = Caller::new(&parts.headers, &parts.extensions)?;
            let json_bytes = json_length(&parts.headers)?;
            let (body, _slot) = rest.body(&parts.headers, body).await?;
            // Millions of numbers as text take longer than an asynchronous thread has.
            let read = move || json::read(named.model, named.version, body, json_bytes);
            let read = rest.api.predictions.predictor.compute(read).await;
            let (call, form) = read.map_err(|error| status::from_inference(&error))??;
            let inferred = rest.api.infer(call, caller).await?;
            let written = json::write(&inferred, &form)
                .map_err(|error| status::unwritable(&error.to_string()))?;
            let Some(json_bytes) = written.json_bytes else {
                return Ok(([(CONTENT_TYPE, JSON)], written.body).into_response());
            };
            let headers = [
                (
                    CONTENT_TYPE,
                    HeaderValue::from_static("application/octet-stream"),
                ),
                (JSON_LENGTH, HeaderValue::from(json_bytes)),
            ];
            Ok((headers, written.body).into_response())
        }),
    )
    .await
}

async fn no_page() -> Response {
    answer(route::OTHER, async {
        let status = status::not_found("there is no such path under /v2");
        Err(status.into())
    })
    .await
}

async fn wrong_method() -> Response {
    answer(route::OTHER, async {
        let status = status::unimplemented(
            "this path is not for this method: predictions, loading and the index are POST, everything else is GET",
        );
        Err(Failure {
            status,
            http: StatusCode::METHOD_NOT_ALLOWED,
        })
    })
    .await
}

impl Rest {
    /// Reads a request's body, and takes one of the places for requests that have one.
    async fn body(
        &self,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<(Bytes, OwnedSemaphorePermit), Failure> {
        let slot = Arc::clone(&self.slots)
            .try_acquire_owned()
            .map_err(|_| status::too_many_requests(self.limits.requests))?;
        let encoding = headers.get(CONTENT_ENCODING);
        if let Some(encoding) = encoding.filter(|encoding| *encoding != "identity") {
            let status = status::unimplemented(&format!(
                "a body in the encoding {encoding:?} is not read; send it as it is, or compressed over gRPC"
            ));
            return Err(Failure {
                status,
                http: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            });
        }
        let announced = headers.get(CONTENT_LENGTH);
        let announced = announced.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        let reading = read_body(body, announced.unwrap_or(0), self.limits.body);
        match tokio::time::timeout(BODY_PATIENCE, reading).await {
            Ok(body) => Ok((body?, slot)),
            Err(_) => Err(Failure {
                status: status::body_too_slow(BODY_PATIENCE),
                http: StatusCode::REQUEST_TIMEOUT,
            }),
        }
    }
}

async fn read_body(body: Body, announced: usize, limit: usize) -> Result<Bytes, Failure> {
    let mut chunks = body.into_data_stream();
    let mut read = BytesMut::with_capacity(announced.min(limit));
    let mut seen = 0_usize;
    while seen <= limit.saturating_mul(DISCARDED)
        && let Some(chunk) = chunks.next().await
    {
        let chunk =
            chunk.map_err(|error| status::invalid("body", &format!("it broke off: {error}")))?;
        seen = seen.saturating_add(chunk.len());
        if seen <= limit {
            read.extend_from_slice(&chunk);
        } else {
            read = BytesMut::new();
        }
    }
    if seen <= limit {
        return Ok(read.freeze());
    }
    Err(Failure {
        status: status::body_too_large(limit),
        http: StatusCode::PAYLOAD_TOO_LARGE,
    })
}

fn json_length(headers: &HeaderMap) -> Result<Option<usize>, Status> {
    let Some(value) = headers.get(JSON_LENGTH) else {
        return Ok(None);
    };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    let refuse = || {
        status::invalid(
            "Inference-Header-Content-Length",
            &format!("{value:?} is no number of bytes"),
        )
    };
    length.map(Some).ok_or_else(refuse)
}

/// The number of parameters in the body of a load, which may be empty.
fn parameters(body: &[u8]) -> Result<usize, Status> {
    #[derive(Deserialize)]
    struct Request {
        #[serde(default)]
        parameters: serde_json::Map<String, Value>,
    }
    if body.is_empty() {
        return Ok(0);
    }
    match serde_json::from_slice::<Request>(body) {
        Ok(request) => Ok(request.parameters.len()),
        Err(error) => Err(status::invalid("body", &error.to_string())),
    }
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub(in crate::services) fn as_json(value: &Value) -> Response {
    ([(CONTENT_TYPE, JSON)], value.to_string()).into_response()
}
