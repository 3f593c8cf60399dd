//! The event log of trainings: appending and reading.

use futures_util::TryStreamExt as _;
use prost::Message;
use prost_types::Timestamp;
use sqlx::SqliteConnection;
use tokio::sync::watch;

use crate::proto::v1 as pb;

use super::{Error, Page, Store, page::encode_token, transaction::WriteTx};

pub(crate) use crate::proto::v1::training_event::Kind;

impl Store {
    /// Lists up to `limit` events of a training after a sequence (0 for all), in order; `next` is a
    /// cursor.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::CursorAhead`] if the training has no event of that sequence
    /// yet.
    pub(crate) async fn events_after(
        &self,
        id: &str,
        sequence: u64,
        limit: u32,
    ) -> Result<Page<pb::TrainingEvent>, Error> {
        let mut read = self.read().await?;
        let (number, head) = training_head(&mut read, id).await?;
        let after = not_ahead(sequence, head)?;
        let rows = sqlx::query_as(
            "SELECT cursor, sequence, message FROM events WHERE training = ? AND sequence > ? ORDER BY sequence LIMIT ?",
        )
        .bind(number)
        .bind(after)
        .bind(i64::from(limit) + 1)
        .fetch(&mut *read);
        Page::read(rows, limit, |row: Row| Ok((row.0, decode(row)?))).await
    }

    /// Lists up to `limit` events of all trainings after a cursor (0 for all), in the order in
    /// which they were appended, without those of deleted trainings.
    ///
    /// # Errors
    /// [`Error::CursorAhead`].
    pub(crate) async fn events_after_global(
        &self,
        cursor: i64,
        limit: u32,
    ) -> Result<Page<pb::TrainingEvent>, Error> {
        let mut read = self.read().await?;
        let head = log_head(&mut read).await?;
        let after = not_ahead(cursor.max(0).cast_unsigned(), head)?;
        let rows = sqlx::query_as(
            "SELECT cursor, sequence, message FROM events WHERE cursor > ? ORDER BY cursor LIMIT ?",
        )
        .bind(after)
        .bind(i64::from(limit) + 1)
        .fetch(&mut *read);
        Page::read(rows, limit, |row: Row| Ok((row.0, decode(row)?))).await
    }

    /// Returns the latest metrics of an epoch, or `None` if it was never completed.
    pub(crate) async fn epoch_metrics(
        &self,
        id: &str,
        epoch: u32,
    ) -> Result<Option<pb::EpochMetrics>, Error> {
        let mut read = self.read().await?;
        let mut rows = sqlx::query_as(
            "SELECT cursor, sequence, message FROM events \
             WHERE training = (SELECT number FROM trainings WHERE id = ?) ORDER BY sequence DESC",
        )
        .bind(id)
        .fetch(&mut *read);
        while let Some(row) = rows.try_next().await? {
            if let Some(Kind::EpochCompleted(metrics)) = decode(row)?.kind
                && metrics.epoch == epoch
            {
                return Ok(Some(metrics));
            }
        }
        Ok(None)
    }

    /// Returns the metrics of the best checkpoint's epoch, or `None` without a checkpoint.
    pub(crate) async fn best_metrics(&self, id: &str) -> Result<Option<pb::EpochMetrics>, Error> {
        match self.best_checkpoint(id).await? {
            Some(best) => self.epoch_metrics(id, best.epoch).await,
            None => Ok(None),
        }
    }

