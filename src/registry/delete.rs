use std::{sync::Arc, time::Duration};

use super::{error::Error, resolve::Registry};
use crate::{
    inference::ServedModel,
    model::checkpoint::MODEL_FILE,
    store::{DeletedVersion, run_detached},
    telemetry::logging::chain,
};

/// Longest wait for requests that use a deleted version.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// Time between two checks whether such requests have ended.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

impl Registry {
    /// Deletes a version and returns the disk space in bytes that became free.
    ///
    /// New requests do not find the version any more. Requests that use it get their results, for
    /// which the call waits; then its memory and the files that nothing else uses are freed.
    /// Work that takes longer than the wait, such as an evaluation, continues while the version
    /// stays loaded, and fails if it is evicted. The call is carried out even if the caller stops
    /// waiting.
    ///
    /// # Errors
    /// A version that does not exist, that an alias points to, or that a training starts from.
    pub(crate) async fn delete_version(&self, model: &str, number: u64) -> Result<u64, Error> {
        let (registry, model) = (self.clone(), model.to_owned());
        run_detached(Box::pin(async move {
            let deleted = registry.inner.store.delete_version(&model, number).await?;
            registry.release(&deleted).await;
            let store = &registry.inner.store;
            let is_used = |digest: String| async move { store.is_referenced(&digest).await };
            let artifacts = &registry.inner.artifacts;
            let freed = artifacts
                .remove_unused(&deleted.unreferenced, is_used)
                .await;
            let name = deleted.version.name;
            tracing::info!(version = name, freed, "version deleted");
            Ok::<_, Error>(freed)
        }))
        .await
    }

    /// Frees the memory of a deleted version once no request uses it.
    async fn release(&self, deleted: &DeletedVersion) {
        let version = &deleted.version;
        if let Some(open) = self.forget(&version.name)
            && !has_no_users(open).await
        {
            tracing::warn!(
                version = version.name,
                "the deleted version is still used; it stays loaded until it is evicted"
            );
            return;
        }
        let weights = version.files.iter().find(|file| file.name == MODEL_FILE);
        let Some(weights) = weights.filter(|file| deleted.only_here.contains(&file.sha256)) else {
            // Another version has the same weights.
            return;
        };
        if let Err(error) = self.inner.predictor.evict(&weights.sha256).await {
            tracing::warn!(version = version.name, error = %chain(&error), "failed to evict the deleted version");
        }
    }
}

/// Waits until nothing else holds the version; false if that takes too long.
async fn has_no_users(open: Arc<ServedModel>) -> bool {
    let users = Arc::downgrade(&open);
    drop(open);
    let unused = async {
        let mut checks = tokio::time::interval(CHECK_INTERVAL);
        while users.strong_count() > 0 {
            checks.tick().await;
        }
    };
    tokio::time::timeout(MAX_WAIT, unused).await.is_ok()
}
