//! Routes of uploads and of sample images.

use axum::{
    Router,
    extract::{Path, Request, State},
    http::{
        Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
        header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, X_CONTENT_TYPE_OPTIONS},
        request::Parts,
    },
    response::{IntoResponse, Response},
    routing::{get, head, post},
};
use serde_json::json;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Status;

use super::{body::write, failure::datasets_failure};
use crate::{
    access::Identity,
    datasets::{DatasetRegistry, uploads::Upload},
    names,
    services::{
        authorize,
        caller::Caller,
        http::{Failure, as_json, respond},
        limit::CallLimit,
        status::{self, Calls},
    },
    telemetry::metrics,
};

/// Concurrent requests that write.
const MAX_WRITERS: usize = 32;
/// Browsers may cache a sample, because the URL of another dataset's sample has another query.
const SAMPLE_CACHING: &str = "private, max-age=86400, immutable";

/// The protocol version.
const TUS_RESUMABLE: (HeaderName, HeaderValue) = (
    HeaderName::from_static("tus-resumable"),
    HeaderValue::from_static("1.0.0"),
);
const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");
/// Most bytes of `Upload-Metadata`.
const MAX_METADATA: usize = 1024;
/// The media type of PATCH requests.
const OFFSET_STREAM: &str = "application/offset+octet-stream";

/// The paths as labels of metrics.
mod route {
    pub(super) const UPLOADS: &str = "/datasets/uploads";
    pub(super) const UPLOAD: &str = "/datasets/uploads/{upload}";
    pub(super) const SAMPLE: &str = "/datasets/{dataset}/samples/{index}";
}

/// Response headers that pages of other origins may read.
pub(crate) const EXPOSED: [&str; 5] = [
    "location",
    "tus-resumable",
    "upload-length",
    "upload-metadata",
    "upload-offset",
];

/// Methods that pages of other origins may use.
pub(crate) const METHODS: [Method; 3] = [Method::HEAD, Method::PATCH, Method::DELETE];

