//! A stored file as a stream of parts, verified by its size and SHA-256.

use std::{io::Write, path::Path, time::Duration};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

use crate::{
    cli::{
        client::Client,
        error::Error,
        output::{Output, text::size_text},
    },
    proto::v1::CheckpointFile,
};

/// Longest wait for the next part, of about one megabyte.
const PART_TIMEOUT: Duration = Duration::from_secs(60);

/// Writes the parts to `target` and returns the description of the file, which the first part
/// carries. The file is valid only after this succeeded. `path` names it in error messages.
///
/// # Errors
/// An unreachable server, a failed write, or bytes that do not match the description.
pub(crate) async fn download(
    client: &Client,
    mut parts: impl Stream<Item = Result<(Option<CheckpointFile>, Bytes), Status>> + Unpin,
    target: &mut impl Write,
    path: &Path,
    output: &mut Output,
) -> Result<CheckpointFile, Error> {
    let mut digest = Sha256::new();
    let mut received = 0;
    let mut described = None;
    loop {
        let part = match timeout(PART_TIMEOUT, parts.next()).await {
            Err(_) => {
                return Err(client.failure(Status::unavailable("the download stalled")));
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
            output.draw(share, size_text(received));
        }
    }
    output.clear();
    let file =
        described.ok_or_else(|| Error::Contract("the download has no description".to_owned()))?;
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
