//! Verified streams of artifacts.

use std::io::Read;

use futures_util::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use object_store::{GetResultPayload, ObjectStoreExt as _};
use tokio_util::bytes::Bytes;

use super::{
    Artifacts, Error,
    digest::{Hasher, key},
    store::blocking,
};

/// Bytes per read of a whole artifact.
const CHUNK: usize = 256 * 1024;

impl Artifacts {
    /// Returns the bytes of an artifact in chunks of `chunk` bytes; the last one may be shorter.
    ///
    /// The bytes are valid only if the stream ends without an error: [`Error::Corrupt`] is its last
    /// item.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::BadDigest`], [`Error::Store`].
    pub(crate) async fn stream(
        &self,
        sha256: &str,
        chunk: usize,
    ) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        let found = self.store.get(&key(sha256)?).await.map_err(|error| {
            if matches!(error, object_store::Error::NotFound { .. }) {
                return Error::NotFound {
                    digest: sha256.to_owned(),
                };
            }
            error.into()
        })?;
        let bytes = match found.payload {
            GetResultPayload::File(file, _) => file_chunks(file, chunk.max(1)),
            GetResultPayload::Stream(parts) => parts.map_err(Error::from).boxed(),
        };
        Ok(verified(bytes, sha256.to_owned()))
    }
}

impl Artifacts {
    /// Returns the bytes of a small artifact, such as a manifest.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Corrupt`], [`Error::BadDigest`], [`Error::Store`], and
    /// [`Error::TooLarge`] beyond `limit` bytes.
    pub(crate) async fn read(&self, sha256: &str, limit: usize) -> Result<Vec<u8>, Error> {
        let mut chunks = self.stream(sha256, CHUNK).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.try_next().await? {
            if bytes.len() + chunk.len() > limit {
                return Err(Error::TooLarge {
                    digest: sha256.to_owned(),
                    limit,
                });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

/// Reads `chunk` bytes, fewer only at the end.
pub(super) fn read_chunk(source: &mut impl Read, chunk: usize) -> std::io::Result<Bytes> {
    let mut bytes = Vec::with_capacity(chunk);
    source.take(chunk as u64).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

fn file_chunks<F>(file: F, chunk: usize) -> BoxStream<'static, Result<Bytes, Error>>
where
    F: Read + Send + 'static,
{
    stream::try_unfold(file, move |mut file| async move {
        let (bytes, file) =
            blocking(move || read_chunk(&mut file, chunk).map(|bytes| (bytes, file))).await?;
        Ok((!bytes.is_empty()).then_some((bytes, file)))
    })
    .boxed()
}

/// Forwards chunks, and ends with an error if their digest differs.
fn verified(
    chunks: BoxStream<'static, Result<Bytes, Error>>,
    sha256: String,
) -> BoxStream<'static, Result<Bytes, Error>> {
    let start = (chunks, Hasher::default(), sha256);
    stream::try_unfold(start, |(mut chunks, mut hasher, sha256)| async move {
        let Some(bytes) = chunks.try_next().await? else {
            let found = hasher.finish().sha256;
            if found == sha256 {
                return Ok(None);
            }
            return Err(Error::Corrupt {
                digest: sha256,
                found,
            });
        };
        let hashed = bytes.clone();
        let hasher = blocking(move || {
            hasher.update(&hashed);
            hasher
        })
        .await;
        Ok(Some((bytes, (chunks, hasher, sha256))))
    })
    .boxed()
}
