//! Archives that come in over the HTTP port, and the small images of datasets that go out.
//!
//! | Path | Answer |
//! |---|---|
//! | POST `/datasets/uploads` with `Upload-Length` | 201, `Location`, and the upload as JSON |
//! | HEAD `/datasets/uploads/{id}` | `Upload-Offset` and `Upload-Length` |
//! | PATCH `/datasets/uploads/{id}` with `Upload-Offset` and bytes from there on | 204 and the new `Upload-Offset` |
//! | DELETE `/datasets/uploads/{id}` | 204 |
//! | `/datasets/{id}/samples/{index}` | a JPEG |
//!
//! This is the core of the resumable upload protocol tus 1.0.0, with its extensions `creation` and `termination`. A dataset is made of a complete upload by
//! CreateDataset. Bytes go to disk as they come; whatever ends a PATCH, what came is kept. Errors are `{"error": "..."}`.

use std::{future::Future, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
        header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, X_CONTENT_TYPE_OPTIONS},
    },
    response::{IntoResponse, Response},
    routing::{get, head, post},
};
use futures_util::StreamExt;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Status;

use crate::{
    datasets::{
        self, DatasetRegistry,
        uploads::{Upload, Writer},
    },
    names,
    telemetry::metrics,
};

use super::{
    open_inference::rest::{Failure, answer, as_json},
    status,
};

/// Requests that write at a time.
const MAX_WRITERS: usize = 8;
/// Longest time between two pieces of a body.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a browser may keep a small image; the address of another dataset's has another query.
const KEEP: &str = "public, max-age=86400, immutable";

/// The version of the protocol.
const TUS_RESUMABLE: (HeaderName, HeaderValue) = (
    HeaderName::from_static("tus-resumable"),
    HeaderValue::from_static("1.0.0"),
);
const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
/// The media type that the protocol wants of the bytes.
const OFFSET_STREAM: &str = "application/offset+octet-stream";

/// What the metrics call the paths.
mod route {
    pub(super) const UPLOADS: &str = "/datasets/uploads";
    pub(super) const UPLOAD: &str = "/datasets/uploads/{upload}";
    pub(super) const SAMPLE: &str = "/datasets/{dataset}/samples/{index}";
}

/// Headers that pages of other origins may read, for their uploads.
pub const EXPOSED: [&str; 4] = [
    "location",
    "tus-resumable",
    "upload-length",
    "upload-offset",
];

/// Methods that pages of other origins may use, for their uploads.
pub const METHODS: [Method; 3] = [Method::HEAD, Method::PATCH, Method::DELETE];

/// What the pages need.
#[derive(Clone)]
pub struct Uploading {
    /// The datasets.
    pub datasets: DatasetRegistry,
    /// Ends what is being written.
    pub shutdown: CancellationToken,
    /// Owns what is being written.
    pub tasks: TaskTracker,
}

