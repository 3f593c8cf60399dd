//! Garbage collection of unreferenced artifacts.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::StreamExt as _;
use object_store::{ObjectStore as _, path::Path as Key};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard};

use super::{
    Artifacts, Digest, Error,
    digest::{STORED, key},
};

/// Artifacts removed by a garbage collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GcStats {
    pub count: u64,
    pub bytes: u64,
}

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

    /// Removes the artifacts that are not in `keep` and were last stored longer ago than
    /// `older_than`.
    ///
    /// The age spares artifacts that are stored but not recorded yet, so `keep` may be read before
    /// the call. It may be zero at startup, when nothing is being stored.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) async fn collect_garbage(
        &self,
        keep: &HashSet<String>,
        older_than: Duration,
    ) -> Result<GcStats, Error> {
        let now = SystemTime::now();
        let mut removed = GcStats::default();
        for (digest, modified) in self.stored().await? {
            // A time in the future (the clock was set back) counts as young.
            let young = now
                .duration_since(modified)
                .map_or(!older_than.is_zero(), |age| age < older_than);
            if young || keep.contains(&digest.sha256) {
                continue;
            }
            self.delete(&digest.sha256).await?;
            removed.count += 1;
            removed.bytes += digest.size;
        }
        Ok(removed)
    }

    /// Lists all artifacts with the time of their last write; files of other names are skipped.
    pub(super) async fn stored(&self) -> Result<Vec<(Digest, SystemTime)>, Error> {
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