    /// Returns the number of a training, which no later training of the same id gets.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub(crate) async fn training_number(&self, id: &str) -> Result<i64, Error> {
        let mut read = self.read().await?;
        Ok(training_head(&mut read, id).await?.0)
    }

    /// Returns the cursor of the latest event ever appended; 0 before the first.
    pub(crate) async fn global_head(&self) -> Result<i64, Error> {
        let mut read = self.read().await?;
        log_head(&mut read).await
    }

    /// Returns the sequence of a training's latest event at or before a cursor, or 0: for following
    /// one training from a resume token.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::CursorAhead`].
    pub(crate) async fn sequence_at(&self, id: &str, cursor: i64) -> Result<u64, Error> {
        let mut read = self.read().await?;
        let (number, _) = training_head(&mut read, id).await?;
        let head = log_head(&mut read).await?;
        let upto = not_ahead(cursor.max(0).cast_unsigned(), head)?;
        let sequence: Option<i64> = sqlx::query_scalar(
            "SELECT max(sequence) FROM events WHERE training = ? AND cursor <= ?",
        )
        .bind(number)
        .bind(upto)
        .fetch_one(&mut *read)
        .await?;
        Ok(sequence.unwrap_or(0).cast_unsigned())
    }

    /// Returns a receiver that changes after events were committed; its value is the cursor of the
    /// latest one. Read the events with [`Store::events_after`] or [`Store::events_after_global`].
    pub(crate) fn subscribe(&self) -> watch::Receiver<i64> {
        self.inner.events.subscribe()
    }
}

/// Returns the kinds of all events of a training, in order.
pub(super) async fn kinds(
    connection: &mut SqliteConnection,
    training: i64,
) -> Result<Vec<Kind>, Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT cursor, sequence, message FROM events WHERE training = ? ORDER BY sequence",
    )
    .bind(training)
    .fetch_all(connection)
    .await?;
    let mut kinds = Vec::with_capacity(rows.len());
    for row in rows {
        kinds.extend(decode(row)?.kind);
    }
    Ok(kinds)
}

/// The position at which events of a training are appended.
pub(super) struct Log<'a> {
    /// The training's row.
    pub(super) number: i64,
    pub(super) id: &'a str,
    /// Of the latest event.
    pub(super) sequence: i64,
    pub(super) attempt: u32,
    pub(super) now: Timestamp,
}

impl Log<'_> {
    /// Appends an event. The caller writes the new `sequence` to the training's row.
    pub(super) async fn append(
        &mut self,
        write: &mut WriteTx,
        kind: Kind,
    ) -> Result<pb::TrainingEvent, Error> {
        self.sequence += 1;
        let mut event = pb::TrainingEvent {
            training: format!("trainings/{}", self.id),
            sequence: self.sequence.cast_unsigned(),
            resume_token: String::new(),
            event_time: Some(self.now),
            attempt: self.attempt,
            kind: Some(kind),
        };
        let cursor =
            sqlx::query("INSERT INTO events (training, sequence, message) VALUES (?, ?, ?)")
                .bind(self.number)
                .bind(self.sequence)
                .bind(event.encode_to_vec())
                .execute(write.connection())
                .await?
                .last_insert_rowid();
        write.appended = Some(cursor);
        event.resume_token = encode_token(cursor);
        Ok(event)
    }
}

/// Cursor, sequence and message.
type Row = (i64, i64, Vec<u8>);

fn decode((cursor, sequence, message): Row) -> Result<pb::TrainingEvent, Error> {
    let mut event =
        pb::TrainingEvent::decode(message.as_slice()).map_err(|source| Error::Damaged {
            what: "event",
            name: cursor.to_string(),
            source,
        })?;
    event.sequence = sequence.cast_unsigned();
    event.resume_token = encode_token(cursor);
    Ok(event)
}

/// Returns a training's row and the sequence of its latest event.
pub(super) async fn training_head(
    connection: &mut SqliteConnection,
    id: &str,
) -> Result<(i64, i64), Error> {
    sqlx::query_as("SELECT number, last_sequence FROM trainings WHERE id = ?")
        .bind(id)
        .fetch_optional(connection)
        .await?
        .ok_or_else(|| Error::no_training(id))
}

/// Returns the latest cursor ever assigned, even if its event was deleted.
async fn log_head(connection: &mut SqliteConnection) -> Result<i64, Error> {
    let head = sqlx::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = 'events'")
        .fetch_optional(connection)
        .await?;
    Ok(head.unwrap_or(0))
}

/// Converts a position that is not past the head.
fn not_ahead(cursor: u64, head: i64) -> Result<i64, Error> {
    match i64::try_from(cursor) {
        Ok(position) if position <= head => Ok(position),
        _ => Err(Error::CursorAhead {
            cursor,
            head: head.cast_unsigned(),
        }),
    }
}