#[derive(Clone)]
struct Pages {
    datasets: DatasetRegistry,
    writers: CallLimit,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

/// Creates the series of the routes, so the exporter must be installed. `tasks` owns the tasks that
/// write; `uploads` is whether the server accepts uploads.
pub(crate) fn router(
    datasets: DatasetRegistry,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    uploads: bool,
) -> Router {
    let pages = Pages {
        datasets,
        writers: CallLimit::new(Calls::Requests, MAX_WRITERS),
        shutdown,
        tasks,
    };
    metrics::http_known(route::SAMPLE);
    let mut router = Router::new().route(route::SAMPLE, get(sample));
    if uploads {
        metrics::http_known(route::UPLOADS);
        metrics::http_known(route::UPLOAD);
        let upload = head(offset).patch(append).delete(remove);
        router = router
            .route(route::UPLOADS, post(create).fallback(wrong_method))
            .route(route::UPLOAD, upload.fallback(wrong_method));
    }
    router.with_state(pages)
}

async fn create(State(pages): State<Pages>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    respond(route::UPLOADS, async {
        let length = number(&parts.headers, &UPLOAD_LENGTH)?;
        let caller = Caller::new(&parts.headers, &parts.extensions)?;
        let client = caller.client.as_str();
        let metadata = metadata(&parts.headers)?;
        let uploads = pages.datasets.uploads();
        let upload = uploads.create(length, client, metadata).await;
        let upload = upload.map_err(datasets_failure)?;
        let path = format!("/datasets/uploads/{}", upload.id);
        let location = HeaderValue::try_from(path.as_str()).map_err(status::encoding_failed)?;
        let body = json!({
            "upload": upload.id,
            "offset": upload.offset,
            "length": upload.length,
        });
        let head = [TUS_RESUMABLE, (LOCATION, location)];
        Ok((StatusCode::CREATED, head, as_json(&body)).into_response())
    })
    .await
}

async fn offset(
    State(pages): State<Pages>,
    Path(upload): Path<String>,
    extensions: Extensions,
) -> Response {
    respond(route::UPLOAD, async {
        let scope = authorize::uploads(&extensions);
        let upload = pages.datasets.uploads().get(&upload, &scope).await;
        Ok(progress(StatusCode::OK, &upload.map_err(datasets_failure)?))
    })
    .await
}

async fn append(
    State(pages): State<Pages>,
    Path(upload): Path<String>,
    request: Request,
) -> Response {
    let (
        Parts {
            headers,
            extensions,
            ..
        },
        body,
    ) = request.into_parts();
    respond(route::UPLOAD, async {
        let content_type = headers.get(CONTENT_TYPE);
        if content_type.is_none_or(|found| found != OFFSET_STREAM) {
            return Err(Failure {
                status: status::invalid("content-type", format_args!("must be {OFFSET_STREAM}")),
                http: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            });
        }
        let offset = number(&headers, &UPLOAD_OFFSET)?;
        let permit = pages.writers.acquire()?;
        let scope = authorize::uploads(&extensions);
        let uploads = pages.datasets.uploads();
        let writer = uploads.write_at(&upload, offset, &scope).await;
        let writer = writer.map_err(datasets_failure)?;
        let announced = headers.get(CONTENT_LENGTH).map(HeaderValue::as_bytes);
        let announced = announced.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        if announced.is_some_and(|announced: u64| announced > writer.missing()) {
            return Err(datasets_failure(writer.too_long()));
        }
        // In a separate task, because this future is dropped when the client disconnects, and the
        // file must be synced.
        let shutdown = pages.shutdown.clone();
        let identity = extensions.get::<Identity>().cloned();
        let writing = pages.tasks.spawn(async move {
            let _permit = permit;
            write(writer, body, shutdown, identity).await
        });
        let written = writing.await.map_err(|error| {
            tracing::error!(%error, "writing an upload panicked");
            status::panicked()
        })?;
        Ok(progress(StatusCode::NO_CONTENT, &written?))
    })
    .await
}

async fn remove(
    State(pages): State<Pages>,
    Path(upload): Path<String>,
    extensions: Extensions,
) -> Response {
    respond(route::UPLOAD, async {
        let scope = authorize::uploads(&extensions);
        let removed = pages.datasets.remove_upload(&upload, &scope).await;
        removed.map_err(datasets_failure)?;
        Ok((StatusCode::NO_CONTENT, [TUS_RESUMABLE]).into_response())
    })
    .await
}

async fn sample(
    State(pages): State<Pages>,
    Path((dataset, index)): Path<(String, String)>,
) -> Response {
    respond(route::SAMPLE, async {
        let id = Some(dataset.as_str()).filter(|id| names::is_id(id));
        let id = id.ok_or_else(|| status::not_found("no such dataset"))?;
        let index = index
            .parse()
            .map_err(|_| status::not_found("no such sample"))?;
        let image = pages
            .datasets
            .sample(id, index)
            .await
            .map_err(datasets_failure)?;
        let head = [
            (CONTENT_TYPE, "image/jpeg"),
            (CACHE_CONTROL, SAMPLE_CACHING),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        Ok((head, image).into_response())
    })
    .await
}

fn wrong_method() -> impl Future<Output = Response> {
    std::future::ready(StatusCode::METHOD_NOT_ALLOWED.into_response())
}

/// The current offset and the length of an upload.
fn progress(code: StatusCode, upload: &Upload) -> Response {
    let head = [
        TUS_RESUMABLE,
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (UPLOAD_OFFSET, HeaderValue::from(upload.offset)),
        (UPLOAD_LENGTH, HeaderValue::from(upload.length)),
    ];
    let mut response = (code, head).into_response();
    // Checked when the upload was created.
    if let Ok(metadata) = HeaderValue::from_str(&upload.metadata)
        && !metadata.is_empty()
    {
        response.headers_mut().insert(UPLOAD_METADATA, metadata);
    }
    response
}

/// The text that the client wants back with the offset, such as a digest of the content.
fn metadata(headers: &HeaderMap) -> Result<&str, Status> {
    let Some(value) = headers.get(&UPLOAD_METADATA) else {
        return Ok("");
    };
    let text = value
        .to_str()
        .ok()
        .filter(|text| text.len() <= MAX_METADATA);
    text.ok_or_else(|| {
        status::invalid(
            UPLOAD_METADATA.as_str(),
            format_args!("must have at most {MAX_METADATA} ASCII characters"),
        )
    })
}

/// Reads a header with a number of bytes.
fn number(headers: &HeaderMap, name: &HeaderName) -> Result<u64, Status> {
    let text = headers.get(name).and_then(|value| value.to_str().ok());
    let number = text.and_then(|text| text.parse().ok());
    number.ok_or_else(|| {
        let found = text.unwrap_or_default();
        status::invalid(
            name.as_str(),
            format_args!("must be a number of bytes, got {found:?}"),
        )
    })
}
