//! Storing of artifacts.

use std::{
    io::{self, ErrorKind, Read},
    path::Path,
};

use fs_err as fs;
use object_store::{MultipartUpload, ObjectStoreExt as _, PutPayload, path::Path as Key};
use tokio::sync::{mpsc, oneshot};
use tokio_util::bytes::Bytes;
use uuid::Uuid;

use crate::priority;

use super::{
    Artifacts, Digest, Error,
    digest::{Hasher, hash, key},
    read::read_chunk,
    store::{INCOMING, blocking},
};

/// Bytes read, hashed and written at a time. Remote stores require parts of more than 5 MiB.
const PART: usize = 8 << 20;
/// Niceness of hashing, for whose result rarely anyone waits.
const NICE: u32 = 10;

impl Artifacts {
    /// Stores a file that its writer has closed and removes it. It is moved, or copied from another
    /// file system. A thread of low priority hashes it.
    ///
    /// After an error the file may be gone.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::DiskFull`], [`Error::Store`].
    pub(crate) async fn move_file(&self, path: &Path) -> Result<Digest, Error> {
        if let Some(digest) = self.rename_file(path).await? {
            return Ok(digest);
        }
        let digest = self.copy_file(path).await?;
        let path = path.to_owned();
        blocking(move || fs::remove_file(path)).await?;
        Ok(digest)
    }

    /// Stores bytes.
    ///
    /// # Errors
    /// [`Error::DiskFull`], [`Error::Store`].
    pub(crate) async fn put_bytes(&self, bytes: Bytes) -> Result<Digest, Error> {
        self.put(Box::new(io::Cursor::new(bytes))).await
    }

    pub(super) async fn copy_file(&self, path: &Path) -> Result<Digest, Error> {
        let path = path.to_owned();
        let file = blocking(move || fs::File::open(path)).await?;
        self.put(Box::new(file)).await
    }

    /// Moves a file into the store; returns `None`, with nothing changed, if it is on another file
    /// system.
    async fn rename_file(&self, path: &Path) -> Result<Option<Digest>, Error> {
        let temporary = temporary_key();
        let (from, to) = (path.to_owned(), self.store.path_to_filesystem(&temporary)?);
        let file = blocking(move || {
            if let Some(directory) = to.parent() {
                fs::create_dir_all(directory)?;
            }
            match fs::rename(from, &to) {
                Err(error) if error.kind() == ErrorKind::CrossesDevices => Ok(None),
                renamed => renamed.and_then(|()| fs::File::open(to)).map(Some),
            }
        })
        .await?;
        let Some(file) = file else { return Ok(None) };
        let hashed = low_priority(move || {
            let digest = hash(&file)?;
            file.sync_all()?;
            Ok(digest)
        });
        match hashed.await {
            Ok(digest) => {
                self.publish(&temporary, &digest).await?;
                Ok(Some(digest))
            }
            Err(error) => {
                discard(self.store.delete(&temporary).await);
                Err(error.into())
            }
        }
    }

    /// Copies a source to a temporary file, then gives it the name of its digest.
    async fn put(&self, source: Box<dyn Read + Send>) -> Result<Digest, Error> {
        let temporary = temporary_key();
        let mut upload = self.store.put_multipart(&temporary).await?;
        let copied = match copy(source, &mut *upload).await {
            Ok(digest) => upload.complete().await.map(|_| digest).map_err(Error::from),
            Err(error) => Err(error),
        };
        match copied {
            Ok(digest) => {
                self.publish(&temporary, &digest).await?;
                Ok(digest)
            }
            Err(error) => {
                discard(upload.abort().await);
                Err(error)
            }
        }
    }

    /// Renames a temporary file to the name of its digest.
    async fn publish(&self, temporary: &Key, digest: &Digest) -> Result<(), Error> {
        if let Err(error) = self.store.rename(temporary, &key(&digest.sha256)?).await {
            discard(self.store.delete(temporary).await);
            return Err(error.into());
        }
        Ok(())
    }
}

fn temporary_key() -> Key {
    Key::from_iter([INCOMING, &Uuid::new_v4().simple().to_string()])
}

/// Sends a source to an upload part by part and hashes it on the way.
async fn copy(
    source: Box<dyn Read + Send>,
    upload: &mut dyn MultipartUpload,
) -> Result<Digest, Error> {
    let (parts, mut receiver) = mpsc::channel(1);
    let digest = low_priority(move || read_parts(source, &parts));
    while let Some(part) = receiver.recv().await {
        upload.put_part(PutPayload::from(part)).await?;
    }
    Ok(digest.await?)
}

/// Starts work on a new thread of low priority: a checkpoint is hashed after each epoch, while
/// predictions continue.
fn low_priority<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> impl Future<Output = io::Result<T>> {
    let (done, result) = oneshot::channel();
    let started = std::thread::Builder::new()
        .name("artifacts".to_owned())
        .spawn(move || {
            priority::lower_thread_priority(NICE);
            drop(done.send(work()));
        });
    async move {
        started?;
        let result = result.await;
        result.unwrap_or_else(|_| Err(io::Error::other("the hashing thread panicked")))
    }
}

/// Reads a source to its end, sends its parts and returns their digest. It stops early if the
/// receiver is dropped.
fn read_parts(mut source: impl Read, parts: &mpsc::Sender<Bytes>) -> io::Result<Digest> {
    let mut hasher = Hasher::default();
    loop {
        let part = read_chunk(&mut source, PART)?;
        if part.is_empty() {
            break;
        }
        hasher.update(&part);
        if parts.blocking_send(part).is_err() {
            break;
        }
    }
    Ok(hasher.finish())
}

/// Ignores the result of a cleanup after a failure that is reported anyway; the next start cleans
/// up again.
fn discard<T>(outcome: object_store::Result<T>) {
    drop(outcome);
}
