//! Archives on their way: each is a file that grows as bytes come, and a note of how many there will be.
//!
//! The length of the file is how far the upload is, so a server that was killed knows it too. Bytes that reached the file but not the disk when power was lost are
//! asked for again.

use std::{
    collections::HashSet,
    io::{self, SeekFrom},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use fs_err as fs;
use fs_err::tokio as async_fs;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};
use uuid::Uuid;

use crate::files;

use super::{Error, jobs::blocking};

/// Uploads that may lie there at once.
const MAX_UPLOADS: usize = 16;
/// Version of the note.
const FORMAT: u32 = 1;

/// All uploads. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Uploads {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    max_bytes: u64,
    expiry: Duration,
    /// Those that a request writes to.
    claimed: Mutex<HashSet<Uuid>>,
    /// Held while one is begun, so that two do not take the last place.
    beginning: Mutex<()>,
}

/// An upload as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Its id.
    pub id: Uuid,
    /// Bytes that are there.
    pub offset: u64,
    /// Bytes that were announced.
    pub length: u64,
}

/// What is written when an upload begins.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    format: u32,
    length: u64,
}

impl Uploads {
    /// Opens the directory of the uploads, which exists.
    pub(super) fn open(directory: PathBuf, max_bytes: u64, expiry: Duration) -> io::Result<Self> {
        Ok(Uploads {
            inner: Arc::new(Inner {
                directory: fs::canonicalize(directory)?,
                max_bytes,
                expiry,
                claimed: Mutex::default(),
                beginning: Mutex::default(),
            }),
        })
    }

    /// Begins an upload of so many bytes.
    ///
    /// # Errors
    /// [`Error::UploadSize`] and [`Error::TooManyUploads`].
    pub async fn begin(&self, length: u64) -> Result<Upload, Error> {
        let limit = self.inner.max_bytes;
        if length == 0 || length > limit {
            return Err(Error::UploadSize { length, limit });
        }
        let inner = Arc::clone(&self.inner);
        let begun = blocking(move || {
            // It guards no value that a panic could leave half changed.
            let beginning = inner.beginning.lock();
            let _beginning = beginning.unwrap_or_else(PoisonError::into_inner);
            if inner.ids()?.len() >= MAX_UPLOADS {
                return Ok(None);
            }
            let id = Uuid::new_v4();
            fs::File::create_new(inner.data(id))?;
            let note = Note {
                format: FORMAT,
                length,
            };
            // With the note the upload exists.
            files::write_atomic(&inner.note(id), &serde_json::to_vec(&note)?)?;
            Ok(Some(id))
        });
        let id = begun
            .await?
            .ok_or(Error::TooManyUploads { limit: MAX_UPLOADS })?;
        tracing::info!(upload = %id, length, "an upload begins");
        Ok(Upload {
            id,
            offset: 0,
            length,
        })
    }

    /// How far an upload is.
    ///
    /// # Errors
    /// [`Error::NoUpload`].
    pub async fn get(&self, upload: &str) -> Result<Upload, Error> {
        let id = parse(upload)?;
        let missing = |error: io::Error| match error.kind() == io::ErrorKind::NotFound {
            true => no_upload(upload),
            false => error.into(),
        };
        let note = async_fs::read(self.inner.note(id)).await.map_err(missing)?;
        let note: Note = serde_json::from_slice(&note).map_err(io::Error::from)?;
        let data = async_fs::metadata(self.inner.data(id)).await;
        Ok(Upload {
            id,
            offset: data.map_err(missing)?.len(),
            length: note.length,
        })
    }

    /// Begins to write at a byte, which must be the first that is missing.
    ///
    /// # Errors
    /// [`Error::NoUpload`], [`Error::Busy`] and [`Error::WrongOffset`].
    pub async fn write_at(&self, upload: &str, given: u64) -> Result<Writer, Error> {
        let claim = self.claim(parse(upload)?)?;
        // Behind the claim: nobody else writes to it from here on.
        let Upload { id, offset, length } = self.get(upload).await?;
        if given != offset {
            return Err(Error::WrongOffset {
                upload: id.to_string(),
                offset,
                given,
            });
        }
        let file = async_fs::OpenOptions::new()
            .write(true)
            .open(self.inner.data(id))
            .await?;
        let mut file = file.into_parts().0;
        file.seek(SeekFrom::Start(offset)).await?;
        Ok(Writer {
            upload: Upload { id, offset, length },
            file,
            _claim: claim,
        })
    }

