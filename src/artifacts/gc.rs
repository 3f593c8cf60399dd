//! Garbage collection of unreferenced artifacts.

use std::{collections::HashSet, sync::Arc};

use futures_util::StreamExt as _;
use object_store::{ObjectStore as _, path::Path as Key};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard};

use crate::{quarantine::Quarantine, telemetry::logging::chain};

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

    /// Removes those of the artifacts that are not used, and returns their size in bytes. A failure
    /// is logged and costs disk space only.
    pub(crate) async fn remove_unused<F, E>(
        &self,
        digests: &[String],
        is_used: impl Fn(String) -> F,
    ) -> u64
    where
        F: Future<Output = Result<bool, E>>,
        E: std::error::Error + 'static,
    {
        if digests.is_empty() {
            return 0;
        }
        // While the exclusive lock is held no artifact is stored but unrecorded, so an unused one
        // stays unused.
        let _gc_lock = self.lock_for_gc().await;
        let mut freed = 0;
        for digest in digests {
            match is_used(digest.clone()).await {
                Ok(true) => {}
                Ok(false) => match self.delete(digest).await {
                    Ok(size) => freed += size,
                    Err(error) => warn_not_removed(digest, &error),
                },
                Err(error) => warn_not_removed(digest, &error),
            }
        }
        freed
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

fn warn_not_removed(digest: &str, error: &(dyn std::error::Error + 'static)) {
    tracing::warn!(digest, error = %chain(error), "failed to remove an unused file");
}
