//! Lookup of the full checkpoint that a training resumes from.

use crate::{
    artifacts,
    model::checkpoint::{MANIFEST_FILE, MAX_MANIFEST_BYTES, MODEL_FILE},
    names::CheckpointRef,
    proto::worker_v1::{Resume, ResumePoint},
    store,
    telemetry::logging::chain,
};

use super::{Error, context::Context};

impl Context {
    /// Returns the state to resume from, or `None` if it is missing or damaged and the training
    /// must start again.
    pub(super) async fn resume_state(&self, id: &str) -> Result<Option<Resume>, Error> {
        let found = match self.store.resume_point(id).await {
            Ok(None) => return Ok(None),
            Ok(Some(point)) => self.resume_state_at(id, point).await,
            Err(error) => Err(error.into()),
        };
        match found {
            Err(error) if is_permanent(&error) => {
                tracing::warn!(training = id, error = %chain(&error), "full checkpoint is not usable; training starts again");
                Ok(None)
            }
            other => other,
        }
    }

    async fn resume_state_at(&self, id: &str, point: ResumePoint) -> Result<Option<Resume>, Error> {
        let path = self.options.work_dir.join(id).join(&point.file);
        if !fs_err::tokio::try_exists(&path).await.unwrap_or(false) {
            tracing::warn!(training = id, path = %path.display(), "full checkpoint is missing; training starts again");
            return Ok(None);
        }
        let mut resume = Resume::default();
        if point.best_epoch > 0 {
            let best = CheckpointRef::Epoch(point.best_epoch);
            for file in self.store.checkpoint(id, best).await?.files {
                if file.name == MANIFEST_FILE {
                    // The worker verifies the weights, and trusts the manifest.
                    self.artifacts
                        .read(&file.sha256, MAX_MANIFEST_BYTES)
                        .await?;
                }
                let path = self.artifacts.local_file(&file.sha256).await?;
                let path = path.to_string_lossy().into_owned();
                match file.name.as_str() {
                    MODEL_FILE => (resume.best_path, resume.best_sha256) = (path, file.sha256),
                    MANIFEST_FILE => resume.best_manifest_path = path,
                    _ => {}
                }
            }
        }
        resume.point = Some(point);
        Ok(Some(resume))
    }
}

/// Returns whether data is missing or damaged, so that another attempt fails too.
fn is_permanent(error: &Error) -> bool {
    match error {
        Error::Store(error) => matches!(
            error,
            store::Error::NotFound { .. } | store::Error::Damaged { .. }
        ),
        Error::Artifacts(error) => matches!(
            error,
            artifacts::Error::NotFound { .. } | artifacts::Error::Corrupt { .. }
        ),
        Error::NotOwner { .. }
        | Error::AlreadyEnded { .. }
        | Error::NotNow { .. }
        | Error::DiskLow(_)
        | Error::Disk(_) => false,
    }
}
