//! Model versions as initial weights.

use tonic::Status;

use super::api::TrainingApi;
use crate::{
    model::checkpoint::MODEL_FILE,
    names::VersionName,
    proto::{v1, validation::Check},
    store,
};

const FIELD: &str = "spec.init.version";

impl TrainingApi {
    /// Replaces an alias by the version that it points to now, and sets the path of the stored
    /// weights, which the version's number stays valid for. Does nothing without a version.
    pub(super) async fn locate_version(
        &self,
        init: &mut v1::InitSpec,
        check: &mut Check,
    ) -> Result<(), Status> {
        if init.version.is_empty() {
            return Ok(());
        }
        if !matches!(init.kind(), v1::InitKind::Unspecified | v1::InitKind::Path) {
            check.refuse(
                FIELD,
                "must be empty unless spec.init.kind is PATH or unset",
            );
            return Ok(());
        }
        let name = match VersionName::parse(&init.version) {
            Ok(name) => name,
            Err(error) => {
                check.refuse(FIELD, error.to_string());
                return Ok(());
            }
        };
        let version = match self.store.version(&name.model, &name.version).await {
            Ok(version) => version,
            Err(store::Error::NotFound { .. }) => {
                check.refuse(
                    FIELD,
                    format!("must be an existing version, got {:?}", init.version),
                );
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let stored = version.files.iter().find(|file| file.name == MODEL_FILE);
        let digest = stored.map_or("", |file| file.sha256.as_str());
        let path = self.artifacts.local_file(digest).await?;
        init.set_kind(v1::InitKind::Path);
        init.path = path.to_string_lossy().into_owned();
        init.version = version.name;
        Ok(())
    }
}
