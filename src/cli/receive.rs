//! A stored file as it comes from the server, verified by its size and SHA-256.

use std::{io::Write, path::Path, time::Duration};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use crate::proto::v1::CheckpointFile;

use super::{Context, Error, client::Client, report::size_text};

/// Longest wait for the next megabyte.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(60);

/// Writes what comes to `target` and returns the description, which comes in the first part. The file may be used only after this has succeeded; `path` is its
/// name in messages.
///
/// # Errors
/// A server that is gone, a file that cannot be written, or bytes that are not those described.
pub(super) async fn receive(
    client: &Client,
    mut parts: impl Stream<Item = Result<(Option<CheckpointFile>, Bytes), Status>> + Unpin,
    target: &mut impl Write,
    path: &Path,
    context: &mut Context,
) -> Result<CheckpointFile, Error> {
    let mut digest = Sha256::new();
    let mut received = 0;
    let mut described = None;
    loop {
        let part = match timeout(CHUNK_TIMEOUT, parts.next()).await {
            Err(_) => {
                return Err(client.failure(Status::unavailable("the download came to a halt")));
            }
            Ok(None) => break,
            Ok(Some(part)) => part.map_err(|status| client.failure(status))?,
        };
        let (file, data) = part;
        described = described.or(file);
        digest.update(&data);
        received += data.len() as u64;
        target.write_all(&data).map_err(Error::File)?;
        if let Some(file) = &described {
            let share = received as f64 / file.size_bytes.max(1) as f64;
            context.output.draw(share, size_text(received));
        }
    }
    context.output.clear();
    let file = described
        .ok_or_else(|| Error::Contract("the download did not say what it is".to_owned()))?;
    let corrupt = |expected: String, found: String| Error::Corrupt {
        path: path.to_owned(),
        expected,
        found,
    };
    if received != file.size_bytes {
        return Err(corrupt(
            format!("{} bytes", file.size_bytes),
            format!("{received} bytes"),
        ));
    }
    let found = format!("{:x}", digest.finalize());
    if found != file.sha256 {
        return Err(corrupt(format!("SHA-256 {}", file.sha256), found));
    }
    Ok(file)
}
