//! The directory of all uploads: creates, finds, expires and deletes them.

use std::{
    collections::HashSet,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use fs_err as fs;
use fs_err::tokio as async_fs;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{disk::Disk, files};

use super::{
    super::{Error, blocking::blocking},
    scope::Scope,
};

/// Most uploads at a time.
const MAX_UPLOADS: usize = 64;
/// Most uploads of one client at a time.
const MAX_OF_CLIENT: usize = 16;
/// Idle time after which another upload may take the place of an unfinished one.
const IDLE: Duration = Duration::from_secs(60);
/// Format version of the metadata.
const FORMAT: u32 = 1;

/// All uploads. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Uploads {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    directory: PathBuf,
    max_bytes: u64,
    pub(super) disk: Disk,
    pub(super) expiry: Duration,
    /// Uploads that a request writes to.
    claimed: Mutex<HashSet<Uuid>>,
    /// Held while an upload is created, so that two do not exceed the limit.
    creating: Mutex<()>,
}

/// State of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upload {
    pub id: Uuid,
    /// Received bytes.
    pub offset: u64,
    /// Announced bytes.
    pub length: u64,
    /// Text of the client that created it, by which it recognizes the content; empty for none.
    pub metadata: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Metadata {
    format: u32,
    length: u64,
    /// The client that created the upload; earlier versions did not store it.
    #[serde(default)]
    client: String,
    /// Text of the client; absent in files of earlier versions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    metadata: String,
}

impl Uploads {
    /// Opens the directory of the uploads, which must exist.
    pub(crate) fn open(
        directory: PathBuf,
        max_bytes: u64,
        disk: Disk,
        expiry: Duration,
    ) -> io::Result<Self> {
        Ok(Uploads {
            inner: Arc::new(Inner {
                directory: fs::canonicalize(directory)?,
                max_bytes,
                disk,
                expiry,
                claimed: Mutex::default(),
                creating: Mutex::default(),
            }),
        })
    }

    /// Creates an upload of `length` bytes for a client. `text` is kept for it.
    ///
    /// # Errors
    /// [`Error::UploadSize`], [`Error::DiskLow`] and [`Error::TooManyUploads`].
    pub(crate) async fn create(
        &self,
        length: u64,
        client: &str,
        text: &str,
    ) -> Result<Upload, Error> {
        let limit = self.inner.max_bytes;
        if length == 0 || length > limit {
            return Err(Error::UploadSize { length, limit });
        }
        let (inner, client) = (Arc::clone(&self.inner), client.to_owned());
        let kept = text.to_owned();
        let created = blocking(move || {
            // It guards no value, so a panic cannot leave one half changed.
            let creating = inner.creating.lock();
            let _creating = creating.unwrap_or_else(PoisonError::into_inner);
            if let Err(low) = inner.disk.check(length)? {
                return Ok(Err(low.into()));
            }
            if let Err(error) = inner.make_room(&client)? {
                return Ok(Err(error));
            }
            let id = Uuid::new_v4();
            fs::File::create_new(inner.data(id))?;
            let metadata = Metadata {
                format: FORMAT,
                length,
                client,
                metadata: kept,
            };
            // The upload exists once its metadata is written.
            files::write_atomic(&inner.metadata(id), &serde_json::to_vec(&metadata)?)?;
            Ok(Ok(id))
        });
        let id = created.await??;
        tracing::info!(upload = %id, length, "created an upload");
        Ok(Upload {
            id,
            offset: 0,
            length,
            metadata: text.to_owned(),
        })
    }

    /// Returns the state of an upload.
    ///
    /// # Errors
    /// [`Error::NoUpload`], also for an upload outside the scope.
    pub(crate) async fn get(&self, upload: &str, scope: &Scope) -> Result<Upload, Error> {
        let id = parse(upload)?;
        let missing = |error: io::Error| match error.kind() == io::ErrorKind::NotFound {
            true => no_upload(upload),
            false => error.into(),
        };
        let metadata = async_fs::read(self.inner.metadata(id))
            .await
            .map_err(missing)?;
        let metadata: Metadata = serde_json::from_slice(&metadata).map_err(io::Error::from)?;
        if !scope.contains(&metadata.client) {
            return Err(no_upload(upload));
        }
        let data = async_fs::metadata(self.inner.data(id)).await;
        Ok(Upload {
            id,
            offset: data.map_err(missing)?.len(),
            length: metadata.length,
            metadata: metadata.metadata,
        })
    }