    /// Removes an upload with all its bytes.
    ///
    /// # Errors
    /// [`Error::NoUpload`] and [`Error::Busy`].
    pub async fn remove(&self, upload: &str) -> Result<(), Error> {
        let id = parse(upload)?;
        let _claim = self.claim(id)?;
        self.get(upload).await?;
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.remove(id)).await
    }

    /// The file of an upload that is complete.
    pub(super) fn file(&self, upload: &str) -> Result<PathBuf, Error> {
        Ok(self.inner.data(parse(upload)?))
    }

    /// How often abandoned uploads are looked for.
    pub(super) fn sweep_interval(&self) -> Duration {
        let often = Duration::from_millis(500);
        (self.inner.expiry / 4).clamp(often, Duration::from_secs(600))
    }

    /// Removes uploads that nothing was written to for too long, but for those in `needed`.
    pub(super) async fn sweep(&self, needed: &HashSet<String>) {
        let inner = Arc::clone(&self.inner);
        let listed = blocking(move || {
            let mut ids = inner.ids()?;
            ids.retain(|id| inner.is_old(&inner.data(*id)));
            let mut stray = inner.stray()?;
            stray.retain(|path| inner.is_old(path));
            Ok((ids, stray))
        });
        let (ids, stray) = match listed.await {
            Ok(listed) => listed,
            Err(error) => {
                tracing::warn!(%error, "could not look for abandoned uploads");
                return;
            }
        };
        for id in ids {
            let text = id.to_string();
            if needed.contains(&text) {
                continue;
            }
            match self.remove(&text).await {
                Ok(()) => tracing::info!(upload = text, "removed an abandoned upload"),
                Err(Error::Busy { .. } | Error::NoUpload { .. }) => {}
                Err(error) => tracing::warn!(%error, "could not remove an abandoned upload"),
            }
        }
        for path in stray {
            if let Err(error) = async_fs::remove_file(&path).await {
                tracing::warn!(%error, "could not remove half an upload");
            }
        }
    }

    fn claim(&self, id: Uuid) -> Result<Claim, Error> {
        let is_free = self.inner.claimed().insert(id);
        let claim = || Claim {
            inner: Arc::clone(&self.inner),
            id,
        };
        is_free.then(claim).ok_or_else(|| Error::Busy {
            upload: id.to_string(),
        })
    }
}

impl Inner {
    fn claimed(&self) -> std::sync::MutexGuard<'_, HashSet<Uuid>> {
        // One insertion or removal is never half done.
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn data(&self, id: Uuid) -> PathBuf {
        self.directory.join(format!("{id}.data"))
    }

    fn note(&self, id: Uuid) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }

    /// All that have a note.
    fn ids(&self) -> io::Result<Vec<Uuid>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            ids.extend(
                name.strip_suffix(".json")
                    .and_then(|id| Uuid::try_parse(id).ok()),
            );
        }
        Ok(ids)
    }

    /// Files that belong to none, as a server that was killed leaves them.
    fn stray(&self) -> io::Result<Vec<PathBuf>> {
        let known: HashSet<PathBuf> = self
            .ids()?
            .into_iter()
            .flat_map(|id| [self.data(id), self.note(id)])
            .collect();
        let mut stray = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if path.is_file() && !known.contains(&path) {
                stray.push(path);
            }
        }
        Ok(stray)
    }

    /// Whether a file was not written to for longer than uploads may lie.
    fn is_old(&self, path: &std::path::Path) -> bool {
        let written = fs::metadata(path).and_then(|data| data.modified());
        let age = written.map(|written| SystemTime::now().duration_since(written));
        // One from the future is new.
        matches!(age, Ok(Ok(age)) if age > self.expiry)
    }

    fn remove(&self, id: Uuid) -> io::Result<()> {
        // Without its note it is gone, whatever happens next.
        files::remove_if_exists(&self.note(id))?;
        files::remove_if_exists(&self.data(id))
    }
}

/// The right to write to an upload, free again when it is dropped.
#[derive(Debug)]
struct Claim {
    inner: Arc<Inner>,
    id: Uuid,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.inner.claimed().remove(&self.id);
    }
}

/// Writes the next bytes of an upload.
#[derive(Debug)]
pub struct Writer {
    upload: Upload,
    file: tokio::fs::File,
    _claim: Claim,
}

impl Writer {
    /// Bytes that are still missing.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.upload.length - self.upload.offset
    }

    /// Writes the next bytes; of more than are missing none is written.
    ///
    /// # Errors
    /// [`Error::TooLong`], or what the file system fails with.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let missing = self.missing();
        if bytes.len() as u64 > missing {
            return Err(self.too_long());
        }
        self.file.write_all(bytes).await?;
        self.upload.offset += bytes.len() as u64;
        Ok(())
    }

    /// Makes all that was written durable; how far the upload is now.
    ///
    /// # Errors
    /// What the file system fails with.
    pub async fn finish(mut self) -> Result<Upload, Error> {
        self.file.flush().await?;
        self.file.sync_data().await?;
        Ok(self.upload)
    }

    /// The error for more bytes than were announced.
    #[must_use]
    pub fn too_long(&self) -> Error {
        Error::TooLong {
            upload: self.upload.id.to_string(),
            length: self.upload.length,
        }
    }
}

fn parse(upload: &str) -> Result<Uuid, Error> {
    Uuid::try_parse(upload).map_err(|_| no_upload(upload))
}

fn no_upload(upload: &str) -> Error {
    Error::NoUpload {
        upload: upload.chars().take(64).collect(),
    }
}
