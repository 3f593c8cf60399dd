//! Files of the live version, for a worker that compares its result with it.

use crate::{
    model::{
        checkpoint::{MANIFEST_FILE, MAX_MANIFEST_BYTES, MODEL_FILE},
        training_images::TRAINING_IMAGES_FILE,
    },
    names::{DEFAULT_MODEL, LIVE, VersionRef},
    proto::worker_v1::LiveVersion,
    store,
    telemetry::logging::chain,
};

use super::{Error, context::Context};

impl Context {
    /// Returns the live version of the default model with the paths of its files. An error becomes
    /// a part of the message: the training succeeds without a comparison.
    pub(super) async fn live_version(&self) -> LiveVersion {
        let mut live = LiveVersion::default();
        if let Err(error) = self.find_live(&mut live).await {
            live.failure = chain(&error);
            tracing::warn!(
                version = live.number,
                error = live.failure,
                "failed to find the files of the live version"
            );
        }
        live
    }

    async fn find_live(&self, live: &mut LiveVersion) -> Result<(), Error> {
        let alias = VersionRef::Alias(LIVE.to_owned());
        let version = match self.store.version(DEFAULT_MODEL, &alias).await {
            Err(store::Error::NotFound { .. }) => return Ok(()),
            found => found?,
        };
        live.number = version.version;
        for file in version.files {
            if file.name == MANIFEST_FILE {
                // The worker verifies the other files, and trusts the manifest.
                self.artifacts
                    .read(&file.sha256, MAX_MANIFEST_BYTES)
                    .await?;
            }
            let path = self.artifacts.local_file(&file.sha256).await?;
            let path = path.to_string_lossy().into_owned();
            match file.name.as_str() {
                MODEL_FILE => (live.weights_path, live.weights_sha256) = (path, file.sha256),
                MANIFEST_FILE => live.manifest_path = path,
                TRAINING_IMAGES_FILE => {
                    live.training_images_path = path;
                    live.training_images_sha256 = file.sha256;
                }
                _ => {}
            }
        }
        Ok(())
    }
}
