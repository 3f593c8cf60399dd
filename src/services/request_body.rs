//! Bodies of HTTP requests, within limits on their size, number and time.

use std::time::Duration;

use axum::{
    body::Body,
    http::{
        HeaderMap, StatusCode,
        header::{CONTENT_ENCODING, CONTENT_LENGTH},
    },
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    http::Failure,
    limit::CallLimit,
    status::{self, Calls},
};

/// Maximum time to receive a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// A body over the limit is read and discarded up to this multiple of the limit, so that its client
/// can read the response.
const DISCARDED: usize = 4;

/// Reads the bodies of predictions. Clones share the limit on their number.
#[derive(Clone)]
pub(crate) struct RequestBodies {
    requests: CallLimit,
    /// Maximum size of a body in bytes.
    max_bytes: usize,
}

impl RequestBodies {
    /// Limits the size of a body in bytes and the number of concurrent requests.
    pub(crate) fn new(max_bytes: usize, max_requests: usize) -> Self {
        RequestBodies {
            requests: CallLimit::new(Calls::Requests, max_requests),
            max_bytes,
        }
    }

    /// Reads the body of a request; returns it with a permit for the request.
    pub(super) async fn read(
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
        let reading = read_body(body, announced.unwrap_or(0), self.max_bytes);
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
