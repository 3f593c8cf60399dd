//! Progress of the verification of all artifacts.

use super::{
    Error, Store,
    transaction::{WriteTx, run_detached},
};

/// Position of the verification; times in seconds since the Unix epoch, 0 for none.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct CheckState {
    /// The last artifact that was verified.
    pub position: String,
    pub last_check: i64,
    pub last_pass: i64,
}

/// All artifacts in use.
const IN_USE: &str = "(SELECT sha256 FROM checkpoint_files UNION SELECT sha256 FROM version_files)";

impl Store {
    pub(crate) async fn check_state(&self) -> Result<CheckState, Error> {
        let mut read = self.read().await?;
        let state = sqlx::query_as("SELECT position, last_check, last_pass FROM artifact_check")
            .fetch_one(&mut *read)
            .await?;
        Ok(state)
    }

    /// Returns the artifact in use after a position, in the order of the digests.
    pub(crate) async fn next_artifact(&self, position: &str) -> Result<Option<String>, Error> {
        let mut read = self.read().await?;
        let next = sqlx::query_scalar(
            "SELECT min(sha256) FROM (SELECT min(sha256) AS sha256 FROM checkpoint_files WHERE sha256 > ?1 \
             UNION ALL SELECT min(sha256) FROM version_files WHERE sha256 > ?1)",
        )
        .bind(position)
        .fetch_one(&mut *read)
        .await?;
        Ok(next)
    }

    /// Counts the artifacts in use.
    pub(crate) async fn count_artifacts(&self) -> Result<u64, Error> {
        let mut read = self.read().await?;
        let query = format!("SELECT count(*) FROM {IN_USE}");
        let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(query))
            .fetch_one(&mut *read)
            .await?;
        Ok(count.cast_unsigned())
    }

    /// Records that an artifact was verified at a time, and continues after it.
    pub(crate) async fn record_check(
        &self,
        sha256: &str,
        is_damaged: bool,
        time: i64,
    ) -> Result<(), Error> {
        let query = "UPDATE artifact_check SET position = ?, last_check = ?";
        self.record(sha256, is_damaged, Some((query, time))).await
    }

    /// Records that a damaged artifact was verified again.
    pub(crate) async fn record_repeated_check(
        &self,
        sha256: &str,
        is_damaged: bool,
    ) -> Result<(), Error> {
        self.record(sha256, is_damaged, None).await
    }

    async fn record(
        &self,
        sha256: &str,
        is_damaged: bool,
        position: Option<(&'static str, i64)>,
    ) -> Result<(), Error> {
        let (inner, sha256) = (self.inner.clone(), sha256.to_owned());
        run_detached(Box::pin(async move {
            let mut write = WriteTx::start(inner).await?;
            if let Some((query, time)) = position {
                sqlx::query(query)
                    .bind(&sha256)
                    .bind(time)
                    .execute(write.connection())
                    .await?;
            }
            let query = match is_damaged {
                true => "INSERT INTO damaged_artifacts (sha256) VALUES (?) ON CONFLICT DO NOTHING",
                false => "DELETE FROM damaged_artifacts WHERE sha256 = ?",
            };
            sqlx::query(query)
                .bind(&sha256)
                .execute(write.connection())
                .await?;
            write.commit().await
        }))
        .await
    }

    /// Records the end of a pass, and starts again with the first artifact.
    pub(crate) async fn finish_check_pass(&self, time: i64) -> Result<(), Error> {
        let inner = self.inner.clone();
        run_detached(Box::pin(async move {
            let mut write = WriteTx::start(inner).await?;
            sqlx::query("UPDATE artifact_check SET position = '', last_pass = ?")
                .bind(time)
                .execute(write.connection())
                .await?;
            sqlx::query(sqlx::AssertSqlSafe(format!(
                "DELETE FROM damaged_artifacts WHERE sha256 NOT IN {IN_USE}"
            )))
            .execute(write.connection())
            .await?;
            write.commit().await
        }))
        .await
    }

    /// Returns the damaged artifacts that are in use.
    pub(crate) async fn damaged_artifacts(&self) -> Result<Vec<String>, Error> {
        let mut read = self.read().await?;
        let query = format!(
            "SELECT sha256 FROM damaged_artifacts WHERE sha256 IN {IN_USE} ORDER BY sha256"
        );
        let found = sqlx::query_scalar(sqlx::AssertSqlSafe(query))
            .fetch_all(&mut *read)
            .await?;
        Ok(found)
    }

    /// Returns the checkpoints and versions that an artifact belongs to.
    pub(crate) async fn artifact_owners(&self, sha256: &str) -> Result<Vec<String>, Error> {
        let mut read = self.read().await?;
        let owners = sqlx::query_scalar(
            "SELECT 'models/' || model || '/versions/' || number FROM version_files WHERE sha256 = ?1 \
             UNION SELECT 'trainings/' || trainings.id || '/checkpoints/' || epoch \
             FROM checkpoint_files JOIN trainings ON trainings.number = checkpoint_files.training WHERE sha256 = ?1",
        )
        .bind(sha256)
        .fetch_all(&mut *read)
        .await?;
        Ok(owners)
    }

    /// Returns whether a version that an alias names has a damaged artifact.
    pub(crate) async fn alias_is_damaged(&self, model: &str, alias: &str) -> Result<bool, Error> {
        let mut read = self.read().await?;
        let damaged = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM aliases JOIN version_files USING (model, number) \
             JOIN damaged_artifacts USING (sha256) WHERE model = ? AND alias = ?)",
        )
        .bind(model)
        .bind(alias)
        .fetch_one(&mut *read)
        .await?;
        Ok(damaged)
    }
}
