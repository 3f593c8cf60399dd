//! Garbage collection of unreferenced artifacts.

use std::{collections::HashSet, sync::Arc};

use futures_util::StreamExt as _;
use object_store::{ObjectStore as _, path::Path as Key};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard};

use crate::quarantine::Quarantine;

use super::{
    Artifacts, Digest, Error,
    digest::{STORED, key},
    store::blocking,
};

/// Prevents garbage collection.
#[derive(Debug)]
pub(crate) struct StoreGuard(#[expect(dead_code, reason = "it is held")] OwnedRwLockReadGuard<()>);

/// Prevents storing of artifacts.
#[derive(Debug)]
pub(crate) struct GcGuard(#[expect(dead_code, reason = "it is held")] OwnedRwLockWriteGuard<()>);

impl Artifacts {
    /// The caller holds the guard from before it stores bytes until they are recorded as used.
    pub(crate) async fn block_gc(&self) -> StoreGuard {
        StoreGuard(Arc::clone(&self.gc_lock).read_owned().await)
    }

    /// The caller holds the guard while it finds bytes to be unused and removes them.
    pub(crate) async fn lock_for_gc(&self) -> GcGuard {
        GcGuard(Arc::clone(&self.gc_lock).write_owned().await)
    }

    /// Moves the artifacts that are not in `known` into the quarantine. Only at startup, when
    /// nothing is being stored.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::File`].
    pub(crate) async fn quarantine_unknown(
        &self,
        known: &HashSet<String>,
        mut quarantine: Quarantine,
    ) -> Result<Quarantine, Error> {
        let mut unknown = Vec::new();
        for digest in self.stored().await? {
            if !known.contains(&digest.sha256) {
                unknown.push(self.local_file(&digest.sha256).await?);
            }
        }
        blocking(move || {
            for path in &unknown {
                quarantine.take(path, "artifacts")?;
            }
            Ok(quarantine)
        })
        .await
    }

    /// Lists all artifacts; files of other names are skipped.
    pub(crate) async fn stored(&self) -> Result<Vec<Digest>, Error> {
        let prefix = Key::from(STORED);
        let mut listing = self.store.list(Some(&prefix));
        let mut found = Vec::new();
        while let Some(meta) = listing.next().await {
            let meta = match meta {
                Ok(meta) => meta,
                // The directory is created with the first artifact.
                Err(object_store::Error::NotFound { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            let name = meta.location.filename().unwrap_or_default();
            if key(name).is_ok_and(|key| key == meta.location) {
                found.push(Digest {
                    sha256: name.to_owned(),
                    size: meta.size,
                });
            }
        }
        Ok(found)
    }
}
