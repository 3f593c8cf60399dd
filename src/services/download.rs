//! Stored files as streams: the description first, then the bytes.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tonic::Status;

use crate::{artifacts::Artifacts, model::checkpoint::MODEL_FILE, proto::v1::CheckpointFile};

use super::status;

/// Bytes of a chunk.
const CHUNK: usize = 1 << 20;

/// A stream of responses.
pub(super) type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The file of this name among those of a checkpoint or version; the weights when the name is empty.
///
/// # Errors
/// A name that none of them has.
pub(super) fn choose(
    owner: &str,
    files: &[CheckpointFile],
    name: &str,
) -> Result<CheckpointFile, Status> {
    let wanted = if name.is_empty() { MODEL_FILE } else { name };
    let found = files.iter().find(|file| file.name == wanted);
    found.cloned().ok_or_else(|| {
        let names: Vec<_> = files.iter().map(|file| file.name.as_str()).collect();
        status::not_found(&format!(
            "{wanted:?} is no file of {owner}; its files are {}",
            names.join(", ")
        ))
    })
}

/// Streams a file; `response` makes a message of the description, in the first one only, or of some bytes.
///
/// # Errors
/// A file that is not stored; one that is damaged ends the stream with an error.
pub(super) async fn stream<T: Send + 'static>(
    artifacts: &Artifacts,
    file: CheckpointFile,
    response: fn(Option<CheckpointFile>, Bytes) -> T,
) -> Result<Boxed<T>, Status> {
    let chunks = artifacts
        .stream(&file.sha256, CHUNK)
        .await
        .map_err(status::from_artifacts)?;
    let head = response(Some(file), Bytes::new());
    let body = chunks.map(move |chunk| match chunk {
        Ok(data) => Ok(response(None, data)),
        Err(error) => Err(status::from_artifacts(error)),
    });
    Ok(Box::pin(tokio_stream::once(Ok(head)).chain(body)))
}
