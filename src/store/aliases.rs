//! Aliases: names that point to a model version and can be moved, and the history of their moves.
//!
//! `live` is what is served. Whenever it moves from one version to another, `previous` follows to where it was, in the same transaction, so
//! that going back is one call.

use std::collections::BTreeMap;
use std::time::SystemTime;

use prost::Message;
use prost_types::Timestamp;
use sqlx::SqliteConnection;
use tokio::sync::watch;

use super::database::{Write, run_detached};
use super::{Error, Page, Store, versions};
use crate::names::{LIVE, PREVIOUS, VersionRef};
use crate::proto::v1 as pb;

impl Store {
    /// Points an alias to a version and returns the version with its aliases. Pointing it to where it points changes nothing.
    ///
    /// `expected` is where the caller believes the alias to point (0 for nowhere); `None` does not care. Moving `live` moves `previous`
    /// to what was live. Errors: [`Error::NotFound`], [`Error::AliasMoved`].
    pub async fn set_alias(
        &self,
        model: &str,
        alias: &str,
        number: u64,
        expected: Option<u64>,
    ) -> Result<pb::ModelVersion, Error> {
        let inner = self.inner.clone();
        let (model, alias) = (model.to_owned(), alias.to_owned());
        run_detached(Box::pin(async move {
            let mut write = Write::begin(inner).await?;
            let target = VersionRef::Number(number);
            let version = versions::find(write.connection(), &model, &target)
                .await?
                .ok_or_else(|| versions::no_version(&model, number))?;
            let found = current(write.connection(), &model, &alias)
                .await?
                .cast_unsigned();
            if let Some(expected) = expected
                && expected != found
            {
                return Err(Error::AliasMoved {
                    alias,
                    expected,
                    found,
                });
            }
            let now = Timestamp::from(SystemTime::now());
            let to = version.version.cast_signed();
            point(&mut write, &model, &alias, to, "set", now).await?;
            let version = versions::find(write.connection(), &model, &target)
                .await?
                .ok_or_else(|| versions::no_version(&model, number))?;
            write.commit().await?;
            Ok(version)
        }))
        .await
    }

    /// Removes an alias; without `live`, `previous` names what was served last. Errors: [`Error::NotFound`].
    pub async fn delete_alias(&self, model: &str, alias: &str) -> Result<(), Error> {
        let inner = self.inner.clone();
        let (model, alias) = (model.to_owned(), alias.to_owned());
        run_detached(Box::pin(async move {
            let mut write = Write::begin(inner).await?;
            let found = current(write.connection(), &model, &alias).await?;
            if found == 0 {
                return Err(Error::NotFound {
                    what: "alias",
                    name: format!("models/{model}/versions/{alias}"),
                });
            }
            sqlx::query("DELETE FROM aliases WHERE model = ? AND alias = ?")
                .bind(&model)
                .bind(&alias)
                .execute(write.connection())
                .await?;
            let now = Timestamp::from(SystemTime::now());
            record(&mut write, &model, &alias, (found, 0), "delete", now).await?;
            if alias == LIVE {
                keep_as_previous(&mut write, &model, found, "delete", now).await?;
            }
            write.commit().await
        }))
        .await
    }

    /// The aliases of a model and the version that each points to; none for a model that does not exist.
    pub async fn aliases(&self, model: &str) -> Result<BTreeMap<String, u64>, Error> {
        let mut read = self.read().await?;
        let rows: Vec<(String, i64)> =
            sqlx::query_as("SELECT alias, number FROM aliases WHERE model = ?")
                .bind(model)
                .fetch_all(&mut *read)
                .await?;
        Ok(rows
            .into_iter()
            .map(|(alias, number)| (alias, number.cast_unsigned()))
            .collect())
    }

