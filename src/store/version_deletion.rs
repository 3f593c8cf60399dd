//! Deletion of model versions, unless an alias or a training uses them.

use crate::{names::VersionRef, proto::v1 as pb};

use super::{
    Error, Store, checkpoints,
    trainings::live,
    transaction::{WriteTx, run_detached},
    versions::{find, no_version},
};

/// A deleted model version.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DeletedVersion {
    /// The version as it was.
    pub version: pb::ModelVersion,
    /// SHA-256 (hex) of its files that no other version has.
    pub only_here: Vec<String>,
    /// SHA-256 (hex) of the artifacts that are no longer referenced.
    pub unreferenced: Vec<String>,
}

impl Store {
    /// Deletes a version; the caller deletes its files. The number is not assigned again.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::VersionHasAlias`], [`Error::VersionStartsTraining`].
    pub(crate) async fn delete_version(
        &self,
        model: &str,
        number: u64,
    ) -> Result<DeletedVersion, Error> {
        let (inner, model) = (self.inner.clone(), model.to_owned());
        run_detached(Box::pin(async move {
            let mut write = WriteTx::start(inner).await?;
            let version = find(write.connection(), &model, &VersionRef::Number(number))
                .await?
                .ok_or_else(|| no_version(&model, number))?;
            check_unused(&mut write, &version).await?;
            sqlx::query("DELETE FROM versions WHERE model = ? AND number = ?")
                .bind(&model)
                .bind(version.version.cast_signed())
                .execute(write.connection())
                .await?;
            write.versions_change -= 1;

            let digests: Vec<String> = version
                .files
                .iter()
                .map(|file| file.sha256.clone())
                .collect();
            let mut only_here = Vec::new();
            for sha256 in &digests {
                let shared: bool = sqlx::query_scalar(
                    "SELECT EXISTS (SELECT 1 FROM version_files WHERE sha256 = ?)",
                )
                .bind(sha256)
                .fetch_one(write.connection())
                .await?;
                if !shared {
                    only_here.push(sha256.clone());
                }
            }
            let unreferenced = checkpoints::unreferenced(write.connection(), digests).await?;
            write.commit().await?;
            Ok(DeletedVersion {
                version,
                only_here,
                unreferenced,
            })
        }))
        .await
    }
}

async fn check_unused(write: &mut WriteTx, version: &pb::ModelVersion) -> Result<(), Error> {
    if !version.aliases.is_empty() {
        return Err(Error::VersionHasAlias {
            name: version.name.clone(),
            aliases: version.aliases.clone(),
        });
    }
    let starts_from = |training: &pb::Training| {
        let spec = training.resolved_spec.as_ref();
        let init = spec.and_then(|spec| spec.init.as_ref());
        init.is_some_and(|init| init.version == version.name)
    };
    // A restart reads the initial weights again, so a running training needs them too.
    match live(write.connection())
        .await?
        .into_iter()
        .find(starts_from)
    {
        Some(training) => Err(Error::VersionStartsTraining {
            name: version.name.clone(),
            training: training.name,
        }),
        None => Ok(()),
    }
}
