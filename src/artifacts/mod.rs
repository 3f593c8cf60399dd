//! Large files that never change, such as the weights of checkpoints, named by their SHA-256.
//!
//! An artifact with the digest `abcd…` lies at `sha256/ab/abcd…` below the store's directory (or bucket); nothing else names it, so the directory
//! can be moved and the same bytes are stored once. Who uses an artifact is the database's business; [`Artifacts::collect_garbage`] removes the rest.
//!
//! # Promises
//!
//! - **Whole or absent.** Bytes are written below `incoming/`, synced, and renamed into place; after a failure (a full disk too) nothing is
//!   left, and what a crash leaves in `incoming/` is removed when the directory is opened. Only one process may have a directory open.
//! - **Durable.** When `put_…` has returned, the artifact survives the loss of power. `object_store` syncs neither files nor directories unless told
//!   to, so [`Artifacts::local`] turns `with_fsync` on: it syncs the file before the rename, and each directory whose entries changed.
//! - **Verified.** Reading compares the bytes with the name and fails with [`Error::Corrupt`].
//! - **Repaired.** StoreGuard bytes that are there already writes them again. That mends a damaged copy and renews the time that [`Artifacts::collect_garbage`]
//!   goes by; readers of the old file are not disturbed.
//!
//! A file is copied in by [`Artifacts::put_file`], or moved in by [`Artifacts::move_file`] when its writer has closed it and nobody else knows it. None is linked:
//! a link would share its bytes with a file that somebody else can still write to.
//!
//! All reading and writing happens on the runtime's threads for blocking work; what is stored is hashed by threads that give way.