    /// Deletes an upload.
    ///
    /// # Errors
    /// [`Error::NoUpload`] and [`Error::Busy`].
    pub(crate) async fn remove(&self, upload: &str, scope: &Scope) -> Result<(), Error> {
        let id = parse(upload)?;
        // Before the claim, because a busy upload outside the scope does not exist either.
        self.get(upload, scope).await?;
        let _claim = self.claim(id)?;
        self.get(upload, scope).await?;
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.remove(id)).await
    }

    /// Returns the file of a complete upload.
    pub(in crate::datasets) fn file(&self, upload: &str) -> Result<PathBuf, Error> {
        Ok(self.inner.data(parse(upload)?))
    }

    /// Interval of the search for expired uploads.
    pub(in crate::datasets) fn sweep_interval(&self) -> Duration {
        let shortest = Duration::from_millis(500);
        (self.inner.expiry / 4).clamp(shortest, Duration::from_secs(600))
    }

    /// Removes expired uploads, except those in `needed`.
    pub(in crate::datasets) async fn sweep(&self, needed: &HashSet<String>) {
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
                tracing::warn!(%error, "failed to search for expired uploads");
                return;
            }
        };
        for id in ids {
            let text = id.to_string();
            if needed.contains(&text) {
                continue;
            }
            match self.remove(&text, &Scope::All).await {
                Ok(()) => tracing::info!(upload = text, "removed an expired upload"),
                Err(Error::Busy { .. } | Error::NoUpload { .. }) => {}
                Err(error) => tracing::warn!(%error, "failed to remove an expired upload"),
            }
        }
        for path in stray {
            if let Err(error) = async_fs::remove_file(&path).await {
                tracing::warn!(%error, "failed to remove a leftover of an upload");
            }
        }
    }

    pub(super) fn claim(&self, id: Uuid) -> Result<Claim, Error> {
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
        // A panic cannot leave an insertion or removal half done.
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn data(&self, id: Uuid) -> PathBuf {
        self.directory.join(format!("{id}.data"))
    }

    fn metadata(&self, id: Uuid) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }

    /// Ids of all uploads.
    pub(super) fn ids(&self) -> io::Result<Vec<Uuid>> {
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

    /// Leftover files that do not belong to an upload.
    fn stray(&self) -> io::Result<Vec<PathBuf>> {
        let known: HashSet<PathBuf> = self
            .ids()?
            .into_iter()
            .flat_map(|id| [self.data(id), self.metadata(id)])
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

    /// Returns true if a file was not written to within the expiry.
    fn is_old(&self, path: &std::path::Path) -> bool {
        let written = fs::metadata(path).and_then(|data| data.modified());
        let age = written.map(|written| SystemTime::now().duration_since(written));
        // A time in the future counts as new.
        matches!(age, Ok(Ok(age)) if age > self.expiry)
    }

    /// Makes room for another upload: at a limit, the unfinished upload that received nothing for
    /// the longest time is removed, of the client itself if the limit is the client's.
    fn make_room(&self, client: &str) -> io::Result<Result<(), Error>> {
        let mut uploads = Vec::new();
        for id in self.ids()? {
            // Removed since its directory was read.
            let Ok(bytes) = fs::read(self.metadata(id)) else {
                continue;
            };
            uploads.push((id, serde_json::from_slice::<Metadata>(&bytes)?));
        }
        let all = uploads.len();
        let of_client = uploads.iter().filter(|(_, found)| found.client == client);
        let is_client_full = of_client.count() >= MAX_OF_CLIENT;
        if is_client_full {
            uploads.retain(|(_, found)| found.client == client);
        }
        if (is_client_full || all >= MAX_UPLOADS) && !self.evict_idle(&uploads)? {
            return Ok(Err(Error::TooManyUploads {
                limit: if is_client_full {
                    MAX_OF_CLIENT
                } else {
                    MAX_UPLOADS
                },
                of_client: is_client_full,
            }));
        }
        Ok(Ok(()))
    }

    /// Removes the unfinished upload that received nothing for the longest time; an empty one
    /// counts as idle from the start. Returns false if all are complete or in progress.
    fn evict_idle(&self, uploads: &[(Uuid, Metadata)]) -> io::Result<bool> {
        let now = SystemTime::now();
        let mut idle = Vec::new();
        for (id, metadata) in uploads {
            let Ok(data) = fs::metadata(self.data(*id)) else {
                continue;
            };
            let age = now.duration_since(data.modified()?).unwrap_or_default();
            let is_idle = data.len() == 0 || age >= IDLE;
            if is_idle && data.len() < metadata.length && !self.claimed().contains(id) {
                idle.push((age, *id));
            }
        }
        let Some((_, id)) = idle.into_iter().max() else {
            return Ok(false);
        };
        self.remove(id)?;
        tracing::warn!(upload = %id, "removed an idle upload in favor of another one");
        Ok(true)
    }

    fn remove(&self, id: Uuid) -> io::Result<()> {
        // Without its metadata the upload no longer exists.
        files::remove_if_exists(&self.metadata(id))?;
        files::remove_if_exists(&self.data(id))
    }
}

/// Exclusive write access to an upload, released when it is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) inner: Arc<Inner>,
    id: Uuid,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.inner.claimed().remove(&self.id);
    }
}

pub(super) fn parse(upload: &str) -> Result<Uuid, Error> {
    Uuid::try_parse(upload).map_err(|_| no_upload(upload))
}

fn no_upload(upload: &str) -> Error {
    Error::NoUpload {
        upload: upload.chars().take(64).collect(),
    }
}
