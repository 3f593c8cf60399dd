//! Moves of aliases and their history.

use futures_util::TryStreamExt as _;
use prost::Message as _;
use prost_types::Timestamp;
use sqlx::SqliteConnection;

use crate::{
    names::{LIVE, PREVIOUS},
    proto::v1 as pb,
};

use super::{Error, transaction::WriteTx};

/// Cause of the moves by a deletion of an alias.
pub(super) const DELETE: &str = "delete";

/// The version to which `previous` points after `live` moved; 0 stands for "not set" everywhere.
///
/// `previous` is the version to roll back to: the one that was live before, never the live one. A
/// deletion of `live` is an interruption: setting `live` afterwards has the same result as setting
/// it without the deletion.
///
/// - `from`, `to`: where `live` pointed, and where it points now; they differ.
/// - `previous`: where `previous` points.
/// - `replaced`: where `previous` pointed before the deletion of `live` moved it.
fn previous_after((from, to): (i64, i64), previous: i64, replaced: i64) -> i64 {
    if from != 0 {
        return from;
    }
    if previous != to {
        return previous;
    }
    // The version that was live before the deletion is live again.
    if replaced == to { 0 } else { replaced }
}

/// Moves an alias, and `previous` with `live`, and records each move. Returns the version that the
/// alias pointed to before; 0 if it was not set. Does nothing if the alias already points to the
/// version.
pub(super) async fn move_alias(
    write: &mut WriteTx,
    model: &str,
    alias: &str,
    to: i64,
    cause: &'static str,
    now: Timestamp,
) -> Result<i64, Error> {
    let from = current(write.connection(), model, alias).await?;
    if from != to {
        point(write, model, alias, (from, to), cause, now).await?;
        if alias == LIVE {
            update_previous(write, model, (from, to), cause, now).await?;
        }
    }
    Ok(from)
}

/// Moves `previous` after `live` moved; 0 stands for "not set".
pub(super) async fn update_previous(
    write: &mut WriteTx,
    model: &str,
    live: (i64, i64),
    cause: &'static str,
    now: Timestamp,
) -> Result<(), Error> {
    let before = current(write.connection(), model, PREVIOUS).await?;
    let replaced = match live {
        (0, to) if to == before => replaced_by_deletion(write, model).await?,
        _ => 0,
    };
    let after = previous_after(live, before, replaced);
    if before == after {
        return Ok(());
    }
    point(write, model, PREVIOUS, (before, after), cause, now).await
}

/// Returns the version to which `previous` pointed before a deletion of `live` moved it, if that is
/// its latest move and the version still exists; otherwise 0.
async fn replaced_by_deletion(write: &mut WriteTx, model: &str) -> Result<i64, Error> {
    let mut rows = sqlx::query_as::<_, (i64, Vec<u8>)>(
        "SELECT number, message FROM alias_events WHERE model = ? ORDER BY number DESC",
    )
    .bind(model)
    .fetch(write.connection());
    let mut replaced = 0;
    while let Some((number, message)) = rows.try_next().await? {
        let event = decode_event(number, &message)?;
        if event.alias == PREVIOUS {
            if event.cause == DELETE && event.to_version != 0 {
                replaced = event.from_version.cast_signed();
            }
            break;
        }
    }
    drop(rows);
    let exists: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM versions WHERE model = ? AND number = ?)")
            .bind(model)
            .bind(replaced)
            .fetch_one(write.connection())
            .await?;
    Ok(if exists { replaced } else { 0 })
}

/// Points an alias to a version, or deletes it, and records the move.
pub(super) async fn point(
    write: &mut WriteTx,
    model: &str,
    alias: &str,
    (from, to): (i64, i64),
    cause: &'static str,
    now: Timestamp,
) -> Result<(), Error> {
    if to == 0 {
        delete(write, model, alias).await?;
    } else {
        upsert(write, model, alias, to).await?;
    }
    record(write, model, alias, (from, to), cause, now).await
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

async fn delete(write: &mut WriteTx, model: &str, alias: &str) -> Result<(), Error> {
    sqlx::query("DELETE FROM aliases WHERE model = ? AND alias = ?")
        .bind(model)
        .bind(alias)
        .execute(write.connection())
        .await?;
    Ok(())
}

/// Decodes a recorded move.
pub(super) fn decode_event(number: i64, message: &[u8]) -> Result<pb::AliasEvent, Error> {
    pb::AliasEvent::decode(message).map_err(|source| Error::Damaged {
        what: "alias event",
        name: number.to_string(),
        source,
    })
}

async fn record(
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Moves of `live` from and to a version, `previous` before, the version that a deletion
    /// replaced, and `previous` afterwards.
    const TABLE: [((i64, i64), i64, i64, i64); 13] = [
        // The first version becomes live; a version that a user marked stays the previous one.
        ((0, 1), 0, 0, 0),
        ((0, 1), 4, 0, 4),
        // A promotion and a roll-back.
        ((1, 2), 0, 0, 1),
        ((1, 2), 4, 0, 1),
        ((1, 4), 4, 0, 1),
        // A deletion.
        ((1, 0), 0, 0, 1),
        ((1, 0), 4, 0, 1),
        // After the deletion of 1, whose previous version was 4: the same as without it.
        ((0, 1), 1, 4, 4),
        ((0, 4), 1, 4, 1),
        ((0, 2), 1, 4, 1),
        // After the deletion of 1, which had no previous version, or whose previous version was
        // deleted meanwhile.
        ((0, 1), 1, 0, 0),
        ((0, 2), 1, 0, 1),
        // The previous version was 1 as well, by request.
        ((0, 1), 1, 1, 0),
    ];

    #[test]
    fn previous_is_the_version_that_was_live_before_and_never_the_live_one() {
        for (live, previous, replaced, expected) in TABLE {
            let found = previous_after(live, previous, replaced);
            assert_eq!(found, expected, "{live:?} {previous} {replaced}");
            assert!(
                found == 0 || found != live.1,
                "{live:?} {previous} {replaced}"
            );
        }
    }
}