    /// Up to `limit` moves of a model's aliases, newest first, before a place in the list.
    pub async fn alias_events(
        &self,
        model: &str,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Page<pb::AliasEvent>, Error> {
        let mut read = self.read().await?;
        let rows = sqlx::query_as(
            "SELECT number, message FROM alias_events WHERE model = ? AND number < ? ORDER BY number DESC LIMIT ?",
        )
        .bind(model)
        .bind(before.unwrap_or(i64::MAX))
        .bind(i64::from(limit) + 1)
        .fetch(&mut *read);
        let item = |(number, message): (i64, Vec<u8>)| match pb::AliasEvent::decode(&*message) {
            Ok(event) => Ok((number, event)),
            Err(source) => Err(Error::Damaged {
                what: "alias event",
                name: number.to_string(),
                source,
            }),
        };
        Page::read(rows, limit, item).await
    }

    /// A receiver that changes after an alias of any model has moved; its value is the number of the latest move.
    ///
    /// It only wakes: read where the aliases point with [`Store::version`] or [`Store::aliases`].
    pub fn subscribe_aliases(&self) -> watch::Receiver<u64> {
        self.inner.alias_events.subscribe()
    }

    /// Number of the latest move of any alias; 0 before the first.
    pub(super) async fn alias_head(&self) -> Result<u64, Error> {
        let mut read = self.read().await?;
        let head: Option<i64> = sqlx::query_scalar("SELECT max(number) FROM alias_events")
            .fetch_one(&mut *read)
            .await?;
        Ok(head.unwrap_or(0).cast_unsigned())
    }
}

/// Moves an alias, `previous` with it when it is `live`, and records each move. Does nothing when the alias points there already.
pub(super) async fn point(
    write: &mut Write,
    model: &str,
    alias: &str,
    to: i64,
    cause: &'static str,
    now: Timestamp,
) -> Result<(), Error> {
    let from = current(write.connection(), model, alias).await?;
    if from == to {
        return Ok(());
    }
    place(write, model, alias, to).await?;
    record(write, model, alias, (from, to), cause, now).await?;

    let replaced_live = alias == LIVE && from != 0;
    if !replaced_live {
        return Ok(());
    }
    keep_as_previous(write, model, from, cause, now).await
}

/// Points `previous` to what was live.
async fn keep_as_previous(
    write: &mut Write,
    model: &str,
    from: i64,
    cause: &'static str,
    now: Timestamp,
) -> Result<(), Error> {
    let before = current(write.connection(), model, PREVIOUS).await?;
    if before == from {
        return Ok(());
    }
    place(write, model, PREVIOUS, from).await?;
    record(write, model, PREVIOUS, (before, from), cause, now).await
}

/// The version that an alias points to; 0 when it does not exist.
async fn current(
    connection: &mut SqliteConnection,
    model: &str,
    alias: &str,
) -> Result<i64, Error> {
    let number = sqlx::query_scalar("SELECT number FROM aliases WHERE model = ? AND alias = ?")
        .bind(model)
        .bind(alias)
        .fetch_optional(connection)
        .await?;
    Ok(number.unwrap_or(0))
}

async fn place(write: &mut Write, model: &str, alias: &str, number: i64) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO aliases (model, alias, number) VALUES (?, ?, ?) \
         ON CONFLICT (model, alias) DO UPDATE SET number = excluded.number",
    )
    .bind(model)
    .bind(alias)
    .bind(number)
    .execute(write.connection())
    .await?;
    Ok(())
}

async fn record(
    write: &mut Write,
    model: &str,
    alias: &str,
    (from, to): (i64, i64),
    cause: &'static str,
    now: Timestamp,
) -> Result<(), Error> {
    let event = pb::AliasEvent {
        model: format!("models/{model}"),
        alias: alias.to_owned(),
        from_version: from.cast_unsigned(),
        to_version: to.cast_unsigned(),
        cause: cause.to_owned(),
        event_time: Some(now),
    };
    let number = sqlx::query("INSERT INTO alias_events (model, message) VALUES (?, ?)")
        .bind(model)
        .bind(event.encode_to_vec())
        .execute(write.connection())
        .await?
        .last_insert_rowid();
    write.alias_appended = Some(number.cast_unsigned());
    Ok(())
}
