//! Model versions, numbered for each model from 1 and immutable.

use std::time::SystemTime;

use prost::Message;
use prost_types::Timestamp;
use sqlx::SqliteConnection;
use tokio::sync::watch;

use crate::{
    names::{LIVE, VersionRef},
    proto::{v1 as pb, worker_v1::Comparison},
};

use super::{
    Error, Page, Store,
    alias_moves::{current, move_alias},
    promotion::{Facts, Promotion, decide},
    transaction::{WriteTx, run_detached},
};

/// A model version to create together with a change of a training.
#[derive(Clone, Debug)]
pub(crate) struct Publish {
    /// Id, such as `age`.
    pub model: String,
    /// The store sets `name`, `version` and `create_time`.
    pub version: pb::ModelVersion,
    pub promote: Promotion,
    /// Comparison with the live version, for [`Promotion::IfBetter`].
    pub comparison: Option<Comparison>,
}

impl Store {
    /// Stores a version under the model's next number and returns it with name, number and time.
    pub(crate) async fn register_version(
        &self,
        model: &str,
        version: pb::ModelVersion,
    ) -> Result<pb::ModelVersion, Error> {
        let (inner, model) = (self.inner.clone(), model.to_owned());
        run_detached(Box::pin(async move {
            let mut write = WriteTx::start(inner).await?;
            let now = Timestamp::from(SystemTime::now());
            let version = insert(&mut write, &model, version, now).await?;
            write.commit().await?;
            Ok(version)
        }))
        .await
    }

    /// Stores the first version of a model and points `live` to it, with `cause` in the history.
    /// Returns `None` if the model already has a version, with or without an alias.
    pub(crate) async fn register_first(
        &self,
        model: &str,
        version: pb::ModelVersion,
        cause: &'static str,
    ) -> Result<Option<pb::ModelVersion>, Error> {
        let (inner, model) = (self.inner.clone(), model.to_owned());
        run_detached(Box::pin(async move {
            let mut write = WriteTx::start(inner).await?;
            if has_versions(write.connection(), &model).await? {
                return Ok(None);
            }
            let now = Timestamp::from(SystemTime::now());
            let mut version = insert(&mut write, &model, version, now).await?;
            let number = version.version.cast_signed();
            move_alias(&mut write, &model, LIVE, number, cause, now).await?;
            version.aliases = vec![LIVE.to_owned()];
            write.commit().await?;
            Ok(Some(version))
        }))
        .await
    }

    /// Stores the starter as a version, unless the model has it as one already, and points `live`
    /// to it, with `cause` in the history, if that alias is not set. Returns the version with its
    /// aliases.
    pub(crate) async fn register_starter(
        &self,
        model: &str,
        version: pb::ModelVersion,
        cause: &'static str,
    ) -> Result<pb::ModelVersion, Error> {
        let (inner, model) = (self.inner.clone(), model.to_owned());
        run_detached(Box::pin(async move {
            let mut write = WriteTx::start(inner).await?;
            let now = Timestamp::from(SystemTime::now());
            let number = match find_starter(write.connection(), &model, &version).await? {
                Some(number) => number,
                None => insert(&mut write, &model, version, now).await?.version,
            };
            let live = VersionRef::Alias(LIVE.to_owned());
            if find(write.connection(), &model, &live).await?.is_none() {
                let to = number.cast_signed();
                move_alias(&mut write, &model, LIVE, to, cause, now).await?;
            }
            let version = find(write.connection(), &model, &VersionRef::Number(number))
                .await?
                .ok_or_else(|| no_version(&model, number))?;
            write.commit().await?;
            Ok(version)
        }))
        .await
    }

    /// Returns true if a model has a version.
    pub(crate) async fn has_versions(&self, model: &str) -> Result<bool, Error> {
        let mut read = self.read().await?;
        has_versions(&mut read, model).await
    }

    /// Returns a version with its current aliases.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub(crate) async fn version(
        &self,
        model: &str,
        which: &VersionRef,
    ) -> Result<pb::ModelVersion, Error> {
        let mut read = self.read().await?;
        find(&mut read, model, which)
            .await?
            .ok_or_else(|| match which {
                VersionRef::Number(number) => no_version(model, number),
                VersionRef::Alias(alias) => no_version(model, alias),
            })
    }

    /// A receiver of the number of versions of all models.
    pub(crate) fn subscribe_versions(&self) -> watch::Receiver<u64> {
        self.inner.versions.subscribe()
    }

    pub(super) async fn count_versions(&self) -> Result<u64, Error> {
        let mut read = self.read().await?;
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM versions")
            .fetch_one(&mut *read)
            .await?;
        Ok(count.cast_unsigned())
    }

    /// Returns the versions of a model, or of all models, in ascending order of model and number.
    pub(crate) async fn version_numbers(
        &self,
        model: Option<&str>,
    ) -> Result<Vec<(String, u64)>, Error> {
        let mut read = self.read().await?;
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "SELECT model, number FROM versions WHERE ?1 IS NULL OR model = ?1 ORDER BY model, number",
        )
        .bind(model)
        .fetch_all(&mut *read)
        .await?;
        let unsigned = |(model, number): (String, i64)| (model, number.cast_unsigned());
        Ok(rows.into_iter().map(unsigned).collect())
    }

    /// Lists up to `limit` versions of a model, newest first, of numbers below `before`.
    pub(crate) async fn list_versions(
        &self,
        model: &str,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Page<pb::ModelVersion>, Error> {
        let mut read = self.read().await?;
        let rows = sqlx::query_as(
            "SELECT number, message, aliases FROM aliased_versions WHERE model = ? AND number < ? ORDER BY number DESC LIMIT ?",
        )
        .bind(model)
        .bind(before.unwrap_or(i64::MAX))
        .bind(i64::from(limit) + 1)
        .fetch(&mut *read);
        Page::read(rows, limit, |row: Row| Ok((row.0, decode(model, row)?))).await
    }
}

