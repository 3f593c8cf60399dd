//! Writes the body of a PATCH.

use std::time::Duration;

use axum::body::Body;
use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

use super::failure::datasets_failure;
use crate::{
    access::{Identity, Refusal},
    datasets::uploads::{Upload, Writer},
    services::{http::Failure, status},
};

/// Maximum time between two parts of a body.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Writes the body until it ends, the server shuts down or the credential becomes invalid. Keeps
/// the received bytes in each case.
pub(super) async fn write(
    mut writer: Writer,
    body: Body,
    shutdown: CancellationToken,
    identity: Option<Identity>,
) -> Result<Upload, Failure> {
    let ended = tokio::select! {
        ended = copy(&mut writer, body) => ended,
        () = shutdown.cancelled() => Err(status::stream_ends().into()),
        // The layer that ends the call cannot end this task.
        () = invalid(identity) => Err(status::unauthenticated(Refusal::Expired).into()),
    };
    let upload = writer.finish().await.map_err(datasets_failure)?;
    ended.map(|()| upload)
}

async fn copy(writer: &mut Writer, body: Body) -> Result<(), Failure> {
    let mut chunks = body.into_data_stream();
    loop {
        let chunk = tokio::time::timeout(READ_TIMEOUT, chunks.next()).await;
        match chunk.map_err(|_| status::upload_too_slow(READ_TIMEOUT))? {
            None => return Ok(()),
            Some(Ok(chunk)) => writer.write(&chunk).await.map_err(datasets_failure)?,
            Some(Err(error)) => return Err(status::upload_interrupted(error).into()),
        }
    }
}

/// Waits until the credential of a request becomes invalid.
async fn invalid(identity: Option<Identity>) {
    match identity {
        Some(identity) => identity.invalid().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use bytes::Bytes;
    use tempfile::TempDir;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;
    use tonic::Code;

    use super::*;
    use crate::{
        access::{Limits, Roles},
        datasets::uploads::{Scope, Uploads},
        disk::Disk,
    };

    #[tokio::test]
    async fn revoked_credential_ends_the_writing_and_keeps_the_received_bytes() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().to_owned();
        let disk = Disk::new(path.clone(), 0);
        let uploads = Uploads::open(path, 100, disk, Duration::from_secs(3600)).unwrap();
        let id = uploads.create(10, "ci", "").await.unwrap().id.to_string();
        let writer = uploads.write_at(&id, 0, &Scope::All).await.unwrap();
        let revoked = CancellationToken::new();
        let identity = Identity::new(
            "ci".to_owned(),
            Roles::default(),
            Limits::default(),
            None,
            revoked.clone(),
        );
        let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(1);
        let body = Body::from_stream(ReceiverStream::new(receiver));
        let writing = write(writer, body, CancellationToken::new(), Some(identity));
        let writing = tokio::spawn(writing);
        sender.send(Ok(Bytes::from_static(b"0123"))).await.unwrap();
        // Available again when the bytes were received.
        drop(sender.reserve().await.unwrap());
        revoked.cancel();

        let ended = writing.await.unwrap().unwrap_err();
        assert_eq!(ended.status.code(), Code::Unauthenticated);
        assert!(sender.is_closed());
        // The next request resumes there.
        let kept = uploads.write_at(&id, 4, &Scope::All).await.unwrap();
        assert_eq!(kept.missing(), 6);
    }
}
