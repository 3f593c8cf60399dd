use std::time::Duration;

use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderName, StatusCode,
        header::{CONTENT_ENCODING, CONTENT_LENGTH},
    },
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

use super::state::Rest;
use crate::services::{http::Failure, status};

/// The size of the JSON in bytes, if tensors follow it.
pub(super) const JSON_LENGTH: HeaderName =
    HeaderName::from_static("inference-header-content-length");

/// Maximum time to receive a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// A body over the limit is read and discarded up to this multiple of the limit, so that its client
/// can read the response.
const DISCARDED: usize = 4;

impl Rest {
    /// Reads the body of a request; returns it with a permit for the request.
    pub(super) async fn body(
        &self,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<(Bytes, OwnedSemaphorePermit), Failure> {
        let permit = self.requests.acquire()?;
        let encoding = headers.get(CONTENT_ENCODING);
        if let Some(encoding) = encoding.filter(|encoding| *encoding != "identity") {
            let status = status::unimplemented(format_args!(
                "the content encoding {encoding:?} is not supported; send the body uncompressed, or compressed over gRPC"
            ));
            return Err(Failure {
                status,
                http: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            });
        }
        let announced = headers.get(CONTENT_LENGTH);
        let announced = announced.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        let reading = read_body(body, announced.unwrap_or(0), self.max_body);
        match tokio::time::timeout(BODY_TIMEOUT, reading).await {
            Ok(body) => Ok((body?, permit)),
            Err(_) => Err(Failure {
                status: status::body_too_slow(BODY_TIMEOUT),
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
        let chunk = chunk.map_err(|error| {
            status::invalid("body", format_args!("failed to receive the body: {error}"))
        })?;
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

pub(super) fn json_length(headers: &HeaderMap) -> Result<Option<usize>, Status> {
    let Some(value) = headers.get(JSON_LENGTH) else {
        return Ok(None);
    };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    length.map(Some).ok_or_else(|| {
        let description = format!("must be a number of bytes, got {value:?}");
        status::invalid("Inference-Header-Content-Length", description)
    })
}

/// Counts the parameters in the body of a load, which may be empty.
pub(super) fn load_parameters(body: &[u8]) -> Result<usize, Status> {
    #[derive(Deserialize)]
    struct Request {
        #[serde(default)]
        parameters: serde_json::Map<String, Value>,
    }
    if body.is_empty() {
        return Ok(0);
    }
    let request: Request =
        serde_json::from_slice(body).map_err(|error| status::invalid("body", error))?;
    Ok(request.parameters.len())
}