async fn has_versions(connection: &mut SqliteConnection, model: &str) -> Result<bool, Error> {
    let has = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM versions WHERE model = ?)")
        .bind(model)
        .fetch_one(connection)
        .await?;
    Ok(has)
}

/// Returns the number of the first version of a model that is a starter with the same
/// weights.
async fn find_starter(
    connection: &mut SqliteConnection,
    model: &str,
    starter: &pb::ModelVersion,
) -> Result<Option<u64>, Error> {
    let Some(file) = starter.files.first() else {
        return Ok(None);
    };
    let numbers: Vec<i64> = sqlx::query_scalar(
        "SELECT number FROM version_files WHERE model = ? AND sha256 = ? ORDER BY number",
    )
    .bind(model)
    .bind(&file.sha256)
    .fetch_all(&mut *connection)
    .await?;
    for number in numbers {
        let number = number.cast_unsigned();
        let found = find(connection, model, &VersionRef::Number(number)).await?;
        if found.is_some_and(|found| found.origin() == pb::VersionOrigin::Starter) {
            return Ok(Some(number));
        }
    }
    Ok(None)
}

/// Stores a version, and points `live` to it if the promotion rule allows it. The decision is part
/// of the transaction, so that `live` cannot move in between.
pub(super) async fn publish(
    write: &mut WriteTx,
    publish: Publish,
    now: Timestamp,
) -> Result<(pb::ModelVersion, pb::Promotion), Error> {
    let Publish {
        model,
        version,
        promote,
        comparison,
    } = publish;
    let live = current(write.connection(), &model, LIVE).await?;
    let mut version = insert(write, &model, version, now).await?;
    let promotion = decide(Facts {
        rule: promote,
        model: &model,
        version: version.version,
        live: (live > 0).then(|| live.cast_unsigned()),
        comparison: comparison.as_ref(),
    });
    if promotion.promoted {
        let number = version.version.cast_signed();
        move_alias(write, &model, LIVE, number, "promote", now).await?;
        version.aliases = vec![LIVE.to_owned()];
    }
    Ok((version, promotion))
}

/// Returns the error for a missing version.
pub(super) fn no_version(model: &str, which: impl std::fmt::Display) -> Error {
    Error::NotFound {
        what: "model version",
        name: format!("models/{model}/versions/{which}"),
    }
}

/// Returns a version with its aliases.
pub(super) async fn find(
    connection: &mut SqliteConnection,
    model: &str,
    which: &VersionRef,
) -> Result<Option<pb::ModelVersion>, Error> {
    let query = match which {
        // A number that SQLite cannot represent was never assigned.
        VersionRef::Number(number) => sqlx::query_as(
            "SELECT number, message, aliases FROM aliased_versions WHERE model = ? AND number = ?",
        )
        .bind(model)
        .bind(i64::try_from(*number).unwrap_or(0)),
        VersionRef::Alias(alias) => sqlx::query_as(
            "SELECT number, message, aliases FROM aliased_versions \
             WHERE model = ?1 AND number = (SELECT number FROM aliases WHERE model = ?1 AND alias = ?2)",
        )
        .bind(model)
        .bind(alias),
    };
    let row: Option<Row> = query.fetch_optional(connection).await?;
    row.map(|row| decode(model, row)).transpose()
}

async fn insert(
    write: &mut WriteTx,
    model: &str,
    mut version: pb::ModelVersion,
    now: Timestamp,
) -> Result<pb::ModelVersion, Error> {
    let number: i64 = sqlx::query_scalar(
        "INSERT INTO models (id, last_version) VALUES (?, 1) \
         ON CONFLICT (id) DO UPDATE SET last_version = last_version + 1 RETURNING last_version",
    )
    .bind(model)
    .fetch_one(write.connection())
    .await?;
    version.name = format!("models/{model}/versions/{number}");
    version.version = number.cast_unsigned();
    version.create_time = Some(now);
    version.aliases.clear();
    sqlx::query("INSERT INTO versions (model, number, message) VALUES (?, ?, ?)")
        .bind(model)
        .bind(number)
        .bind(version.encode_to_vec())
        .execute(write.connection())
        .await?;
    for file in &version.files {
        sqlx::query(
            "INSERT INTO version_files (model, number, sha256, size_bytes) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(model)
        .bind(number)
        .bind(&file.sha256)
        .bind(file.size_bytes.cast_signed())
        .execute(write.connection())
        .await?;
    }
    write.versions_change += 1;
    Ok(version)
}

/// Number, message and aliases separated by commas.
type Row = (i64, Vec<u8>, Option<String>);

fn decode(model: &str, (number, message, aliases): Row) -> Result<pb::ModelVersion, Error> {
    let mut version =
        pb::ModelVersion::decode(message.as_slice()).map_err(|source| Error::Damaged {
            what: "model version",
            name: format!("models/{model}/versions/{number}"),
            source,
        })?;
    version.aliases = aliases
        .iter()
        .flat_map(|list| list.split(','))
        .map(str::to_owned)
        .collect();
    version.aliases.sort();
    Ok(version)
}
