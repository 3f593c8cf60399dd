//! Stored files as streams: the description first, then the bytes.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tonic::Status;

use super::status;
use crate::{artifacts::Artifacts, model::checkpoint::MODEL_FILE, proto::v1::CheckpointFile};

const CHUNK_BYTES: usize = 1 << 20;

pub(super) type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Finds a file of a checkpoint or version by name; an empty name is that of the weights.
pub(super) fn find_file(
    owner: &str,
    files: &[CheckpointFile],
    name: &str,
) -> Result<CheckpointFile, Status> {
    let wanted = if name.is_empty() { MODEL_FILE } else { name };
    let found = files.iter().find(|file| file.name == wanted);
    found.cloned().ok_or_else(|| {
        let names: Vec<_> = files.iter().map(|file| file.name.as_str()).collect();
        status::not_found(format_args!(
            "{owner} has no file {wanted:?}; its files are {}",
            names.join(", ")
        ))
    })
}

/// Streams a file. `response` creates a message from the description, in the first one only, or
/// from some bytes.
///
/// # Errors
/// A missing file; a damaged one ends the stream with an error.
pub(super) async fn stream<T: Send + 'static>(
    artifacts: &Artifacts,
    file: CheckpointFile,
    response: fn(Option<CheckpointFile>, Bytes) -> T,
) -> Result<Boxed<T>, Status> {
    let chunks = artifacts.stream(&file.sha256, CHUNK_BYTES).await?;
    let head = response(Some(file), Bytes::new());
    let body = chunks.map(move |chunk| Ok(response(None, chunk?)));
    Ok(Box::pin(tokio_stream::once(Ok(head)).chain(body)))
}