#[derive(Clone)]
struct Pages {
    datasets: DatasetRegistry,
    writers: Arc<Semaphore>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

/// The pages; without those of the uploads where `takes_uploads` is false. The exporter must be installed: their series exist from now on.
pub fn router(uploading: Uploading, takes_uploads: bool) -> Router {
    let Uploading {
        datasets,
        shutdown,
        tasks,
    } = uploading;
    let pages = Pages {
        datasets,
        writers: Arc::new(Semaphore::new(MAX_WRITERS)),
        shutdown,
        tasks,
    };
    metrics::http_known(route::SAMPLE);
    let mut router = Router::new().route(route::SAMPLE, get(sample));
    if takes_uploads {
        metrics::http_known(route::UPLOADS);
        metrics::http_known(route::UPLOAD);
        let upload = head(offset).patch(append).delete(remove);
        router = router
            .route(route::UPLOADS, post(begin).fallback(wrong_method))
            .route(route::UPLOAD, upload.fallback(wrong_method));
    }
    router.with_state(pages)
}

async fn begin(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    answer(route::UPLOADS, async {
        let length = number(&headers, &UPLOAD_LENGTH)?;
        let upload = pages.datasets.uploads().create(length).await;
        let upload = upload.map_err(refused)?;
        let path = format!("/datasets/uploads/{}", upload.id);
        let location = HeaderValue::try_from(path.as_str())
            .map_err(|error| status::unwritable(&error.to_string()))?;
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

async fn offset(State(pages): State<Pages>, Path(upload): Path<String>) -> Response {
    answer(route::UPLOAD, async {
        let upload = pages.datasets.uploads().get(&upload).await;
        Ok(standing(StatusCode::OK, &upload.map_err(refused)?))
    })
    .await
}

async fn append(
    State(pages): State<Pages>,
    Path(upload): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    answer(route::UPLOAD, async {
        let content_type = headers.get(CONTENT_TYPE);
        if content_type.is_none_or(|found| found != OFFSET_STREAM) {
            return Err(Failure {
                status: status::invalid("content-type", &format!("it must be {OFFSET_STREAM}")),
                http: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            });
        }
        let offset = number(&headers, &UPLOAD_OFFSET)?;
        let slot = Arc::clone(&pages.writers).try_acquire_owned();
        let slot = slot.map_err(|_| status::too_many_requests(MAX_WRITERS))?;
        let writer = pages.datasets.uploads().write_at(&upload, offset).await;
        let writer = writer.map_err(refused)?;
        let announced = headers.get(CONTENT_LENGTH).map(HeaderValue::as_bytes);
        let announced = announced.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        if announced.is_some_and(|announced: u64| announced > writer.missing()) {
            return Err(refused(writer.too_long()));
        }
        // A task of its own: this future is dropped when the client leaves, and then there is a file to be synced.
        let shutdown = pages.shutdown.clone();
        let writing = pages.tasks.spawn(async move {
            let _slot = slot;
            write(writer, body, shutdown).await
        });
        let written = writing.await.map_err(|error| {
            tracing::error!(%error, "writing an upload panicked");
            Status::internal("the upload could not be written")
        })?;
        Ok(standing(StatusCode::NO_CONTENT, &written?))
    })
    .await
}

/// Writes the body and keeps what came of it, however it ends.
async fn write(
    mut writer: Writer,
    body: Body,
    shutdown: CancellationToken,
) -> Result<Upload, Failure> {
    let ended = tokio::select! {
        ended = copy(&mut writer, body) => ended,
        () = shutdown.cancelled() => Err(status::stream_ends().into()),
    };
    let upload = writer.finish().await.map_err(refused)?;
    ended.map(|()| upload)
}

async fn copy(writer: &mut Writer, body: Body) -> Result<(), Failure> {
    let mut pieces = body.into_data_stream();
    loop {
        let piece = tokio::time::timeout(PATIENCE, pieces.next()).await;
        match piece.map_err(|_| status::upload_too_slow(PATIENCE))? {
            None => return Ok(()),
            Some(Ok(piece)) => writer.write(&piece).await.map_err(refused)?,
            Some(Err(error)) => return Err(status::upload_broken(&error.to_string()).into()),
        }
    }
}

async fn remove(State(pages): State<Pages>, Path(upload): Path<String>) -> Response {
    answer(route::UPLOAD, async {
        let removed = pages.datasets.remove_upload(&upload).await;
        removed.map_err(refused)?;
        Ok((StatusCode::NO_CONTENT, [TUS_RESUMABLE]).into_response())
    })
    .await
}

async fn sample(
    State(pages): State<Pages>,
    Path((dataset, index)): Path<(String, String)>,
) -> Response {
    answer(route::SAMPLE, async {
        let id = Some(dataset.as_str()).filter(|id| names::is_id(id));
        let id = id.ok_or_else(|| status::not_found("no such dataset"))?;
        let index = index
            .parse()
            .map_err(|_| status::not_found("no such sample"))?;
        let image = pages.datasets.sample(id, index).await.map_err(refused)?;
        let head = [
            (CONTENT_TYPE, "image/jpeg"),
            (CACHE_CONTROL, KEEP),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        Ok((head, image).into_response())
    })
    .await
}

fn wrong_method() -> impl Future<Output = Response> {
    std::future::ready(StatusCode::METHOD_NOT_ALLOWED.into_response())
}

/// How far an upload is.
fn standing(code: StatusCode, upload: &Upload) -> Response {
    let head = [
        TUS_RESUMABLE,
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (UPLOAD_OFFSET, HeaderValue::from(upload.offset)),
        (UPLOAD_LENGTH, HeaderValue::from(upload.length)),
    ];
    (code, head).into_response()
}

/// A header that holds a number of bytes.
fn number(headers: &HeaderMap, name: &HeaderName) -> Result<u64, Status> {
    let text = headers.get(name).and_then(|value| value.to_str().ok());
    let number = text.and_then(|text| text.parse().ok());
    number.ok_or_else(|| {
        let found = text.unwrap_or_default();
        status::invalid(
            name.as_str(),
            &format!("{found:?} is no number of bytes; the header must hold one"),
        )
    })
}

/// The protocol has statuses that are more exact than those of the codes.
fn refused(error: datasets::Error) -> Failure {
    use datasets::Error as E;
    let http = match &error {
        E::WrongOffset { .. } => Some(StatusCode::CONFLICT),
        E::Busy { .. } | E::InUse { .. } => Some(StatusCode::LOCKED),
        E::TooLong { .. } | E::UploadSize { .. } => Some(StatusCode::PAYLOAD_TOO_LARGE),
        E::Store(_)
        | E::Path(_)
        | E::Reading(_)
        | E::NoUpload { .. }
        | E::Incomplete { .. }
        | E::TooManyUploads { .. }
        | E::NoSample { .. }
        | E::Io(_) => None,
    };
    let failure = Failure::from(status::from_datasets(error));
    Failure {
        http: http.unwrap_or(failure.http),
        ..failure
    }
}
