//! The gRPC services, and REST for the one of them that has such a form: thin. Each method converts, calls one handle and converts back.
//!
//! Nothing here holds a tensor, and [`status`] is the only place where an error becomes a `Status`.

pub(crate) mod caller;
pub mod dataset;
mod dataset_ref;
mod download;
pub mod evaluation;
pub mod event_stream;
pub mod model;
pub mod open_inference;
pub mod prediction;
pub mod status;
pub(crate) mod streaming_job;
pub mod system;
pub mod training;
pub mod uploads;

use crate::telemetry::traces;

/// Most items of a page, and the number when the client does not say.
const MAX_PAGE: i32 = 1_000;

/// Reads a page size: 0 means `default`, more than the most is the most.
///
/// # Errors
/// A negative size.
fn page_size(given: i32, default: u32) -> Result<u32, tonic::Status> {
    match given {
        0 => Ok(default),
        1.. => Ok(given.min(MAX_PAGE).unsigned_abs()),
        _ => Err(status::invalid(
            "page_size",
            &format!("{given} is negative; 0 to {MAX_PAGE} is allowed"),
        )),
    }
}

/// Reads a page token: empty for the first page.
///
/// # Errors
/// A token that no response held.
fn page_token(given: &str) -> Result<Option<i64>, tonic::Status> {
    if given.is_empty() {
        return Ok(None);
    }
    crate::store::parse_token(given)
        .map(Some)
        .map_err(|error| status::invalid("page_token", &error.to_string()))
}

/// The token of the page after this one; empty on the last.
fn next_page_token(next: Option<i64>) -> String {
    next.map(crate::store::encode_token).unwrap_or_default()
}

/// Smallest message in bytes that is compressed where predictions are answered; setting up a compressor costs more than it saves on smaller ones.
const LEAST_COMPRESSED: usize = 1024;

/// A response that is not compressed although its client accepts that: its messages are small, or compressed already, as PNGs are.
fn uncompressed<T>(message: T) -> tonic::Response<T> {
    let mut response = tonic::Response::new(message);
    response.disable_compression();
    response
}

/// A response that is compressed, where its client accepts that, unless it is small.
fn compressed_if_large<M: prost::Message>(message: M) -> tonic::Response<M> {
    match message.encoded_len() < LEAST_COMPRESSED {
        true => uncompressed(message),
        false => tonic::Response::new(message),
    }
}

/// Work for one message of a stream, which goes on whether or not the client reads what came before it: what waits for a client must hold nothing that others wait
/// for. Dropping it ends the work.
///
/// # Errors
/// INTERNAL when the work panicked.
fn spawn_abort_on_drop<T: Send + 'static>(
    work: impl Future<Output = Result<T, tonic::Status>> + Send + 'static,
) -> impl Future<Output = Result<T, tonic::Status>> {
    let followed = traces::instrument(traces::current(), work);
    let work = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(followed));
    async move { work.await.unwrap_or_else(|_| Err(status::panicked())) }
}
