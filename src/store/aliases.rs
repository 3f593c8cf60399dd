//! Aliases: movable names of model versions, and the history of their moves.
//!
//! `live` is the served version. When it moves, `previous` moves to the version that was live, in
//! the same transaction, so that a rollback is one call; `alias_moves` has the rule.

use std::time::SystemTime;

use prost_types::Timestamp;
use sqlx::SqliteConnection;
use tokio::sync::watch;

use crate::{
    names::{LIVE, VersionRef},
    proto::v1 as pb,
};

use super::{
    Error, Page, Store,
    alias_moves::{DELETE, current, decode_event, move_alias, point, update_previous},
    transaction::{WriteTx, run_detached},
    versions,
};

/// Aliases of one model. Each read of a version returns those that point to it.
const MAX_ALIASES: usize = 64;

impl Store {
    /// Points an alias to a version. Returns the version with its aliases, and the number of the
    /// version that the alias pointed to before (0 for none). Nothing changes if it already points
    /// there.
    ///
    /// If `expected` is set, the alias must point to that version (0 for none).
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::AliasMoved`], [`Error::TooManyAliases`].
    pub(crate) async fn set_alias(
        &self,
        model: &str,
        alias: &str,
        number: u64,
        expected: Option<u64>,
    ) -> Result<(pb::ModelVersion, u64), Error> {
        let inner = self.inner.clone();
        let (model, alias) = (model.to_owned(), alias.to_owned());
        run_detached(Box::pin(async move {
            let mut write = WriteTx::start(inner).await?;
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
            if found == 0 {
                check_room(write.connection(), &model).await?;
            }
            let now = Timestamp::from(SystemTime::now());
            let to = version.version.cast_signed();
            move_alias(&mut write, &model, &alias, to, "set", now).await?;
            let version = versions::find(write.connection(), &model, &target)
                .await?
                .ok_or_else(|| versions::no_version(&model, number))?;
            write.commit().await?;
            Ok((version, found))
        }))
        .await
    }

    /// Deletes an alias. Deleting `live` points `previous` to the version that was live.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub(crate) async fn delete_alias(&self, model: &str, alias: &str) -> Result<(), Error> {
        let inner = self.inner.clone();
        let (model, alias) = (model.to_owned(), alias.to_owned());
        run_detached(Box::pin(async move {
            let mut write = WriteTx::start(inner).await?;
            let found = current(write.connection(), &model, &alias).await?;
            if found == 0 {
                return Err(Error::NotFound {
                    what: "alias",
                    name: format!("models/{model}/versions/{alias}"),
                });
            }
            let (now, deletion) = (Timestamp::from(SystemTime::now()), (found, 0));
            point(&mut write, &model, &alias, deletion, DELETE, now).await?;
            if alias == LIVE {
                update_previous(&mut write, &model, deletion, DELETE, now).await?;
            }
            write.commit().await
        }))
        .await
    }

    /// Lists up to `limit` moves of a model's aliases, newest first, before a position.
    pub(crate) async fn alias_events(
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
        let item =
            |(number, message): (i64, Vec<u8>)| Ok((number, decode_event(number, &message)?));
        Page::read(rows, limit, item).await
    }

    /// Returns a receiver that changes after each move of an alias; its value is the number of the
    /// move. Read the aliases with [`Store::version`] or [`Store::aliases`].
    pub(crate) fn subscribe_aliases(&self) -> watch::Receiver<u64> {
        self.inner.alias_events.subscribe()
    }

    /// Returns the number of the latest move; 0 before the first.
    pub(super) async fn alias_head(&self) -> Result<u64, Error> {
        let mut read = self.read().await?;
        let head: Option<i64> = sqlx::query_scalar("SELECT max(number) FROM alias_events")
            .fetch_one(&mut *read)
            .await?;
        Ok(head.unwrap_or(0).cast_unsigned())
    }
}

/// Checks that a model may have another alias.
async fn check_room(connection: &mut SqliteConnection, model: &str) -> Result<(), Error> {
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM aliases WHERE model = ?")
        .bind(model)
        .fetch_one(connection)
        .await?;
    if usize::try_from(count).is_ok_and(|count| count >= MAX_ALIASES) {
        return Err(Error::TooManyAliases {
            model: model.to_owned(),
            limit: MAX_ALIASES,
        });
    }
    Ok(())
}