use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::io::{self, ErrorKind, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fs_err as fs;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{GetResultPayload, MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, mpsc, oneshot};
use tokio_util::bytes::{Bytes, BytesMut};
use uuid::Uuid;

use crate::priority;

mod error;
#[cfg(test)]
mod tests;

pub use error::Error;

/// Directory of what is being written.
const INCOMING: &str = "incoming";
/// Directory of the artifacts.
const STORED: &str = "sha256";
/// Bytes read, hashed and written at a time. Remote stores want parts of more than 5 MiB.
const PART: usize = 8 << 20;
/// As `nice -n 10`: what is stored is hardly ever waited for.
const NICE: u32 = 10;

/// Name and size of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Digest {
    /// SHA-256 in hex.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcStats {
    /// Artifacts.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A handle to the artifact store; clones share it.
#[derive(Clone)]
pub struct Artifacts {
    store: Arc<dyn ObjectStore>,
    /// The same store when it is a local directory.
    local: Option<Arc<LocalFileSystem>>,
    /// Held shared between storing bytes and recording them, alone while unused ones are removed.
    gc_lock: Arc<RwLock<()>>,
}

/// Keeps others from removing unused artifacts.
#[derive(Debug)]
pub struct StoreGuard(#[expect(dead_code, reason = "it is held")] OwnedRwLockReadGuard<()>);

/// Keeps others from storing artifacts.
#[derive(Debug)]
pub struct GcGuard(#[expect(dead_code, reason = "it is held")] OwnedRwLockWriteGuard<()>);

impl Artifacts {
    /// Opens the store in a directory, which is created when it is missing, and removes what a crash left half written.
    ///
    /// Errors: [`Error::File`], [`Error::DiskFull`], [`Error::Store`].
    pub async fn local(directory: &Path) -> Result<Self, Error> {
        let directory = directory.to_owned();
        let local = blocking(move || {
            fs::create_dir_all(&directory)?;
            // The directory's own entry; `object_store` sees to what is inside.
            if let Some(parent) = directory.canonicalize()?.parent()
                && cfg!(unix)
            {
                fs::File::open(parent)?.sync_all()?;
            }
            match fs::remove_dir_all(directory.join(INCOMING)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
            let local = LocalFileSystem::new_with_prefix(&directory).map_err(Error::from)?;
            Ok::<_, Error>(local.with_fsync(true))
        })
        .await?;
        let local = Arc::new(local);
        Ok(Self {
            store: Arc::clone(&local) as Arc<dyn ObjectStore>,
            local: Some(local),
            gc_lock: Arc::default(),
        })
    }

    /// Uses any other store, such as a bucket. Its own rules must make finished writes durable and remove unfinished ones.
    pub fn with_store(store: Arc<dyn ObjectStore>) -> Self {
        Self {
            store,
            local: None,
            gc_lock: Arc::default(),
        }
    }

    /// To be held from before bytes are stored until they are recorded as used.
    pub async fn block_gc(&self) -> StoreGuard {
        StoreGuard(Arc::clone(&self.gc_lock).read_owned().await)
    }

    /// To be held while bytes are found to be unused and removed.
    pub async fn lock_for_gc(&self) -> GcGuard {
        GcGuard(Arc::clone(&self.gc_lock).write_owned().await)
    }

    /// Stores a copy of a file, hashing while copying. Errors: [`Error::File`], [`Error::DiskFull`], [`Error::Store`].
    pub async fn put_file(&self, path: &Path) -> Result<Digest, Error> {
        let path = path.to_owned();
        let file = blocking(move || fs::File::open(path)).await?;
        self.put(Box::new(file)).await
    }

    /// Makes an artifact of a file that its writer has closed: in a local store it is moved, elsewhere copied and removed. It is hashed by a thread that gives way.
    ///
    /// After an error the file may be gone. Errors: [`Error::File`], [`Error::DiskFull`], [`Error::Store`].
    pub async fn move_file(&self, path: &Path) -> Result<Digest, Error> {
        if let Some(digest) = self.move_in(path).await? {
            return Ok(digest);
        }
        let digest = self.put_file(path).await?;
        let path = path.to_owned();
        blocking(move || fs::remove_file(path)).await?;
        Ok(digest)
    }

    /// Moves a file into the store's directory; `None`, and nothing has changed, where there is none or it is on another file system.
    async fn move_in(&self, path: &Path) -> Result<Option<Digest>, Error> {
        let Some(local) = &self.local else {
            return Ok(None);
        };
        let aside = incoming();
        let (from, place) = (path.to_owned(), local.path_to_filesystem(&aside)?);
        let file = blocking(move || {
            if let Some(directory) = place.parent() {
                fs::create_dir_all(directory)?;
            }
            match fs::rename(from, &place) {
                Err(error) if error.kind() == ErrorKind::CrossesDevices => Ok(None),
                renamed => renamed.and_then(|()| fs::File::open(place)).map(Some),
            }
        })
        .await?;
        let Some(file) = file else { return Ok(None) };
        let hashed = giving_way(move || {
            let digest = hash(&file)?;
            file.sync_all()?;
            Ok(digest)
        });
        match hashed.await {
            Ok(digest) => {
                self.name(&aside, &digest).await?;
                Ok(Some(digest))
            }
            Err(error) => {
                discard(self.store.delete(&aside).await);
                Err(error.into())
            }
        }
    }

    /// Stores bytes. Errors: [`Error::DiskFull`], [`Error::Store`].
    pub async fn put_bytes(&self, bytes: Bytes) -> Result<Digest, Error> {
        self.put(Box::new(io::Cursor::new(bytes))).await
    }

    /// All bytes of an artifact, verified. For small ones: they are held in memory.
    ///
    /// Errors: [`Error::NotFound`], [`Error::Corrupt`], [`Error::BadDigest`], [`Error::Store`].
    pub async fn read(&self, sha256: &str) -> Result<Bytes, Error> {
        let key = key(sha256)?;
        let got = self.store.get(&key).await.map_err(|e| named(sha256, e))?;
        let bytes = got.bytes().await?;
        let hashed = bytes.clone();
        let found = blocking(move || hex(Sha256::digest(&hashed))).await;
        verify(sha256, found)?;
        Ok(bytes)
    }

    /// The bytes of an artifact in chunks of `chunk` bytes, the last one shorter.
    ///
    /// What was streamed is good only if the stream ends without an error: [`Error::Corrupt`] comes as its last item. Errors at once:
    /// [`Error::NotFound`], [`Error::BadDigest`], [`Error::Store`].
    pub async fn stream(
        &self,
        sha256: &str,
        chunk: usize,
    ) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        let key = key(sha256)?;
        let got = self.store.get(&key).await.map_err(|e| named(sha256, e))?;
        let chunk = chunk.max(1);
        let bytes = match got.payload {
            GetResultPayload::File(file, _) => file_chunks(file, chunk).boxed(),
            GetResultPayload::Stream(parts) => even_chunks(parts, chunk).boxed(),
        };
        Ok(verified(bytes, sha256.to_owned()).boxed())
    }

    /// Copies an artifact to a path, verified: the file appears whole, synced and in place of what was there, or not at all.
    ///
    /// The path's directory must exist. Errors: as [`Artifacts::stream`], [`Error::Corrupt`], [`Error::File`], [`Error::DiskFull`].
    pub async fn fetch_to(&self, sha256: &str, path: &Path) -> Result<(), Error> {
        let mut chunks = self.stream(sha256, PART).await?;
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        // Removes itself when it is dropped before it is kept.
        let mut draft = blocking({
            let directory = directory.clone();
            move || tempfile::NamedTempFile::new_in(directory)
        })
        .await?;
        while let Some(chunk) = chunks.try_next().await? {
            draft = blocking(move || draft.write_all(&chunk).map(|()| draft)).await?;
        }
        let path = path.to_owned();
        blocking(move || {
            draft.as_file().sync_all()?;
            draft.persist(&path).map_err(|error| error.error)?;
            if cfg!(unix) {
                fs::File::open(&directory)?.sync_all()?;
            }
            io::Result::Ok(())
        })
        .await?;
        Ok(())
    }

    /// The file of an artifact, for readers that map or check it themselves. Errors:
    /// [`Error::BadDigest`], [`Error::NotFound`].
    pub async fn local_file(&self, sha256: &str) -> Result<PathBuf, Error> {
        let key = key(sha256)?;
        let missing = || Error::NotFound {
            digest: sha256.to_owned(),
        };
        let path = match &self.local {
            Some(local) => local.path_to_filesystem(&key)?,
            None => return Err(missing()),
        };
        let exists = blocking({
            let path = path.clone();
            move || path.try_exists()
        })
        .await?;
        exists.then_some(path).ok_or_else(missing)
    }

    /// Removes an artifact; one that does not exist is no error. Errors: [`Error::BadDigest`], [`Error::Store`].
    ///
    /// Whoever asks must know that nobody is about to use the same bytes again: see [`Artifacts::lock_for_gc`].
    pub async fn delete(&self, sha256: &str) -> Result<(), Error> {
        match self.store.delete(&key(sha256)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// All artifacts, in no order.
    pub async fn list(&self) -> Result<Vec<Digest>, Error> {
        let stored = self.stored().await?;
        Ok(stored.into_iter().map(|(digest, _)| digest).collect())
    }

    /// Removes the artifacts that are not in `keep` and were last stored longer ago than `older_than`.
    ///
    /// The age spares what was stored just now and is not in the database yet, so that `keep` may be read before the call. At
    /// start, when nothing is being stored, it may be zero.
    pub async fn collect_garbage(
        &self,
        keep: &HashSet<String>,
        older_than: Duration,
    ) -> Result<GcStats, Error> {
        let now = SystemTime::now();
        let mut swept = GcStats::default();
        for (digest, modified) in self.stored().await? {
            // A time in the future (the clock was set back) counts as young.
            let young = now
                .duration_since(modified)
                .map_or(!older_than.is_zero(), |age| age < older_than);
            if young || keep.contains(&digest.sha256) {
                continue;
            }
            self.delete(&digest.sha256).await?;
            swept.count += 1;
            swept.bytes += digest.size;
        }
        Ok(swept)
    }

    /// Copies a source aside, then moves it to the name that its bytes turned out to have.
    async fn put(&self, source: Box<dyn Read + Send>) -> Result<Digest, Error> {
        let aside = incoming();
        let mut upload = self.store.put_multipart(&aside).await?;
        let copied = match copy(source, &mut *upload).await {
            Ok(digest) => upload.complete().await.map(|_| digest).map_err(Error::from),
            Err(error) => Err(error),
        };
        let digest = match copied {
            Ok(digest) => digest,
            Err(error) => {
                discard(upload.abort().await);
                return Err(error);
            }
        };
        self.name(&aside, &digest).await?;
        Ok(digest)
    }

    /// Moves what lies aside to the name that its bytes have.
    async fn name(&self, aside: &Key, digest: &Digest) -> Result<(), Error> {
        if let Err(error) = self.store.rename(aside, &key(&digest.sha256)?).await {
            discard(self.store.delete(aside).await);
            return Err(error.into());
        }
        Ok(())
    }

    /// All artifacts with the time when each was last stored; files of other names are passed over.
    async fn stored(&self) -> Result<Vec<(Digest, SystemTime)>, Error> {
        let prefix = Key::from(STORED);
        let mut listing = self.store.list(Some(&prefix));
        let mut found = Vec::new();
        while let Some(meta) = listing.next().await {
            let meta = match meta {
                Ok(meta) => meta,
                // The directory comes with the first artifact.
                Err(object_store::Error::NotFound { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            let name = meta.location.filename().unwrap_or_default();
            if key(name).is_ok_and(|key| key == meta.location) {
                let digest = Digest {
                    sha256: name.to_owned(),
                    size: meta.size,
                };
                found.push((digest, meta.last_modified.into()));
            }
        }
        Ok(found)
    }
}

impl fmt::Debug for Artifacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Artifacts").field(&self.store).finish()
    }
}

/// A place for what is being stored.
fn incoming() -> Key {
    Key::from_iter([INCOMING, &Uuid::new_v4().simple().to_string()])
}

/// Where an artifact lies. Refuses what is not a digest, so that no name leads out of the directory.
fn key(sha256: &str) -> Result<Key, Error> {
    let is_digest = sha256.len() == 64
        && sha256
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !is_digest {
        return Err(Error::BadDigest {
            text: sha256.chars().take(80).collect(),
        });
    }
    Ok(Key::from_iter([STORED, &sha256[..2], sha256]))
}

fn named(sha256: &str, error: object_store::Error) -> Error {
    if matches!(error, object_store::Error::NotFound { .. }) {
        return Error::NotFound {
            digest: sha256.to_owned(),
        };
    }
    error.into()
}

fn verify(sha256: &str, found: String) -> Result<(), Error> {
    if found == sha256 {
        return Ok(());
    }
    Err(Error::Corrupt {
        digest: sha256.to_owned(),
        found,
    })
}

fn hex(digest: impl AsRef<[u8]>) -> String {
    let mut text = String::with_capacity(64);
    for byte in digest.as_ref() {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
    }
    text
}

/// Sends a source to an upload part by part and hashes it on the way.
async fn copy(
    source: Box<dyn Read + Send>,
    upload: &mut dyn MultipartUpload,
) -> Result<Digest, Error> {
    let (parts, mut receiver) = mpsc::channel(1);
    let digest = giving_way(move || read_parts(source, &parts));
    while let Some(part) = receiver.recv().await {
        upload.put_part(PutPayload::from(part)).await?;
    }
    Ok(digest.await?)
}

/// Starts work on a thread of its own, because it gives way: a checkpoint is hashed after each epoch, and predictions go on beside it.
fn giving_way<T: Send + 'static>(
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
        result.unwrap_or_else(|_| Err(io::Error::other("the thread that hashes it panicked")))
    }
}

/// Digest of a source's bytes, of which few are in memory at a time.
fn hash(mut source: impl Read) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    let size = io::copy(&mut source, &mut hasher)?;
    Ok(Digest {
        sha256: hex(hasher.finalize()),
        size,
    })
}

/// Reads a source to its end, hands on its parts and returns their digest. It ends early when nobody takes them any more.
fn read_parts(mut source: impl Read, parts: &mpsc::Sender<Bytes>) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut size = 0;
    loop {
        let part = read_chunk(&mut source, PART)?;
        if part.is_empty() {
            break;
        }
        hasher.update(&part);
        size += part.len() as u64;
        if parts.blocking_send(part).is_err() {
            break;
        }
    }
    Ok(Digest {
        sha256: hex(hasher.finalize()),
        size,
    })
}

/// Reads `chunk` bytes, fewer only at the end.
fn read_chunk(source: &mut impl Read, chunk: usize) -> io::Result<Bytes> {
    let mut bytes = Vec::with_capacity(chunk);
    source.take(chunk as u64).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

fn file_chunks<F>(file: F, chunk: usize) -> impl Stream<Item = Result<Bytes, Error>>
where
    F: Read + Send + 'static,
{
    stream::try_unfold(file, move |mut file| async move {
        let (bytes, file) =
            blocking(move || read_chunk(&mut file, chunk).map(|bytes| (bytes, file))).await?;
        Ok((!bytes.is_empty()).then_some((bytes, file)))
    })
}

/// Cuts parts of any size into chunks of one size.
fn even_chunks(
    parts: BoxStream<'static, object_store::Result<Bytes>>,
    chunk: usize,
) -> impl Stream<Item = Result<Bytes, Error>> {
    let start = (parts, BytesMut::new());
    stream::try_unfold(start, move |(mut parts, mut held)| async move {
        while held.len() < chunk {
            match parts.try_next().await? {
                Some(part) => held.extend_from_slice(&part),
                None => break,
            }
        }
        let bytes = held.split_to(chunk.min(held.len())).freeze();
        Ok((!bytes.is_empty()).then_some((bytes, (parts, held))))
    })
}

/// Passes chunks on and ends with an error when all of them together do not have the digest.
fn verified(
    chunks: BoxStream<'static, Result<Bytes, Error>>,
    sha256: String,
) -> impl Stream<Item = Result<Bytes, Error>> {
    let start = (chunks, Sha256::new(), sha256);
    stream::try_unfold(start, |(mut chunks, mut hasher, sha256)| async move {
        let Some(bytes) = chunks.try_next().await? else {
            verify(&sha256, hex(hasher.finalize()))?;
            return Ok(None);
        };
        let hashed = bytes.clone();
        let hasher = blocking(move || {
            hasher.update(&hashed);
            hasher
        })
        .await;
        Ok(Some((bytes, (chunks, hasher, sha256))))
    })
}

/// Ignores the outcome of a clean-up after a failure that is already being reported; the next start cleans up again.
fn discard<T>(outcome: object_store::Result<T>) {
    drop(outcome);
}

/// Runs file access or hashing on the runtime's threads for blocking work. A panic goes on in the caller.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place of this module where files are read and written"
)]
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down and will not poll this task again.
            Err(_) => std::future::pending().await,
        },
    }
}
