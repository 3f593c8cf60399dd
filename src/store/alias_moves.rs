//! Moves of aliases and their history.

use prost::Message as _;
use prost_types::Timestamp;
use sqlx::SqliteConnection;

use crate::{
    names::{LIVE, PREVIOUS},
    proto::v1 as pb,
};

use super::{Error, transaction::WriteTx};

/// Moves an alias, and `previous` with `live`, and records each move. Does nothing if the alias
/// already points to the version.
pub(super) async fn move_alias(
    write: &mut WriteTx,
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
    upsert(write, model, alias, to).await?;
    record(write, model, alias, (from, to), cause, now).await?;

    let replaced_live = alias == LIVE && from != 0;
    if !replaced_live {
        return Ok(());
    }
    update_previous(write, model, from, cause, now).await
}

/// Points `previous` to the version that was live.
pub(super) async fn update_previous(
    write: &mut WriteTx,
    model: &str,
    from: i64,
    cause: &'static str,
    now: Timestamp,
) -> Result<(), Error> {
    let before = current(write.connection(), model, PREVIOUS).await?;
    if before == from {
        return Ok(());
    }
    upsert(write, model, PREVIOUS, from).await?;
    record(write, model, PREVIOUS, (before, from), cause, now).await
}

/// Returns the version that an alias points to; 0 if it does not exist.
pub(super) async fn current(
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

async fn upsert(write: &mut WriteTx, model: &str, alias: &str, number: i64) -> Result<(), Error> {
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

pub(super) async fn record(
    write: &mut WriteTx,
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
